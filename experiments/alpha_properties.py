"""What alpha does when examples are copied, batched, fitted and mixed: its stated properties, on
vectors and on a network's gradients.

The gradients are those of a network on digits, from its initial weights to after some training, and
Gaussian vectors whose alpha is chosen. What the properties say exactly is compared exactly. What
they say about random batches and samples is compared with the mean over many draws: batches amplify
coherence, which can be inverted; a sample of m has the floor (1 - alpha) / m.
"""

from dataclasses import dataclass

import numpy as np

from coherence.lab.analysis import stacked, tabulate, under
from coherence.lab.settings import MLP, digits, mnist, sgd

COPIES = (1, 2, 4, 8, 16, 32)
DIRECTIONS = 64  # examples of which COPIES share a direction
SCALES = (-1.0, 1e-3, 1e3)
KEPT = (1.0, 0.5, 0.25, 0.125)
MIXED = tuple(i / 8 for i in range(1, 8))
FEW = 16  # a small sample
MEASURED = (
    *("alpha", "unbiased", "rescaled", "equal", "cancelling", "diluted", "mixed", "mixed_bound"),
    *("difference", "difference_bound", "layer_alpha", "layer_share", "batches", "inverted"),
    *("inverted_finite", "samples_pooled", "samples", "samples_unbiased"),
)


@dataclass(frozen=True)
class Gradients:
    """What the sources of gradients have in common: how they are measured."""

    sample: int = 1024
    """Fixed examples whose gradients are everything there is; a power of two."""
    drawn: int = 16384
    """Examples drawn from them for each size of a batch or a sample."""
    batch_size: int = 1
    steps: int = 1

    def schedule(self):
        if self.steps == 1:
            return (0,)
        return (0, *(step for step in (10, 100) if step < self.steps), self.steps)

    def _problem(self, loss, params, train, seed, optimizer):
        import jax

        from coherence.lab.training.problem import Problem

        fixed = np.random.default_rng([seed, 1]).permutation(len(train[0]))[: self.sample]
        data = {
            "train": train,
            "sample": jax.tree.map(lambda x: x[fixed], train),
            "draws": jax.random.key_data(jax.random.key(seed)),
        }

        def measure(params, data):
            key = jax.random.wrap_key_data(data["draws"])
            return _properties(loss, params, data["sample"], key, self.drawn)

        return Problem(loss=loss, params=params, data=data, optimizer=optimizer, measure=measure)


@dataclass(frozen=True)
class Network(Gradients):
    """A network's gradients, while it trains."""

    batch_size: int = 100
    steps: int = 300
    data: digits | mnist = digits()
    model: MLP = MLP(width=64, depth=2)
    optimizer: sgd = sgd(0.1)

    def describe(self):
        data = self.data.build()
        net = self.model.build(data.outputs).describe(data.x_train[0].size)
        return f"{self.sample:,} examples of {data.name}, {net}; Gaussian vectors"

    def build(self, seed):
        import jax

        from coherence.lab.tasks.classification import cross_entropy

        data = self.data.build()
        model = self.model.build(data.outputs)
        params = model.init(jax.random.key(seed), data.x_train[:1])
        train = data.x_train, data.y_train
        return self._problem(cross_entropy(model), params, train, seed, self.optimizer.build())


@dataclass(frozen=True)
class Gaussian(Gradients):
    """Gaussian vectors around a mean, as the gradients of a linear loss.

    Alpha of their distribution is chosen. The mean lies in the first of three blocks of
    coordinates, which stand for layers.
    """

    alpha: float = 0.1
    dimension: int = 300

    def describe(self):
        return f"Gaussian vectors of alpha {self.alpha:g}"

    def build(self, seed):
        import optax

        blocks = ("first", "second", "third")
        size = self.dimension // len(blocks)
        noise = np.random.default_rng([seed, 0]).normal(size=(self.sample, len(blocks), size))
        vectors = noise * np.sqrt((1 - self.alpha) / (len(blocks) * size))
        vectors[:, 0, 0] += np.sqrt(self.alpha)

        def loss(params, example):
            return sum(params[name] @ example[0][i] for i, name in enumerate(blocks))

        params = {name: np.zeros(size, np.float32) for name in blocks}
        return self._problem(loss, params, (vectors.astype(np.float32),), seed, optax.set_to_zero())


@dataclass(frozen=True)
class Copied:
    """Orthogonal vectors of random lengths, k examples on each."""

    steps: int = 1
    batch_size: int = DIRECTIONS

    def describe(self):
        return "orthogonal vectors"

    def schedule(self):
        return (0,)

    def build(self, seed):
        import jax.numpy as jnp
        import optax

        from coherence import m_coherence, per_example_value_and_grad
        from coherence.lab.training.problem import Problem

        rng = np.random.default_rng([seed, 2])
        basis, _ = np.linalg.qr(rng.normal(size=(DIRECTIONS, DIRECTIONS)))
        vectors = (basis * rng.lognormal(size=(DIRECTIONS, 1))).astype(np.float32)
        loss = lambda params, v: params @ v

        def measure(params, data):
            def of_copies(k):
                copies = jnp.repeat(data["train"][: DIRECTIONS // k], k, 0)
                return m_coherence({"w": per_example_value_and_grad(loss)(params, copies)[1]})

            return {"m_coherence": jnp.stack([of_copies(k) for k in COPIES])}

        return Problem(
            loss=loss,
            params=np.zeros(DIRECTIONS, np.float32),
            data={"train": vectors},
            optimizer=optax.set_to_zero(),
            measure=measure,
        )


@dataclass(frozen=True)
class Settings:
    network: Network = Network()
    alphas: tuple[float, ...] = (0.01, 0.1, 0.5)
    """Of the Gaussian vectors."""
    dimension: int = 300
    seeds: int = 8


_SMALL = Network(32, 512, steps=30, model=MLP(width=16))
_LARGE = Network(drawn=65536, steps=1000, data=mnist(), model=MLP(width=2048))
PRESETS = {
    "smoke": Settings(_SMALL, alphas=(0.1,), dimension=60, seeds=2),
    "cpu": Settings(),
    "paper": Settings(_LARGE),
}
SOURCE_PRESETS = ("any",)  # properties of any gradients: the source has no scale

# Thresholds were fixed before any run, from the precision of float32 and from the expected error of
# the draws; no run changed one. Seen before the recorded run: smoke runs, and one seed of cpu.


def _properties(loss, params, sample, key, drawn):
    """What comes out for each property: exactly, or on average over draws."""
    import jax.numpy as jnp

    from coherence import alpha, per_example_value_and_grad
    from coherence.metrics import alpha_unbiased, moments
    from coherence.trees import layer

    gradients = per_example_value_and_grad(loss)(params, sample)[1]
    layers = moments(gradients, by=layer).values()
    squares = jnp.stack([each.mean_squared_norm for each in layers])
    return {
        "alpha": alpha(gradients),
        "unbiased": alpha_unbiased(gradients),
        "layer_alpha": jnp.stack([each.alpha for each in layers]),
        "layer_share": squares / sum(each.mean_squared_norm for each in layers),
        **_altered(loss, params, sample),
        **_mixed(loss, params, sample),
        **_by_drawing(gradients, key, drawn),
    }


def _altered(loss, params, sample):
    """Alpha of the sample rescaled, repeated, cancelled and diluted.

    Each is a choice of examples, factors of their losses, and who counts.
    """
    import jax
    import jax.numpy as jnp

    from coherence import alpha, per_example_value_and_grad

    m = len(sample[0])
    examples, everyone = np.arange(m), np.ones(m, bool)
    rescaled = [(examples, np.full(m, scale), everyone) for scale in SCALES]
    landmarks = [
        (0 * examples, np.ones(m), everyone),
        (examples % (m // 2), np.where(examples < m // 2, 1.0, -1.0), everyone),
    ]
    diluted = [(examples, 1.0 * (examples < m // 8), examples < round(m / 8 / p)) for p in KEPT]
    scaled = lambda params, example: example[1] * loss(params, example[0])

    def altered(choice):
        index, factors, mask = choice
        batch = jax.tree.map(lambda x: x[index], sample), factors
        return alpha(per_example_value_and_grad(scaled)(params, batch, mask)[1])

    index, factors, mask = map(np.stack, zip(*rescaled, *landmarks, *diluted))
    alphas = jax.lax.map(altered, (index, factors.astype(np.float32), mask))
    scales, (equal, cancelling), shares = jnp.split(alphas, [len(SCALES), len(SCALES) + 2])
    shares = shares / shares[KEPT.index(1.0)]
    return {"rescaled": scales, "equal": equal, "cancelling": cancelling, "diluted": shares}


def _mixed(loss, params, sample):
    """Two copies of the parameters, each with its own examples: their gradients are orthogonal."""
    import jax
    import jax.numpy as jnp

    from coherence import alpha, per_example_value_and_grad

    half = len(sample[0]) // 2

    def either(both, example):
        x, in_u = example
        return in_u * loss(both["u"], x) + (1 - in_u) * loss(both["v"], x)

    def mixed(p):
        in_u = jnp.arange(half) < p * half
        index = jnp.where(in_u, jnp.arange(half), half + jnp.arange(half))
        examples = jax.tree.map(lambda x: x[index], sample), in_u * 1.0
        gradients = per_example_value_and_grad(either)({"u": params, "v": params}, examples)[1]
        v, u = alpha(gradients, groups=in_u)
        return alpha(gradients), p * u + (1 - p) * v

    alphas, bound = jax.lax.map(mixed, jnp.array(MIXED))
    return {"mixed": alphas, "mixed_bound": bound}


def _by_drawing(gradients, key, drawn):
    """What random batches and samples of the examples show, for each of their sizes.

    And how far two gradients are apart.
    """
    import jax
    import jax.numpy as jnp

    from coherence.gradients import gram
    from coherence.metrics import alpha_from_minibatches, alpha_unbiased, moments

    # Only inner products matter: coordinates in the space that the gradients span are m numbers an
    # example, however large the network.
    inner = gram(gradients)
    m, squares = len(inner), jnp.diag(inner)
    lengths, directions = jnp.linalg.eigh(inner)
    vectors = directions * jnp.sqrt(lengths.clip(min=0))

    def permuted(key, *shape):
        permute = lambda key: jax.random.permutation(key, m)
        return jax.vmap(permute)(jax.random.split(key, drawn // m)).reshape(shape)

    def of_batches(k, key):
        index = jax.random.randint(key, (drawn // k, k), 0, m)
        return jnp.square(vectors.mean(0)).sum() / jnp.square(vectors[index].mean(1)).sum(-1).mean()

    def inverted(k, key):
        def both(batches):
            return jnp.stack([alpha_from_minibatches(batches, *n) for n in ((k,), (k, m))])

        return jax.vmap(both)({"w": vectors[permuted(key, drawn // m, m // k, k)].mean(2)}).mean(0)

    def of_samples(size, key):
        def sums(sample):
            whole = moments(sample)
            both = whole.squared_norm_of_mean, whole.mean_squared_norm
            return jnp.stack([*both, whole.alpha, alpha_unbiased(sample)])

        samples = {"w": vectors[permuted(key, drawn // size, size)]}
        square, squares, plain, unbiased = jax.vmap(sums)(samples).mean(0)
        return jnp.stack([square / squares, plain, unbiased])

    def over(function, sizes, i):
        keys = (jax.random.fold_in(key, 100 * i + j) for j in range(len(sizes)))
        return jnp.stack([function(k, key) for k, key in zip(sizes, keys)])

    sizes = _sizes(m)
    paper, finite = over(inverted, sizes["inverted"], 1).T
    pooled, plain, unbiased = over(of_samples, sizes["samples"], 2).T
    return {
        "batches": over(of_batches, sizes["batches"], 0),
        "inverted": paper,
        "inverted_finite": finite,
        "samples_pooled": pooled,
        "samples": plain,
        "samples_unbiased": unbiased,
        "difference": jnp.sqrt((squares[:, None] + squares - 2 * inner).clip(min=0)).mean(),
        "difference_bound": jnp.sqrt(2 * (squares.mean() - inner.mean())),
    }


def _sizes(m):
    """Sizes of batches and samples of m examples: powers of two.

    Of batches drawn with replacement, of batches that partition them, of samples drawn from them.
    """
    powers = lambda low, high: tuple(2**i for i in range(low.bit_length() - 1, high.bit_length()))
    limits = {"batches": (1, m // 4), "inverted": (2, m // 16), "samples": (2, m // 2)}
    return {name: powers(*ends) for name, ends in limits.items()}


def arms(settings):
    network, dimension = settings.network, settings.dimension
    gaussian = {
        f"alpha={a:g}": Gaussian(network.sample, network.drawn, alpha=a, dimension=dimension)
        for a in settings.alphas
    }
    return {"network": network, **gaussian, "copies": Copied()}


def record(settings, runs):
    sample, network = settings.network.sample, runs["network"][0]
    sizes = {name: np.array(sizes) for name, sizes in _sizes(sample).items()}
    arrays = {"alphas": np.array(settings.alphas), "sample": sample, **under("sizes", sizes)}
    arrays["copies"] = stacked(runs["copies"], "m_coherence")["m_coherence"][:, 0]
    arrays["layers"] = np.array(sorted({name.split("/")[-2] for name in network.load("params")}))
    for arm, seeds in runs.items():
        if arm != "copies":
            arrays |= under(arm, stacked(seeds, *MEASURED))
    return arrays


def sources(recorded):
    """The arms with gradients of their own: the network first."""
    return ["network", *(f"alpha={a:g}" for a in recorded["alphas"])]


def amplified(alpha, k):
    """P2: coherence of the gradients of batches of k."""
    return k * alpha / (1 + (k - 1) * alpha)


def with_floor(alpha, m):
    """What a sample of m shows of alpha."""
    return alpha + (1 - alpha) / m


def judge(recorded):
    batches, samples = recorded["sizes/batches"], recorded["sizes/samples"]
    largest = {}
    for arm in sources(recorded):
        for name, values in _deviations(recorded, arm, batches, samples).items():
            largest[name] = max(largest.get(name, 0.0), float(np.max(values)))
    truth, small = recorded["network/unbiased"][:, -1], list(samples).index(FEW)
    error = lambda name: np.abs(recorded[f"network/{name}"][:, -1, small] - truth)
    copies = np.abs(recorded["copies"] / np.array(COPIES) - 1).max()
    return {
        "orthogonal limit and copies": copies,
        **largest,
        "the floor can be taken away": error("samples") - error("samples_unbiased"),
    }


def _deviations(recorded, arm, batches, samples):
    """How far one source of gradients is from each property: {claim: array}."""
    get = lambda name: recorded[f"{arm}/{name}"]
    relative = lambda values, expected: np.abs(values / expected - 1)
    over_seeds = lambda values, expected: np.abs((values / expected).mean(0) - 1)
    alpha = get("alpha")
    each = alpha[..., None]
    combined = (get("layer_alpha") * get("layer_share")).sum(-1)
    floor = with_floor(get("unbiased")[..., None], samples)
    excess = lambda name: (get(name) / get(f"{name}_bound") - 1).clip(0)
    return {
        "bounded": np.stack(
            [
                np.maximum(-alpha, alpha - 1).clip(0),
                np.abs(get("equal") - 1),
                np.abs(get("cancelling")),
                relative(get("rescaled"), each).max(-1),
            ]
        ),
        "mini-batches amplify": over_seeds(get("batches"), amplified(each, batches)),
        "batches invert": over_seeds(get("inverted"), each),
        "batches invert, finite sample": over_seeds(get("inverted_finite"), each),
        "fitted examples dilute": relative(get("diluted"), np.array(KEPT)),
        "mixtures are bounded": excess("mixed"),
        "differences are bounded": excess("difference"),
        "layers add up": relative(combined, alpha),
        "the floor of small samples": over_seeds(get("samples_pooled"), floor),
    }


def table(recorded):
    rows, small = [], list(recorded["sizes/samples"]).index(FEW)
    k, largest = recorded["sizes/inverted"][-1], recorded["sizes/batches"][-1]
    for arm in sources(recorded):
        for i, step in enumerate(recorded[f"{arm}/step"]):
            get = lambda name, arm=arm, i=i: recorded[f"{arm}/{name}"][:, i]
            rows.append(
                {
                    "gradients": f"{arm}, step {step}" if arm == "network" else arm,
                    "alpha": get("alpha"),
                    "unbiased": get("unbiased"),
                    f"m = {FEW}": get("samples")[:, small],
                    f"m = {FEW}, unbiased": get("samples_unbiased")[:, small],
                    f"batches of {largest}": get("batches")[:, -1],
                    f"inverted from {k}": get("inverted")[:, -1],
                    "finite sample": get("inverted_finite")[:, -1],
                }
            )
    note = (
        f"alpha of {recorded['sample']} examples; mean alpha of samples of {FEW} of them;\n"
        f"alpha of the gradients of random batches of {largest}; alpha of the examples from the "
        f"gradients of batches of {k}"
    )
    return tabulate(rows, note)

"""What alpha does when examples are copied, batched, fitted and mixed: its stated properties, on vectors and on a network's gradients.

The gradients are those of a network on digits, from its initial weights to after some training, and
Gaussian vectors whose alpha is chosen. What the properties say exactly is compared exactly. What
they say about random batches and samples is compared with the mean over many draws: batches amplify
coherence, which can be inverted; a sample of m has the floor (1 - alpha) / m.
"""

import dataclasses

import numpy as np

from coherence.lab.analysis import stacked
from coherence.lab.claims import Source, above, exactly
from coherence.lab.report.tables import aligned, plus_minus
from coherence.lab.settings import MLP, digits, mnist, npz

COPIES = (1, 2, 4, 8, 16, 32)
DIRECTIONS = 64  # examples of which COPIES share a direction
SCALES = (-1.0, 1e-3, 1e3)
KEPT = (1.0, 0.5, 0.25, 0.125)
MIXED = tuple(i / 8 for i in range(1, 8))
FEW = 16  # a small sample
EXACT, DRAWN = 1e-4, 0.05  # float32 sums over a thousand examples; means over draws and seeds


@dataclasses.dataclass(frozen=True)
class Settings:
    data: digits | mnist | npz = digits()
    model: MLP = MLP(width=64, depth=2)
    learning_rate: float = 0.1
    batch_size: int = 100
    steps: int = 300
    alphas: tuple[float, ...] = (0.01, 0.1, 0.5)
    """Of the Gaussian vectors."""
    dimension: int = 300
    sample: int = 1024
    """Fixed examples whose gradients are everything there is; a power of two."""
    drawn: int = 16384
    """Examples drawn from them for each size of a batch or a sample."""
    seeds: int = 8


PRESETS = {
    "smoke": Settings(
        model=MLP(width=16),
        steps=30,
        alphas=(0.1,),
        dimension=60,
        sample=32,
        drawn=512,
        seeds=2,
    ),
    "cpu": Settings(),
    "paper": Settings(data=mnist(), model=MLP(width=2048), steps=1000, drawn=65536),
}
SOURCE_PRESET = "any"

# Thresholds were fixed before any run, from the precision of float32 and from the expected error of
# the draws; no run changed one. Seen before the recorded run: smoke runs, and one seed of cpu.
_APPENDIX = Source(
    "Chatterjee & Zielinski, arXiv:2203.10036, Appendix (properties of alpha)", "second-hand"
)
_OURS = Source(
    "by algebra, from the definition in Chatterjee & Zielinski, arXiv:2203.10036, Section 4",
    "derived",
)


CLAIMS = (
    _APPENDIX.claim(
        "bounded",
        "Alpha is 1 for equal gradients, 0 for gradients that cancel, in between for any others, "
        "and has no scale.",
        "largest violation: of the bounds, of both landmarks, relative change when the loss is "
        "multiplied by -1, 0.001, 1000",
        exactly(0, EXACT),
    ),
    _APPENDIX.claim(
        "orthogonal limit and copies",
        "With k copies each of orthogonal gradients of whatever lengths, m-coherence is k: 1 "
        "without copies.",
        f"largest relative deviation of m-coherence from k, {DIRECTIONS} examples, lognormal "
        "lengths",
        exactly(0, EXACT),
    ),
    _APPENDIX.claim(
        "mini-batches amplify",
        "Gradients of random batches of k have coherence k alpha / (1 + (k - 1) alpha) (P2).",
        "largest relative deviation over sizes, sources and steps, of the mean over seeds",
        exactly(0, DRAWN),
    ),
    _APPENDIX.claim(
        "batches invert",
        "From the gradients of at least 16 batches that partition a sample, inverting P2 "
        "recovers alpha of the examples.",
        "largest relative deviation over sizes, sources and steps, of the mean over seeds",
        exactly(0, 0.15),
    ),
    _OURS.claim(
        "batches invert, finite sample",
        "The inversion that knows how large the sample is recovers alpha of the sample without "
        "bias.",
        "largest relative deviation over sizes, sources and steps, of the mean over seeds",
        exactly(0, DRAWN),
    ),
    _APPENDIX.claim(
        "fitted examples dilute",
        "Where only a share p of the gradients is not zero, alpha is p times theirs (P3).",
        "largest relative deviation from p alpha",
        exactly(0, EXACT),
    ),
    _APPENDIX.claim(
        "mixtures are bounded",
        "Alpha of a mixture of mutually orthogonal gradients is at most the weighted mean of the "
        "two alphas (P4).",
        "largest relative excess over the bound; 0 where there is none",
        exactly(0, EXACT),
    ),
    _APPENDIX.claim(
        "differences are bounded",
        "Two gradients differ on average by at most the root of 2 (1 - alpha) times the mean "
        "squared norm (P5).",
        "largest relative excess over the bound; 0 where there is none",
        exactly(0, EXACT),
    ),
    _APPENDIX.claim(
        "layers add up",
        "Alpha is the mean of the layers' alphas, weighted by their shares of the mean squared "
        "norm (P6).",
        "largest relative deviation of the weighted mean from alpha",
        exactly(0, EXACT),
    ),
    _OURS.claim(
        "the floor of small samples",
        "Alpha of a random sample of m is alpha + (1 - alpha) / m, with alpha that of everything "
        "it was drawn from.",
        "largest relative deviation over m, sources and steps, of the mean over seeds; sums "
        "pooled over draws, divided last",
        exactly(0, DRAWN),
    ),
    _OURS.claim(
        "the floor can be taken away",
        f"Samples of {FEW} examples, each corrected for its floor, say more about alpha of all "
        "than without the correction.",
        f"error of the mean alpha of samples of {FEW} minus that of the mean unbiased alpha, "
        "digits, last step",
        above(0, "alpha"),
    ),
)


@dataclasses.dataclass(frozen=True)
class Gradients:
    """What the three sources of gradients have in common: how they are measured."""

    sample: int = 1024
    drawn: int = 16384
    batch_size: int = 1
    steps: int = 1

    def schedule(self):
        return (
            tuple(sorted({0, self.steps} | {step for step in (10, 100) if step < self.steps}))
            if self.steps > 1
            else (0,)
        )

    def _problem(self, loss, params, train, seed, optimizer):
        import jax

        from coherence.lab.training.problem import Problem

        rng = np.random.default_rng([seed, 1])
        fixed = rng.permutation(len(train[0]))[: self.sample]
        data = {
            "train": train,
            "sample": jax.tree.map(lambda x: x[fixed], train),
            "draws": jax.random.key_data(jax.random.key(seed)),
        }
        measure = lambda params, data: _properties(
            loss, params, data["sample"], jax.random.wrap_key_data(data["draws"]), self.drawn
        )
        return Problem(loss=loss, params=params, data=data, optimizer=optimizer, measure=measure)


@dataclasses.dataclass(frozen=True)
class Network(Gradients):
    """A network's gradients, while it trains."""

    data: digits | mnist | npz = digits()
    model: MLP = MLP()
    learning_rate: float = 0.1

    def describe(self):
        data = self.data.build()
        net = self.model.build(data.outputs).describe(data.x_train[0].size)
        return f"{self.sample:,} examples of {data.name}, {net}; Gaussian vectors"

    def build(self, seed):
        import jax

        from coherence.lab.settings import sgd
        from coherence.lab.tasks.classification import cross_entropy

        data = self.data.build()
        model = self.model.build(data.outputs)
        params = model.init(jax.random.key(seed), data.x_train[:1])
        return self._problem(
            cross_entropy(model),
            params,
            (data.x_train, data.y_train),
            seed,
            sgd(self.learning_rate).build(),
        )


@dataclasses.dataclass(frozen=True)
class Gaussian(Gradients):
    """Gaussian vectors around a mean, as the gradients of a linear loss: alpha of their distribution is chosen.

    The mean lies in the first of three blocks of coordinates, which stand for layers.
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
        loss = lambda params, example: sum(
            params[name] @ example[0][i] for i, name in enumerate(blocks)
        )
        params = {name: np.zeros(size, np.float32) for name in blocks}
        return self._problem(loss, params, (vectors.astype(np.float32),), seed, optax.set_to_zero())


@dataclasses.dataclass(frozen=True)
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
            gradients = lambda k: per_example_value_and_grad(loss)(
                params, jnp.repeat(data["train"][: DIRECTIONS // k], k, 0)
            )[1]
            return {"m_coherence": jnp.stack([m_coherence({"w": gradients(k)}) for k in COPIES])}

        return Problem(
            loss=loss,
            params=np.zeros(DIRECTIONS, np.float32),
            data={"train": vectors},
            optimizer=optax.set_to_zero(),
            measure=measure,
        )


def _properties(loss, params, sample, key, drawn):
    """What comes out for each property: exactly, or on average over draws."""
    import jax.numpy as jnp

    from coherence import alpha, alpha_unbiased, layer, per_example_value_and_grad
    from coherence.metrics import moments

    gradients = per_example_value_and_grad(loss)(params, sample)[1]
    layers = moments(gradients, by=layer).values()
    return {
        "alpha": alpha(gradients),
        "unbiased": alpha_unbiased(gradients),
        "layer_alpha": jnp.stack([one.alpha for one in layers]),
        "layer_share": jnp.stack([one.mean_squared_norm for one in layers])
        / sum(one.mean_squared_norm for one in layers),
        **_altered(loss, params, sample),
        **_mixed(loss, params, sample),
        **_by_drawing(gradients, key, drawn),
    }


def _altered(loss, params, sample):
    """Alpha of the sample rescaled, repeated, cancelled and diluted: each a choice of examples, their losses' factors, and who counts."""
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
    found = jax.lax.map(altered, (index, factors.astype(np.float32), mask))
    scales, (equal, cancelling), shares = jnp.split(found, [len(SCALES), len(SCALES) + 2])
    return {
        "rescaled": scales,
        "equal": equal,
        "cancelling": cancelling,
        "diluted": shares / shares[KEPT.index(1.0)],
    }


def _mixed(loss, params, sample):
    """Two copies of the parameters, each learning from its own examples: their gradients are orthogonal."""
    import jax
    import jax.numpy as jnp

    from coherence import alpha, per_example_value_and_grad

    half = len(sample[0]) // 2
    either = lambda both, example: (
        example[1] * loss(both["u"], example[0]) + (1 - example[1]) * loss(both["v"], example[0])
    )

    def mixed(p):
        in_u = jnp.arange(half) < p * half
        index = jnp.where(in_u, jnp.arange(half), half + jnp.arange(half))
        examples = jax.tree.map(lambda x: x[index], sample), in_u * 1.0
        gradients = per_example_value_and_grad(either)({"u": params, "v": params}, examples)[1]
        v, u = alpha(gradients, groups=in_u)
        return alpha(gradients), p * u + (1 - p) * v

    found, bound = jax.lax.map(mixed, jnp.array(MIXED))
    return {"mixed": found, "mixed_bound": bound}


def _by_drawing(gradients, key, drawn):
    """What random batches and samples of the examples show, for each of their sizes; and how far two gradients are apart."""
    import jax
    import jax.numpy as jnp

    from coherence import alpha_from_minibatches, alpha_unbiased, gram
    from coherence.metrics import moments

    # Only inner products matter: coordinates in the space that the gradients span are m numbers an
    # example, however large the network.
    inner = gram(gradients)
    m, squares = len(inner), jnp.diag(inner)
    lengths, directions = jnp.linalg.eigh(inner)
    vectors = directions * jnp.sqrt(lengths.clip(min=0))
    permuted = lambda key, *shape: jax.vmap(lambda key: jax.random.permutation(key, m))(
        jax.random.split(key, drawn // m)
    ).reshape(shape)

    def of_batches(k, key):
        index = jax.random.randint(key, (drawn // k, k), 0, m)
        return jnp.square(vectors.mean(0)).sum() / jnp.square(vectors[index].mean(1)).sum(-1).mean()

    def inverted(k, key):
        once = lambda batches: jnp.stack(
            [alpha_from_minibatches(batches, k), alpha_from_minibatches(batches, k, m)]
        )
        return jax.vmap(once)({"w": vectors[permuted(key, drawn // m, m // k, k)].mean(2)}).mean(0)

    def of_samples(size, key):
        def once(some):
            found = moments(some)
            return jnp.stack(
                [
                    found.squared_norm_of_mean,
                    found.mean_squared_norm,
                    found.alpha,
                    alpha_unbiased(some),
                ]
            )

        square, squares, plain, unbiased = jax.vmap(once)(
            {"w": vectors[permuted(key, drawn // size, size)]}
        ).mean(0)
        return jnp.stack([square / squares, plain, unbiased])

    over = lambda function, sizes, i: jnp.stack(
        [function(k, jax.random.fold_in(key, 100 * i + j)) for j, k in enumerate(sizes)]
    )
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
    """Of batches drawn with replacement, of batches that partition m examples, of samples drawn from them: powers of two."""
    powers = lambda low, high: tuple(2**i for i in range(low.bit_length() - 1, high.bit_length()))
    return {
        "batches": powers(1, m // 4),
        "inverted": powers(2, m // 16),
        "samples": powers(2, m // 2),
    }


def arms(settings):
    common = {"sample": settings.sample, "drawn": settings.drawn}
    network = Network(
        **common,
        batch_size=settings.batch_size,
        steps=settings.steps,
        data=settings.data,
        model=settings.model,
        learning_rate=settings.learning_rate,
    )
    gaussian = {
        f"alpha={a:g}": Gaussian(**common, alpha=a, dimension=settings.dimension)
        for a in settings.alphas
    }
    return {"network": network, **gaussian, "copies": Copied()}


MEASURED = (
    *(
        "alpha",
        "unbiased",
        "rescaled",
        "equal",
        "cancelling",
        "diluted",
        "mixed",
        "mixed_bound",
        "difference",
        "difference_bound",
    ),
    *(
        "layer_alpha",
        "layer_share",
        "batches",
        "inverted",
        "inverted_finite",
        "samples_pooled",
        "samples",
        "samples_unbiased",
    ),
)


def record(settings, runs):
    arrays = {"alphas": np.array(settings.alphas), "sample": settings.sample}
    arrays |= {f"sizes/{name}": np.array(sizes) for name, sizes in _sizes(settings.sample).items()}
    arrays["copies"] = stacked(runs["copies"], "m_coherence")["m_coherence"][:, 0]
    arrays["layers"] = np.array(
        sorted({name.split("/")[-2] for name in runs["network"][0].load("params")})
    )
    for arm, seeds in runs.items():
        if arm != "copies":
            arrays |= {
                f"{arm}/{name}": values for name, values in stacked(seeds, *MEASURED).items()
            }
    return arrays


def sources(recorded):
    """The arms with gradients of their own: the network first."""
    return ["network", *(f"alpha={a:g}" for a in recorded["alphas"])]


def amplified(alpha, k):
    """P2: coherence of the gradients of batches of k."""
    return k * alpha / (1 + (k - 1) * alpha)


def judge(recorded):
    every = lambda deviation: max(
        float(np.max(deviation(lambda name, arm=arm: recorded[f"{arm}/{name}"])))
        for arm in sources(recorded)
    )
    relative = lambda found, expected: np.abs(found / expected - 1)
    over_seeds = lambda found, expected: np.abs((found / expected).mean(0) - 1)
    sizes = {name: recorded[f"sizes/{name}"] for name in ("batches", "samples")}
    exact = {
        "bounded": every(_violation),
        "orthogonal limit and copies": relative(recorded["copies"], np.array(COPIES)).max(),
        "mini-batches amplify": every(
            lambda of: over_seeds(
                of("batches"), amplified(of("alpha")[..., None], sizes["batches"])
            )
        ),
        "batches invert": every(lambda of: over_seeds(of("inverted"), of("alpha")[..., None])),
        "batches invert, finite sample": every(
            lambda of: over_seeds(of("inverted_finite"), of("alpha")[..., None])
        ),
        "fitted examples dilute": every(lambda of: relative(of("diluted"), np.array(KEPT))),
        "mixtures are bounded": every(lambda of: (of("mixed") / of("mixed_bound") - 1).clip(0)),
        "differences are bounded": every(
            lambda of: (of("difference") / of("difference_bound") - 1).clip(0)
        ),
        "layers add up": every(
            lambda of: relative((of("layer_alpha") * of("layer_share")).sum(-1), of("alpha"))
        ),
        "the floor of small samples": every(
            lambda of: over_seeds(
                of("samples_pooled"), with_floor(of("unbiased")[..., None], sizes["samples"])
            )
        ),
    }
    truth, small = recorded["network/unbiased"][:, -1], list(sizes["samples"]).index(FEW)
    error = lambda name: np.abs(recorded[f"network/{name}"][:, -1, small] - truth)
    found = {name: (np.array([value]), None) for name, value in exact.items()}
    return {
        **found,
        "the floor can be taken away": (error("samples") - error("samples_unbiased"), None),
    }


def with_floor(alpha, m):
    """What a sample of m shows of alpha."""
    return alpha + (1 - alpha) / m


def _violation(of):
    bounds = np.maximum(-of("alpha"), of("alpha") - 1).clip(0)
    scale = np.abs(of("rescaled") / of("alpha")[..., None] - 1).max(-1)
    return np.stack([bounds, np.abs(of("equal") - 1), np.abs(of("cancelling")), scale])


def table(recorded):
    rows = []
    for arm in sources(recorded):
        for i, step in enumerate(recorded[f"{arm}/step"]):
            of = lambda name, arm=arm, i=i: recorded[f"{arm}/{name}"][:, i]
            small, large = (
                of(f"samples{kind}")[:, list(recorded["sizes/samples"]).index(FEW)]
                for kind in ("", "_unbiased")
            )
            numbers = [
                of("alpha"),
                of("unbiased"),
                small,
                large,
                *(of(name)[:, -1] for name in ("batches", "inverted", "inverted_finite")),
            ]
            rows.append(
                [f"{arm}, step {step}" if arm == "network" else arm, *map(plus_minus, numbers)]
            )
    k, largest = recorded["sizes/inverted"][-1], recorded["sizes/batches"][-1]
    header = [
        "gradients",
        "alpha",
        "unbiased",
        f"m = {FEW}",
        "unbiased",
        f"batches of {largest}",
        f"inverted from {k}",
        "finite sample",
    ]
    note = (
        f"mean ± half of the 95 % interval over seeds; alpha of {recorded['sample']} examples; mean alpha of samples of {FEW} of them;\n"
        f"alpha of the gradients of random batches of {largest}; alpha of the examples from the gradients of batches of {k}"
    )
    return f"{aligned(header, rows)}\n{note}"

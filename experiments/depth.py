"""Depth amplifies what examples share: exactly so in chains of factors; what of it is seen in networks is asked of digits.

On the six-feature set, a weight that is a product of factors moves the faster the further it has
come, so the shared feature outgrows the private ones by more the deeper the chain. Networks and
deep linear networks of growing depth learn digits with some random labels, compared at equal
training loss: how coherent their gradients are, how much of the step lies along the gradients' main
direction, and how much of the random labels they have memorized. What a large step shows beyond a
small one is probably oscillation: one seed had sharpness times step size near 2 and consecutive
full gradients that point against each other, in the deep networks alone.
"""

import dataclasses

import numpy as np

from coherence.lab.analysis import at_losses, first_at, stacked
from coherence.lab.claims import Source, above, below, exactly
from coherence.lab.report.tables import aligned, plus_minus
from coherence.lab.settings import (
    MLP,
    DeepLinear,
    DiagonalChain,
    digits,
    label_noise,
    learnable,
    mnist,
    npz,
    sgd,
)
from coherence.lab.training.classification import Classification
from coherence.probes.schedules import Every

EXAMPLES = 4
FITTED = 1e-8  # training loss of a chain below which gradients are rounding error
LEVELS = tuple(round(2.2 - 0.2 * i, 1) for i in range(11))  # nats; log 10 = 2.3 at chance
EARLY, MIDDLE, LATE = 1.8, 1.2, 0.6  # half, and nearly all, of what true labels give; memorizing
WINDOW = 20
CHAIN_CURVES = ("shared", "private", "train_loss", "test_loss", "alpha")
LARGE = " (large step, where the deep ones seem to oscillate; a trial with one seed had shown the direction)"
NAMES = {"mlp": "MLP", "linear": "linear network"}


@dataclasses.dataclass(frozen=True)
class Settings:
    chains: tuple[int, ...] = (1, 2, 3, 4, 6)
    """Factors of a chain."""
    initial: float = 0.01
    """Every weight of a chain at first."""
    chain_learning_rate: float = 0.001
    chain_steps: int = 20_000
    data: digits | mnist | npz = digits()
    noise: float = 0.2
    width: int = 64
    mlp_depths: tuple[int, ...] = (1, 2, 3, 4)
    """Hidden layers."""
    linear_depths: tuple[int, ...] = (0, 1, 2, 4)
    """Hidden layers of the networks without nonlinearity; 0 is one matrix."""
    learning_rate: float = 0.02
    steps: int = 2000
    large_learning_rate: float = 0.1
    """At which the shallowest and the deepest are trained, too: for comparison, and until MLPs memorize."""
    large_steps: int = 6000
    batch_size: int = 100
    sample: int = 300
    """Training examples whose gradients' main direction is looked for."""
    seeds: int = 8


PRESETS = {
    "smoke": Settings(
        chains=(1, 3),
        chain_learning_rate=0.01,
        chain_steps=2000,
        mlp_depths=(1, 2),
        linear_depths=(1,),
        width=32,
        steps=100,
        large_steps=100,
        sample=60,
        seeds=2,
    ),
    "cpu": Settings(),
    "paper": Settings(
        data=mnist(),
        width=512,
        mlp_depths=(1, 2, 3, 4, 6),
        linear_depths=(0, 1, 2, 4, 6),
        steps=20_000,
        large_steps=60_000,
    ),
}

_OURS = Source(
    "by algebra, for this model; the mechanism is Chatterjee & Zielinski, "
    "arXiv:2203.10036, Section 10, as remembered",
    "derived",
)
_PAPER = Source(
    "Chatterjee & Zielinski, arXiv:2203.10036, Section 10 (depth amplifies coherent directions)",
    "remembered",
)


def _more_coherent(kind, level, large):
    return f"deeper {NAMES[kind]}s are more coherent at {level:g}{', large step' * large}"


# Thresholds were fixed before any run: gradient descent of step size 0.001 stays within 1 % of the
# flow, and alpha within float32. Trial runs of the networks with one seed set the number of steps,
# by whether they reach the loss levels, and showed that at the step size planned first, 0.1, the
# deepest oscillate along one direction: sharpness times step size is 1.9 for the MLP of four hidden
# layers and 1.7 for the linear network (2: unstable), and consecutive gradients of the former have
# a cosine of -0.5; with one hidden layer or none, 0.5 and 0.1. The step size stays for comparison,
# the small one was added, and the share of the main direction, which had been that at one level,
# became a mean over levels. What is there at the large step only is probably oscillation (measured
# for one seed).
CLAIMS = (
    _OURS.claim(
        "private follows shared",
        "A private weight is a function of the shared one: slope 1/m for one factor, power 1/m "
        "for two, bounded for more.",
        "largest relative deviation of a private weight from its closed form, over depths and "
        "steps",
        exactly(0, 0.01),
    ),
    _OURS.claim(
        "alpha of a chain",
        "Alpha of the factors is a function of both weights.",
        "largest deviation of alpha from its closed form, over depths and steps with a training "
        f"loss above {FITTED:g}",
        exactly(0, 0.0001),
    ),
    _OURS.claim(
        "one factor does not amplify",
        "Without depth alpha is 0.625 throughout.",
        "largest deviation of alpha from 0.625, one factor, steps with a training loss above "
        f"{FITTED:g}",
        exactly(0, 0.0001),
    ),
    _OURS.claim(
        "two or more do",
        "With two factors or more alpha never falls and ends above 0.9.",
        "largest fall of alpha between measurements, or what it lacks of 0.9 at the last; 0 "
        "where there is neither",
        exactly(0, 0.0001),
    ),
    _OURS.claim(
        "deeper chains share more",
        "The final ratio of the shared to a private weight grows with depth as the closed form "
        "says.",
        "largest relative deviation of the final ratio from its limit for small steps, over depths",
        exactly(0, 0.02),
    ),
    _OURS.claim(
        "deeper chains generalize better",
        "The final test loss falls with depth as the closed form says.",
        "largest relative deviation of the final test loss from its limit for small steps, over "
        "depths",
        exactly(0, 0.05),
    ),
    *(
        _PAPER.claim(
            _more_coherent(kind, level, large),
            f"At a training loss of {level:g} nats, gradients of the deeper {NAMES[kind]} are "
            f"more coherent{LARGE * large}.",
            f"log2 ratio of m-coherence of the batches, pooled over {WINDOW} steps, deepest "
            "against shallowest",
            above(0, "doublings"),
        )
        for kind in ("mlp", "linear")
        for level, large in ((EARLY, False), (MIDDLE, False), (MIDDLE, True))
    ),
    *(
        _PAPER.claim(
            f"deeper {NAMES[kind]}s follow the main direction",
            f"From {EARLY:g} down to {MIDDLE:g} nats, more of the step of the deeper "
            f"{NAMES[kind]} lies along one direction.",
            "difference of the share of the mean gradient's squared norm along the examples' "
            "main direction, mean over loss levels, deepest against shallowest",
            above(0, "share"),
        )
        for kind in ("mlp", "linear")
    ),
    _PAPER.claim(
        "deeper MLPs memorize less",
        f"At a training loss of {LATE:g} nats, the deeper MLP has fitted fewer of the random "
        "labels (large step).",
        "difference of the accuracy on corrupt examples, deepest against shallowest",
        below(0, "accuracy"),
    ),
)


@dataclasses.dataclass(frozen=True)
class Chain:
    """Full-batch gradient descent on the six-feature set, by a chain of factors."""

    model: DiagonalChain = DiagonalChain()
    learning_rate: float = 0.001
    steps: int = 20_000
    batch_size: int = EXAMPLES

    def describe(self):
        return f"six-feature set, chain of {self.model.depth} factors"

    def schedule(self):
        return Every(max(1, self.steps // 200)).steps(self.steps)

    def build(self, seed):
        import jax
        import jax.numpy as jnp

        from coherence import alpha, per_example_value_and_grad
        from coherence.lab.tasks.regression import evaluate, half_squared_error
        from coherence.lab.training.problem import Problem

        data = learnable().build()
        model = self.model.build(data.outputs)
        loss, score = half_squared_error(model), evaluate(model)

        def measure(params, arrays):
            _, gradients = per_example_value_and_grad(loss)(params, arrays["train"])
            weights = jnp.prod(jnp.stack(jax.tree.leaves(params)), 0)[:, 0]
            return {
                "shared": weights[5],
                "private": weights[0],
                "train_loss": score(params, *arrays["train"]),
                "test_loss": score(params, *arrays["test"]),
                "alpha": alpha(gradients),
            }

        return Problem(
            loss=loss,
            params=model.init(jax.random.key(seed), data.x_train[:1]),
            data={"train": (data.x_train, data.y_train), "test": (data.x_test, data.y_test)},
            optimizer=sgd(self.learning_rate).build(),
            measure=measure,
        )


@dataclasses.dataclass(frozen=True)
class Network(Classification):
    """A classifier; also measured is how much of the step lies along the main direction of its examples' gradients."""

    sample: int = 300

    def describe(self):
        data = self.data.build()
        noise = f"{self.noise.fraction:.0%} random labels"
        return f"{data.name} ({len(data.y_train):,} examples, {noise}), width {self.model.width}; six-feature set"

    def build(self, seed):
        from coherence import gram, per_example_value_and_grad

        problem = super().build(seed)
        fixed = np.random.default_rng([seed, 3]).permutation(len(problem.data["corrupt"]))[
            : self.sample
        ]

        def measure(params, arrays):
            x, y = arrays["train"]
            _, gradients = per_example_value_and_grad(problem.loss)(
                params, (x[arrays["fixed"]], y[arrays["fixed"]])
            )
            return {**problem.measure(params, arrays), "main_share": main_share(gram(gradients))}

        return dataclasses.replace(problem, data={**problem.data, "fixed": fixed}, measure=measure)


def main_share(gram):
    """Of the squared norm of the mean gradient, the share along the first principal direction of the gradients (not centred).

    With G = V L V', the mean's part along direction k is l_k (v_k . 1)^2.
    """
    import jax.numpy as jnp

    lengths, directions = jnp.linalg.eigh(gram)
    parts = lengths.clip(min=0) * jnp.square(directions.sum(0))
    return parts[-1] / parts.sum()


def arms(settings):
    common = {
        "data": settings.data,
        "noise": label_noise(settings.noise),
        "batch_size": settings.batch_size,
        "points_per_decade": 16,
        "probes": (),
        "sample": settings.sample,
    }
    small = {**common, "optimizer": sgd(settings.learning_rate), "steps": settings.steps}
    large = {**common, "optimizer": sgd(settings.large_learning_rate)}
    mlp = lambda depth: MLP(settings.width, depth)
    linear = lambda depth: DeepLinear(settings.width, depth)
    ends = lambda depths: (depths[0], depths[-1])
    chain = {"learning_rate": settings.chain_learning_rate, "steps": settings.chain_steps}
    return {
        **{f"mlp-{depth}": Network(model=mlp(depth), **small) for depth in settings.mlp_depths},
        **{
            f"linear-{depth}": Network(model=linear(depth), **small)
            for depth in settings.linear_depths
        },
        **{
            f"mlp-{d}-large": Network(model=mlp(d), steps=settings.large_steps, **large)
            for d in ends(settings.mlp_depths)
        },
        **{
            f"linear-{d}-large": Network(model=linear(d), steps=settings.steps, **large)
            for d in ends(settings.linear_depths)
        },
        **{
            f"chain-{depth}": Chain(DiagonalChain(depth, initial=settings.initial), **chain)
            for depth in settings.chains
        },
    }


def record(settings, runs):
    depths = {
        "chain": settings.chains,
        "mlp": settings.mlp_depths,
        "linear": settings.linear_depths,
    }
    arrays = {f"depths/{kind}": np.array(each) for kind, each in depths.items()}
    arrays |= {
        "initial": settings.initial,
        "chain_learning_rate": settings.chain_learning_rate,
        "m": settings.batch_size,
    }
    arrays |= {
        "levels": np.array(LEVELS),
        "learning_rates": np.array([settings.learning_rate, settings.large_learning_rate]),
    }
    for arm, seeds in runs.items():
        if arm.startswith("chain"):
            found = stacked(seeds[:1], *CHAIN_CURVES)  # nothing in them is random
            arrays[f"{arm}/step"] = found.pop("step")
            arrays |= {
                f"{arm}/{name}": values[0].astype(np.float32) for name, values in found.items()
            }
            continue
        arrays[f"{arm}/parameters"] = sum(leaf.size for leaf in seeds[0].load("params").values())
        arrays[f"{arm}/m_coherence"] = at_losses(seeds, LEVELS, WINDOW)
        found = stacked(seeds, "train_loss", "main_share", "corrupt_accuracy")
        for name in ("main_share", "corrupt_accuracy"):
            arrays[f"{arm}/{name}"] = np.array(
                [
                    first_at(loss, values, LEVELS, falling=True)
                    for loss, values in zip(found["train_loss"], found[name])
                ]
            )
    return arrays


def private(shared, depth, initial, m=EXAMPLES):
    """A private weight of a chain from the shared one, in the limit of small steps."""
    if depth == 1:
        return initial + (shared - initial) / m
    if depth == 2:
        return initial ** (1 - 1 / m) * shared ** (1 / m)
    power = 1 - 2 / depth
    return (initial**-power - (initial**-power - shared**-power) / m) ** (-1 / power)


def final(depth, initial):
    """The shared and a private weight of a chain that fits: their sum is 1."""
    low, high = initial, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if middle + private(middle, depth, initial) < 1 else (low, middle)
        )
    return low, private(low, depth, initial)


def chain_alpha(shared, own, depth, m=EXAMPLES):
    power = 2 - 2 / depth
    return (shared**power + own**power / m) / (shared**power + own**power)


def judge(recorded):
    found = {name: (np.array([value]), None) for name, value in _of_chains(recorded).items()}
    for kind, name in NAMES.items():
        shallow, deep = (f"{kind}-{depth}" for depth in recorded[f"depths/{kind}"][[0, -1]])
        for level, large in ((EARLY, False), (MIDDLE, False), (MIDDLE, True)):
            pair = (
                _at(recorded, arm + "-large" * large, "m_coherence", level)
                for arm in (deep, shallow)
            )
            found[_more_coherent(kind, level, large)] = (np.log2(np.divide(*pair)), None)
        found[f"deeper {name}s follow the main direction"] = (
            _main_share(recorded, deep) - _main_share(recorded, shallow),
            None,
        )
    shallow, deep = (f"mlp-{depth}-large" for depth in recorded["depths/mlp"][[0, -1]])
    memorized = _at(recorded, deep, "corrupt_accuracy", LATE) - _at(
        recorded, shallow, "corrupt_accuracy", LATE
    )
    return {**found, "deeper MLPs memorize less": (memorized, None)}


def _at(recorded, arm, name, level):
    return recorded[f"{arm}/{name}"][:, LEVELS.index(level)]


def _main_share(recorded, arm):
    return recorded[f"{arm}/main_share"][:, LEVELS.index(EARLY) : LEVELS.index(MIDDLE) + 1].mean(1)


def _of_chains(recorded):
    initial = float(recorded["initial"])
    follows, alphas, single, rises, ratios, losses = [], [], [0.0], [0.0], [], []
    for depth in recorded["depths/chain"]:
        shared, own, train, test, alpha = (
            recorded[f"chain-{depth}/{name}"] for name in CHAIN_CURVES
        )
        moving = train > FITTED
        follows.append(np.abs(own / private(shared, depth, initial) - 1).max())
        alphas.append(np.abs(alpha - chain_alpha(shared, own, depth))[moving].max())
        if depth == 1:
            single.append(np.abs(alpha - 0.625)[moving].max())
        else:
            rises += [-np.diff(alpha[moving]).min(), 0.9 - alpha[moving][-1]]
        limit_shared, limit_own = final(depth, initial)
        ratios.append(abs(shared[-1] / own[-1] / (limit_shared / limit_own) - 1))
        losses.append(abs(test[-1] / (0.5 * (1 - limit_shared - initial) ** 2) - 1))
    names = [claim.name for claim in CLAIMS if claim.known == "derived"]
    return dict(zip(names, map(max, (follows, alphas, single, rises, ratios, losses))))


def table(recorded):
    rows = []
    for depth in recorded["depths/chain"]:
        shared, own, train, test, alpha = (
            recorded[f"chain-{depth}/{name}"] for name in CHAIN_CURVES
        )
        limit_shared, limit_own = final(depth, float(recorded["initial"]))
        ratios = (shared[-1] / own[-1], limit_shared / limit_own)
        rows.append(
            [
                depth,
                *(f"{ratio:.3g}" for ratio in ratios),
                f"{test[-1]:.2g}",
                f"{alpha[train > FITTED][-1]:.3f}",
            ]
        )
    chains = aligned(
        ["factors", "shared / private", "closed form", "test loss", "alpha at the end"], rows
    )
    rows = []
    for kind, name in NAMES.items():
        depths, (small, large) = recorded[f"depths/{kind}"], recorded["learning_rates"]
        for depth, end, rate in [
            *((d, "", small) for d in depths),
            *((d, "-large", large) for d in depths[[0, -1]]),
        ]:
            arm = f"{kind}-{depth}{end}"
            at = [
                _at(recorded, arm, *what)
                for what in (
                    ("m_coherence", EARLY),
                    ("m_coherence", MIDDLE),
                    ("corrupt_accuracy", LATE),
                )
            ]
            cells = map(plus_minus, (*at[:2], _main_share(recorded, arm), at[2]))
            rows.append([name, depth, f"{recorded[f'{arm}/parameters']:,}", f"{rate:g}", *cells])
    header = [
        "network",
        "hidden layers",
        "parameters",
        "step size",
        f"m-coh. at {EARLY:g}",
        f"at {MIDDLE:g}",
        "main share",
    ]
    note = (
        f"mean ± half of the 95 % interval over seeds, at a training loss of so many nats; m-coherence of batches of {recorded['m']};\n"
        f"main share: of the step, along the gradients' main direction, from {EARLY:g} to {MIDDLE:g}; - if a seed never gets there"
    )
    return f"{chains}\n\n{aligned([*header, f'corrupt fitted at {LATE:g}'], rows)}\n{note}"

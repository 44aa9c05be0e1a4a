"""Useless input features make gradients disagree and generalization worse; L1 keeps them out.

To digits a growing number of random features is appended, drawn for every example and every run
anew, each with the variance of an average pixel. Test accuracy and m-coherence are compared where
training loss first falls to the same level. The widest inputs, and the pixels alone, are also
learned under L1 (a soft threshold behind every step, which makes weights exactly zero). An input
that is noise enters the gradient of its weights whether or not they are zero: so coherence is also
asked of the weights in use, those that are not.
"""

import dataclasses

import numpy as np

from coherence.lab.analysis import first_at, stacked
from coherence.lab.claims import Source, above
from coherence.lab.report.tables import aligned, plus_minus
from coherence.lab.settings import MLP, sgd, soft_threshold
from coherence.lab.training.classification import Classification

PIXELS = 64
LEVELS = (2.0, 1.5, 1.0, 0.7, 0.5, 0.4, 0.3, 0.25, 0.2)  # nats; log 10 = 2.3 at chance
EARLY, LATE = 1.0, 0.2
CURVES = ("test_accuracy", "m_coherence", "m_coherence_in_use", "pixels_in_use", "noise_in_use")


@dataclasses.dataclass(frozen=True)
class NoisyDigits:
    """scikit-learn's digits, the first so many for training, with random features after the pixels."""

    features: int = 0
    """How many: normal, of the standard deviation of the pixels around their means."""
    examples: int = 500
    held_out: bool = False
    """To tune on: training examples that are not among those in place of the test examples."""
    seed: int = 0

    def build(self):
        from coherence.lab.data import digits

        every = digits()
        test = (
            (every.x_train[-360:], every.y_train[-360:])
            if self.held_out
            else (every.x_test, every.y_test)
        )
        x, y = every.x_train[: self.examples], every.y_train[: self.examples]
        rng, scale = np.random.default_rng([self.seed, 5]), np.sqrt(x.var(0).mean())
        wider = lambda x: np.hstack([x, rng.normal(0, scale, (len(x), self.features))]).astype(
            np.float32
        )
        return dataclasses.replace(
            every,
            name="digits and random features",
            x_train=wider(x),
            y_train=y,
            x_test=wider(test[0]),
            y_test=test[1],
        )


@dataclasses.dataclass(frozen=True)
class Settings:
    features: tuple[int, ...] = (0, 64, 256, 1024)
    """Numbers of random features beside the 64 pixels."""
    examples: int = 500
    held_out: bool = False
    width: int = 64
    learning_rate: float = 0.1
    l1: float = 3e-3
    """The penalty's factor; per step, times the learning rate."""
    batch_size: int = 100
    steps: int = 1500
    sample: int = 300
    """m: training examples whose gradients are looked at, the same ones throughout."""
    seeds: int = 8


PRESETS = {
    "smoke": Settings(features=(32,), examples=150, width=16, steps=40, sample=40, seeds=2),
    "tuning": Settings(held_out=True, seeds=2),
    "cpu": Settings(),
    "paper": Settings(
        features=(0, 64, 256, 1024, 4096), examples=1000, width=2048, steps=20_000, sample=1000
    ),
}

# What was fixed when: statistics and thresholds before any run of these presets with their seeds;
# none was moved after. Before that, one run with another seed, on held-out training examples, was
# looked at without random features, and with 1,024 of them without L1 and with penalties of 0.001,
# 0.003 and 0.01. It set the penalty and the later loss level (which the middle one reaches once
# weights are zero), and showed accuracy falling by a quarter and restored by L1, and m-coherence
# (of all weights) near 1 with random features, L1 or not.
_OURS = Source(
    "our experiment; the theory is Chatterjee & Zielinski, arXiv:2203.10036 "
    "(regularizers act on weak directions)",
    "remembered",
)


_AT = f"where training loss first falls to {LATE:g} nats"
CLAIMS = (
    _OURS.claim(
        "useless features lower test accuracy",
        f"The more random features, the lower is test accuracy {_AT}.",
        "fall of test accuracy from one number of random features to the next, smallest",
        above(0, "accuracy"),
    ),
    *(
        _OURS.claim(
            f"useless features lower coherence at {level:g}",
            "The more random features, the less coherent are gradients at a training loss of "
            f"{level:g} nats.",
            "log2 ratio of m-coherence, fewer over more, smallest over neighbouring numbers of "
            "random features",
            above(0, "doublings"),
        )
        for level in (EARLY, LATE)
    ),
    _OURS.claim(
        "L1 restores test accuracy",
        f"With most random features, L1 raises test accuracy {_AT}.",
        "difference of test accuracy, L1 minus none",
        above(0, "accuracy"),
    ),
    _OURS.claim(
        "L1 restores half of it or more",
        "L1 brings back at least half of the accuracy that the random features cost.",
        f"accuracy that L1 restores minus half of what most random features cost, {_AT}",
        above(0, "accuracy"),
    ),
    _OURS.claim(
        "L1 does so because of the useless features",
        "Without random features L1 gains less.",
        f"gain of test accuracy by L1, with most random features minus without, {_AT}",
        above(0, "accuracy"),
    ),
    _OURS.claim(
        "L1 restores coherence",
        "With most random features, L1 raises the coherence of gradients.",
        f"log2 ratio of m-coherence, L1 over none, {_AT}",
        above(0, "doublings"),
    ),
    _OURS.claim(
        "L1 restores coherence of the weights in use",
        "With most random features, the gradients of the weights that L1 leaves in use are more "
        "coherent than those of all without it.",
        f"log2 ratio of m-coherence, of weights that are not zero under L1 over none, {_AT}",
        above(0, "doublings"),
    ),
)


@dataclasses.dataclass(frozen=True)
class Sifting(Classification):
    """A classifier whose random inputs are drawn anew for every seed; also measured is the coherence of the weights in use."""

    sample: int = 300

    def build(self, seed):
        from coherence import per_example_value_and_grad

        problem = super(
            Sifting, dataclasses.replace(self, data=dataclasses.replace(self.data, seed=seed))
        ).build(seed)
        fixed = np.random.default_rng([seed, 6]).permutation(len(problem.data["corrupt"]))[
            : self.sample
        ]

        def measure(params, arrays):
            x, y = arrays["train"]
            _, gradients = per_example_value_and_grad(problem.loss)(
                params, (x[arrays["fixed"]], y[arrays["fixed"]])
            )
            first = params["params"]["hidden_0"]["kernel"] != 0
            noise = first[PIXELS:].mean() if self.data.features else 0.0 * first.mean()
            in_use = {"pixels_in_use": first[:PIXELS].mean(), "noise_in_use": noise}
            return {**problem.measure(params, arrays), **coherences(params, gradients), **in_use}

        return dataclasses.replace(problem, data={**problem.data, "fixed": fixed}, measure=measure)


def coherences(params, gradients):
    """m-coherence of all weights, and of those that are not zero: both sums of alpha over their coordinates alone."""
    import jax
    import jax.numpy as jnp

    from coherence.metrics import pool

    pooled = pool(gradients, variances=True)
    parts = [jax.tree.leaves(tree) for tree in (params, pooled.mean, pooled.second_moments)]
    used = [
        jnp.where(w != 0, jnp.stack([g**2, q]), 0).sum(tuple(range(1, w.ndim + 1)))
        for w, g, q in zip(*parts)
    ]
    of_mean, of_each = sum(used)
    whole = pooled.m * pooled.squared_norm_of_mean / pooled.mean_squared_norm
    return {"m_coherence": whole, "m_coherence_in_use": pooled.m * of_mean / of_each}


def arms(settings):
    def one(features, decay):
        return Sifting(
            data=NoisyDigits(features, settings.examples, settings.held_out),
            model=MLP(settings.width),
            optimizer=sgd(settings.learning_rate),
            decay=decay,
            batch_size=settings.batch_size,
            steps=settings.steps,
            points_per_decade=16,
            probes=(),
            track_batches=False,
            sample=settings.sample,
        )

    force = soft_threshold(settings.l1 * settings.learning_rate)
    none = {f"features={features}": one(features, None) for features in settings.features}
    return none | {
        f"features={features},l1": one(features, force) for features in _ends(settings.features)
    }


def _ends(features):
    return features[0], features[-1]


def record(settings, runs):
    arrays = {
        "features": np.array(settings.features),
        "levels": np.array(LEVELS),
        "m": settings.sample,
        "l1": settings.l1,
    }
    for arm, seeds in runs.items():
        found = stacked(seeds, "train_loss", *CURVES)
        arrays[f"{arm}/step"] = found.pop("step")
        arrays |= {f"{arm}/{name}": values.astype(np.float32) for name, values in found.items()}
        arrays[f"{arm}/parameters"] = sum(leaf.size for leaf in seeds[0].load("params").values())
    return arrays


def _at(recorded, arm, name, level):
    """What was measured when the loss first fell to a level: [seed]; nan where it never did."""
    return np.array(
        [
            first_at(*pair, level, falling=True)
            for pair in zip(recorded[f"{arm}/train_loss"], recorded[f"{arm}/{name}"])
        ]
    )


def judge(recorded):
    arms_by_k = [f"features={k}" for k in recorded["features"]]
    first, last = arms_by_k[0], arms_by_k[-1]
    accuracy = {
        arm: _at(recorded, arm, "test_accuracy", LATE)
        for arm in (*arms_by_k, f"{first},l1", f"{last},l1")
    }
    coherence = {
        level: np.array([np.log2(_at(recorded, arm, "m_coherence", level)) for arm in arms_by_k])
        for level in (EARLY, LATE)
    }
    gain = {arm: accuracy[f"{arm},l1"] - accuracy[arm] for arm in (first, last)}
    falls = lambda values: (-np.diff(values, axis=0)).min(0) if len(values) > 1 else np.array([])
    in_use = {
        name: np.log2(_at(recorded, f"{last},l1", name, LATE)) - coherence[LATE][-1]
        for name in CURVES[1:3]
    }
    return {
        "useless features lower test accuracy": (falls([accuracy[arm] for arm in arms_by_k]), None),
        **{
            f"useless features lower coherence at {level:g}": (falls(values), None)
            for level, values in coherence.items()
        },
        "L1 restores test accuracy": (gain[last], None),
        "L1 restores half of it or more": (
            gain[last] - (accuracy[first] - accuracy[last]) / 2,
            None,
        ),
        "L1 does so because of the useless features": (gain[last] - gain[first], None),
        "L1 restores coherence": (in_use["m_coherence"], None),
        "L1 restores coherence of the weights in use": (in_use["m_coherence_in_use"], None),
    }


def table(recorded):
    rows = []
    named = [f"features={k}{end}" for k in recorded["features"] for end in ("", ",l1")]
    for arm in [one for one in named if f"{one}/step" in recorded]:
        at = [
            _at(recorded, arm, *what)
            for what in (
                ("m_coherence", EARLY),
                ("m_coherence", LATE),
                ("m_coherence_in_use", LATE),
            )
        ]
        accuracy = [
            _at(recorded, arm, "test_accuracy", LATE),
            recorded[f"{arm}/test_accuracy"][:, -1],
        ]
        used = [
            100 * recorded[f"{arm}/{name}"][:, -1] for name in ("pixels_in_use", "noise_in_use")
        ]
        rows.append(
            [arm, f"{recorded[f'{arm}/parameters']:,}", *map(plus_minus, (*at, *accuracy, *used))]
        )
    header = [
        "inputs",
        "parameters",
        f"m-coh. at {EARLY:g}",
        f"at {LATE:g}",
        "of weights in use",
        f"test at {LATE:g}",
        "at the end",
    ]
    note = (
        f"m-coherence, m = {recorded['m']}, and test accuracy where training loss first falls to so many nats; l1: penalty\n"
        f"{recorded['l1']:g}; last: weights of pixels and of random features that are not zero at the end; mean ± half of the 95 % interval"
    )
    return f"{aligned([*header, '% of pixels', '% of random'], rows)}\n{note}"

"""What losses make of outliers: cross-entropy, squared error, Huber's, hinge, smoothed and weighted
labels; exactly in one example, and in a network with corrupt labels.

In the outputs the gradient of cross-entropy is p - y and that of squared error the error. So an
example that is badly wrong is loud, but where squared error stands behind a softmax it is mute.
Networks learn digits of which 30 % have labels drawn anew; measured is what corrupt examples hold
of the squared norms of gradients and of the step, what is memorized, and what winsorizing, which
pulls loud coordinates in, changes about it. Another part has rare classes, and weights for them.
"""

from dataclasses import dataclass, replace

import numpy as np

from coherence.lab.analysis import (
    computed,
    first_at,
    given,
    single,
    stacked,
    tabulate,
    too_low,
    under,
)
from coherence.lab.settings import (
    MLP,
    Probing,
    digits,
    hinge,
    huber,
    label_noise,
    sgd,
    softmax_cross_entropy,
    softmax_squared_error,
    squared_error,
    winsorize,
)
from coherence.lab.training.classification import Classification
from coherence.probes.schedules import LogSpaced

LOSSES = {
    "cross-entropy": softmax_cross_entropy(),
    "squared": squared_error(),
    "softmax-squared": softmax_squared_error(),
    "huber": huber(0.1),
    "smoothed": softmax_cross_entropy(smoothing=0.1),
    "hinge": hinge(),
}
CE, MSE, MUTED = "cross-entropy", "squared", "softmax-squared"
WINSORIZED = "cross-entropy, winsorized"
RARE = tuple(range(5, 10))  # digits
EARLY, EQUAL = 100, 0.7  # a step; a share of pristine examples fitted
MEMORIZED = 0.3  # share of corrupt examples that cross-entropy has to fit


def norm_share(view):
    """The corrupt examples' share of the sum of squared norms."""
    from coherence.gradients import squared_norms

    squares = squared_norms(view.few)
    return (squares * (view.few_groups == 1)).sum() / squares.sum()


def step_share(view):
    """The corrupt examples' share of the step."""
    from coherence.metrics import shares

    return shares(view.few, view.few_groups, num_groups=2)[1]


INFLUENCE = Probing(m=500, quantities=("m_coherence", norm_share, step_share), when=LogSpaced(8))


@dataclass(frozen=True)
class Imbalanced:
    """Digits of which 5 to 9 are rare, other examples with every seed; tested on all."""

    share: float = 0.1
    """Of the rare classes' examples that are trained on."""
    seed: int = 0

    def build(self):
        data = digits().build()
        rng = np.random.default_rng([self.seed, 0xBA1])
        chosen = np.flatnonzero(data.y_train < RARE[0])
        for k in RARE:  # as many with every seed: arrays of one shape share a program
            members = np.flatnonzero(data.y_train == k)
            few = rng.choice(members, round(self.share * len(members)), replace=False)
            chosen = np.append(chosen, few)
        x, y = data.x_train[chosen], data.y_train[chosen]
        return replace(data, x_train=x, y_train=y)


@dataclass(frozen=True)
class Weighted(Classification):
    """A classifier of rare and frequent classes, by losses with weights or without."""

    data: Imbalanced = Imbalanced()
    model: MLP = MLP(64)
    optimizer: sgd = sgd(0.1)
    steps: int = 1000
    probes: tuple[Probing, ...] = ()
    track_batches: bool = False

    def build(self, seed):
        problem = super().build(seed)
        model = self.model.build(10)

        def measure(params, data):
            x, y = data["test"]
            right = model.apply(params, x).argmax(-1) == y
            recall = [(right & (y == k)).sum() / (y == k).sum() for k in range(10)]
            return {"rare_recall": sum(recall[5:]) / 5, "frequent_recall": sum(recall[:5]) / 5}

        return problem.extended(measure=measure)


@dataclass(frozen=True)
class Exact:
    """Statements about one example's outputs, in float64."""

    draws: int = 200

    def describe(self):
        return "random outputs"

    def compute(self, seed):
        import jax

        with jax.enable_x64(True):
            return _exact(np.random.default_rng([seed, 2]), self.draws)


def _exact(rng, draws):
    import jax
    import jax.numpy as jnp
    from scipy import stats

    losses = {name: setting.build() for name, setting in LOSSES.items()}
    cross, squared = losses[CE], losses[MSE]
    gradient = {name: jax.vmap(jax.grad(loss)) for name, loss in losses.items()}
    f, y = jnp.asarray(rng.normal(size=(draws, 10)) * 3), jnp.asarray(rng.integers(0, 10, draws))
    one_hot, p = jax.nn.one_hot(y, 10, dtype=f.dtype), jax.nn.softmax(f)
    off = lambda a, b: float(jnp.abs(jnp.asarray(a) - b).max())
    q = 0.9 * one_hot + 0.01
    entropy = -(q * jnp.log(q)).sum(-1)
    divergence = (q * jnp.log(q / p)).sum(-1)
    gaussian = stats.norm.logpdf(one_hot, f).sum(-1) + 5 * np.log(2 * np.pi)
    categorical = stats.multinomial.logpmf(np.asarray(one_hot), 1, np.asarray(p))
    bernoulli = stats.bernoulli.logpmf(np.arange(draws) % 2, jax.nn.sigmoid(f[:, 0]))
    two = jnp.stack([jnp.zeros(draws), f[:, 0]], 1)  # a Bernoulli distribution's logit
    convex = [jax.vmap(jax.hessian(losses[name]))(f, y) for name in (CE, MSE, "huber", "smoothed")]
    residual = jnp.zeros((2, 10)).at[:, 0].set(jnp.array([2.0, 11.0]))  # from the label by 1, 10
    cost, pull = squared(residual, jnp.zeros(2, int)), gradient[MSE](residual, jnp.zeros(2, int))
    bounded = gradient["huber"](residual, jnp.zeros(2, int))[:, 0] / 0.1
    lead = jnp.linspace(-10, 30, 81)
    wrong = jnp.stack([jnp.zeros(81), lead], 1)
    zeros = jnp.zeros(81, int)
    curves = {name: np.asarray(loss(wrong, zeros)) for name, loss in losses.items()}
    lengths = {
        name: np.asarray(jnp.linalg.norm(gradient[name](wrong, zeros), axis=1)) for name in losses
    }
    return {
        "p_minus_y": max(
            off(gradient[CE](f, y), p - one_hot), off(gradient[MSE](f, y), f - one_hot)
        ),
        "entropy_and_kl": off(losses["smoothed"](f, y), entropy + divergence),
        "likelihoods": max(
            off(squared(f, y), -gaussian),
            off(cross(f, y), -categorical),
            off(cross(two, jnp.arange(draws) % 2), -bernoulli),
        ),
        "negative_curvature": max(0.0, *(-float(jnp.linalg.eigvalsh(h).min()) for h in convex)),
        "outliers": max(
            off(cost[1] / cost[0], 100.0),
            off(pull[1, 0] / pull[0, 0], 10.0),
            off(bounded, 1.0),
        ),
        "saturation": max(abs(lengths[CE][-1] - 2**0.5), lengths[MUTED][-1]),
        "lead": np.asarray(lead),
        **under("loss", curves),
        **under("gradient", lengths),
    }


@dataclass(frozen=True)
class Settings:
    run: Classification = Classification(
        noise=label_noise(0.3, "redraw"),
        model=MLP(64),
        optimizer=sgd(0.1, 0.9),
        steps=3000,
        probes=(INFLUENCE,),
        track_batches=False,
    )
    weighted: Weighted = Weighted()
    c: float = 4.0
    """Percent of a batch's gradients that winsorizing pulls in from either side."""
    seeds: int = 8


_SMALL = Classification(
    noise=label_noise(0.3, "redraw"),
    model=MLP(8),
    steps=30,
    probes=(replace(INFLUENCE, m=50),),
    track_batches=False,
)
PRESETS = {
    "smoke": Settings(_SMALL, Weighted(steps=30, model=MLP(8)), seeds=2),
    "cpu": Settings(),
    "paper": Settings(replace(Settings().run, model=MLP(512, 2), steps=30_000)),
}
SOURCE_PRESETS = ("any",)  # a tutorial's sentences, without sizes

# What was fixed when: claims and thresholds before any run of these presets, from a trial elsewhere
# with one seed at step 3,000: corrupt labels fitted 0.46 by cross-entropy and 0.16 by squared
# error; shares of squared norms 0.76, 0.62 and 0.61; at step 100 0.53 for cross-entropy and 0.22
# for squared error behind softmax; m-coherence of 600 at step 0 12 and 219. A first version of
# `cpu` without momentum showed all verdicts: nothing was memorized (0.05 by cross-entropy), so that
# nothing about memorizing was tested. After that momentum was added, by what cross-entropy alone
# fits of one seed (0.8), and a precondition on that; the claims stayed.


def arms(settings):
    run = settings.run
    networks = {name: replace(run, loss=loss) for name, loss in LOSSES.items()}
    networks[WINSORIZED] = replace(run, aggregator=winsorize(settings.c))
    counts = [1.0] * 5 + [settings.weighted.data.share] * 5
    weights = tuple(float(w) for w in np.reciprocal(counts) / np.mean(np.reciprocal(counts)))
    return {
        **networks,
        "rare": settings.weighted,
        "rare, weighted": replace(settings.weighted, loss=softmax_cross_entropy(weights=weights)),
        "exact": Exact(),
    }


def record(settings, runs):
    exact = computed(runs.pop("exact"))
    curves = ("lead", *(name for name in exact if "/" in name))
    arrays = {
        **under("exact", {name: v for name, v in exact.items() if name not in curves}),
        **under("exact", {name: exact[name][0] for name in curves}),
        "losses": np.array([*LOSSES, WINSORIZED]),
        "m": settings.run.probes[0].m,
    }
    for name in arrays["losses"]:
        quantities = ("train/m_coherence", "train/norm_share", "train/step_share")
        fits = ("pristine_accuracy", "corrupt_accuracy", "test_accuracy")
        arrays |= under(f"{name}/fits", stacked(runs[name], *fits))
        arrays |= under(f"{name}/at", stacked(runs[name], *quantities))
    for name in ("rare", "rare, weighted"):
        arrays |= under(name, stacked(runs[name], "rare_recall", "frequent_recall"))
    return single(arrays)


def fitted_more(recorded, one, other):
    """Corrupt examples fitted, one minus other, where the one of less pristine fit ends: [seed]."""
    pristine, corrupt = (
        [recorded[f"{name}/fits/{part}_accuracy"] for name in (one, other)]
        for part in ("pristine", "corrupt")
    )
    level = np.minimum(*(np.maximum.accumulate(curve, 1)[:, -1] for curve in pristine))
    read = [first_at(curve, values, level) for curve, values in zip(pristine, corrupt)]
    return np.subtract(*read)


def at_step(recorded, name, quantity, step):
    steps = recorded[f"{name}/at/step"]
    return recorded[f"{name}/at/train/{quantity}"][:, np.abs(steps - step).argmin()]


def equally_fitted(recorded, name):
    """m-coherence where EQUAL of the pristine examples are first fitted: [seed]."""
    steps, fit = recorded[f"{name}/fits/step"], recorded[f"{name}/fits/pristine_accuracy"]
    step = first_at(fit, np.broadcast_to(steps, fit.shape), EQUAL)
    values = recorded[f"{name}/at/train/m_coherence"]
    measured = recorded[f"{name}/at/step"]
    return np.array([np.interp(at, measured, row) for at, row in zip(step, values)])


def judge(recorded):
    exact = lambda name: recorded[f"exact/{name}"].max()
    corrupt = lambda name: recorded[f"{name}/fits/corrupt_accuracy"][:, -1]
    end = recorded[f"{CE}/at/step"][-1]
    start = [at_step(recorded, name, "m_coherence", 0) for name in (MSE, CE)]
    equal = np.log2(equally_fitted(recorded, MSE) / equally_fitted(recorded, CE))
    early = [at_step(recorded, name, "norm_share", EARLY) for name in (CE, MUTED)]
    rare = [recorded[f"{name}/rare_recall"][:, -1] for name in ("rare, weighted", "rare")]
    memorized = given(
        too_low(corrupt(CE), MEMORIZED, "corrupt examples fitted by cross-entropy"),
        {
            "cross-entropy memorizes more": corrupt(CE) - corrupt(MSE),
            "cross-entropy memorizes more at equal fit": fitted_more(recorded, CE, MSE),
            "winsorizing takes their influence": fitted_more(recorded, CE, WINSORIZED),
            "Huber resists outliers": fitted_more(recorded, MSE, "huber"),
            "smoothed labels resist outliers": fitted_more(recorded, CE, "smoothed"),
        },
    )
    return {
        **memorized,
        "gradients are p - y": exact("p_minus_y"),
        "cross-entropy is entropy and KL": exact("entropy_and_kl"),
        "losses are likelihoods": exact("likelihoods"),
        "convex in the outputs": exact("negative_curvature"),
        "outliers": exact("outliers"),
        "saturation": exact("saturation"),
        "corrupt examples are loud": {
            name: at_step(recorded, name, "norm_share", end) for name in (CE, MSE, MUTED)
        },
        "saturation mutes them early": np.subtract(*early),
        "weights help rare classes": np.subtract(*rare),
        "squared error begins coherent": np.log2(start[0] / start[1]),
        "and not at equal accuracy": {"not below": equal + 1, "not above": 1 - equal},
    }


def table(recorded):
    rows = []
    for name in recorded["losses"]:
        steps = recorded[f"{name}/at/step"]
        rows.append(
            {
                "loss": name,
                "pristine fitted": recorded[f"{name}/fits/pristine_accuracy"][:, -1],
                "corrupt fitted": recorded[f"{name}/fits/corrupt_accuracy"][:, -1],
                "test": recorded[f"{name}/fits/test_accuracy"][:, -1],
                "norm share, step 100": at_step(recorded, name, "norm_share", EARLY),
                "at the end": at_step(recorded, name, "norm_share", steps[-1]),
                "m-coherence, step 0": at_step(recorded, name, "m_coherence", 0),
            }
        )
    recalls = [
        {
            "loss": name,
            "recall of rare digits": recorded[f"{name}/rare_recall"][:, -1],
            "of frequent ones": recorded[f"{name}/frequent_recall"][:, -1],
        }
        for name in ("rare", "rare, weighted")
    ]
    note = f"shares of corrupt examples; m = {recorded['m']}"
    return f"{tabulate(rows, note)}\n\n{tabulate(recalls)}"

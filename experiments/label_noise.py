"""Examples with true labels help one another, so they are learned first; random labels must be
memorized one by one.

The same network is trained with a growing share of permuted labels until it fits them all. A probe
asks at fixed steps who pays for the fall of the loss: f, the share of the pristine examples in the
mean gradient's squared length, and i, what an average pristine and an average corrupt example have
gained so far. In null worlds the words "pristine" and "corrupt" are permuted among the same
examples.

f and i are first-order. At constant step size much of a late step is undone by the next: in the
preset `cpu` the gains add up to many times the loss there was to lose. In a trial that was not
recorded, a fifth of the step size (four times the steps, 4 seeds) made them a sixth.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from coherence.lab.analysis import (
    cross_fitted,
    first_at,
    given,
    single,
    stacked,
    stacked_arms,
    tabulate,
    too_low,
)
from coherence.lab.settings import MLP, Probing, digits, label_noise, mnist
from coherence.lab.training.classification import Classification
from coherence.probes.schedules import LogSpaced

CURVES = ("train_accuracy", "test_accuracy", "pristine_accuracy", "corrupt_accuracy")
LEVELS = (0.5, 0.9)  # training accuracies to be reached
FITTED = 0.5  # a group of examples is half fitted: ends its early phase, begins the late one
MEMORIZED = 0.9
NULL = (0.025, 0.975)  # quantiles of the null worlds


@dataclass(frozen=True)
class Settings:
    run: Classification = Classification(
        data=mnist(examples=2000),
        model=MLP(width=256, depth=1),
        steps=4000,
        probes=(),
        track_batches=False,
    )
    noise: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Shares of the training labels that are permuted."""
    sample: int = 2000
    """Training examples of which it is asked who pays."""
    worlds: int = 200
    """Null worlds a run."""
    seeds: int = 8


RUN = Settings.run
_SMALL = replace(RUN, data=digits(), model=MLP(width=32), steps=200)
_LARGE = replace(RUN, data=mnist(), model=MLP(width=2048, depth=1), steps=60_000)
PRESETS = {
    "smoke": Settings(_SMALL, noise=(0.0, 0.5, 1.0), sample=200, worlds=20, seeds=2),
    "cpu": Settings(),
    "paper": Settings(_LARGE, sample=10_000, seeds=4),
}
SOURCE_PRESETS = ("paper",)

# What was fixed when: every statistic and threshold before any run of these presets; one was moved
# after, see below. Before that, single runs on digits and on 2,000 images of MNIST were tried for
# whether a network memorizes: with 100, 50 and 25 % random labels; of one with 50 % (digits) f was
# seen. That f of the pristine is below the null worlds at *every* noise asks for more than the
# source reports, whose null worlds show the pattern weakly at 75 %, too (second-hand). `paper` had
# 100,000 steps, as the source, and 8 seeds: before any of its runs they became 60,000 and 4, since
# this network at this step size fits 96.6 % of all random labels by then, or more (4 seeds of
# real_vs_random). At half of the labels random its first seed fitted 94 %: then, with accuracies of
# one seed at every share seen and no other number, the corrupt accuracy without which nothing is
# tested became 90 % instead of 95 %, with which six of the papers' nine claims would not have been
# tested in the end.


def arms(settings):
    """One a share of noise; who pays is a question only where there are both kinds of examples."""
    m = settings.sample
    when = LogSpaced(settings.run.points_per_decade)
    probing = Probing(m=m, quantities="examples", when=when, few=m, batch_size=m)
    mixed = replace(settings.run, probes=(probing,))
    return {
        f"noise={noise:g}": replace(
            mixed if 0 < noise < 1 else settings.run, noise=label_noise(noise)
        )
        for noise in settings.noise
    }


def record(settings, runs):
    """Curves as [noise, seed, step]; who pays as [noise between 0 and 1, seed, ...]."""
    curves = stacked_arms([runs[f"noise={noise:g}"] for noise in settings.noise], *CURVES)
    mixed = [noise for noise in settings.noise if 0 < noise < 1]
    payers = [[_who_pays(run, settings) for run in runs[f"noise={noise:g}"]] for noise in mixed]
    paid = {
        name: np.array([[values[name] for values in row] for row in payers])
        for name in (payers[0][0] if payers else ())
    }
    step, accuracy = curves["step"], curves["train_accuracy"].astype(np.float32)
    return {
        "noise": np.array(settings.noise),
        "mixed": np.array(mixed),
        "levels": np.array(LEVELS),
        "steps_to": np.array([first_at(accuracy, step, level) for level in LEVELS]),
        "worlds": settings.worlds,
        **single(curves | paid),
    }


def _who_pays(run, settings):
    """f and i of one run from its probe, and f in null worlds."""
    measured = stacked(
        [run], "train/contributions", "train/gradient_norm", "pristine_accuracy", "corrupt_accuracy"
    )
    step, contributions, norm, *accuracies = (values[0] for values in measured.values())
    step, dots = measured["step"], contributions * norm[:, None] ** 2
    pristine = run.load("examples-train")["group"] == 0
    ends = [first_at(accuracy, step, FITTED) for accuracy in accuracies]
    worlds = null_worlds(pristine, settings.worlds, run.seed)
    return {
        **attribution(step, dots, pristine, worlds, *ends),
        "i": settings.run.optimizer.learning_rate * gains(step, dots, pristine),
        "half_fitted": ends,
    }


def null_worlds(pristine, worlds, seed):
    """As many permutations of who is called pristine: bool [worlds, m]."""
    rng = np.random.default_rng([seed, 0xF0])
    return np.stack([rng.permutation(pristine) for _ in range(worlds)])


def attribution(step, dots, pristine, worlds, early_ends, late_begins):
    """f of the pristine at every step, pooled over both phases, and in null worlds.

    `dots` [step, m]: the inner product of each example's gradient with the mean gradient. A phase's
    f is the pristine examples' part of what all of them brought in it, both integrated over steps:
    a mean of f itself would count steps that bring nothing.
    """
    members = np.vstack([pristine, worlds]).astype(float)  # the true world first
    paid, total = members @ dots.T / len(pristine), dots.mean(1)
    f = paid / total
    sums = integral(step, np.vstack([total, paid]))
    at = lambda when: np.array([np.interp(when, step, path) for path in sums])
    early, late = at(early_ends), sums[:, -1] - at(late_begins)
    phases = np.stack([early[1:] / early[0], late[1:] / late[0]])
    return {
        "share": pristine.mean(),
        "f": f[0],
        "null": np.quantile(f[1:], NULL, axis=0),
        "phases": phases[:, 0],
        "null_phases": np.quantile(phases[:, 1:], NULL, axis=1).T,
        "null_change": np.abs(phases[0, 1:] - phases[1, 1:]).max(),
    }


def gains(step, dots, pristine):
    """What an average pristine and an average corrupt example have gained: [2, step].

    By every step, over the learning rate.
    """
    return np.stack([integral(step, dots[:, group].mean(1)) for group in (pristine, ~pristine)])


def integral(step, values):
    """Over steps from the first to each, by trapezoids; the last axis is that of `step`."""
    pieces = np.diff(step) * (values[..., 1:] + values[..., :-1]) / 2
    return np.concatenate([np.zeros_like(values[..., :1]), np.cumsum(pieces, -1)], -1)


def distance(step, a, b):
    """Mean distance of two curves over the logarithm of the step, from the first step on."""
    later = step >= 1
    logs, apart = np.log(step[later]), np.abs(a - b)[..., later]
    return integral(logs, apart)[..., -1] / (logs[-1] - logs[0])


def judge(recorded):
    noise = recorded["noise"]
    if not ({0, 1} <= set(noise) and len(recorded["mixed"])):
        return {}
    ends = recorded["corrupt_accuracy"][noise > 0, :, -1]
    memorized = too_low(ends, MEMORIZED, "a run did not memorize: corrupt accuracy")
    reached = (recorded["train_accuracy"].max(-1) >= FITTED).all()
    unreached = None if reached else f"a run never reached training accuracy {FITTED:.0%}"
    order, shares = np.argsort(noise), [f"{share:.0%}" for share in np.sort(noise)]
    half, most = np.diff(np.log2(recorded["steps_to"][:, order]), axis=1)
    mixed = [f"{share:.0%} noise" for share in recorded["mixed"]]
    each = lambda values: dict(zip(mixed, values))
    more = lambda values: dict(zip((f"{a} to {b}" for a, b in pairwise(shares)), values))
    pristine, corrupt = np.moveaxis(recorded["half_fitted"], -1, 0)
    as_clean, as_random = _resemblance(recorded)
    f, null = recorded["phases"], recorded["null_phases"]
    change = f[..., 0] - f[..., 1] - recorded["null_change"]
    return {
        f"noise slows learning to {LEVELS[0]:.0%}": (more(half), unreached),
        "pristine pay early": each(f[..., 0] - null[..., 0, 1]),
        "pristine gain more early": each(_ahead(recorded, pristine)),
        **given(
            memorized,
            {
                f"noise slows learning to {LEVELS[1]:.0%}": more(most),
                "pristine learned before corrupt": each(np.log2(corrupt / pristine)),
                "pristine learned as without noise": as_clean,
                "corrupt learned as all random": as_random,
                "test accuracy rises, then falls": _hump(recorded),
                "corrupt pay late": each(null[..., 1, 0] - f[..., 1]),
                "null worlds stay flat": each(change),
            },
        ),
    }


def _mixed(recorded):
    return (recorded["noise"] > 0) & (recorded["noise"] < 1)


def _resemblance(recorded):
    """log2 of how much nearer each group's curve is to its own reference than to the other's.

    Of the pristine and of the corrupt examples, each [seed].
    """
    noise, step = recorded["noise"], recorded["step"]
    references = [recorded["train_accuracy"][noise == level] for level in (0, 1)]
    for name, (own, other) in (("pristine", references), ("corrupt", references[::-1])):
        curves = recorded[f"{name}_accuracy"][_mixed(recorded)]
        yield np.log2(distance(step, curves, other) / distance(step, curves, own)).mean(0)


def _hump(recorded):
    """Rise of test accuracy under noise, and its fall beyond that without noise: {what: [seed]}.

    Means over noise; the peak is read where the other seeds' mean curve has it.
    """
    test = recorded["test_accuracy"]
    peak = np.array([cross_fitted(curves, np.argmax) for curves in test])
    clean, mixed = recorded["noise"] == 0, _mixed(recorded)
    rise, fall = peak - test[..., 0], peak - test[..., -1]
    return {"rise": rise[mixed].mean(0), "fall": fall[mixed].mean(0) - fall[clean][0]}


def _ahead(recorded, when):
    """i of pristine minus i of corrupt at given steps [mixed, seed]."""
    lead = recorded["i"][:, :, 0] - recorded["i"][:, :, 1]
    return np.array(
        [[np.interp(t, recorded["step"], path) for t, path in zip(*row)] for row in zip(when, lead)]
    )


def table(recorded):
    mixed = len(recorded["mixed"])
    return "\n\n".join([_learning(recorded), *([_paying(recorded)] if mixed else [])])


def _learning(recorded):
    step, columns = recorded["step"], {}
    for level, steps in zip(recorded["levels"], recorded["steps_to"]):
        columns[f"steps to {level:.0%}"] = steps
    for kind in ("pristine", "corrupt"):
        columns[f"half of {kind}"] = first_at(recorded[f"{kind}_accuracy"], step, FITTED)
    columns |= {
        "test, peak": recorded["test_accuracy"].max(-1),
        "test, end": recorded["test_accuracy"][..., -1],
        "corrupt fitted": recorded["corrupt_accuracy"][..., -1],
    }
    rows = [
        {"noise": f"{noise:.0%}", **{heading: values[k] for heading, values in columns.items()}}
        for k, noise in enumerate(recorded["noise"])
    ]
    return tabulate(rows, "steps to that training accuracy, and until half of a group is fitted")


def _paying(recorded):
    ahead = _ahead(recorded, recorded["half_fitted"][..., 0])
    rows = []
    for k, noise in enumerate(recorded["mixed"]):
        f, null = recorded["phases"][k], recorded["null_phases"][k].mean(0)
        early, late = (f"{low:.3f} to {high:.3f}" for low, high in null)
        rows.append(
            {
                "noise": f"{noise:.0%}",
                "pristine": recorded["share"][k],
                "f early": f[:, 0],
                "null worlds, early": early,
                "f late": f[:, 1],
                "null worlds, late": late,
                "lead of pristine in i": ahead[k],
            }
        )
    note = (
        "share of pristine in the examples and in the loss reduction (f): early, until half\n"
        "of the pristine are fitted; late, once half of the corrupt are. Null worlds: 95 % of "
        f"{recorded['worlds']} permutations. Lead in nats when the early phase ends"
    )
    return tabulate(rows, note)

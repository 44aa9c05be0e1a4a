"""Gradients winsorized at 10 % keep shuffled images from being memorized that SGD memorizes at the
same error of real ones.

An autoencoder is trained on digits of which a share has been replaced by garbage: images whose
pixels are shuffled, each in an order of its own, or uniform noise. A wide code reconstructs even
garbage a little, so what counts as memorized is what it does better on the garbage it was trained
on than on fresh garbage, as a share of the error of the fresh. Suppressing weak directions slows
all fitting; so robust methods are compared at equal error of the real training images, too, with
two controls: plain SGD stopped early, and plain SGD with so small a step size that it ends there.
M3 and winsorizing at 2 % do not beat the second.
"""

from dataclasses import dataclass, replace

import numpy as np

from coherence.lab.analysis import first_at, given, single, stacked_arms, tabulate, too_low
from coherence.lab.settings import (
    AE,
    adam,
    average,
    digits,
    median,
    median_of_means,
    mnist,
    sgd,
    winsorize,
)
from coherence.lab.training.autoencoding import Autoencoding

CURVES = ("pristine", "test", "corrupt", "fresh")
METHODS = {
    "sgd": average(),
    "c=2": winsorize(2),
    "c=10": winsorize(10),
    "m3": median_of_means(3),
    "median": median(),
}
ADAM = {"adam": average(), "adam,c=10": winsorize(10)}
KINDS = ("shuffled", "noise")
MEMORIZED = 0.2
SLOW = 0.1  # the share of the learning rate of which a claim is
SHOWN = ("sgd", "slower=0.1", "c=10", "m3")  # whose reconstructions are drawn
PICTURES = 3  # of each kind


@dataclass(frozen=True)
class Settings:
    run: Autoencoding = Autoencoding(
        data=digits(),
        garbage=0.25,
        model=AE(width=128, depth=1, latents=32, shape=(8, 8, 1)),
        optimizer=sgd(0.05),
        batch_size=50,
        steps=3000,
        probes=(),
        track_batches=False,
    )
    kinds: tuple[str, ...] = KINDS
    """Of garbage: images with shuffled pixels, uniform noise."""
    methods: tuple[str, ...] = tuple(METHODS)
    """Of `METHODS`, for images with shuffled pixels; of noise all but c=2 and the median."""
    slower: tuple[float, ...] = (0.4, 0.2, 0.1, 0.04)
    """Plain SGD at these shares of the learning rate.

    The control that ends where a robust method ends.
    """
    adam: float = 1e-3
    """Adam's learning rate; 0 leaves Adam out."""
    seeds: int = 8


RUN = Settings.run
_TINY = replace(
    RUN,
    model=AE(width=16, depth=1, latents=4, shape=(8, 8, 1)),
    steps=60,
    points_per_decade=2,
)
_LARGE = replace(
    RUN,
    data=mnist(),
    model=AE(width=1024, depth=1, latents=128),
    batch_size=100,
    steps=60_000,
)
PRESETS = {
    "smoke": Settings(_TINY, ("shuffled",), ("sgd", "m3"), slower=(0.1,), adam=0.0, seeds=2),
    "cpu": Settings(),
    "paper": Settings(_LARGE),
}

# What was fixed when: statistics and thresholds before any run of eight seeds; none was moved
# after. Seen before: single runs with another seed, of other widths, batches and numbers of steps.
# They set the step size, 0.1, and showed, of shuffled images: SGD at a tenth of it memorizes far
# less at equal fit; winsorized at 10 % the digits are fitted half as well after as many steps and
# hardly any garbage is memorized; M3 is close to SGD, and the median learns next to nothing (so
# nothing is claimed of it). At 0.1, with these seeds, five of eight runs winsorized at 10 % and
# five with the median then diverged after 2,000 steps, so that nothing could be judged; hence 0.05.
# By then that M3 memorizes less than SGD, but more than slower SGD, had been seen at 0.1, and all
# of plain SGD at 0.05 and below.


def arms(settings):
    """Both kinds of garbage with every method, and slower SGD.

    Without a robust method no per-example gradients are needed.
    """
    rate, plans = settings.run.optimizer.learning_rate, {}
    for kind in settings.kinds:
        run = replace(settings.run, garbage_kind=kind)
        for name in settings.methods:
            if kind == "shuffled" or name not in ("c=2", "median"):
                plans[f"{kind},{name}"] = replace(run, aggregator=METHODS[name])
        for share in settings.slower:
            plans[f"{kind},slower={share:g}"] = replace(run, optimizer=sgd(share * rate))
    if settings.adam:
        run = replace(settings.run, garbage_kind="shuffled", optimizer=adam(settings.adam))
        for name, method in ADAM.items():
            plans[f"shuffled,{name}"] = replace(run, aggregator=method)
    return plans


def record(settings, runs):
    """Squared reconstruction errors, summed over pixels, [arm, seed, step]; pictures of a seed."""
    errors = stacked_arms(runs.values(), *(f"{name}_reconstruction" for name in CURVES))
    shown = [name for name in SHOWN if f"shuffled,{name}" in runs]
    plans = arms(settings)
    pictures = [_pictures(plans[f"shuffled,{name}"], runs[f"shuffled,{name}"][0]) for name in shown]
    return {
        "arms": np.array(list(runs)),
        "slower": np.array(settings.slower),
        "step": errors["step"],
        **single({name: errors[f"{name}_reconstruction"] for name in CURVES}),
        "shown": np.array(["image", *shown]),
        "pictures": np.concatenate([pictures[0][:1], *(pair[1:] for pair in pictures)]),
    }


def _pictures(arm, run):
    """Images and what a finished run makes of them: uint8 [2, image, ...].

    The first few pristine, garbage and fresh garbage ones.
    """
    from coherence.lab.training.checkpoints import from_arrays

    problem = arm.build(run.seed)
    (train,), (fresh,) = problem.data["train"], problem.data["fresh"]
    corrupt = problem.data["corrupt"]
    kinds = (train[~corrupt], train[corrupt], fresh)
    images = np.concatenate([kind[:PICTURES] for kind in kinds])
    rebuilt = arm.model.build().apply(from_arrays(problem.params, run.load("params")), images)
    pair = np.stack([images, np.reshape(rebuilt, images.shape)])
    return np.round(255 * np.clip(pair, 0, 1)).astype(np.uint8)


def memorized(recorded, arm, name="corrupt"):
    """Share of the error of fresh garbage that is gone on the garbage trained on: [seed, step]."""
    k = list(recorded["arms"]).index(arm)
    return 1 - recorded["corrupt"][k] / recorded["fresh"][k]


def _curves(recorded, arm):
    """Error of pristine images, share memorized and error of test images: three [seed, step]."""
    k = list(recorded["arms"]).index(arm)
    return recorded["pristine"][k], memorized(recorded, arm), recorded["test"][k]


def by_rate(recorded, kind):
    """The same at the end of SGD, by step size from the smallest, in place of steps."""
    names = [*(f"slower={share:g}" for share in np.sort(recorded["slower"])), "sgd"]
    ends = [[values[:, -1] for values in _curves(recorded, f"{kind},{name}")] for name in names]
    return tuple(np.array(values).T for values in zip(*ends))


def at_equal_fit(path, other, which=1):
    """What each has where its pristine error first is the lowest that both reach: two [seed]."""
    level = np.maximum(path[0].min(-1), other[0].min(-1))
    return [first_at(curves[0], curves[which], level, falling=True) for curves in (path, other)]


def judge(recorded):
    """Every claim whose methods were run."""
    has = lambda *names: {f"shuffled,{name}" for name in names} <= set(recorded["arms"])
    paths = {str(arm): _curves(recorded, arm) for arm in recorded["arms"]}
    less = lambda path, other: np.subtract(*at_equal_fit(path, other))
    log_ratio = lambda robust, plain: np.log2(robust / plain)
    plain, shuffled = paths["shuffled,sgd"], {}
    for name in filter(has, ("c=10", "m3")):
        robust = paths[f"shuffled,{name}"]
        slower = less(by_rate(recorded, "shuffled"), robust)
        shuffled[f"{name} memorizes less"] = plain[1][:, -1] - robust[1][:, -1]
        shuffled[f"{name} memorizes less than slower SGD"] = slower
    if has("c=10"):
        robust = paths["shuffled,c=10"]
        unseen = log_ratio(*at_equal_fit(robust, plain, which=2))
        shuffled |= {
            "c=10 memorizes less at equal fit": less(plain, robust),
            "reconstruction kept": log_ratio(robust[2][:, -1], plain[2][:, -1]),
            "unseen images better at equal fit": unseen,
        }
    if has(slow := f"slower={SLOW:g}"):
        shuffled["a smaller step memorizes less"] = less(plain, paths[f"shuffled,{slow}"])
    tested = given(_missing(recorded, "shuffled,sgd"), shuffled)
    if "noise,c=10" in paths:
        slower = less(by_rate(recorded, "noise"), paths["noise,c=10"])
        missing = _missing(recorded, "noise,sgd")
        tested["c=10 memorizes less than slower SGD, noise"] = slower, missing
    if has(*ADAM):
        adam = less(*(paths[f"shuffled,{name}"] for name in ADAM))
        tested["c=10 memorizes less before Adam"] = adam, _missing(recorded, "shuffled,adam")
    return tested


def _missing(recorded, arm):
    lowest = memorized(recorded, arm).max(-1)
    missing = too_low(lowest, MEMORIZED, f"{arm} did not memorize:")
    return missing and f"{missing} of the error of fresh garbage is gone"


def table(recorded):
    rows = []
    for k, arm in enumerate(map(str, recorded["arms"])):
        kind, _, name = arm.partition(",")
        robust, plain = _curves(recorded, arm), f"{kind},{'adam' if 'adam' in arm else 'sgd'}"
        pristine, test, corrupt, fresh = (recorded[curve][k, :, -1] for curve in CURVES)
        slower = "-"
        if plain.endswith("sgd"):
            slower = 100 * at_equal_fit(by_rate(recorded, kind), robust)[0]
        rows.append(
            {
                "garbage": kind,
                "method": name,
                "pristine": pristine,
                "test": test,
                "garbage, trained on": corrupt,
                "fresh": fresh,
                "% memorized": 100 * memorized(recorded, arm)[:, -1],
                "% plain, stopped": 100 * at_equal_fit(_curves(recorded, plain), robust)[0],
                "% plain, slower": slower,
            }
        )
    note = (
        "squared error, summed over pixels, after the last step, and share of the error of fresh\n"
        "garbage that is gone on the garbage trained on; what SGD (or Adam) has memorized at the\n"
        "same error of pristine images, stopped early or with a smaller step"
    )
    return tabulate(rows, note)

"""Gradients winsorized at 10 % keep shuffled images from being memorized that SGD memorizes at the same error of real ones.

An autoencoder is trained on digits of which a share has been replaced by garbage: images whose
pixels are shuffled, each in an order of its own, or uniform noise. A wide code reconstructs even
garbage a little, so what counts as memorized is what it does better on the garbage it was trained
on than on fresh garbage, as a share of the error of the fresh. Suppressing weak directions slows
all fitting; so robust methods are compared at equal error of the real training images, too, with
two controls: plain SGD stopped early, and plain SGD with so small a step size that it ends there.
M3 and winsorizing at 2 % do not beat the second.
"""

import dataclasses

import numpy as np

from coherence.lab.analysis import first_at, stacked
from coherence.lab.claims import Source, above, below
from coherence.lab.report.tables import aligned, plus_minus
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


@dataclasses.dataclass(frozen=True)
class Settings:
    data: digits | mnist = digits()
    model: AE = AE(width=128, depth=1, latents=32, shape=(8, 8, 1))
    kinds: tuple[str, ...] = KINDS
    """Of garbage: images with shuffled pixels, uniform noise."""
    garbage: float = 0.25
    """Share of the training images."""
    methods: tuple[str, ...] = tuple(METHODS)
    """Of `METHODS`, for images with shuffled pixels; of noise all but c=2 and the median."""
    slower: tuple[float, ...] = (0.4, 0.2, 0.1, 0.04)
    """Plain SGD at these shares of the learning rate: the control that ends where a robust method ends."""
    learning_rate: float = 0.05
    adam: float = 1e-3
    """Adam's learning rate; 0 leaves Adam out."""
    batch_size: int = 50
    steps: int = 3000
    points_per_decade: int = 8
    seeds: int = 8


_TINY = AE(width=16, depth=1, latents=4, shape=(8, 8, 1))
_LARGE = AE(width=1024, depth=1, latents=128)
PRESETS = {
    "smoke": Settings(
        model=_TINY,
        kinds=("shuffled",),
        methods=("sgd", "m3"),
        slower=(0.1,),
        adam=0.0,
        steps=60,
        points_per_decade=2,
        seeds=2,
    ),
    "cpu": Settings(),
    "paper": Settings(data=mnist(), model=_LARGE, batch_size=100, steps=60_000),
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
_WINSORIZED = Source(
    "Chatterjee, arXiv:2002.10657, Section 3, says it of labels; images are our extension",
    "derived",
)
_M3 = Source(
    "Zielinski, Krishnan & Chatterjee, arXiv:2003.07422, say it of labels; images are our "
    "extension",
    "derived",
)
_CONTROL = Source("a control of ours; the papers compare at equal steps", "derived")
_SHARE = "share of the error of fresh garbage that is gone on the garbage trained on"
_FIT = "where the error of pristine images first is the lowest that both reach"


def _slower_claim(name, words, what, end=""):
    return _CONTROL.claim(
        name,
        f"{words} has memorized less of the {what} than SGD with so small a step size that "
        "it ends with the same error of pristine images.",
        f"{_SHARE}, SGD at the step size that ends with the lowest pristine error that "
        f"both reach, minus robust{end}",
        above(0, "of the error"),
    )


CLAIMS = (
    *(
        source.claim(
            f"{name} memorizes less",
            f"After as many steps {words} has memorized less of the garbage than SGD.",
            f"{_SHARE} at the end, SGD minus {name}",
            above(0.1, "of the error"),
        )
        for name, words, source in (
            ("c=10", "SGD winsorized at 10 %", _WINSORIZED),
            ("m3", "M3", _M3),
        )
    ),
    _CONTROL.claim(
        "c=10 memorizes less at equal fit",
        "Also where plain SGD is stopped at the same error of pristine images, winsorized SGD "
        "has memorized less.",
        f"{_SHARE}, SGD minus c=10, {_FIT}",
        above(0, "of the error"),
    ),
    _slower_claim("c=10 memorizes less than slower SGD", "Winsorized SGD", "shuffled images"),
    _slower_claim("m3 memorizes less than slower SGD", "M3", "shuffled images"),
    _slower_claim("c=10 memorizes less than slower SGD, noise", "Winsorized SGD", "noise"),
    Source("ours, from the trials", "derived").claim(
        "a smaller step memorizes less",
        f"SGD at {SLOW:g} of the step size has memorized less than SGD stopped at the same error "
        "of pristine images.",
        f"{_SHARE}, SGD minus SGD at {SLOW:g} of its step size, {_FIT}",
        above(0, "of the error"),
    ),
    _WINSORIZED.claim(
        "reconstruction kept",
        "After as many steps unseen images are reconstructed no worse by winsorized SGD than by "
        "SGD.",
        "log2 of the error of test images at the end, c=10 over SGD",
        below(0.1, "doublings"),
    ),
    _WINSORIZED.claim(
        "unseen images better at equal fit",
        "Where both have the same error of pristine training images, winsorized SGD reconstructs "
        "unseen ones better than SGD.",
        f"log2 of the error of test images, c=10 over SGD, {_FIT}",
        below(0, "doublings"),
    ),
    _WINSORIZED.claim(
        "c=10 memorizes less before Adam",
        "Where both have the same error of pristine images, Adam has memorized more than Adam "
        "behind winsorized gradients.",
        f"{_SHARE}, Adam minus Adam behind c=10, {_FIT}",
        above(0, "of the error"),
    ),
)


def arms(settings):
    """Both kinds of garbage with every method, and slower SGD; without a robust method no per-example gradients are needed."""

    def one(kind, aggregator, optimizer):
        return Autoencoding(
            data=settings.data,
            garbage=settings.garbage,
            garbage_kind=kind,
            model=settings.model,
            aggregator=aggregator,
            optimizer=optimizer,
            batch_size=settings.batch_size,
            steps=settings.steps,
            points_per_decade=settings.points_per_decade,
            probes=(),
            track_batches=False,
        )

    found = {}
    for kind in settings.kinds:
        methods = [
            name for name in settings.methods if kind == "shuffled" or name not in ("c=2", "median")
        ]
        found |= {
            f"{kind},{name}": one(kind, METHODS[name], sgd(settings.learning_rate))
            for name in methods
        }
        found |= {
            f"{kind},slower={share:g}": one(kind, average(), sgd(share * settings.learning_rate))
            for share in settings.slower
        }
    if settings.adam:
        found |= {
            f"shuffled,{name}": one("shuffled", aggregator, adam(settings.adam))
            for name, aggregator in ADAM.items()
        }
    return found


def record(settings, runs):
    """Reconstruction errors, squared and summed over pixels, [arm, seed, step]; pictures of the first seed."""
    rows = [
        stacked(seeds, *(f"{name}_reconstruction" for name in CURVES)) for seeds in runs.values()
    ]
    curves = {
        name: np.array([row[f"{name}_reconstruction"] for row in rows], np.float32)
        for name in CURVES
    }
    shown = [name for name in SHOWN if f"shuffled,{name}" in runs]
    every = arms(settings)
    pictures = [_pictures(every[f"shuffled,{name}"], runs[f"shuffled,{name}"][0]) for name in shown]
    return {
        "arms": np.array(list(runs)),
        "slower": np.array(settings.slower),
        "step": rows[0]["step"],
        **curves,
        "shown": np.array(["image", *shown]),
        "pictures": np.concatenate([pictures[0][:1], *(one[1:] for one in pictures)]),
    }


def _pictures(arm, run):
    """The first few pristine, garbage and fresh garbage images, and what a finished run makes of them: uint8 [2, image, ...]."""
    from coherence.lab.training.checkpoints import from_arrays

    problem = arm.build(run.seed)
    (train,), (fresh,), corrupt = (
        problem.data["train"],
        problem.data["fresh"],
        problem.data["corrupt"],
    )
    images = np.concatenate(
        [train[~corrupt][:PICTURES], train[corrupt][:PICTURES], fresh[:PICTURES]]
    )
    rebuilt = arm.model.build().apply(from_arrays(problem.params, run.load("params")), images)
    return np.round(
        255 * np.clip(np.stack([images, np.reshape(rebuilt, images.shape)]), 0, 1)
    ).astype(np.uint8)


def memorized(recorded, arm, name="corrupt"):
    """Share of the error of fresh garbage that is gone on the garbage trained on: [seed, step]."""
    k = list(recorded["arms"]).index(arm)
    return 1 - recorded["corrupt"][k] / recorded["fresh"][k]


def _curves(recorded, arm):
    """Error of pristine images, share memorized and error of test images: three [seed, step]."""
    k = list(recorded["arms"]).index(arm)
    return recorded["pristine"][k], memorized(recorded, arm), recorded["test"][k]


def by_rate(recorded, kind):
    """The same at the end of SGD, from the smallest step size to the full one, in place of steps."""
    names = [*(f"slower={share:g}" for share in np.sort(recorded["slower"])), "sgd"]
    ends = [[values[:, -1] for values in _curves(recorded, f"{kind},{name}")] for name in names]
    return tuple(np.array(values).T for values in zip(*ends))


def at_equal_fit(one, other, which=1):
    """What each has where its pristine error first is the lowest that both reach: two [seed]."""
    found = []
    for seed in range(len(one[0])):
        level = max(one[0][seed].min(), other[0][seed].min())
        found.append(
            [
                first_at(path[0][seed], path[which][seed], level, falling=True)
                for path in (one, other)
            ]
        )
    return np.array(found).T


def judge(recorded):
    """Every claim whose methods were run."""
    has = lambda *names: set(names) <= set(map(str, recorded["arms"]))
    missing = {kind: _missing(recorded, f"{kind},sgd") for kind in KINDS if has(f"{kind},sgd")}
    paths = {str(arm): _curves(recorded, arm) for arm in recorded["arms"]}
    less = lambda one, other: np.subtract(*at_equal_fit(one, other))
    log_ratio = lambda robust, plain: np.log2(robust / plain)
    plain, found = paths["shuffled,sgd"], {}
    for name in ("c=10", "m3"):
        if has(robust := f"shuffled,{name}"):
            found[f"{name} memorizes less"] = (
                plain[1][:, -1] - paths[robust][1][:, -1],
                missing["shuffled"],
            )
            found[f"{name} memorizes less than slower SGD"] = (
                less(by_rate(recorded, "shuffled"), paths[robust]),
                missing["shuffled"],
            )
    if has("shuffled,c=10"):
        robust = paths["shuffled,c=10"]
        found["c=10 memorizes less at equal fit"] = less(plain, robust), missing["shuffled"]
        found["reconstruction kept"] = (
            log_ratio(robust[2][:, -1], plain[2][:, -1]),
            missing["shuffled"],
        )
        found["unseen images better at equal fit"] = (
            log_ratio(*at_equal_fit(robust, plain, which=2)),
            missing["shuffled"],
        )
    if has("noise,c=10"):
        found["c=10 memorizes less than slower SGD, noise"] = (
            less(by_rate(recorded, "noise"), paths["noise,c=10"]),
            missing["noise"],
        )
    if has(slow := f"shuffled,slower={SLOW:g}"):
        found["a smaller step memorizes less"] = less(plain, paths[slow]), missing["shuffled"]
    if has(*(f"shuffled,{name}" for name in ADAM)):
        found["c=10 memorizes less before Adam"] = (
            less(*(paths[f"shuffled,{name}"] for name in ADAM)),
            _missing(recorded, "shuffled,adam"),
        )
    return found


def _missing(recorded, arm):
    lowest = memorized(recorded, arm).max(-1).min()
    return (
        None
        if lowest >= MEMORIZED
        else f"{arm} did not memorize: {lowest:.2f} < {MEMORIZED} of the error of fresh garbage is gone"
    )


def table(recorded):
    rows = []
    for k, arm in enumerate(recorded["arms"]):
        kind, _, name = str(arm).partition(",")
        ends = [recorded[curve][k, :, -1] for curve in CURVES]
        rows.append(
            [
                kind,
                name,
                *map(plus_minus, (*ends, 100 * memorized(recorded, arm)[:, -1])),
                *_at_its_fit(recorded, kind, str(arm)),
            ]
        )
    header = [
        "garbage",
        "method",
        "pristine",
        "test",
        "garbage, trained on",
        "fresh",
        "% memorized",
        "% plain, stopped",
        "% plain, slower",
    ]
    note = (
        "squared error, summed over pixels, after the last step, and share of the error of fresh garbage that is gone on the garbage\n"
        "trained on; what SGD (or Adam) has memorized at the same error of pristine images, stopped early or with a smaller step;\n"
        "mean ± half of the 95 % interval over seeds"
    )
    return f"{aligned(header, rows)}\n{note}"


def _at_its_fit(recorded, kind, arm):
    robust, plain = _curves(recorded, arm), f"{kind},{'adam' if 'adam' in arm else 'sgd'}"
    controls = [
        _curves(recorded, plain),
        *([by_rate(recorded, kind)] if plain.endswith("sgd") else []),
    ]
    return [*(plus_minus(100 * at_equal_fit(control, robust)[0]) for control in controls), "-"][:2]

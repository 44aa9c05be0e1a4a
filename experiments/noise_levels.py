"""Which noise levels of a diffusion model agree, and where it memorizes; a VAE's losses likewise.

The error of the predicted noise is measured at five levels of it, on the same images: coherence of
each level, how far the steps of two levels agree (alpha between them), and the gap between training
and test images. A U-Net learns 1,000 digits; dense networks learn 50 digits, or 50 images of
shuffled pixels, for so long that some samples are copies. Of a VAE whose images are also compared
by features and by a discriminator, the four losses take the place of the levels.
"""

from dataclasses import dataclass, replace

import numpy as np

from coherence.lab.analysis import alpha_ratio, given, rank_correlation, stacked, tabulate, under
from coherence.lab.experiment import all_arms
from coherence.lab.settings import DenoisingMLP, SpatialVAE, UNet, digits, mnist
from coherence.lab.training.diffusion import Diffusion
from coherence.lab.training.programs import PROGRAMS
from coherence.lab.training.sharp_autoencoding import SharpAutoencoding

LEVELS = (0.0, 0.1, 0.3, 0.6, 1.0)  # of the noise, from the least to the most
LOSSES = ("squared", "perceptual", "adversarial", "kl")
PARTS = {"U-Net": "pixels", "dense": "real"}  # networks whose coherence by level is judged
COPIED = 1 / 3  # of the distance to the second nearest training image
ENOUGH = 0.02  # of samples are copies, or nothing was memorized
SETTLED = 0.1  # of the steps


def level_numbers(schedule):
    """The level's number for each of `LEVELS`."""
    return np.round(np.array(LEVELS) * (schedule.levels - 1)).astype(np.int32)


@dataclass(frozen=True, kw_only=True)
class ByLevel(Diffusion):
    """A diffusion model whose loss is measured level by level, on the same images at each."""

    images: int = 200
    """Of the training part, and of the test part, at each level."""
    model: UNet | DenoisingMLP = UNet(depth=2)
    data: digits | mnist = digits(examples=1000)
    batch_size: int = 32
    steps: int = 500
    probes: tuple = ()
    track_batches: bool = False
    points_per_decade: int = 2

    def build(self, seed):
        problem, schedule = super().build(seed), self.noise_schedule.build()
        loss, levels = PROGRAMS.get(_level_loss, self.model.build(), schedule), []
        levels = np.round(np.array(LEVELS) * (schedule.levels - 1)).astype(np.int32)
        ((seen,), (unseen,)) = (problem.data[p] for p in ("train", self._unseen()))
        measured = ("loss_by_group", "m_coherence", "alpha_between")
        probes = (
            grouped_probe(loss, seen[: self.images], levels, "train", measured, self),
            grouped_probe(loss, unseen[: self.images], levels, "unseen", "loss_by_group", self),
        )
        return replace(problem, probes=probes)

    def _unseen(self):
        return "fresh" if self.garbage else "test"


@dataclass(frozen=True, kw_only=True)
class ByLoss(SharpAutoencoding):
    """A VAE each of whose losses is measured by itself, on the same images with the same noise."""

    images: int = 200
    data: digits | mnist = digits(examples=1000)
    data_by_seed: bool = False  # the classifier of the perceptual loss is one for all seeds
    model: SpatialVAE = SpatialVAE(patches=16)
    steps: int = 500
    probes: tuple = ()
    track_batches: bool = False
    points_per_decade: int = 2

    def build(self, seed):
        problem = super().build(seed)
        (data, _), model = self._examples(seed), self.model.build()
        loss = PROGRAMS.get(_one_loss, self._terms(model, data))
        (x,), numbers = problem.data["train"], np.arange(len(LOSSES), dtype=np.int32)
        measured = ("loss_by_group", "alpha_between")
        probe = grouped_probe(loss, x[: self.images], numbers, "train", measured, self)
        return replace(problem, probes=(probe,))


def grouped_probe(loss, x, numbers, name, quantities, settings):
    """A probe of `(x, number, key)`: all images for each number, a group each."""
    import jax

    from coherence.probes import LogSpaced, Probe

    many, keys = len(numbers), jax.random.split(jax.random.key(0), len(x))
    examples = (np.tile(x, (many, 1, 1, 1)), np.repeat(numbers, len(x)), jax.numpy.tile(keys, many))
    return Probe(
        loss,
        examples,
        groups=np.repeat(np.arange(many), len(x)),
        num_groups=many,
        name=name,
        quantities=quantities,
        when=LogSpaced(settings.points_per_decade),
        batch_size=len(x),
        few=2,
    )


def _level_loss(model, schedule):
    from coherence.lab.tasks.diffusion import noise_prediction_error

    return noise_prediction_error(model, schedule, levels="given")


def _one_loss(terms):
    import jax.numpy as jnp

    def loss(params, example):
        x, number, key = example
        values = terms(params, (x, key))
        return jnp.stack([values[name] for name in LOSSES])[number]

    return loss


@dataclass(frozen=True)
class Settings:
    pixels: ByLevel = ByLevel()
    small: ByLevel = ByLevel(
        data=digits(examples=50),
        model=DenoisingMLP(shape=(8, 8, 1)),
        batch_size=50,
        images=50,
        steps=4000,
    )
    vae: ByLoss = ByLoss()
    drawn: int = 200
    """Samples that are compared with training images."""
    seeds: int = 5


_SHORT, _PIXELS = Settings(), (28, 28, 1)
PRESETS = {
    "smoke": Settings(
        replace(_SHORT.pixels, steps=4, images=20, model=UNet(4, 2)),
        replace(_SHORT.small, steps=20, images=20),
        replace(_SHORT.vae, steps=4, images=20),
        drawn=20,
        seeds=2,
    ),
    "cpu": _SHORT,
    "mnist": Settings(
        ByLevel(
            data=mnist(examples=20_000),
            model=UNet(32, shape=_PIXELS),
            batch_size=64,
            images=500,
            steps=20_000,
        ),
        ByLevel(
            data=mnist(examples=200),
            model=DenoisingMLP(512, shape=_PIXELS),
            batch_size=100,
            steps=40_000,
        ),
        ByLoss(
            data=mnist(examples=20_000),
            model=SpatialVAE(32, 98, halvings=2, patches=16, shape=_PIXELS),
            batch_size=64,
            images=500,
            steps=10_000,
        ),
    ),
}
scale = all_arms

# What was fixed when: statistics and thresholds before any run with these seeds. Seen before, with
# seed 900 alone: dense networks of 200 images, of which no sample was a copy, and of 50 (these
# sizes), of which none was of digits and 3 % were of shuffled images; m-coherence of all levels at
# the end 9.4 and 9.6, at step 1,223 8.1 and 8.2 (of 200 images 15 and 11, 27 and 12); by level
# 3.3, 10.7, 2.8, 1.9, 2.9 of digits, and gaps of unseen images largest at 0.1 T. By then "the
# second half of training", which had a single measurement, became its last decade of steps.
# Neither the U-Net nor the VAE was seen.


def arms(settings):
    return {
        "pixels": settings.pixels,
        "real": settings.small,
        "shuffled": replace(settings.small, garbage=1.0, garbage_kind="shuffled"),
        "vae": settings.vae,
    }


def record(settings, runs):
    """By arm [seed, time, level (, level)]; which samples are copies, [seed, sample]."""
    plans, arrays = arms(settings), {}
    names = ("train/alpha_between", "train/loss_by_group")
    for arm in ("pixels", "real", "shuffled"):
        more = ("train/m_coherence", "unseen/loss_by_group")
        arrays |= under(arm, stacked(runs[arm], *names, *more))
    arrays |= under("vae", stacked(runs["vae"], *names))
    for arm in ("real", "shuffled"):
        arrays[f"{arm}/distances"] = _distances(settings, plans[arm], runs[arm])
    arrays["images"] = np.array([plans["pixels"].images, plans["real"].images])
    return {
        name: values.astype(np.float32) if values.dtype == float else values
        for name, values in arrays.items()
    }


def _distances(settings, arm, seeds):
    """Of samples to their nearest and second nearest training image: [seed, sample, 2]."""
    from coherence.lab.training.trained import samplers

    distances = []
    for run, draw in zip(seeds, samplers(arm, seeds, steps=50)):
        drawn = run.load("drawn")
        (x,) = arm.build(run.seed).data["train"]
        images = (drawn["centre"] + drawn["scale"] * x).reshape(len(x), -1)
        samples = draw(settings.drawn, run.seed).reshape(settings.drawn, -1)
        away = np.linalg.norm(samples[:, None] - images, axis=-1)
        distances.append(np.sort(away, 1)[:, :2])
    return np.array(distances, np.float32)


def copies(recorded, arm):
    """The share of samples much nearer to one training image than to any other: [seed]."""
    nearest, second = np.moveaxis(recorded[f"{arm}/distances"], -1, 0)
    return np.mean(nearest < COPIED * second, 1)


def by_level(recorded, arm):
    """m-coherence of each level after the last step, m = `images`: [seed, level]."""
    matrix = recorded[f"{arm}/train/alpha_between"][:, -1]
    m = recorded["images"][0 if arm == "pixels" else 1]
    return m * np.diagonal(matrix, axis1=1, axis2=2)


def gap(recorded, arm):
    """What the loss of unseen images is above that of seen ones, as a share: [seed, level]."""
    seen, unseen = (recorded[f"{arm}/{part}/loss_by_group"][:, -1] for part in ("train", "unseen"))
    return 1 - seen / unseen


def settled(recorded, arm):
    """m-coherence of all levels together, mean over the last decade of steps: [seed]."""
    steps = recorded[f"{arm}/step"]
    return recorded[f"{arm}/train/m_coherence"][:, steps >= SETTLED * steps[-1]].mean(1)


def judge(recorded):
    matrices = {name: recorded[f"{arm}/train/alpha_between"][:, -1] for name, arm in PARTS.items()}
    levels = {name: by_level(recorded, arm) for name, arm in PARTS.items()}
    most, middle = LEVELS.index(1.0), LEVELS.index(0.3)
    near = {name: np.diagonal(a, 1, 1, 2).mean(1) - a[:, 0, -1] for name, a in matrices.items()}
    small = ("real", "shuffled")
    memorized = {arm: copies(recorded, arm) for arm in small}
    m = len(LEVELS) * recorded["images"][1]
    coherences = (settled(recorded, arm) for arm in small)
    where = {arm: rank_correlation(by_level(recorded, arm), gap(recorded, arm)) for arm in small}
    enough = max(share.mean() for share in memorized.values())
    missing = None if enough >= ENOUGH else f"only {enough:.1%} of samples are copies"
    losses = recorded["vae/train/alpha_between"][:, -1]
    between = lambda a, b: losses[:, LOSSES.index(a), LOSSES.index(b)]
    return {
        "most noise, most coherent": {
            name: np.log2(values[:, most] / values[:, middle]) for name, values in levels.items()
        },
        "near levels agree more than far ones": near,
        "real images are more coherent": alpha_ratio(*coherences, m),
        **given(missing, {"shuffled images are copied": memorized["shuffled"] - memorized["real"]}),
        "memorized where coherence is low": where,
        "KL pulls against the squared error": between("kl", "squared"),
        "features agree with the squared error": between("perceptual", "squared"),
        "the discriminator agrees less": between("perceptual", "squared")
        - between("adversarial", "squared"),
    }


def table(recorded):
    rows = []
    for name, arm in {**PARTS, "dense, shuffled": "shuffled"}.items():
        coherence, gaps = by_level(recorded, arm), gap(recorded, arm)
        loss = recorded[f"{arm}/train/loss_by_group"][:, -1]
        for i, level in enumerate(LEVELS):
            row = {"network": name, "level": f"{level:g} T", "loss": loss[:, i]}
            rows.append({**row, "m-coherence": coherence[:, i], "% gap": 100 * gaps[:, i]})
    shares = [100 * copies(recorded, arm).mean() for arm in ("real", "shuffled")]
    note = (
        f"after the last step, m = {recorded['images'][0]} a level; gap: of the loss of unseen\n"
        f"images; copies among samples: {shares[0]:.1f} % of digits, {shares[1]:.1f} % of shuffled"
    )
    return tabulate(rows, note)

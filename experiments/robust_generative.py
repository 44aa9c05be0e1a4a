"""What generative models copy when weak gradient directions are suppressed, at equal quality.

A VAE, a Boltzmann machine, a conditional GAN and a conditional diffusion model learn 200 digits of
8 x 8 pixels by the mean gradient, by gradients winsorized at 8 % and by the median of three means
(M3). While they learn, samples are compared with the images that they are trained on and with as
many unseen ones. Whoever learns more slowly copies less at every step: so copying is compared where
samples are equally good, by their Frechet distance from unseen images.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from coherence.lab.analysis import computed, first_at, given, single, tabulate, too_low, under
from coherence.lab.experiment import all_arms
from coherence.lab.settings import (
    GAN,
    VAE,
    DenoisingMLP,
    adam,
    average,
    digits,
    median_of_means,
    mnist,
    sgd,
    winsorize,
)
from coherence.lab.training.adversarial import Adversarial
from coherence.lab.training.autoencoding import Autoencoding
from coherence.lab.training.boltzmann import ContrastiveDivergence, binary
from coherence.lab.training.diffusion import Diffusion
from coherence.probes.schedules import LogSpaced

CLAIMS = {
    "VAE": "a robust VAE copies less",
    "RBM": "a robust Boltzmann machine copies less",
    "GAN": "a robust GAN copies less",
    "diffusion": "a robust diffusion model copies less",
}
AGGREGATORS = {"mean": average(), "winsorized": winsorize(8), "M3": median_of_means(3)}
ROBUST = ("winsorized", "M3")
COPIES = 0.05  # doublings, of the plain model at the compared quality: less is nothing to prevent
FIRST = 30  # steps, before which nothing has been learned


@dataclass(frozen=True)
class Followed:
    """A model whose samples are judged while it learns."""

    plan: Any
    drawn: int
    """Images of each digit."""
    sweeps: int
    """Of Gibbs sampling for an image of the Boltzmann machine."""
    points: int
    """Measurements in a factor of ten of steps."""

    def describe(self):
        return self.plan.describe()

    def compute(self, seed):
        from coherence.lab.sample_quality import frechet_distance, label_entropy
        from coherence.lab.training.step import snapshots

        plan, problem = self.plan, self.plan.build(seed)
        classifier = judge_of(plan, problem)
        (training, *_), (unseen, *_) = problem.data["train"], problem.data["test"]
        real, draw = classifier.features(unseen), self.drawing(problem, seed)
        steps = [step for step in LogSpaced(self.points).steps(plan.steps) if step >= FIRST]
        rows = []
        for _, params in snapshots(problem, seed, steps, plan.batch_size):
            samples = draw(params)
            features = classifier.features(samples)
            rows.append(
                {
                    "frechet": frechet_distance(features, real),
                    "copying": copying(samples, training, unseen),
                    "entropy": label_entropy(classifier.labels(samples)),
                }
            )
        curves = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        return {"step": np.array(steps), **curves, "shown": samples[:: self.drawn]}

    def drawing(self, problem, seed):
        """`params -> samples`, of each digit as many, from the same noise each time."""
        import jax

        from coherence.lab.tasks.adversarial import generated
        from coherence.lab.tasks.boltzmann import conditional_draws
        from coherence.lab.training.programs import PROGRAMS

        plan, asked = self.plan, np.repeat(np.arange(10), self.drawn)
        key, rng = jax.random.key(seed), np.random.default_rng([seed, 5])
        if isinstance(plan, ContrastiveDivergence):
            machine = plan.machine(problem.data["train"][0].shape[1], 10).build()
            draws = PROGRAMS.get(conditional_draws, machine, self.sweeps)
            return lambda params: np.asarray(draws(params, asked, key))
        model = plan.model.build()
        if isinstance(plan, Adversarial):
            return lambda params: generated(model, params, key, labels=asked)
        shape = model.shape if isinstance(plan, Diffusion) else (model.latents,)
        noise = rng.normal(size=(len(asked), *shape)).astype(np.float32)
        if isinstance(plan, Diffusion):
            sample = PROGRAMS.get(_sampler, model, plan.noise_schedule)
            return lambda params: np.asarray(sample(params, noise, asked))
        return lambda params: np.asarray(model.apply(params, noise, method="decode"))


def _sampler(model, schedule):
    from coherence.lab.tasks.diffusion import sampler

    return sampler(model, schedule.build(), steps=20)


def judge_of(plan, problem):
    """A classifier of digits that the model is not shown, in the units that it learns in."""
    from coherence.lab.sample_quality import DigitClassifier

    pool = replace(plan.data, examples=None).build()
    rest = np.setdiff1d(np.arange(len(pool.y_train)), problem.drawn["examples"])
    x = pool.x_train[rest]
    if isinstance(plan, ContrastiveDivergence):
        x = binary(x, plan.threshold, "the images")
    if isinstance(plan, Diffusion):
        x = (x - problem.drawn["centre"]) / problem.drawn["scale"]
    return DigitClassifier.fit(x, pool.y_train[rest])


def copying(samples, training, unseen):
    """log2 of the mean distance to the nearest unseen image, over that to the nearest training one.

    Of as many unseen images as there are training images, so that it is 0 for a model to which
    both are the same.
    """
    from coherence.lab.sample_quality import nearest_distances

    unseen = unseen[: len(training)]
    far, near = (nearest_distances(samples, images).mean() for images in (unseen, training))
    return np.log2(far / max(near, 1e-6 * far))


@dataclass(frozen=True)
class Settings:
    data: digits | mnist = digits(examples=200)
    width: int = 128
    """Units in each hidden layer; in those of the noise predictor twice as many."""
    steps: int = 3000
    batch_size: int = 50
    drawn: int = 36
    """Images of each digit that a model draws at every measurement."""
    sweeps: int = 200
    points: int = 6
    seeds: int = 6


PRESETS = {
    "smoke": Settings(digits(examples=100), 8, 60, 10, drawn=6, sweeps=5, seeds=2),
    "cpu": Settings(),
    "mnist": Settings(mnist(examples=1000), width=512, steps=20_000, drawn=100),
}
scale = all_arms

# What was fixed when: statistics and thresholds before any sample of these models with 200 images
# was looked at. Seen before: what a step of each costs; and in other experiments that winsorizing
# and M3 did not keep a GAN's discriminator from memorizing 1,000 digits.


def arms(settings):
    """Each model by each way to make one gradient of many."""
    common = {
        "data": settings.data,
        "steps": settings.steps,
        "batch_size": settings.batch_size,
        "probes": (),
        "track_batches": False,
    }
    side, width = 28 if isinstance(settings.data, mnist) else 8, settings.width
    shape = (side, side, 1)
    vae = VAE(width=width, latents=8, shape=shape, sigmoid=True)
    plans = {
        "VAE": Autoencoding(model=vae, error="cross_entropy", optimizer=adam(2e-3), **common),
        "RBM": ContrastiveDivergence(hidden=width, optimizer=sgd(0.1, momentum=0.9), **common),
        "GAN": Adversarial(model=GAN(width, shape=shape, classes=10), **common),
        "diffusion": Diffusion(model=DenoisingMLP(2 * width, shape=shape, classes=10), **common),
    }
    rest = (settings.drawn, settings.sweeps, settings.points)
    return {
        f"{name}, {kind}": Followed(replace(plan, aggregator=aggregator), *rest)
        for name, plan in plans.items()
        for kind, aggregator in AGGREGATORS.items()
    }


def record(settings, runs):
    """Of each arm curves [seed, time] and the samples of seed 0 at the end."""
    arrays = {}
    for arm, seeds in runs.items():
        curves = computed(seeds, "frechet", "copying", "entropy")
        first = seeds[0].load("computed")
        arrays |= under(arm, {**single(curves), "step": first["step"], "shown": grey(first)})
    return arrays


def grey(first):
    """Samples in 16 levels from their lowest to their highest, enough for the eye."""
    side = round(first["shown"][0].size ** 0.5)
    shown = first["shown"].reshape(10, side, side)
    low, high = np.quantile(shown, [0.01, 0.99])
    return np.round(15 * np.clip((shown - low) / max(high - low, 1e-9), 0, 1)).astype(np.uint8)


def curves(recorded, model, kind, name):
    return recorded[f"{model}, {kind}/{name}"].astype(float)


def at_equal_quality(recorded, model, kind):
    """Copying of the plain and of a robust model where both first draw equally well: [seed] each.

    That is at the Frechet distance that the worse one has at its best.
    """
    quality = {which: curves(recorded, model, which, "frechet") for which in ("mean", kind)}
    level = np.maximum(*(values.min(1) for values in quality.values()))
    return [
        first_at(values, curves(recorded, model, which, "copying"), level, falling=True)
        for which, values in quality.items()
    ]


def judge(recorded):
    tested, ends, best = {}, {}, {}
    for model, claim in CLAIMS.items():
        pairs = {kind: at_equal_quality(recorded, model, kind) for kind in ROBUST}
        plain = min(pair[0].mean() for pair in pairs.values())
        nothing = too_low(plain, COPIES, f"the plain {model} copies nothing there, doublings:")
        tested |= given(nothing, {claim: {kind: a - b for kind, (a, b) in pairs.items()}})
        last, least = (
            {kind: take(curves(recorded, model, kind, name)) for kind in AGGREGATORS}
            for name, take in (("copying", lambda x: x[:, -1]), ("frechet", lambda x: x.min(1)))
        )
        ends |= {f"{model}, {kind}": last["mean"] - last[kind] for kind in ROBUST}
        best |= {f"{model}, {kind}": np.log2(least[kind] / least["mean"]) for kind in ROBUST}
    return {
        **tested,
        "trained equally long, robust models copy less": ends,
        "robust models draw as well": best,
    }


def table(recorded):
    rows = []
    for model in CLAIMS:
        for kind in AGGREGATORS:
            quality, copies = (
                curves(recorded, model, kind, name) for name in ("frechet", "copying")
            )
            row = {"model": model, "gradient": kind, "best Frechet": quality.min(1)}
            row |= {"at the end": quality[:, -1], "copying, end": copies[:, -1]}
            equal = at_equal_quality(recorded, model, kind) if kind in ROBUST else ("", "")
            row |= dict(zip(("at equal quality, mean", "robust"), equal))
            rows.append(row)
    note = (
        "copying: log2 of the mean distance of samples to the nearest of 200 unseen images over "
        "that to the\nnearest of the 200 training images; equal quality: the smallest Frechet "
        "distance that both reach"
    )
    return tabulate(rows, note)

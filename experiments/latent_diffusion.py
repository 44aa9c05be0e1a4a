"""A VAE with weak KL draws badly by itself and well with diffusion in its latent space.

First a VAE of digits: convolutions to 16 numbers, 4 x 4 places or a row; reconstruction by squared
error, by a classifier's features and against a discriminator of patches; KL weak or strong. Then a
diffusion model of its codes, told the digit. What either draws is compared with test images by a
classifier that saw neither's training images: Frechet distance in its features, score, share
recognized as asked. Ablations leave one of the four ingredients out. A diffusion model of eight
normal distributions on a ring shows how many steps drawing needs.
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from coherence.lab.analysis import computed, single, tabulate, under
from coherence.lab.settings import DenoisingMLP, SpatialVAE, digits, gaussian_ring, mnist
from coherence.lab.training.diffusion import Diffusion
from coherence.lab.training.sharp_autoencoding import SharpAutoencoding

DIFFUSION = Diffusion(
    data=gaussian_ring(examples=1000),
    model=DenoisingMLP(256, 3, (2,)),
    batch_size=64,
    steps=6000,
    probes=(),
    track_batches=False,
    points_per_decade=1,
)
STEPS = (1, 2, 5, 10, 20, 50, 200)  # of drawing
SMOOTHED = 200  # steps of the loss
NEAR = 4  # standard deviations from a mode
SHOWN = 20  # images of each kind
GUIDANCE = 1.0
MEASURES = ("frechet", "score", "coverage", "density", "to_training")
KINDS = ("prior", "diffusion", "guided", "reconstructions")
ABLATIONS = ("without spatial", "without perceptual", "without adversarial", "strong KL")


@dataclass(frozen=True)
class TwoStages:
    """A VAE, and a diffusion model of its codes, trained one after the other and measured."""

    autoencoder: SharpAutoencoding = SharpAutoencoding(
        data=digits(examples=1000),
        data_by_seed=False,  # the others fit the classifier that measures
        model=SpatialVAE(patches=16),
        probes=(),
        track_batches=False,
        points_per_decade=1,
        steps=1000,
    )
    width: int = 256
    """Of the noise predictor."""
    steps_of_diffusion: int = 2500
    """0: the VAE alone, for its reconstructions."""
    by_steps: tuple[int, ...] = (50,)
    """Steps of drawing whose samples are measured, 50 among them."""

    def describe(self):
        return f"{self.autoencoder.describe()}; diffusion of codes, 3 x {self.width}"

    def compute(self, seed):
        from coherence.lab.sample_quality import frechet_distance, qualities
        from coherence.lab.training.trained import autoencoders, samplers, temporary_run

        stage, data = self.autoencoder, self.autoencoder.data.build()
        with temporary_run(stage, seed) as run:
            ((encode, decode),) = autoencoders(stage.model, [run])
            codes = {part: encode(getattr(data, part)) for part in ("x_train", "x_test")}
            decoded = lambda z: np.asarray(decode(np.asarray(z, np.float32)))
            rebuilt = {part: decoded(z) for part, z in codes.items()}
            rng, m = np.random.default_rng([seed, 1]), len(data.x_test)
            images = {
                "prior": decoded(rng.normal(size=(m, stage.model.latents))),
                "reconstructions": rebuilt["x_train"][:m],
            }
            measured = {
                "sharpness": high_frequencies(rebuilt["x_test"]) / high_frequencies(data.x_test),
                "error": np.square(rebuilt["x_test"].reshape(m, -1) - data.x_test.reshape(m, -1))
                .sum(1)
                .mean(),
            }
            if not self.steps_of_diffusion:
                return measured
            classifier, asked = measuring_classifier(stage.data), np.arange(m) % 10
            real = classifier.features(data.x_test)
            with tempfile.TemporaryDirectory() as folder:
                settings = self._diffusion(Path(folder) / "codes.npz", data, codes)
                with temporary_run(settings, seed) as second:
                    draws = {
                        (steps, w): next(samplers(settings, [second], steps=steps, guidance=w))
                        for steps, w in [(k, 0.0) for k in self.by_steps] + [(50, GUIDANCE)]
                    }
                    drawn = {how: decoded(draw(asked, seed)) for how, draw in draws.items()}
                    loss = second.load("batches")["loss"]
        images |= {"diffusion": drawn[50, 0.0], "guided": drawn[50, GUIDANCE]}
        frechet = lambda x: frechet_distance(classifier.features(x), real)
        rows = [qualities(images[kind], data.x_test, data.x_train, classifier) for kind in KINDS]
        labels = [classifier.labels(images[kind]) for kind in ("diffusion", "guided")]
        pictures = np.stack([images[kind][:SHOWN] for kind in KINDS])
        return {
            **measured,
            **{name: np.array([row[name] for row in rows]) for name in MEASURES},
            "recognized": np.mean(np.equal(labels, asked), 1),
            "by_steps": np.array([frechet(drawn[k, 0.0]) for k in self.by_steps]),
            "smoothed": smoothed(loss)[::20],
            "pictures": np.round(255 * np.clip(pictures, 0, 1)).astype(np.uint8)[..., 0],
        }

    def _diffusion(self, path, data, codes):
        """The settings of a run on codes, which are written to a file."""
        from coherence.lab.settings import npz

        np.savez(path, **codes, y_train=data.y_train, y_test=data.y_test)
        return replace(
            DIFFUSION,
            data=npz(str(path)),
            data_by_seed=False,
            model=DenoisingMLP(self.width, 3, codes["x_train"].shape[1:], 10),
            steps=self.steps_of_diffusion,
        )


def measuring_classifier(setting):
    """The classifier that measures: fitted to the images that the setting leaves out."""
    from coherence.lab.sample_quality import DigitClassifier

    whole, few = replace(setting, examples=None).build(), setting.build()
    rest = slice(len(few.y_train), None)
    return DigitClassifier.fit(whole.x_train[rest], whole.y_train[rest])


def smoothed(losses):
    """Moving means over `SMOOTHED` steps, or fewer where there are few."""
    window = max(min(SMOOTHED, len(losses) // 10), 1)
    return np.convolve(losses, np.ones(window) / window, "valid")


def high_frequencies(images):
    """Energy of square images [m, ...] beyond a quarter of a cycle a pixel."""
    side = round(images[0].size ** 0.5)
    spectrum = np.abs(np.fft.fft2(images.reshape(-1, side, side))) ** 2
    frequency = np.abs(np.fft.fftfreq(side))
    return spectrum[:, np.maximum.outer(frequency, frequency) > 0.25].sum()


@dataclass(frozen=True)
class Settings:
    stages: TwoStages = TwoStages()
    ring: Diffusion = DIFFUSION
    drawn: int = 2000
    """Points of the ring."""
    seeds: int = 5


_SHORT = replace(
    TwoStages(), autoencoder=replace(TwoStages.autoencoder, steps=20), steps_of_diffusion=20
)
PRESETS = {
    "smoke": Settings(_SHORT, replace(DIFFUSION, steps=20), drawn=50, seeds=2),
    "cpu": Settings(),
    "mnist": Settings(
        TwoStages(
            replace(
                TwoStages.autoencoder,
                data=mnist(examples=20_000),
                model=SpatialVAE(32, 98, halvings=2, patches=16, shape=(28, 28, 1)),
                batch_size=64,
                steps=10_000,
            ),
            width=512,
            steps_of_diffusion=40_000,
        )
    ),
}

# What was fixed when: statistics and thresholds are those of the specification's trial of another
# VAE (dense, 16 numbers) or ask for a direction, and were written before any run with these seeds.
# Seen before: the arm with all ingredients with seed 900 (1,500 + 4,000 steps: Frechet distance 39
# by the prior, 1.2 with diffusion, 0.75 of reconstructions; scores 3.7, 8.2, 8.3; recognized 93 %,
# guided 100 %; 1,000 + 2,500 steps: 44, 1.6, 1.1; 3.6, 7.5, 8.1; 86 %, 99 %; sharpness 0.71). The
# second has the sizes that are recorded, for their cost. No ablation was seen, nor strong KL.
# A first recording had the ring learned by 128 units in 3,000 steps, for its cost, instead of the
# specification's 256 and 6,000: it had found the circle and not the modes (22 % of points near
# one), so that "20 steps instead of 1" came out at +0.21, not reproduced, and "50 steps add little"
# at +0.003, inconclusive. The ring was then recorded once more with the specification's sizes; all
# else stayed.


def arms(settings):
    whole = settings.stages.autoencoder
    vaes = {
        "all": whole,
        "without spatial": replace(whole, model=replace(whole.model, spatial=False)),
        "without perceptual": replace(whole, perceptual=0.0),
        "without adversarial": replace(whole, adversarial=0.0),
        "strong KL": replace(whole, factor=2.0),
        "neither": replace(whole, perceptual=0.0, adversarial=0.0),
    }
    stages = {arm: replace(settings.stages, autoencoder=vae) for arm, vae in vaes.items()}
    stages["all"] = replace(stages["all"], by_steps=STEPS)
    stages["neither"] = replace(stages["neither"], steps_of_diffusion=0)
    return {**stages, "ring": settings.ring}


def record(settings, runs):
    """`ARM/NAME`: [seed, kind], or [seed] of reconstructions; pictures of the first seed."""
    arrays = {"steps": np.array(STEPS)}
    for arm, seeds in runs.items():
        if arm != "ring":
            measured = computed(seeds)
            pictures = measured.pop("pictures", None)
            arrays |= under(arm, single(measured))
            if arm in ("all", "without spatial", "strong KL"):
                arrays[f"{arm}/pictures"] = pictures[0]
    near, points = _ring(settings, runs["ring"])
    return {**arrays, "ring/near": near, "ring/points": points}


def _ring(settings, seeds):
    """The share of points near a mode, [seed, steps], and points of a seed, [steps, 300, 2]."""
    from coherence.lab.data import ring_means
    from coherence.lab.training.trained import samplers

    ring, near, shown = settings.ring.data, [], []
    means = ring_means(ring.modes, ring.radius)
    for steps in STEPS:
        draws = samplers(settings.ring, seeds, steps=steps)
        points = [draw(settings.drawn, run.seed) for draw, run in zip(draws, seeds)]
        away = np.linalg.norm(np.array(points)[:, :, None] - means, axis=-1).min(-1)
        near.append(np.mean(away < NEAR * ring.deviation, 1))
        shown.append(points[0][:300])
    return np.array(near).T, np.array(shown, np.float32)


def judge(recorded):
    of = lambda arm, name, kind: recorded[f"{arm}/{name}"][:, KINDS.index(kind)]
    log_ratio = lambda a, b: np.log2(a / b)
    gain = lambda arm: of(arm, "score", "diffusion") - of(arm, "score", "prior")
    near = recorded["ring/near"]
    prior, whole, rebuilt = (of("all", "frechet", k) for k in KINDS if k != "guided")
    at = lambda steps: near[:, list(recorded["steps"]).index(steps)]
    without = {arm: log_ratio(of(arm, "frechet", "diffusion"), whole) for arm in ABLATIONS}
    blurred = lambda arm: np.abs(np.log2(recorded[f"{arm}/sharpness"]))
    return {
        "the VAE alone draws badly": gain("all"),
        "diffusion brings the VAE's samples nearer": log_ratio(prior, whole),
        "weak KL suits diffusion": gain("all") - gain("strong KL"),
        "no better than reconstructions": log_ratio(whole, rebuilt),
        "guided samples are recognized": recorded["all/recognized"][:, 1],
        "20 steps instead of 1": at(20) - at(1),
        "50 steps add little to 20": at(50) - at(20),
        "diffusion converges stably": largest_rise(recorded["all/smoothed"]),
        **{f"diffusion needs it: {arm}": without[arm] for arm in ABLATIONS},
        "both terms sharpen": blurred("neither") - blurred("all"),
    }


def largest_rise(losses):
    """The largest rise of curves [seed, time] above their lowest before, over their whole fall."""
    rise = (losses - np.minimum.accumulate(losses, 1)).max(1)
    return rise / np.maximum(losses[:, 0] - losses.min(1), 1e-12)


def table(recorded):
    rows = []
    for arm in ("all", *ABLATIONS):
        of = {kind: recorded[f"{arm}/frechet"][:, i] for i, kind in enumerate(KINDS)}
        scores = recorded[f"{arm}/score"]
        rows.append(
            {
                "VAE": arm,
                **of,
                "score, prior": scores[:, 0],
                "with diffusion": scores[:, 1],
                "% recognized": 100 * recorded[f"{arm}/recognized"][:, 0],
                "% guided": 100 * recorded[f"{arm}/recognized"][:, 1],
                "high frequencies": recorded[f"{arm}/sharpness"],
            }
        )
    note = (
        "Frechet distances from test images of what the prior draws, of diffusion in the latent\n"
        "space, the same guided by the label, and of reconstructions of training images; scores;\n"
        "share of samples recognized as asked; high frequencies of reconstructions over images'"
    )
    return tabulate(rows, note)

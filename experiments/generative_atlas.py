"""Every generative model on the same images: what it draws, what it copies, where gradients agree.

Black and white digits, as they are and with the pixels of each image in an order of its own: these
share their number of white pixels with real ones and, with each other, nothing but the mean image.
Naive Bayes, a Boltzmann machine, autoencoders, a GAN and a diffusion model are trained by gradients
for equally many passes over the same images; samples are turned black and white, and a classifier
of other images judges them. Coherence is that of the loss each is trained on.
"""

from dataclasses import dataclass, replace

import numpy as np

from coherence.lab.analysis import rank_correlation, stacked, stacked_parts, tabulate, under
from coherence.lab.data import Dataset
from coherence.lab.experiment import all_arms
from coherence.lab.settings import (
    AE,
    GAN,
    VAE,
    ConditionalVAE,
    DenoisingMLP,
    Probing,
    adam,
    digits,
    mnist,
    sgd,
)
from coherence.lab.training.adversarial import Adversarial
from coherence.lab.training.autoencoding import Autoencoding
from coherence.lab.training.boltzmann import ContrastiveDivergence
from coherence.lab.training.diffusion import Diffusion
from coherence.lab.training.run_settings import RunSettings
from coherence.probes.schedules import LogSpaced

MODELS = ("naive Bayes", "RBM", "AE", "VAE", "conditional VAE", "GAN", "diffusion")
KINDS = ("real", "shuffled")
PLAYERS = ("generator", "discriminator")
WINDOW = (3, 60)  # passes over the data between which coherence is compared
MEASURES = ("frechet", "coverage", "density", "label_entropy", "recognized", "novelty")


@dataclass(frozen=True)
class BlackAndWhite:
    """Handwritten digits, white above half of the grey levels; some drawn to train on, by seed."""

    examples: int = 1000
    shuffled: bool = False
    """The pixels of each image in an order of its own, on both sides of the split."""
    seed: int = 0
    whole: digits | mnist = digits()
    """All digits there are, on both sides of the split."""

    def build(self) -> Dataset:
        data, train, _ = self.parts()
        rng = np.random.default_rng([self.seed, 1])
        x_train, x_test = (
            _shuffled(white(x), rng) if self.shuffled else white(x)
            for x in (data.x_train[train], data.x_test)
        )
        name = f"black and white digits{', shuffled' * self.shuffled}"
        return Dataset(name, x_train, data.y_train[train], x_test, data.y_test, data.classes)

    def parts(self):
        """All digits, which of them to train on, and which of the training part are left."""
        data = self.whole.build()
        order = np.random.default_rng([self.seed, 0]).permutation(len(data.x_train))
        return data, order[: self.examples], order[self.examples :]


def white(x):
    """Flat images of zeros and ones."""
    return (x.reshape(len(x), -1) > 0.5).astype(np.float32)


def _shuffled(x, rng):
    return np.take_along_axis(x, rng.random(x.shape).argsort(1), 1)


@dataclass(frozen=True, kw_only=True)
class NaiveBayes(RunSettings):
    """Independent pixels given the label, p(x, y), by gradients of -log p(x, y)."""

    data: BlackAndWhite = BlackAndWhite()

    def describe(self):
        return f"{self._described(lambda data: data.build())}, naive Bayes"

    def build(self, seed):
        from coherence.lab.training.problem import Problem
        from coherence.lab.training.programs import PROGRAMS
        from coherence.lab.training.samples import make_probes

        data, drawn = self._drawn(lambda data: data.build(), seed, 0)
        arrays = {"train": (data.x_train, data.y_train), "test": (data.x_test, data.y_test)}
        loss, optimizer = PROGRAMS.get(_joint_loss), self._transformation()
        probes, _ = make_probes(
            self.probes,
            loss,
            arrays,
            corrupt=np.zeros(len(data.x_train), bool),
            labels={part: y for part, (_, y) in arrays.items()},
            classes=10,
            seed=seed,
            purpose=1,
        )
        shapes = {"label": 10, "pixel": (10, data.x_train.shape[1])}
        start = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        per_example = not optimizer.takes_batch_gradient
        return Problem(loss, start, arrays, optimizer, per_example, drawn=drawn, probes=probes)


def _joint_loss():
    import jax
    import jax.numpy as jnp

    def loss(params, example):
        x, y = example
        logits = params["pixel"][y]
        pixels = jnp.sum(jax.nn.softplus(logits) - x * logits)
        return pixels - jax.nn.log_softmax(params["label"])[y]

    return loss


@dataclass(frozen=True)
class Settings:
    models: tuple[str, ...] = MODELS
    whole: digits | mnist = digits()
    examples: int = 1000
    steps: int = 2000
    batch_size: int = 50
    width: int = 128
    """Units in each hidden layer; in those of the noise predictor twice as many."""
    m: int = 200
    """Training images whose gradients are looked at."""
    drawn: int = 36
    """Images of each digit that a model draws, which draws ten times as many in all."""
    seeds: int = 5


PRESETS = {
    "smoke": Settings(("naive Bayes", "VAE", "RBM"), digits(), 200, 80, 10, 8, 20, 3, seeds=2),
    "cpu": Settings(),
    "mnist": Settings(
        whole=mnist(), examples=20_000, steps=40_000, width=512, m=1000, drawn=100, seeds=3
    ),
}
scale = all_arms

# What was fixed when: statistics and thresholds before any run of this experiment, and before any
# coherence of these models side by side was seen. Seen before: each model alone on digits in grey.


def arms(settings):
    """Each model on real images, then on shuffled ones."""
    common = {
        "steps": settings.steps,
        "batch_size": settings.batch_size,
        "points_per_decade": 1,
        "probes": (Probing(m=settings.m, quantities="light", groups="none", when=LogSpaced(4)),),
        "track_batches": False,
    }
    shape = _shape(settings.whole)
    images = {"shape": shape, "sigmoid": True}
    sizes = {"width": settings.width, "latents": 8, **images}
    auto = {**common, "error": "cross_entropy", "pixels": "sum", "optimizer": adam(2e-3)}
    denoiser = DenoisingMLP(2 * settings.width, shape=shape, classes=10)
    runs = {
        "naive Bayes": NaiveBayes(optimizer=sgd(0.1), **common),
        "RBM": ContrastiveDivergence(hidden=128, optimizer=sgd(0.1, momentum=0.9), **common),
        "AE": Autoencoding(model=AE(**sizes), **auto),
        "VAE": Autoencoding(model=VAE(**sizes), **auto),
        "conditional VAE": Autoencoding(model=ConditionalVAE(**sizes), **auto),
        "GAN": Adversarial(model=GAN(settings.width, shape=shape, classes=10), **common),
        "diffusion": Diffusion(model=denoiser, **common),
    }
    data = {
        kind: BlackAndWhite(settings.examples, kind == "shuffled", whole=settings.whole)
        for kind in KINDS
    }
    return {
        f"{name}, {kind}": replace(runs[name], data=data[kind])
        for name in settings.models
        for kind in KINDS
    }


def _shape(whole):
    return (28, 28, 1) if isinstance(whole, mnist) else (8, 8, 1)


def record(settings, runs):
    """Coherence [seed, time] and measures of samples [measure, seed] of each arm."""
    plans, arrays = arms(settings), {"models": np.array(settings.models), "m": settings.m}
    arrays["passes_a_step"] = settings.batch_size / settings.examples
    judges = [_Judge(settings, seed) for seed in range(settings.seeds)]
    for arm, seeds in runs.items():
        measured = [judge(arm, plans[arm], run) for judge, run in zip(judges, seeds)]
        curves = stacked(seeds, "train/m_coherence")
        whole = {"coherence": curves["train/m_coherence"]}
        if arm.startswith("GAN"):
            names, values = stacked_parts(seeds, "train/by_player_m_coherence")
            whole = {player: values[..., names.index(player)] for player in PLAYERS}
        whole = {name: values.astype(np.float32) for name, values in whole.items()}
        quality = np.array([[seed[name] for seed in measured] for name in MEASURES], np.float32)
        arrays |= under(arm, {"step": curves["step"], "quality": quality, **whole})
        if arm.endswith("real"):
            arrays[f"{arm}/shown"] = measured[0]["shown"]
    real = [judge.itself() for judge in judges]
    quality = [[seed[name] for seed in real] for name in MEASURES]
    return arrays | {"real_quality": np.array(quality, np.float32)}


class _Judge:
    """Of one seed's samples: unseen images, and a classifier of those that no model saw."""

    def __init__(self, settings, seed):
        from coherence.lab.sample_quality import DigitClassifier

        self.settings, self.seed, self.shape = settings, seed, _shape(settings.whole)[:2]
        data, _, left = self._images().parts()
        self.classifier = DigitClassifier.fit(white(data.x_train[left]), data.y_train[left])
        self.real = white(data.x_test)
        self.asked = np.repeat(np.arange(10), settings.drawn)

    def _images(self):
        settings = self.settings
        return BlackAndWhite(settings.examples, seed=self.seed, whole=settings.whole)

    def __call__(self, arm, plan, run):
        data = replace(plan.data, seed=run.seed).build()
        samples = white(drawn(arm.split(",")[0], plan, run, data, self.asked))
        conditional = not arm.startswith(("AE", "VAE"))
        measured = self.qualities(samples, data, self.asked if conditional else None)
        order = np.argsort(np.arange(len(samples)) % self.settings.drawn, kind="stable")
        return {**measured, "shown": samples[order][:20].reshape(-1, *self.shape).astype(bool)}

    def qualities(self, samples, data, asked):
        from coherence.lab.sample_quality import nearest_distances, qualities

        measured = qualities(samples, self.real, data.x_train, self.classifier, asked=asked)
        unseen = nearest_distances(data.x_test, data.x_train).mean()
        novelty = measured["to_training"] / unseen
        return {"recognized": np.nan, **measured, "novelty": novelty}

    def itself(self):
        """What real images get: as many training images as there are samples."""
        data = self._images().build()
        some = slice(len(self.asked))
        return self.qualities(data.x_train[some], data, data.y_train[some])


def drawn(model, plan, run, data, asked):
    """What a finished run draws, one image a label; models without labels draw as many."""
    import jax
    from flax.traverse_util import unflatten_dict

    from coherence.lab.tasks.adversarial import generated
    from coherence.lab.tasks.boltzmann import conditional_draws
    from coherence.lab.training.programs import PROGRAMS
    from coherence.lab.training.trained import samplers

    leaves = run.load("params").items()
    params = unflatten_dict({tuple(name.split("/")): leaf for name, leaf in leaves})
    rng, key = np.random.default_rng([run.seed, 5]), jax.random.key(run.seed)
    if model == "naive Bayes":
        chances = 1 / (1 + np.exp(-params["pixel"][asked]))
        return rng.random(chances.shape) < chances
    if model == "RBM":
        machine = plan.machine(data.x_train.shape[1], 10).build()
        return np.asarray(PROGRAMS.get(conditional_draws, machine, 500)(params, asked, key))
    if model == "diffusion":
        (draw,) = samplers(plan, [run])
        return draw(asked, run.seed)
    network = plan.model.build()
    if model == "GAN":
        return generated(network, params, key, labels=asked)
    z = rng.normal(size=(len(asked), network.latents)).astype(np.float32)
    if model == "AE":  # has no distribution of codes: the normal one of those of training images
        codes = network.apply(params, data.x_train.reshape(-1, *network.shape), method="encode")
        z = codes.mean(0) + z @ np.linalg.cholesky(np.cov(codes.T)).T
    told = (asked,) if model == "conditional VAE" else ()
    return np.asarray(network.apply(params, z, *told, method="decode"))


def curves(recorded, arm):
    """`{part: m-coherence [seed, time]}`: of the loss, of a GAN of each player's."""
    names = PLAYERS if arm.startswith("GAN") else ("coherence",)
    return {name: recorded[f"{arm}/{name}"].astype(float) for name in names}


def in_window(recorded, arm, part):
    """Mean log2 of m-coherence between `WINDOW` passes: [seed]."""
    passes = recorded[f"{arm}/step"] * recorded["passes_a_step"]
    inside = (passes >= WINDOW[0]) & (passes <= WINDOW[1])
    return np.log2(curves(recorded, arm)[part][:, inside]).mean(1)


def measure(recorded, arm, name):
    return recorded[f"{arm}/quality"][MEASURES.index(name)].astype(float)


def judge(recorded):
    models = [str(model) for model in recorded["models"]]
    apart = {}
    for model in models:
        for part in curves(recorded, f"{model}, real"):
            name = model if part == "coherence" else f"{model}, {part}"
            real, other = (in_window(recorded, f"{model}, {kind}", part) for kind in KINDS)
            apart[name] = real - other
    every = [(model, f"{model}, {kind}") for model in models for kind in KINDS]
    coherence = [
        in_window(recorded, arm, PLAYERS[0] if model == "GAN" else "coherence")
        for model, arm in every
    ]
    novelty = [measure(recorded, arm, "novelty") for _, arm in every]
    frechet = np.array([measure(recorded, f"{model}, real", "frechet") for model in models])
    others = (frechet.sum(1, keepdims=True) - frechet) / max(frechet.shape[1] - 1, 1)
    real = np.array([measure(recorded, f"{model}, real", "novelty") for model in models])
    return {
        "real images agree more than shuffled ones": apart,
        "models memorize where coherence is low": rank_correlation(
            np.transpose(coherence), np.transpose(novelty)
        ),
        "the best samples are no copies": real[others.argmin(0), np.arange(frechet.shape[1])],
    }


def at_pass(recorded, arm, part, passes):
    """m-coherence [seed] at the measurement nearest to so many passes."""
    steps = recorded[f"{arm}/step"] * recorded["passes_a_step"]
    return curves(recorded, arm)[part][:, np.abs(steps - passes).argmin()]


def table(recorded):
    quality, agreement = [], []
    for model in map(str, recorded["models"]):
        of = {name: measure(recorded, f"{model}, real", name) for name in MEASURES}
        shuffled = measure(recorded, f"{model}, shuffled", "novelty")
        asked = of["recognized"] if np.isfinite(of["recognized"]).all() else "takes no label"
        quality.append(
            {
                "model": model,
                "Frechet": of["frechet"],
                "coverage": of["coverage"],
                "density": of["density"],
                "entropy": of["label_entropy"],
                "as asked": asked,
                "novelty": of["novelty"],
                "shuffled": shuffled,
            }
        )
        for part in curves(recorded, f"{model}, real"):
            row = {"gradients of": model if part == "coherence" else part}
            for kind in KINDS:
                for passes in (1, 10, 100):
                    heading = f"{kind}, {passes}"
                    row[heading] = at_pass(recorded, f"{model}, {kind}", part, passes)
            agreement.append(row)
    real = dict(zip(MEASURES, recorded["real_quality"].astype(float)))
    note = (
        f"real images: Frechet {real['frechet'].mean():.3g}, coverage {real['coverage'].mean():.2f}"
        ", density "
        f"{real['density'].mean():.2f}; entropy of labels, at most 2.30 nats;\nnovelty: distance "
        "to the nearest training image over that of unseen images, on real and on shuffled ones"
    )
    passes = f"m-coherence, m = {recorded['m']}, after so many passes"
    return f"{tabulate(quality, note)}\n\n{tabulate(agreement, passes)}"

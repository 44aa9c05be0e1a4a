"""A VAE told the digit draws the one it is asked for about four times in five, and says less of it
in its code than one not told.

Dense VAEs learn grey digits as chances of white pixels, so that minus the bound (ELBO) is in nats
an image: it bounds the mean cost of images whose pixels are drawn with these chances. One is told
the label as well. Beta, the weight of KL, is swept over two decades (the objective is KL plus
reconstruction / beta). At the end of training, on the test images: the bound, also the
importance-weighted one of images drawn black and white; rate against distortion; how far prior
samples and ways from digit to digit are from the nearest training image; what a code says of the
label; coherence of encoder and decoder. A VAE of two latents is there to be looked at.
"""

import zlib
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from coherence.lab.analysis import given, tabulate, too_low
from coherence.lab.experiment import all_arms
from coherence.lab.report.tables import plus_minus
from coherence.lab.sample_quality import nearest_distances
from coherence.lab.settings import VAE, ConditionalVAE, adam, digits, mnist
from coherence.lab.training.autoencoding import Autoencoding

KINDS = ("beta=1", "conditional")  # alike but for the label
PARTS = ("encoder", "decoder")
RECOGNIZES = 0.95  # test accuracy of a classifier whose word counts
FITTED = 2 / 3  # of the nats that independent pixels cost
ALONG = np.linspace(0, 1, 9)  # from one digit to another
ACTIVE = 0.01  # variance of a latent's mean over images above which it is in use
ROWS, SIDE, FRAMES, SHOWN, LEVELS = 8, 12, 40, 1200, 16  # of the pictures


class Unmeasured(Autoencoding):
    """An autoencoder of which nothing is measured on the way.

    That would take as long as training: what there is to know is asked of the trained network.
    """

    def schedule(self):
        return ()


@dataclass(frozen=True)
class Settings:
    run: Unmeasured = Unmeasured(
        data=mnist(examples=10_000),
        data_by_seed=False,  # what is generated is compared with them
        error="cross_entropy",
        optimizer=adam(2e-3),
        batch_size=50,
        steps=2000,
        probes=(),
        track_batches=False,
    )
    width: int = 256
    latents: int = 10
    betas: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0)
    """Weights of KL, 1 among them."""
    samples: int = 200
    """Of the prior; of a network told the label, of all digits together; reconstructions.

    And half as many ways from digit to digit.
    """
    draws: int = 50
    """Of the code, for the importance-weighted bound."""
    bounded: int = 500
    """Test images of which that is asked."""
    seeds: int = 8


RUN = Settings.run
_SMALL = replace(RUN, data=digits(), steps=100)
_LARGE = replace(RUN, data=mnist(), optimizer=adam(1e-3), batch_size=100, steps=30_000)
PRESETS = {
    "smoke": Settings(_SMALL, 16, 4, (0.1, 1.0), samples=20, draws=5, bounded=50, seeds=2),
    "cpu": Settings(),
    "paper": Settings(_LARGE, width=512, samples=1000, bounded=10_000),
}
scale = all_arms

# What was fixed when: every statistic and threshold before any run on MNIST. Then one run (seed
# 900; 1,200 steps of 100 images, step size 0.001) was seen whole, and 62 % of its conditional
# samples were recognized: too short. Longer and faster training was tried with seed 901 and the
# network told the label alone (82 to 86 % recognized); number, size and batch of the steps are from
# there. No statistic and no threshold was moved.


def arms(settings):
    """That with beta 1 first, which verdicts name.

    The network told the label and that of two latents have beta 1, too.
    """
    run, width = settings.run, settings.width
    shape = (28, 28, 1) if isinstance(run.data, mnist) else (8, 8, 1)
    options = {"shape": shape, "sigmoid": True}
    vae = VAE(width, latents=settings.latents, **options)
    told = ConditionalVAE(width, latents=settings.latents, **options)
    swept = sorted(settings.betas, key=lambda beta: abs(np.log(beta)))
    return {
        **{f"beta={beta:g}": replace(run, model=vae, factor=1 / beta) for beta in swept},
        "conditional": replace(run, model=told),
        "plane": replace(run, model=VAE(width, latents=2, **options)),
    }


def record(settings, runs):
    """Every array [seed, ...], betas or kinds next; of seed 0 the pictures, packed."""
    from flax.traverse_util import unflatten_dict
    from sklearn.svm import SVC

    data, plans = settings.run.data.build(), arms(settings)
    networks = {
        arm: _Network(plans[arm].model.build(), settings.draws) for arm in (*KINDS, "plane")
    }
    classifier = SVC(C=5).fit(data.x_train[:10_000], data.y_train[:10_000])

    def parameters(run):
        leaves = run.load("params").items()
        return unflatten_dict({tuple(name.split("/")): leaf for name, leaf in leaves})

    trained = [
        {arm: parameters(seeds[seed]) for arm, seeds in runs.items()}
        for seed in range(settings.seeds)
    ]
    measured = [
        _measured(settings, seed, networks, params, data, classifier)
        for seed, params in enumerate(trained)
    ]
    return {
        **{name: np.array([seed[name] for seed in measured], np.float32) for name in measured[0]},
        "betas": np.array(settings.betas),
        "draws": np.array(settings.draws),
        "recognizer": classifier.score(data.x_test[:2000], data.y_test[:2000]),
        "independent": independent_pixels(data.x_train, data.x_test),
        **_pictures(settings, networks, trained[0], data),
    }


class _Network:
    """What networks of one architecture are asked, compiled once."""

    def __init__(self, model, draws):
        import jax

        import coherence as co
        from coherence.lab.tasks.autoencoding import elbo_terms, evaluate
        from coherence.trees import layer

        terms = elbo_terms(model, error="cross_entropy")
        part = lambda path: layer(path).split("/")[0]

        def coherence(params, factor, examples):
            def loss(params, example):
                reconstruction, kl, _ = terms(params, example)
                return factor * reconstruction + kl

            _, gradients = co.per_example_value_and_grad(loss)(params, examples)
            by_part = co.m_coherence(gradients, by=part)
            return [by_part[name] for name in PARTS]

        def all_terms(params, examples):
            return jax.lax.map(lambda example: terms(params, example), examples, batch_size=500)

        self.told, self.side = hasattr(model, "classes"), model.shape[:2]
        self.encode, self.decode = (
            jax.jit(lambda *x, how=how: model.apply(*x, method=how)) for how in ("encode", "decode")
        )
        self.terms, self.coherence = jax.jit(all_terms), jax.jit(coherence)
        self.bounds = jax.jit(evaluate(bounds(model, draws), batch_size=50))

    def codes(self, params, x, y):
        """Their means."""
        return np.asarray(self.encode(params, x, *([y] if self.told else []))[0])

    def images(self, params, z, *labels):
        return np.asarray(self.decode(params, np.asarray(z, np.float32), *labels))[..., 0]

    def examples(self, seed, x, y, *more):
        """Images, what belongs to them, labels where it is told them, and keys."""
        import jax

        keys = jax.random.split(jax.random.key(seed), len(x))
        return x, *more, *([y] if self.told else []), keys


def bounds(model, draws):
    """`(params, (x, white, *labels, key)) -> (ELBO, importance-weighted bound)` of one image.

    Its pixels are `white` or black. The code's distribution is read off the grey image x: the
    bounds hold for any.
    """
    import jax
    import jax.numpy as jnp

    def both(params, example):
        x, white, *labels, key = example
        mu, log_var = model.apply(params, x, *labels, method="encode")
        noise = jax.random.normal(key, (draws, len(mu)))
        z = mu + noise * jnp.exp(log_var / 2)
        told = (jnp.broadcast_to(y, draws) for y in labels)
        logits = model.apply(params, z, *told, method="logits").reshape(draws, -1)
        log_p = jnp.sum(jax.nn.log_sigmoid(jnp.where(white.ravel(), logits, -logits)), -1)
        weights = log_p + jnp.sum(noise**2 + log_var - z**2, -1) / 2  # log p(x, z) - log q(z | x)
        return jnp.mean(weights), jax.nn.logsumexp(weights) - jnp.log(draws)

    return both


def _measured(settings, seed, networks, trained, data, classifier):
    """What one seed's networks are asked."""
    rng, few = np.random.default_rng([seed, 1]), slice(settings.bounded)
    x, y, vae = data.x_test, data.y_test, networks[KINDS[0]]
    white = rng.random(x[few].shape) < x[few]
    kinds, betas = [], []
    for network, params in [(networks[kind], trained[kind]) for kind in KINDS]:
        elbo = -np.array(network.terms(params, network.examples(seed, x, y)).total)
        bound = network.bounds(params, network.examples(seed, x[few], y[few], white))
        codes = network.codes(params, data.x_train, data.y_train)
        kinds.append((elbo, bound, _read_off(codes, network.codes(params, x, y), data)))
    elbos, bound, code_accuracy = zip(*kinds)
    for beta in settings.betas:
        params = trained[f"beta={beta:g}"]
        terms, codes = vae.terms(params, vae.examples(seed, x, y)), vae.codes(params, x, y)
        priors = rng.normal(size=(settings.samples, settings.latents))
        drawn = [vae.images(params, z) for z in (priors, codes[: settings.samples])]
        sample = vae.examples(seed, data.x_train[:500], None)
        betas.append(
            {
                "test_kl": terms.kl.mean(),
                "test_reconstruction": terms.reconstruction.mean(),
                "active": (codes.var(0) > ACTIVE).sum(),
                "far": [nearest_distances(images, data.x_train).mean() for images in drawn],
                "m_coherence": vae.coherence(params, 1 / beta, sample),
            }
        )
    asked = np.repeat(np.arange(10), settings.samples // 10)
    z = rng.normal(size=(len(asked), settings.latents))
    samples = networks["conditional"].images(trained["conditional"], z, asked)
    right = classifier.predict(samples.reshape(len(asked), -1)) == asked
    pairs = rng.permutation(len(x) // 2 * 2).reshape(2, -1)
    return {
        "bounds": bound,
        "code_accuracy": code_accuracy,
        **{name: [values[name] for values in betas] for name in betas[0]},
        "elbo": np.mean(elbos, 1),
        # Over test images; the last is the gain's.
        "elbo_error": np.std([*elbos, elbos[1] - elbos[0]], 1) / np.sqrt(len(x)),
        "recognized": right.reshape(10, -1).mean(1),
        "between": _between(vae, trained[KINDS[0]], data, pairs, settings.samples // 2),
    }


def _read_off(train, test, data):
    """How often the nearest codes of training images have a test image's label."""
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(10).fit(train, data.y_train).score(test[:2000], data.y_test[:2000])


def _between(network, params, data, pairs, many):
    """Distance to the nearest training image on ways between two digits: [way, place].

    The ways are decoded codes and mixed reconstructions.
    """
    a, b = pairs[:, data.y_test[pairs[0]] != data.y_test[pairs[1]]][:, :many]
    codes = network.codes(params, data.x_test, data.y_test)
    ends = [network.images(params, codes[i]) for i in (a, b)]
    ways = network.images(params, mixtures(codes[a], codes[b])), mixtures(*ends)
    return [
        nearest_distances(images, data.x_train).reshape(len(ALONG), -1).mean(1) for images in ways
    ]


def mixtures(a, b):
    """From a to b, [places * m, ...]."""
    share = ALONG.reshape(-1, *[1] * np.ndim(a))
    return ((1 - share) * a + share * b).reshape(-1, *np.shape(a)[1:])


def independent_pixels(x_train, x_test):
    """Nats that an image costs where each pixel is white by its own mean alone."""
    p = np.clip(x_train.mean(0), 1e-3, 1 - 1e-3)
    return -(x_test * np.log(p) + (1 - x_test) * np.log(1 - p)).sum(1).mean()


def _pictures(settings, networks, params, data):
    """Of one seed, at 16 grey levels: samples, ways between digits, the plane, and a walk."""
    from scipy.stats import norm

    rng, side, latents = np.random.default_rng(0), networks["plane"].side, settings.latents

    def draw(arm, z, *labels):
        return networks.get(arm, networks[KINDS[0]]).images(params[arm], z, *labels)

    def told(z):
        labels = np.tile(np.arange(10), len(z))
        return draw("conditional", np.repeat(z, 10, 0), labels).reshape(-1, 10, *side)

    codes = networks[KINDS[0]].codes(params[KINDS[0]], data.x_test, None)
    grid = norm.ppf((np.arange(SIDE) + 0.5) / SIDE)
    plane = np.stack(np.meshgrid(grid, -grid), -1).reshape(-1, 2)
    turn = 2 * np.pi * np.arange(FRAMES)[:, None] / FRAMES
    u, v = np.linalg.qr(rng.normal(size=(latents, 2)))[0].T
    circle = np.sqrt(latents) * (np.cos(turn) * u + np.sin(turn) * v)  # as far out as most draws
    extremes = [min(settings.betas), 1, max(settings.betas)]
    pictures = {
        "told": told(rng.normal(size=(ROWS, latents))),
        "priors": np.stack(
            [draw(f"beta={beta:g}", rng.normal(size=(10, latents))) for beta in extremes]
        ),
        "ways": draw(KINDS[0], mixtures(codes[:4:2], codes[1:4:2])).reshape(len(ALONG), 2, *side),
        "plane": draw("plane", plane).reshape(SIDE, SIDE, *side),
        "walk": told(circle),
    }
    places = networks["plane"].codes(params["plane"], data.x_test, None)[:SHOWN]
    shown = {"codes": places.astype(np.float16), "labels": data.y_test[:SHOWN].astype(np.uint8)}
    for name, images in pictures.items():
        shown |= packed(name, images)
    return shown


def packed(name, images):
    """Images in 16 grey levels, enough for the eye, as few bytes.

    Of each the change from the one before, as uint8 that wraps around.
    """
    steps = (np.round(images * (LEVELS - 1)) * (255 // (LEVELS - 1))).astype(np.uint8)
    changes = np.diff(steps, axis=0, prepend=np.zeros_like(steps[:1]))
    return {
        name: np.frombuffer(zlib.compress(changes.tobytes(), 9), np.uint8),
        f"{name}_shape": np.array(images.shape),
    }


def judge(recorded):
    betas = recorded["betas"]
    order, unit = np.argsort(betas), np.flatnonzero(betas == 1)[0]
    told_minus_not = lambda values: np.diff(values, axis=1)[:, 0]
    worst, limit = -recorded["elbo"].min(), FITTED * recorded["independent"]
    unfitted = f"a network did not learn: {worst:.0f} nats, {limit:.0f} asked for"
    unfitted = None if worst < limit else unfitted
    blind = too_low(recorded["recognizer"], RECOGNIZES, "the classifier is right on")
    between = recorded["between"][:, :, len(ALONG) // 2]
    tested = {
        "the label improves the bound": told_minus_not(recorded["elbo"]),
        "the label tells at most ln 10": told_minus_not(recorded["bounds"][..., 1]) - np.log(10),
        "told the label, codes say less of it": -told_minus_not(recorded["code_accuracy"]),
        "latent ways stay near digits": between[:, 1] - between[:, 0],
    }
    if len(betas) > 1:
        kl, error = recorded["test_kl"][:, order], recorded["test_reconstruction"][:, order]
        elbo, far = -(kl + error), -np.diff(recorded["far"], axis=2)[..., 0]
        steps = [f"beta {a:g} to {b:g}" for a, b in pairwise(betas[order])]
        best = elbo[:, order == unit][:, 0]
        tested |= {
            "KL falls with beta": dict(zip(steps, -np.diff(np.log2(kl)).T)),
            "reconstruction suffers with beta": dict(zip(steps, np.diff(error).T)),
            "beta 1 has the best bound": {
                f"beta {betas[k]:g}": best - bound for k, bound in zip(order, elbo.T) if k != unit
            },
            "small beta leaves holes": far[:, order[0]] - far[:, unit],
        }
    drawn = recorded["recognized"].mean(1), unfitted or blind
    return {"the digit asked for is drawn": drawn, **given(unfitted, tested)}


def table(recorded):
    kl, error, far = (recorded[name] for name in ("test_kl", "test_reconstruction", "far"))
    swept = [
        {
            "beta": f"{beta:g}",
            "KL": kl[:, i],
            "reconstruction": error[:, i],
            "ELBO": -(kl + error)[:, i],
            "latents in use": recorded["active"][:, i],
            "priors": far[:, i, 0],
            "reconstructions": far[:, i, 1],
            **{part: recorded["m_coherence"][:, i, k] for k, part in enumerate(PARTS)},
        }
        for i, beta in enumerate(recorded["betas"])
    ]
    kinds = [
        {
            "beta 1": kind,
            "ELBO": recorded["elbo"][:, i],
            "black and white": recorded["bounds"][:, i, 0],
            f"{recorded['draws']} draws": recorded["bounds"][:, i, 1],
            "label read off codes": recorded["code_accuracy"][:, i],
        }
        for i, kind in enumerate(("not told", "told the label"))
    ]
    note = (
        "test images, nats an image; priors, reconstructions: distance of these images to the "
        "nearest training image;\nencoder, decoder: m-coherence, m = 500. Samples of a given digit "
        f"recognized: {plus_minus(recorded['recognized'].mean(1))}\n(real test images: "
        f"{recorded['recognizer']:.3f})"
    )
    return f"{tabulate(swept)}\n\n{tabulate(kinds, note)}"

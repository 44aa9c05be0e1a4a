"""Nine ways to two dimensions on the same digits: what keeps neighbourhoods, what tells classes
apart, what is stable, and what it costs.

PCA, LDA, a random projection, Isomap, locally linear embedding, t-SNE and, where it is installed,
UMAP are scikit-learn's and umap-learn's; the autoencoder and the variational autoencoder are ours.
Beside them: how many components hold the variance, an autoencoder against PCA with ten numbers
each, an autoencoder that removes noise, and a table of ten features of user behaviour, made from
two factors and three kinds of users. What per-example gradients look like in two dimensions is
another experiment, `gradient_map`.
"""

import importlib.util
import time
from dataclasses import dataclass, replace

import numpy as np

from coherence.lab.analysis import computed, single, tabulate
from coherence.lab.claims import Ratio
from coherence.lab.experiment import all_arms
from coherence.lab.settings import AE, VAE, adam, digits, mnist
from coherence.lab.training.autoencoding import Autoencoding

METHODS = ("PCA", "LDA", "random", "Isomap", "LLE", "t-SNE", "UMAP", "AE", "VAE")
SCORES = ("trustworthiness", "continuity", "accuracy", "stability", "seconds")
NEIGHBOURS, VOTES = 10, 5
PAIRS = (
    ("t-SNE", "Isomap"),
    ("t-SNE", "LLE"),
    ("Isomap", "PCA"),
    ("LLE", "PCA"),
    ("PCA", "random"),
)
CODE = 10  # numbers of the autoencoder that is compared with PCA
SHARE = 0.85  # of the variance
NOISE = 0.4  # sd of the noise on pixels in [0, 1]
COPIES = 5  # noisy ones of each training image


@dataclass(frozen=True)
class Images(Autoencoding):
    """An autoencoder of digits, others with every seed."""

    data: digits | mnist = digits(examples=1000)
    model: AE | VAE = AE(width=128, latents=2, shape=(8, 8, 1))
    optimizer: adam = adam(1e-3)
    batch_size: int = 100
    steps: int = 1500
    probes: tuple = ()
    track_batches: bool = False

    def labelled(self, seed):
        """The images of a seed, flat, and their labels."""
        problem = self.build(seed)
        whole = replace(self.data, examples=None).build()
        images = np.asarray(problem.data["train"][0])
        return images.reshape(len(images), -1), whole.y_train[problem.drawn["examples"]]

    def trained(self, seed, start=None, train=None, loss=None):
        """The network's parameters at the end.

        `start`: a seed of another initialization and order of batches; `train` and `loss`: other
        examples and another loss of one of them.
        """
        from coherence.lab.training.step import snapshots

        problem = self.build(seed)
        if start is not None:
            problem = replace(problem, params=self.build(start).params)
        if train is not None:
            problem = replace(problem, data={"train": train}, loss=loss)
        order = seed if start is None else start
        ((_, params),) = snapshots(problem, order, (self.steps,), self.batch_size)
        return params


@dataclass(frozen=True)
class Gallery:
    """All methods on the digits that the autoencoders are trained on."""

    run: Images

    def describe(self):
        return self.run.describe()

    def compute(self, seed):
        x, y = self.run.labelled(seed)
        places, scores = [], []
        for name in METHODS:
            first = self._reduced(name, x, y, seed, seed)
            if first is None:
                places.append(np.full((len(x), 2), np.nan))
                scores.append([np.nan] * len(SCORES))
                continue
            begun = time.process_time()  # imports and compilation are nobody's time
            again = self._reduced(name, x, y, seed, seed + 1_000_000)
            seconds = time.process_time() - begun
            places.append(first)
            scores.append([*judged(x, y, first), shared(first, again), seconds])
        return {
            "places": np.array(places, np.float32),
            "labels": y.astype(np.int8),
            "scores": np.array(scores),
            "held_out": np.array(held_out(x, y)),
            "variance": np.cumsum(_variances(x)),
        }

    def _reduced(self, name, x, y, seed, start):
        """Two numbers an image, [n, 2]; `None` where the method is not installed."""
        if name not in ("AE", "VAE"):
            method = methods(start)[name]
            if method is None:
                return None
            labels = y if name == "LDA" else None  # UMAP would take them, too
            return np.asarray(method().fit_transform(x, labels))
        kind = {"AE": AE, "VAE": VAE}[name]
        model = kind(width=self.run.model.width, latents=2, shape=self.run.model.shape)
        params = replace(self.run, model=model).trained(seed, start)
        codes = model.build().apply(params, x, method="encode")
        return np.asarray(codes if name == "AE" else codes[0])


@dataclass(frozen=True)
class Codes:
    """Ten numbers an image, by an autoencoder and by PCA."""

    run: Images

    def describe(self):
        return self.run.describe()

    def compute(self, seed):
        from sklearn.decomposition import PCA
        from sklearn.linear_model import LogisticRegression

        (x, y), whole = self.run.labelled(seed), self.run.data.build()
        unseen, labels = whole.x_test.reshape(len(whole.x_test), -1)[:2000], whole.y_test[:2000]
        model, params = self.run.model.build(), self.run.trained(seed)
        pca = PCA(self.run.model.latents, random_state=seed).fit(x)
        encode = lambda images: np.asarray(model.apply(params, images, method="encode"))
        drawn = np.asarray(model.apply(params, unseen)).reshape(unseen.shape)
        seen = {"PCA": pca.transform(x), "AE": encode(x), "pixels": x}
        tested = {"PCA": pca.transform(unseen), "AE": encode(unseen), "pixels": unseen}
        scores = []
        for name, codes in seen.items():
            center, spread = codes.mean(0), codes.std() if name == "pixels" else codes.std(0)
            fitted = LogisticRegression(max_iter=300).fit((codes - center) / spread, y)
            scores.append(fitted.score((tested[name] - center) / spread, labels))
        errors = [
            np.square(unseen - images).sum(1).mean()
            for images in (pca.inverse_transform(tested["PCA"]), drawn)
        ]
        return {"errors": np.array(errors), "scores": np.array(scores)}


@dataclass(frozen=True)
class Denoising:
    """An autoencoder that is shown noisy images and asked for clean ones."""

    run: Images

    def describe(self):
        return self.run.describe()

    def compute(self, seed):
        import jax.numpy as jnp
        from sklearn.decomposition import PCA

        rng = np.random.default_rng([seed, 0xDE])
        x, _ = self.run.labelled(seed)
        unseen = self.run.data.build().x_test.reshape(-1, x.shape[1])
        noisy = lambda images: images + rng.normal(0, NOISE, images.shape).astype(np.float32)
        clean = np.tile(x, (COPIES, 1))
        model = self.run.model.build()

        def loss(params, example):
            given, wanted = example
            return jnp.sum((model.apply(params, given).ravel() - wanted) ** 2)

        params = self.run.trained(seed, train=(noisy(clean), clean), loss=loss)
        given = noisy(unseen)
        error = lambda images: np.square(images.reshape(unseen.shape) - unseen).sum(1).mean()
        pca = PCA(random_state=seed).fit(x)
        centred = (given - pca.mean_) @ pca.components_.T
        by_pca = []
        for k in range(1, x.shape[1] + 1):
            by_pca.append(error(centred[:, :k] @ pca.components_[:k] + pca.mean_))
        denoised = np.asarray(model.apply(params, given))
        shown = np.stack([unseen[:8], given[:8], denoised.reshape(unseen.shape)[:8]])
        return {
            "errors": np.array([error(given), min(by_pca), error(denoised)]),
            "components": np.argmin(by_pca) + 1.0,
            "shown": shown.astype(np.float16),
        }


@dataclass(frozen=True)
class Customers:
    """Ten features of user behaviour, made from two factors and three kinds of users."""

    users: int = 300

    def describe(self):
        return f"{self.users} made-up users of a shop, ten features"

    def compute(self, seed):
        from sklearn.cluster import KMeans
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE
        from sklearn.metrics import adjusted_rand_score

        features, kind = customers(self.users, seed)
        plane = PCA(2).fit(features)
        places = plane.transform(features)
        guessed = KMeans(3, n_init=10, random_state=seed).fit_predict(places)
        map_ = TSNE(2, init="pca", random_state=seed).fit_transform(features)
        return {
            "explained": plane.explained_variance_ratio_,
            "rand": adjusted_rand_score(kind, guessed),
            "same": np.mean(kind[nearest(map_)] == kind[:, None]),
            "places": np.stack([places, map_]).astype(np.float32),
            "kind": kind.astype(np.int8),
        }


@dataclass(frozen=True)
class Settings:
    run: Images = Images()
    mnist: Images = Images(
        data=mnist(examples=5000),
        model=AE(width=256, depth=1, latents=CODE, shape=(28, 28, 1)),
        steps=1200,
    )
    denoising: Images = Images(model=AE(width=128, latents=16, shape=(8, 8, 1)))
    seeds: int = 8


_SMALL = Images(data=digits(examples=120), model=AE(width=8, latents=2, shape=(8, 8, 1)), steps=20)
PRESETS = {
    "smoke": Settings(
        replace(_SMALL, batch_size=20),
        replace(
            _SMALL,
            data=mnist(examples=200),
            model=AE(width=8, depth=1, latents=CODE, shape=(28, 28, 1)),
        ),
        replace(_SMALL, batch_size=20),
        seeds=2,
    ),
    "cpu": Settings(),
}
scale = all_arms

# What was fixed when: every statistic and threshold before any run of this file. Trial numbers had
# been seen, of single runs of another program: accuracy of five neighbours and trustworthiness of
# two dimensions, PCA 0.63 and 0.83, LDA 0.64 and 0.80 (0.63 held out), Isomap 0.80 and 0.87, LLE
# 0.82 and 0.87, t-SNE 0.98 and 0.99, random 0.30 and 0.65; sixteen components for 85 %; errors of
# ten numbers 17.0 (autoencoder) and 27.1 (PCA), accuracies 0.893 and 0.857, of pixels 0.915. The
# autoencoders' steps were halved for time, before there was a result but those of `smoke`. The
# first recording had 5 seeds, for time, though 8 had been asked for beforehand, and no UMAP; seen
# in it: LDA ahead of PCA by 0.03 [-0.02, 0.09], inconclusive; the other eleven claims reproduced.
# With 8 the second fit is timed, not the first, which compiles. Six seeds were run before it was
# seen that UMAP was given the labels (accuracy 0.999); it no longer is. Nothing else was changed.


def methods(seed):
    """scikit-learn's and umap-learn's methods, each made by a call; `None` if not installed."""
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.manifold import TSNE, Isomap, LocallyLinearEmbedding
    from sklearn.random_projection import GaussianRandomProjection

    def umap():
        from umap import UMAP

        return UMAP(n_components=2, random_state=seed, n_jobs=1)  # only so is it reproducible

    return {
        "PCA": lambda: PCA(2, random_state=seed),
        "LDA": lambda: LinearDiscriminantAnalysis(n_components=2),
        "random": lambda: GaussianRandomProjection(2, random_state=seed),
        "Isomap": lambda: Isomap(n_neighbors=NEIGHBOURS),
        "LLE": lambda: LocallyLinearEmbedding(n_neighbors=NEIGHBOURS, random_state=seed),
        "t-SNE": lambda: TSNE(2, init="random", random_state=seed),
        "UMAP": umap if importlib.util.find_spec("umap") else None,
    }


def nearest(places, count=NEIGHBOURS):
    """The indices of each place's nearest others, [n, count]."""
    squares = np.square(places).sum(1)
    distances = squares[:, None] + squares - 2 * places @ places.T
    np.fill_diagonal(distances, np.inf)
    return np.argsort(distances, 1)[:, :count]


def judged(x, y, places):
    """Trustworthiness, continuity and the accuracy of the nearest neighbours' vote.

    Continuity is trustworthiness with the two spaces exchanged: who was near is not far now.
    """
    from sklearn.manifold import trustworthiness

    near = y[nearest(places, VOTES)]
    votes = np.stack([(near == label).sum(1) for label in range(y.max() + 1)], 1)
    keeps = [trustworthiness(*pair, n_neighbors=NEIGHBOURS) for pair in ((x, places), (places, x))]
    return [*keeps, np.mean(votes.argmax(1) == y)]


def shared(first, again):
    """The share of nearest neighbours that two fits have in common."""
    both = [np.isin(a, b).mean() for a, b in zip(nearest(first), nearest(again))]
    return np.mean(both)


def held_out(x, y):
    """Accuracies of the neighbours' vote on one half, in the plane of the other: LDA, PCA."""
    from sklearn.neighbors import KNeighborsClassifier

    half = len(x) // 2
    accuracies = []
    for name in ("LDA", "PCA"):
        plane = methods(0)[name]().fit(x[:half], y[:half])
        voters = KNeighborsClassifier(VOTES).fit(plane.transform(x[:half]), y[:half])
        accuracies.append(voters.score(plane.transform(x[half:]), y[half:]))
    return accuracies


def _variances(x):
    """Shares of the variance by principal component, the largest first."""
    squares = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2
    return squares / squares.sum()


def customers(users, seed):
    """Features [users, 10] of unit variance, and which of three kinds a user is.

    Bargain hunters, browsers and buyers differ in two factors, how much they look around and how
    much they spend; five features show each, with noise that leaves two components 85 % of the
    variance.
    """
    rng = np.random.default_rng([seed, 0x5409])
    kind = np.arange(users) % 3
    centres = np.array([[2.0, -1.0], [0.0, 2.0], [-2.0, -1.0]])
    factors = centres[kind] + rng.normal(0, 0.5, (users, 2))
    loadings = np.kron(np.eye(2), np.ones(5)) * rng.uniform(0.7, 1.3, (2, 10))
    signal = factors @ loadings
    # (S + 2 N / 10) / (S + N) is the share of the variance for S of signal and N of noise.
    noise = signal.var(0).sum() * (1 - SHARE) / (SHARE - 0.2)
    features = signal + rng.normal(0, np.sqrt(noise / 10), signal.shape)
    return features, kind


def arms(settings):
    return {
        "gallery": Gallery(settings.run),
        "codes": Codes(settings.mnist),
        "denoising": Denoising(settings.denoising),
        "customers": Customers(),
    }


def record(settings, runs):
    """Scores as [seed, method, score]; places and pictures of the first seed."""
    first = runs["gallery"][0].load("computed")
    places = first["places"] - first["places"].mean(1, keepdims=True)
    places = places / np.abs(places).max((1, 2), keepdims=True)
    users = runs["customers"][0].load("computed")
    arrays = {
        **computed(runs["gallery"], "scores", "held_out", "variance"),
        **{f"codes/{name}": x for name, x in computed(runs["codes"]).items()},
        **{
            f"denoising/{name}": x
            for name, x in computed(runs["denoising"], "errors", "components").items()
        },
        **computed(runs["customers"], "explained", "rand", "same"),
    }
    return {
        **single(arrays),
        "places": np.nan_to_num(places).astype(np.float16),
        "labels": first["labels"],
        "shown": runs["denoising"][0].load("computed")["shown"],
        "users": users["places"].astype(np.float16),
        "kind": users["kind"],
    }


def judge(recorded):
    score = lambda method, name: recorded["scores"][:, METHODS.index(method), SCORES.index(name)]
    order = lambda name: {f"{a}, {b}": score(a, name) - score(b, name) for a, b in PAIRS}
    errors, noisy = recorded["codes/errors"], recorded["denoising/errors"]
    pca, ae, _ = recorded["codes/scores"].T
    return {
        "neighbourhoods are kept in this order": order("trustworthiness"),
        "classes are found in this order": order("accuracy"),
        "what is far stays far": score("t-SNE", "continuity") - score("PCA", "continuity"),
        "LDA uses the labels": np.subtract(*recorded["held_out"].T),
        "PCA is fast": np.log10(score("t-SNE", "seconds") / score("PCA", "seconds")),
        "sixteen components": (recorded["variance"] < SHARE).sum(1) + 1.0,
        "t-SNE depends on its start": score("PCA", "stability") - score("t-SNE", "stability"),
        "an autoencoder reconstructs better than PCA": Ratio(*errors.T),
        "its codes say more of the class": ae - pca,
        "a denoising autoencoder removes noise": {
            name: Ratio(noisy[:, i], noisy[:, 2]) for i, name in enumerate(("input", "PCA"))
        },
        "two components show the customers": recorded["rand"],
        "t-SNE shows the customers, too": recorded["same"],
    }


def table(recorded):
    rows = []
    for i, name in enumerate(METHODS):
        if np.isfinite(recorded["scores"][:, i]).all():
            rows.append({"method": name, **dict(zip(SCORES, recorded["scores"][:, i].T))})
    note = f"{NEIGHBOURS} neighbours, {VOTES} for the accuracy; stability: shared by two fits"
    codes = [
        {"ten numbers": name, "squared error": error, "accuracy": score}
        for name, error, score in zip(
            ("PCA", "AE"), recorded["codes/errors"].T, recorded["codes/scores"].T
        )
    ]
    names = ("noisy", "PCA", "denoised")
    noise = [dict(zip(names, recorded["denoising/errors"].T))]
    return "\n\n".join([tabulate(rows, note), tabulate(codes), tabulate(noise)])

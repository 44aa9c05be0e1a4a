r"""Measures of generated samples: quality, diversity, memorization, and what each costs in bias.

Pure functions of numpy arrays [n, ...]; `qualities` asks them all. Features and labels come from a
small classifier, `DigitClassifier.fit`: fit it on real images that the generator does *not* see, or
it takes the generator's own training images for the measure of all things.

**Small samples.** A Frechet distance of two samples of n from *one* distribution is not 0 but about
:math:`d (d + 5) / 2n` in d whitened features: it falls with 1 / n, so distances are compared at
equal n alone, and never without their floor (`frechet_floor`: two halves of the real data). What
coverage a perfect generator gets is known exactly (`perfect_coverage`); density's expectation is 1.
The entropy of labels is too small by about (classes - 1) / 2n nats.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DigitClassifier:
    """A dense network with ReLU and a softmax, as plain arrays: features and labels of images.

    A loss of one's own reads `weights` ([inputs, outputs] each) and `biases` the same way: `h =
    relu(h @ w + b)`, the last layer without ReLU.
    """

    weights: tuple[NDArray, ...]
    biases: tuple[NDArray, ...]

    @classmethod
    def fit(
        cls,
        images: ArrayLike,
        labels: ArrayLike,
        hidden: tuple[int, ...] = (128, 32),
        seed: int = 0,
    ) -> DigitClassifier:
        """The classifier of these images [n, ...], pixels of about unit size, labels 0, 1, ...

        Trained by scikit-learn's `MLPClassifier` (Adam, weight decay) on some 100,000 images in
        all, on one thread: a second for 8 x 8 pixels, two for 28 x 28. Of unseen digits about
        96 % are right.

        Raises:
            ValueError: labels that are not 0, 1, ..., each of them present.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier
        from threadpoolctl import threadpool_limits

        x, y = _flat("images", images), np.asarray(labels)
        if not np.array_equal(np.unique(y), np.arange(y.max() + 1)):
            raise ValueError(
                f"labels: 0, 1, ... without a gap, got {np.unique(y).tolist()}. Give the "
                "classifier examples of every class."
            )
        network = MLPClassifier(
            hidden,
            alpha=0.1,
            batch_size=min(100, len(x)),
            learning_rate_init=3e-3,
            max_iter=int(np.clip(100_000 // len(x), 5, 60)),
            random_state=seed,
            tol=0,
        )
        # One thread: products this small are slower on several. The length is ours.
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            network.fit(x, y)
        weights, biases = map(list, (network.coefs_, network.intercepts_))
        if y.max() == 1:  # scikit-learn keeps one output for two classes: the second one's
            weights[-1] = np.hstack([np.zeros_like(weights[-1]), weights[-1]])
            biases[-1] = np.append(0, biases[-1])
        return cls(tuple(weights), tuple(biases))

    def features(self, images: ArrayLike) -> NDArray:
        """The last hidden layer, [n, features]."""
        h = _flat("images", images)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1]):
            h = np.maximum(h @ weight + bias, 0)
        return h

    def probabilities(self, images: ArrayLike) -> NDArray:
        """p(label | image), [n, classes]."""
        from scipy.special import softmax

        return softmax(self.features(images) @ self.weights[-1] + self.biases[-1], axis=1)

    def labels(self, images: ArrayLike) -> NDArray:
        """The likeliest label of each image, [n]."""
        return self.probabilities(images).argmax(1)


def qualities(
    samples: ArrayLike,
    real: ArrayLike,
    training: ArrayLike,
    classifier: DigitClassifier,
    *,
    asked: ArrayLike | None = None,
    neighbours: int = 5,
) -> dict[str, float]:
    """Every measure of generated images [n, ...], by name.

    `frechet`, `coverage` and `density` (in the classifier's features), `label_entropy`, `score`;
    `recognized` where samples of given labels were `asked` for; and mean Euclidean distances of
    pixels: `to_real` (fidelity: is every sample near a real image?), `from_real` (coverage: is a
    sample near every real image?) and `to_training` (memorization, if it is *smaller* than that of
    real images that were not trained on).

    Args:
        samples, real, training: generated images; real ones that were not trained on; those the
            generator was trained on.
        neighbours: of coverage and density.

    Raises:
        ValueError: images that are not finite, as of a generator that diverged; of other sizes; too
            few of them.
    """
    drawn, other = classifier.features(samples), classifier.features(real)
    probabilities = classifier.probabilities(samples)
    labels = probabilities.argmax(1)
    measured = {
        "frechet": frechet_distance(drawn, other),
        "coverage": coverage(drawn, other, neighbours),
        "density": density(drawn, other, neighbours),
        "label_entropy": label_entropy(labels),
        "score": inception_score(probabilities),
        "to_real": float(nearest_distances(samples, real).mean()),
        "from_real": float(nearest_distances(real, samples).mean()),
        "to_training": float(nearest_distances(samples, training).mean()),
    }
    if asked is not None:
        measured["recognized"] = recognized_share(labels, asked)
    return measured


def frechet_distance(a: ArrayLike, b: ArrayLike) -> float:
    r"""The Frechet distance of normal distributions with the moments of two samples [n, features].

    .. math:: |\mu_a - \mu_b|^2 + \mathrm{tr}(\Sigma_a + \Sigma_b
              - 2 (\Sigma_a^{1/2} \Sigma_b \Sigma_a^{1/2})^{1/2}) \ge 0

    In squared units of the features: it is Wasserstein's distance *squared*. Two samples of n from
    one normal distribution with d independent features of unit variance are expected at d (d + 5) /
    2n, not at 0. Heusel et al. 2017 (arXiv:1706.08500), there of Inception's features.

    Raises:
        ValueError: other numbers of features, not finite, fewer than two examples.
    """
    a, b = _points("a", a), _points("b", b)
    _check_alike(a, b)
    covariances = [np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b)]
    values, vectors = np.linalg.eigh(covariances[0])
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    shared = np.linalg.eigvalsh(root @ covariances[1] @ root)
    traces = sum(np.trace(covariance) for covariance in covariances)
    distance = np.sum((a.mean(0) - b.mean(0)) ** 2) + traces
    return float(max(distance - 2 * np.sqrt(np.maximum(shared, 0)).sum(), 0.0))


def frechet_floor(real: ArrayLike, *, splits: int = 10, seed: int = 0) -> float:
    """The mean Frechet distance of two random halves of real features [n, features].

    What a generator as good as the data themselves would get with n / 2 samples against n / 2 real
    examples; at other sizes it goes with 1 / n.
    """
    real, rng = _points("real", real, 4), np.random.default_rng(seed)
    half = len(real) // 2
    orders = [rng.permutation(len(real)) for _ in range(splits)]
    halves = [(real[order[:half]], real[order[half : 2 * half]]) for order in orders]
    return float(np.mean([frechet_distance(a, b) for a, b in halves]))


def coverage(samples: ArrayLike, real: ArrayLike, neighbours: int = 5) -> float:
    """The share of real examples with a sample as near as their k-th nearest real neighbour.

    In [0, 1]; a perfect generator gets `perfect_coverage`, one that always draws the same at most
    some k / n. Naeem et al. 2020 (arXiv:2002.09797).
    """
    return float(_in_balls(samples, real, neighbours).any(0).mean())


def density(samples: ArrayLike, real: ArrayLike, neighbours: int = 5) -> float:
    """The mean number, over k, of real examples' balls that a sample lies in.

    The balls reach to the k-th nearest real neighbour. A perfect generator is expected at 1; above
    are samples from where real ones are dense alone, below such as are unlike any. Naeem et al.
    """
    return float(_in_balls(samples, real, neighbours).sum(1).mean() / neighbours)


def perfect_coverage(samples: int, real: int, neighbours: int = 5) -> float:
    """The expected `coverage` by samples of the real distribution itself: exact at every size.

    A real example is missed if its k nearest among the other real ones and the samples are all
    real.
    """
    i = np.arange(neighbours)
    return float(1 - np.prod((real - 1 - i) / (samples + real - 1 - i)))


def recognized_share(labels: ArrayLike, asked: ArrayLike) -> float:
    """The share of samples whose recognized label [n] is the one asked for [n]."""
    labels, asked = np.asarray(labels), np.asarray(asked)
    if labels.shape != asked.shape or not labels.size:
        raise ValueError(
            f"asked: a label for each of the samples, got shapes {labels.shape} and {asked.shape}."
        )
    return float(np.mean(labels == asked))


def label_entropy(labels: ArrayLike) -> float:
    """The entropy (nats) of recognized labels [n]: 0 if all are one class, at most ln of classes.

    Too small by about (classes - 1) / 2n.
    """
    counts = np.unique_counts(np.asarray(labels)).counts
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def inception_score(probabilities: ArrayLike) -> float:
    r"""Sure of each, and diverse: from 1 to the number of classes.

    .. math:: \exp \frac1n \sum_i \mathrm{KL}(p(y | x_i) \,\|\, \tfrac1n \sum_j p(y | x_j))

    Of probabilities [n, classes]. Salimans et al. 2016 (arXiv:1606.03498), there of Inception.
    """
    from scipy.special import rel_entr

    p = np.asarray(probabilities, float)
    return float(np.exp(rel_entr(p, p.mean(0)).sum(1).mean()))


def nearest_distances(points: ArrayLike, among: ArrayLike) -> NDArray:
    """The Euclidean distance of each point [n, ...] to the nearest of others [k, ...]: [n]."""
    from sklearn.metrics import pairwise_distances_argmin_min

    return pairwise_distances_argmin_min(_flat("points", points), _flat("among", among))[1]


def _in_balls(samples, real, neighbours):
    """Whether a sample lies in a real example's ball: bool [samples, real]."""
    from scipy.spatial.distance import cdist

    samples, real = _points("samples", samples, 1), _points("real", real)
    _check_alike(samples, real)
    if not 1 <= neighbours < len(real):
        raise ValueError(
            f"neighbours: from 1 to one less than the {len(real)} real examples, got {neighbours}."
        )
    radii = np.sort(cdist(real, real), axis=1)[:, neighbours]  # the first is itself
    return cdist(samples, real) <= radii


def _points(name: str, points: ArrayLike, least: int = 2) -> Floats:
    array = np.asarray(points, float)
    if array.ndim != 2 or len(array) < least:
        raise ValueError(
            f"{name}: features [n, features] of at least {least} examples, got shape {array.shape}."
        )
    return _finite(name, array)


def _check_alike(a, b):
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"both need the same features, got {a.shape[1]} and {b.shape[1]} an example."
        )


def _flat(name: str, images: ArrayLike) -> NDArray:
    array = np.asarray(images, np.float32)
    return _finite(name, array.reshape(len(array), -1))


def _finite(name, array):
    wrong = ~np.isfinite(array).all(1)
    if wrong.any():
        raise ValueError(
            f"{name}: {wrong.sum():,} of {len(array):,} are not finite numbers. A generator that "
            "diverged has no samples to measure: look where its losses became nan."
        )
    return array

"""Measures of generated samples: what they are by definition, and how biased by few samples."""

import numpy as np
import pytest
import scipy.linalg

from coherence.lab.data import digits
from coherence.lab.sample_quality import (
    DigitClassifier,
    coverage,
    density,
    frechet_distance,
    frechet_floor,
    inception_score,
    label_entropy,
    nearest_distances,
    perfect_coverage,
    qualities,
    recognized_share,
)

RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(60, 3))


@pytest.fixture(scope="module")
def data():
    return digits()


@pytest.fixture(scope="module")
def classifier(data):
    return DigitClassifier.fit(data.x_train[:500], data.y_train[:500], hidden=(64, 16))


def test_frechet_distance_is_what_a_matrix_square_root_says():
    a, b = RNG.normal(size=(50, 4)), RNG.normal(size=(40, 4)) @ RNG.normal(size=(4, 4)) + 1
    first, second = np.cov(a.T), np.cov(b.T)
    mixed = scipy.linalg.sqrtm(first @ second).real
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(first + second - 2 * mixed)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_a_shift_and_of_a_scale_alone():
    assert frechet_distance(REAL, REAL) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(REAL, REAL + np.array([3, 0, 4])) == pytest.approx(25)
    spread = np.trace(np.cov(REAL.T))
    centred = REAL - REAL.mean(0)
    assert frechet_distance(centred, 3 * centred) == pytest.approx(4 * spread)


@pytest.mark.parametrize("d", [1, 6])
def test_two_samples_of_one_distribution_are_apart_by_the_bias_that_is_stated(d):
    n = 200
    pairs = [RNG.normal(size=(2, n, d)) for _ in range(200)]
    distances = [frechet_distance(a, b) for a, b in pairs]
    error = np.std(distances) / np.sqrt(len(distances))
    assert np.mean(distances) == pytest.approx(d * (d + 5) / (2 * n), abs=4 * error, rel=0.05)


def test_the_floor_of_real_data_falls_with_one_over_n(data, classifier):
    features = classifier.features(data.x_train[500:])
    few, many = (frechet_floor(features[:n], splits=20) for n in (224, 896))
    assert few / many == pytest.approx(4, rel=0.35)
    assert few == frechet_floor(features[:224], splits=20)  # the same halves again


@pytest.mark.parametrize(("samples", "real", "k"), [(40, 40, 5), (20, 60, 3)])
def test_a_perfect_generator_gets_the_coverage_and_density_that_are_stated(samples, real, k):
    drawn = [(RNG.normal(size=(samples, 2)), RNG.normal(size=(real, 2))) for _ in range(400)]
    covered = [coverage(*pair, k) for pair in drawn]
    error = np.std(covered) / np.sqrt(len(covered))
    assert np.mean(covered) == pytest.approx(perfect_coverage(samples, real, k), abs=4 * error)
    dense = [density(*pair, k) for pair in drawn]
    error = np.std(dense) / np.sqrt(len(dense))
    # k of the other n - 1 lie in a ball, so a stranger does with chance k / n.
    assert np.mean(dense) == pytest.approx(1, abs=4 * error)


def test_coverage_and_density_are_their_loops():
    samples, k = RNG.normal(size=(15, 3)), 4
    inside = np.zeros((15, 60), bool)
    for i, point in enumerate(REAL):
        others = sorted(np.linalg.norm(other - point) for j, other in enumerate(REAL) if j != i)
        for j, sample in enumerate(samples):
            inside[j, i] = np.linalg.norm(sample - point) <= others[k - 1]
    assert coverage(samples, REAL, k) == inside.any(0).mean()
    assert density(samples, REAL, k) == pytest.approx(inside.sum() / (k * 15))


def test_a_generator_that_draws_one_image_covers_little_and_may_be_dense():
    centre = np.zeros((60, 3))
    assert coverage(centre, REAL) < 0.5 < density(centre, REAL)
    assert coverage(centre + 100, REAL) == density(centre + 100, REAL) == 0


def test_entropy_and_score_by_hand():
    assert label_entropy([3, 3, 3]) == 0
    assert label_entropy([0, 1, 2, 3]) == pytest.approx(np.log(4))
    labels = RNG.integers(10, size=(500, 100))
    bias = np.log(10) - np.mean([label_entropy(row) for row in labels])
    assert bias == pytest.approx(9 / 200, rel=0.1)
    assert inception_score(np.eye(10)) == pytest.approx(10)
    assert inception_score(np.full((7, 10), 0.1)) == pytest.approx(1)


def test_the_classifier_knows_digits_that_it_never_saw(data, classifier):
    probabilities = classifier.probabilities(data.x_test)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert recognized_share(classifier.labels(data.x_test), data.y_test) > 0.9
    assert classifier.features(data.x_test.reshape(-1, 8, 8, 1)).shape == (360, 16)


def test_two_classes_have_two_probabilities(data):
    two = data.y_train < 2
    classifier = DigitClassifier.fit(data.x_train[two], data.y_train[two], hidden=(8,))
    assert classifier.probabilities(data.x_test).shape == (360, 2)
    seen = data.y_test < 2
    assert recognized_share(classifier.labels(data.x_test[seen]), data.y_test[seen]) > 0.95


def test_real_images_pass_and_noise_copies_and_one_class_are_told_apart(data, classifier):
    training, real = data.x_train[500:900], data.x_train[900:1260]
    good = qualities(data.x_test, real, training, classifier, asked=data.y_test)
    noise = qualities(RNG.random((360, 64)), real, training, classifier)
    copies = qualities(training[:360], real, training, classifier)
    ones = data.x_train[data.y_train == 1]
    single = qualities(ones, real, training, classifier)
    assert good["recognized"] > 0.9
    assert noise["frechet"] > 10 * good["frechet"]
    assert noise["to_real"] > good["to_real"]
    assert copies["to_training"] == 0 < good["to_training"]
    assert single["label_entropy"] < 0.5 < 2.2 < good["label_entropy"]
    assert single["coverage"] < 0.3 < 0.9 < good["coverage"]
    assert single["score"] < 2
    assert single["from_real"] > good["from_real"]


def test_distances_to_the_nearest(data):
    points, among = data.x_test[:5], data.x_train[:7]
    expected = [min(np.linalg.norm(x - y) for y in among) for x in points]
    np.testing.assert_allclose(nearest_distances(points, among), expected, rtol=1e-4)


def test_what_cannot_be_measured_is_refused_by_name(classifier):
    images = np.zeros((9, 64))
    diverged = images.copy()
    diverged[4, 7] = np.nan
    with pytest.raises(ValueError, match="images: 1 of 9 are not finite numbers"):
        qualities(diverged, images, images, classifier)
    with pytest.raises(ValueError, match=r"a: features \[n, features\] of at least 2 examples"):
        frechet_distance(REAL[:1], REAL)
    with pytest.raises(ValueError, match="both need the same features, got 3 and 2 an example"):
        frechet_distance(REAL, REAL[:, :2])
    with pytest.raises(ValueError, match="neighbours: from 1 to one less than the 60 real"):
        coverage(REAL, REAL, 60)
    with pytest.raises(ValueError, match="asked: a label for each of the samples"):
        recognized_share([1, 2], [1])
    with pytest.raises(ValueError, match=r"labels: 0, 1, ... without a gap, got \[0, 2\]"):
        DigitClassifier.fit(images, [0, 2] * 4 + [0])

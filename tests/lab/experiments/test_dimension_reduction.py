"""Scores of planes that are known, the made-up users; the judge on made-up arrays."""

from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
reduction = load(ROOT / "experiments" / "dimension_reduction.py")
EXPERIMENT = collect(reduction)
JITTER = 1 + 0.002 * np.arange(5)


def clusters():
    """Three clusters of thirty in five dimensions, of which the first two tell them apart."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), 30)
    x = rng.normal(size=(90, 5))
    x[:, :2] += 30 * np.array([[0, 0], [1, 0], [0, 1]])[y]
    return x, y


def test_the_nearest_are_sorted_and_never_oneself():
    places = np.array([[0.0, 0], [1, 0], [3, 0], [7, 0]])
    np.testing.assert_array_equal(reduction.nearest(places, 2), [[1, 2], [0, 2], [1, 0], [2, 1]])


def test_a_plane_that_holds_everything_is_trustworthy_and_a_random_one_is_not():
    x, y = clusters()
    flat = np.concatenate([x[:, :2], np.zeros((90, 3))], 1)
    assert reduction.judged(flat, y, x[:, :2]) == pytest.approx([1, 1, 1])
    rng = np.random.default_rng(1)
    trust, continuity, accuracy = reduction.judged(flat, y, rng.normal(size=(90, 2)))
    assert max(trust, continuity, accuracy) < 0.7


def test_fits_share_all_neighbours_with_themselves_turned():
    x, _ = clusters()
    turned = x[:, 1::-1] * [1, -1]
    assert reduction.shared(x[:, :2], turned) == 1
    assert reduction.shared(x[:, :2], x[:, 2:4]) < 0.5


def test_shares_of_the_variance_are_those_of_the_axes():
    x = np.kron(np.eye(2), np.array([[1.0], [-1.0]])) * [3, 1]
    np.testing.assert_allclose(reduction._variances(x), [0.9, 0.1])


def test_users_leave_two_components_85_percent():
    shares = []
    for seed in range(5):
        features, kind = reduction.customers(300, seed)
        assert features.shape == (300, 10)
        assert np.bincount(kind).tolist() == [100, 100, 100]
        shares.append(reduction._variances(features)[:2].sum())
    assert np.mean(shares) == pytest.approx(0.85, abs=0.02)


def test_methods_that_are_not_installed_are_left_out(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert [name for name, make in reduction.methods(0).items() if make is None] == ["UMAP"]


def test_only_lda_sees_the_labels(monkeypatch):
    seen = {}

    class Method:
        def __init__(self, name):
            self.name = name

        def fit_transform(self, x, y):
            seen[self.name] = y is not None
            return x[:, :2]

    names = reduction.METHODS[:-2]
    made = {name: lambda name=name: Method(name) for name in names}
    monkeypatch.setattr(reduction, "methods", lambda seed: made)
    x, y = clusters()
    for name in names:
        reduction.Gallery(reduction.Images())._reduced(name, x, y, 0, 0)
    assert seen == {name: name == "LDA" for name in names}


def made(*, isomap=0.87, tsne=0.99, held_out=0.66, slow=2.0, components=16, shared=0.6, error=17.0,
         code=0.9, denoised=4.0, rand=1.0, same=1.0):  # fmt: skip
    """Recorded arrays of 5 seeds, as if measured."""
    trust = {"PCA": 0.83, "LDA": 0.8, "random": 0.65, "Isomap": isomap, "LLE": 0.87, "t-SNE": tsne}
    scores = np.full((5, len(reduction.METHODS), len(reduction.SCORES)), np.nan)
    for name, value in {**trust, "AE": 0.85, "VAE": 0.85}.items():
        stability = shared if name == "t-SNE" else 1.0
        seconds = slow if name == "t-SNE" else 0.01
        values = [value, value, value, stability, seconds]
        scores[:, reduction.METHODS.index(name)] = np.multiply.outer(JITTER, values)
    variance = np.minimum(np.arange(1, 65) / components * 0.85, 1)
    return {
        "scale": "nowhere",
        "at_source_scale": False,
        "scores": scores,
        "held_out": np.multiply.outer(JITTER, [held_out, 0.6]),
        "variance": np.tile(variance, (5, 1)),
        "codes/errors": np.multiply.outer(JITTER, [27.0, error]) ** JITTER[:, None],
        "codes/scores": np.multiply.outer(JITTER, [0.857, code, 0.91]),
        "denoising/errors": np.multiply.outer(JITTER, [10.0, 5.0, denoised]) ** JITTER[:, None],
        "rand": rand * JITTER,
        "same": same * JITTER,
    }


def verdicts(recorded):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(recorded)}


def test_numbers_as_claimed_reproduce_every_claim():
    judged = verdicts(made())
    assert set(judged) == {claim.name for claim in EXPERIMENT.claims}
    assert set(judged.values()) == {"reproduced"}
    assert "UMAP" not in EXPERIMENT.table(made())


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        (
            {"isomap": 0.8},
            {"neighbourhoods are kept in this order", "classes are found in this order"},
        ),
        ({"held_out": 0.5}, {"LDA uses the labels"}),
        ({"slow": 0.02}, {"PCA is fast"}),
        ({"components": 20}, {"sixteen components"}),
        ({"shared": 1.0}, {"t-SNE depends on its start"}),
        ({"error": 30.0}, {"an autoencoder reconstructs better than PCA"}),
        ({"code": 0.8}, {"its codes say more of the class"}),
        ({"denoised": 7.0}, {"a denoising autoencoder removes noise"}),
        ({"rand": 0.5}, {"two components show the customers"}),
        ({"same": 0.5}, {"t-SNE shows the customers, too"}),
    ],
)
def test_a_claim_that_the_numbers_contradict_is_not_reproduced(change, failing):
    judged = verdicts(made(**change))
    assert {name for name, verdict in judged.items() if verdict != "reproduced"} == failing
    assert {judged[name] for name in failing} == {"not reproduced"}


@pytest.mark.slow
def test_the_smoke_preset_reduces_and_draws(tmp_path):
    recorded = perform(EXPERIMENT, EXPERIMENT.presets["smoke"], tmp_path)
    assert set(verdicts(recorded)) == {claim.name for claim in EXPERIMENT.claims}
    png, *_ = gallery.draw(ROOT, "dimension_reduction", tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000

"""Circles and the sweeps over them.

Judges on numbers whose verdict is known, what trained networks are studied by, and small runs.
"""

from pathlib import Path

import numpy as np
import pytest

from coherence.lab import data
from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery
from coherence.lab.report.drawing import in_house_style

ROOT = Path(__file__).resolve().parents[3]
circles, sweeps = (
    load(ROOT / "experiments" / f"{name}.py") for name in ("circles", "circle_sweeps")
)
SEEDS = np.arange(5)
JITTER = 1 + 0.002 * SEEDS
EPOCHS = np.arange(31)
DIP = np.where((EPOCHS > 1) & (EPOCHS < 8), 0.05, 2.7)  # KL by epoch

TWO_TERMS = {f"{arm}: the tutorial's two terms" for arm in circles.TUTORIAL_TERMS}


def verdicts(experiment, recorded):
    return {j.claim.name: j.verdict for j in experiment.judgements(recorded)}


def reproduced(experiment, recorded):
    return {
        name for name, verdict in verdicts(experiment, recorded).items() if verdict == "reproduced"
    }


def of_circles(
    *,
    last=(0.0101, 260, 165),
    rho=0.99,
    normal=(0.3, 0.15, 0.05),
    distance=(0.2, 0.1, 0.04),
    fitted=0.15,
    anomaly=1.0,
    kl=DIP,
    terms=1.0,
    z=(0.95, 0.2, 0.999, 0.99, 1.0),
    at_size=True,
):
    """Recorded arrays of 5 seeds, as if measured at the tutorial's size."""
    rng, pixels = (
        np.random.default_rng(0),
        lambda n: rng.integers(0, 256, (n, 28, 28)).astype(np.uint8),
    )
    recorded = {
        "m": 64,
        "batch": 32,
        "per_epoch": 31,
        "radius": np.linspace(0.03, 0.47, 60),
        "circles": pixels(8),
        "anomalies": pixels(4),
    }
    recorded |= {
        "z": np.array(circles.Z),
        "tutorial_kl": np.array(circles.TUTORIAL_KL),
        "floor": 0.02,
        "mean_and_blank": np.array([0.08, 0.05]),
    }
    recorded |= {
        "mean_image/anomaly": np.array([-1.0, -0.5, 2, 3]),
        "scale": "nowhere",
        "at_source_scale": at_size,
    }
    for k, arm in enumerate(circles.TUTORIAL):
        of, epochs = lambda value: value * JITTER, 10 if arm == "AE" else 30
        curve = lambda values: np.outer(JITTER, np.broadcast_to(values, len(EPOCHS))[: epochs + 1])
        losses = np.geomspace(20, 1, epochs) * last[k]
        recorded |= {
            f"{arm}/step": 31 * EPOCHS[: epochs + 1],
            f"{arm}/loss": np.outer(JITTER, losses),
            f"{arm}/tutorial": np.array(circles.TUTORIAL[arm]),
            **{f"{arm}/{name}": curve(8.0) for name in ("encoder", "decoder")},
            f"{arm}/codes": rng.normal(size=60),
            f"{arm}/at_z": pixels(5),
            f"{arm}/example": pixels(2),
            f"{arm}/reconstructed_anomalies": pixels(4),
            f"{arm}/spearman": of(rho if arm == "ConvVAE" else 0.7),
            f"{arm}/from_normal": of(normal[k]),
            f"{arm}/distance": of(distance[k]),
            f"{arm}/fitted_distance": of(fitted),
            f"{arm}/radii_from_uniform": of(0.3),
            f"{arm}/anomaly": np.outer(JITTER, [anomaly, 1, 2, 3]),
        }
        recorded |= {f"{arm}/{name}": of(value) for name, value in zip(circles.SHAPES, z)}
        recorded[f"{arm}/inside"] = np.minimum(recorded[f"{arm}/inside"], 1)
        if arm != "AE":
            printed = circles.TUTORIAL_TERMS[arm][1] / 32
            recorded[f"{arm}/kl"] = curve(kl * printed / DIP[-1] * terms)
    return recorded


def test_numbers_as_the_tutorials_reproduce_every_claim():
    assert reproduced(collect(circles), of_circles()) == {
        claim.name for claim in collect(circles).claims
    }


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        (
            {"last": (0.02, 200, 200)},
            {f"{arm}: the tutorial's loss" for arm in circles.TUTORIAL} | TWO_TERMS,
        ),
        ({"terms": 0.8}, TWO_TERMS),
        ({"z": (0.5, 0.2, 0.999, 0.99, 1.0)}, {"ConvVAE: z is linear in the radius"}),
        ({"z": (0.95, 0.35, 0.999, 0.99, 1.0)}, {"VAE: z folds at a radius"}),
        ({"z": (0.95, 0.2, 0.9, 0.99, 1.0)}, {"codes lie where the prior is"}),
        ({"z": (0.95, 0.2, 0.999, 0.5, 1.0)}, {"ConvVAE: the radius follows z"}),
        ({"z": (0.95, 0.2, 0.999, 0.99, -1.0)}, {"images are noisier at the ends of z"}),
        ({"rho": 0.9}, {"ConvVAE: z is the radius"}),
        ({"normal": (0.3, 0.05, 0.15)}, {"z becomes normal"}),
        ({"distance": (0.1, 0.12, 0.04)}, {"VAE: samples nearer to circles than the AE's"}),
        ({"distance": (0.2, 0.03, 0.04)}, {"ConvVAE: samples nearer than the VAE's"}),
        ({"fitted": 0.09}, {"VAE: samples nearer even if the AE's z is fitted"}),
        ({"anomaly": -0.5}, {"AE: anomalies reconstruct badly"}),
        ({"kl": 2.7}, {"ConvVAE: KL collapses and recovers"}),
        (
            {"kl": np.where(EPOCHS > 1, 0.05, 2.7)},
            {"ConvVAE: KL collapses and recovers"} | TWO_TERMS,
        ),  # it never recovers
        (
            {"kl": np.where(EPOCHS > 7, 2.7, 0.05)},
            {"ConvVAE: KL collapses and recovers"},
        ),  # it only rises
    ],
)
def test_a_claim_on_circles_that_the_numbers_contradict_is_not_reproduced(change, failing):
    found = verdicts(collect(circles), of_circles(**change))
    assert {name for name, verdict in found.items() if verdict != "reproduced"} == failing
    assert {found[name] for name in failing} == {"not reproduced"}


def test_losses_are_compared_with_the_tutorials_only_at_its_size():
    assert not any(
        "the tutorial's" in name for name in verdicts(collect(circles), of_circles(at_size=False))
    )
    experiment = collect(circles)
    assert experiment.at_source_scale(circles.PRESETS["cpu"])
    assert not experiment.at_source_scale(circles.PRESETS["smoke"])


def test_a_recording_from_before_the_claims_on_z_is_judged_without_them():
    recorded = {name: values for name, values in of_circles().items() if "elbow" not in name}
    assert "VAE: z folds at a radius" not in verdicts(collect(circles), recorded)


def test_the_shape_of_a_known_z():
    radii, m = np.linspace(0.03, 0.47, 45), len(circles.ENDS)
    which, distance = np.arange(m) * 44 // (m - 1), np.where(np.abs(circles.ENDS) == 3, 4.0, 1.0)
    line = circles.shape(10 * (radii - 0.25), radii, distance, which, radii)
    assert [line[name] for name in ("linearity", "inside", "monotony", "noise_at_ends")] == (
        pytest.approx([1, 1, 1, 2], abs=2e-3)
    )
    fold = circles.shape(20 * np.abs(radii - 0.3), radii, distance, which[::-1] // 45, radii)
    assert fold["elbow"] == pytest.approx(0.3, abs=0.01)
    assert fold["inside"] == pytest.approx(np.mean(np.abs(radii - 0.3) < 0.15), abs=0.03)


def test_how_far_a_loss_is_from_what_is_printed_is_relative_and_0_inside():
    assert circles.off(np.array([80.0, 100, 150, 200, 300]), (30, 100.0, 200.0)) == pytest.approx(
        [0.2, 0, 0, 0, 0.5]
    )


def test_kl_collapses_by_the_doublings_between_its_lowest_and_before_and_after():
    epoch = np.array([0, 0.5, 1, 2, 5, 11, 30])
    for end, recovery in ((16, 4), (4, 2)):
        found = circles.collapse(epoch, np.array([[0, 8.0, 4, 1, 2, 0.1, end]] * 2))
        assert found["fall"] == pytest.approx([3, 3])
        assert found["recovery"] == pytest.approx([recovery] * 2)


@pytest.fixture(scope="module")
def material():
    """Circles, what is none, and all that there are, few of each."""
    some = data.circles(40, 30)
    return some, some.x_train[:4] * 0.5, some.y_train, some.x_train


def test_a_network_that_draws_the_circle_of_a_normal_radius_is_found_to_do_so(material):
    from scipy import stats

    some, strange, radii, known = material
    order = np.argsort(radii)

    def encode(x):
        found = [np.flatnonzero((x[i] == some.x_test).all((1, 2, 3))) for i in range(len(x))]
        r = np.array([some.y_test[i[0]] if len(i) else 0.2 for i in found])
        return stats.norm.ppf((r - 0.02) / 0.47)[:, None]

    def decode(z):
        return known[
            order[np.clip(stats.norm.cdf(z[:, 0]) * len(order), 0, len(order) - 1).astype(int)]
        ]

    shown, found = circles.study((encode, decode), some, strange, radii, known)
    assert found["spearman"] == pytest.approx(
        1, abs=1e-3
    )  # two circles of one radius may be the same image
    assert found["distance"] == pytest.approx(0, abs=1e-6)
    assert found["from_normal"] < 0.2
    assert found["radii_from_uniform"] < 0.2
    assert (found["anomaly"] > 0).all()
    np.testing.assert_array_equal(shown["at_z"][0], np.round(255 * known[order[0], ..., 0]))
    one = circles.study(
        (encode, lambda z: np.repeat(known[:1], len(z), 0)), some, strange, radii, known
    )[1]
    assert one["distance"] == pytest.approx(0, abs=1e-6)
    assert one["radii_from_uniform"] > 0.4  # always the same circle


def of_sweeps(
    *,
    kl=(0.0, 0.5, 2.5, 4, 6),
    kept=(1e-7, 1, 11, 12, 12),
    drawn=(16, 10, 4.6, 4.3, 4.2),
    ae=4.1,
    normal=(0.5, 0.1, 0.1, 0.2, 0.3),
    cross=3.4,
    untrained=1.01,
    plain=0.0,
):
    """Recorded arrays of 5 seeds, as if measured."""
    factors, rng = np.array([0.01, 0.1, 1, 10, 100]), np.random.default_rng(0)
    printed = np.array([sweeps.PRINTED["reconstruction"], sweeps.PRINTED["kl"]])
    recorded = {
        "factors": factors,
        "z": np.array(sweeps.Z),
        "m": 256,
        "printed": printed,
        "variance": 16.0,
        "floor": 0.02,
    }
    recorded |= {
        "untrained/reconstruction": np.outer(untrained * JITTER, printed[0]),
        "untrained/kl": np.outer(JITTER, printed[1]),
    }
    recorded |= {
        "untrained/reparametrized": np.outer(JITTER, [3.0, 9.0]),
        "untrained/plain": np.outer(JITTER, [plain, 9.0]),
    }
    recorded |= {
        "over_time/step": np.array([0, 10, 100, 1000, 4000]),
        "over_time/test_kl": np.ones((5, 5)),
    }
    arms = [
        (sweeps.arm_name(kind, factor), k, kind)
        for kind in sweeps.KINDS
        for k, factor in enumerate(factors)
    ]
    arms += [("longer", 2, "squared"), ("AE", 4, "AE")]
    for arm, k, kind in arms:
        values = {
            "error": drawn[k] - 0.1,
            "kept": kept[k],
            "distance": 0.06,
            "from_normal": normal[k],
            "rho": 0.8,
            "encoder": 2.0,
            "decoder": 3.0,
        }
        values["test_reconstruction"] = ae if kind == "AE" else drawn[k]
        if kind != "AE":
            values["test_kl"] = cross * kl[k] / 2.5 if kind == "cross-entropy" else kl[k]
        recorded |= {f"{arm}/{name}": value * JITTER for name, value in values.items()}
        recorded[f"{arm}/at_z"] = rng.integers(0, 256, (5, 28, 28)).astype(np.uint8)
    return recorded | {"scale": "nowhere", "at_source_scale": False}


def test_numbers_as_claimed_reproduce_every_claim_of_the_sweeps():
    assert reproduced(collect(sweeps), of_sweeps()) == {
        claim.name for claim in collect(sweeps).claims
    }


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"kl": (0.5, 0.5, 2.5, 4, 6)}, {"small factor: KL rules"}),
        ({"kept": (2, 2, 11, 12, 12)}, {"small factor: every image alike"}),
        ({"kl": (0, 0.5, 2.5, 2.6, 2.7)}, {"large factor: KL hardly counts"}),
        ({"drawn": (16, 10, 4.0, 4.1, 4.2)}, {"large factor: drawing z costs nothing"}),
        ({"ae": 3.0}, {"large factor: an autoencoder's error"}),
        ({"normal": (0.5, 0.1, 0.3, 0.2, 0.1)}, {"large factor: codes less normal"}),
        ({"cross": 2.0}, {"cross-entropy weighs more than squared error"}),
        ({"untrained": 1.2}, {"untrained losses in four reductions"}),
        ({"plain": 1e-6}, {"plain sampling teaches the encoder nothing"}),
    ],
)
def test_a_claim_of_the_sweeps_that_the_numbers_contradict_is_not_reproduced(change, failing):
    found = verdicts(collect(sweeps), of_sweeps(**change))
    assert {name for name, verdict in found.items() if verdict != "reproduced"} == failing
    assert {found[name] for name in failing} == {"not reproduced"}


def test_an_encoder_that_says_nothing_is_as_far_from_normal_as_can_be():
    some = data.circles(1, 20)
    network = (lambda x: np.zeros((len(x), 1))), (lambda z: np.repeat(some.x_test[:1], len(z), 0))
    found = sweeps.study(network, some, some.x_test)
    assert found["from_normal"] == 1
    assert found["kept"] == pytest.approx(0, abs=1e-6)
    assert found["distance"] == pytest.approx(0, abs=1e-6)
    assert found["error"] == pytest.approx(
        np.square(some.x_test - some.x_test[0]).sum() / 20, rel=1e-5
    )


@pytest.mark.parametrize(
    ("experiment", "recorded"),
    [(collect(circles), of_circles()), (collect(sweeps), of_sweeps())],
)
def test_tables_and_figures_are_made_of_what_is_recorded(experiment, recorded):
    assert "circle" in experiment.table(recorded)
    with in_house_style():
        assert load(ROOT / "paper_figures" / f"{experiment.name}.py").draw(recorded).drawn


@pytest.mark.slow
@pytest.mark.parametrize(
    "experiment", [collect(circles), collect(sweeps)], ids=lambda experiment: experiment.name
)
def test_the_smoke_preset_trains_all_networks_and_draws(experiment, tmp_path):
    recorded = perform(experiment, experiment.presets["smoke"], tmp_path)
    tested = {claim.name for claim in experiment.claims if "the tutorial's" not in claim.name}
    assert {j.claim.name for j in experiment.judgements(recorded)} == tested
    if experiment.name == "circle_sweeps":
        assert (
            verdicts(experiment, recorded)["plain sampling teaches the encoder nothing"]
            == "reproduced"
        )
        assert (recorded["untrained/reparametrized"] > 0).all()
    png, *_ = gallery.draw(ROOT, experiment.name, tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 50_000

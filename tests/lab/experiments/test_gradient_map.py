"""Directions and neighbours on cases with known answers; the judge on made-up arrays."""

from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
gradient_map = load(ROOT / "experiments" / "gradient_map.py")
EXPERIMENT = collect(gradient_map)
JITTER = 1 + 0.002 * np.arange(5)


def test_directions_are_those_of_the_second_moment():
    """Squares 9, 4, 1 along three axes; the mean step is along the last, which is the weakest."""
    rows = np.array([[3, 0, 0], [-3, 0, 0], [0, 2, 0], [0, -2, 0], [0, 0, 1], [0, 0, 1]])
    rows = np.tile(rows, (2, 1))
    held, leading, of_step, coherence = gradient_map.directions(rows @ rows.T)
    assert (held, of_step) == (2, 3)
    assert leading == pytest.approx(1)
    assert coherence == pytest.approx(16 / 56)


def test_the_nearest_are_those_of_the_own_cluster():
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], 20)
    places = rng.normal(size=(40, 2)) + 100 * label[:, None]
    kinds = label, np.tile([0, 1], 20), label == 1
    given, true, corrupt, learned = gradient_map.neighbour_shares(
        gradient_map.nearest(places), kinds, label + rng.normal(size=40) / 100
    )
    assert given == corrupt == 1
    assert 0.2 < true < 0.8
    assert learned > 0.5


def made(
    *, needed=60, error=0.02, rough=0.3, few=5.0, left=0.3, given=0.95, true=0.3, gathered=0.7
):
    """Recorded arrays of 5 seeds, as if measured, at losses of 2 and of 1 nat."""

    def quantities(directions):
        rows = [[2.0, 2 * directions, 0.9, few, 8.0], [1.0, directions, 0.9 - left, 20.0, 8.0]]
        return np.multiply.outer(JITTER, rows) * [1 / JITTER[0], 1, 1, 1, 1]

    recorded = {"scale": "nowhere", "at_source_scale": False, "lengths": np.array([10, 100, 1000])}
    for arm, directions in (("true", 30), ("half", 40), ("random", needed)):
        values = quantities(directions)
        values[..., 0] = [2.0, 1.0]
        recorded[f"{arm}/quantities"] = values
        off = np.multiply.outer(JITTER, [[1 + rough, 1.1, 1 + error]] * 2) / JITTER[:, None, None]
        recorded[f"{arm}/sketched"] = values[..., 4:] * off ** JITTER[:, None, None]
        recorded[f"{arm}/neighbours"] = np.multiply.outer(
            JITTER, [[given, true, gathered, 0.6]] * 3
        )
        recorded[f"{arm}/pristine"] = np.ones(5)
        recorded[f"{arm}/corrupt"] = np.full(5, 0.45)
    return recorded


def verdicts(recorded):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(recorded)}


def test_numbers_as_claimed_reproduce_every_claim():
    recorded = made()
    assert set(verdicts(recorded).values()) == {"reproduced"}
    assert set(verdicts(recorded)) == {claim.name for claim in EXPERIMENT.claims}
    assert "learned" in EXPERIMENT.table(recorded)


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"needed": 31}, {"random labels need more directions"}),
        ({"error": 0.2}, {"a thousand numbers keep m-coherence"}),
        ({"rough": 0.05}, {"ten numbers do not"}),
        ({"few": 30.0}, {"few directions hold the mean step"}),
        ({"left": 0.0}, {"the mean step leaves the leading directions"}),
        ({"given": 0.7}, {"neighbours share the given label"}),
        ({"true": 0.9}, {"and not the true class"}),
        ({"gathered": 0.4}, {"corrupt examples gather"}),
    ],
)
def test_a_claim_that_the_numbers_contradict_is_not_reproduced(change, failing):
    judged = verdicts(made(**change))
    assert {name for name, verdict in judged.items() if verdict != "reproduced"} == failing
    assert {judged[name] for name in failing} == {"not reproduced"}


def test_where_pristine_examples_were_not_fitted_the_end_is_not_judged():
    recorded = made()
    recorded["half/pristine"] = np.full(5, 0.6)
    (judged,) = [
        j for j in EXPERIMENT.judgements(recorded) if j.claim.name == "corrupt examples gather"
    ]
    assert judged.reason == "pristine examples were not fitted: accuracy 0.60 < 0.9"


@pytest.mark.slow
def test_the_smoke_preset_trains_maps_and_draws(tmp_path):
    recorded = perform(EXPERIMENT, EXPERIMENT.presets["smoke"], tmp_path)
    assert set(verdicts(recorded)) == {claim.name for claim in EXPERIMENT.claims}
    png, *_ = gallery.draw(ROOT, "gradient_map", tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000

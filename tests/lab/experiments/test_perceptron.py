"""The perceptron's rule and bound against what is known, and the judge on made-up arrays."""

from pathlib import Path

import numpy as np
import pytest

from coherence import alpha
from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
FILE = load(ROOT / "experiments" / "perceptron.py")
EXPERIMENT = collect(FILE)


def signs(name):
    return np.array(FILE.GATES[name], float)


def recorded(**changes):
    """Recorded arrays of 4 seeds in which every claim holds, changed as asked."""
    wiggle = np.linspace(-0.01, 0.01, 4)[:, None]
    arrays = {
        "widths": np.array([1, 3, 5]),
        "sine_widths": np.array([2, 8, 32]),
        "solved": np.array([0.0, 0.5, 0.9]) + wiggle * [0, 1, 1],
        "error": np.array([0.1, 0.01, 0.001]) * np.exp(wiggle),
        "rule/bounds": np.full((4, 3), 9.0),
        "rule/mistakes": np.full((4, 3), 9.0),
        "rule/XOR/best": np.full(4, 0.75),
    }
    arrays |= {f"rule/{name}/right": np.ones(4) for name in ("AND", "OR")}
    arrays |= {f"rule/{name}/alpha": np.full(4, exact) for name, exact in FILE.ALPHAS.items()}
    return arrays | {"scale": "nowhere", "at_source_scale": False} | changes


def verdicts(arrays):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(arrays)}


def test_what_is_as_claimed_reproduces_every_claim():
    found = verdicts(recorded())
    assert found.keys() == {claim.name for claim in EXPERIMENT.claims}
    assert set(found.values()) == {"reproduced"}


@pytest.mark.parametrize(
    ("change", "claim"),
    [
        ({"rule/mistakes": np.full((4, 3), 9.01)}, "mistakes are bounded"),
        ({"rule/OR/right": np.array([1, 1, 0.75, 1])}, "AND and OR are learned"),
        ({"rule/XOR/best": np.ones(4)}, "XOR is not"),
        ({"rule/AND/alpha": np.zeros(4)}, "XOR has no coherence to begin with"),
    ],
)
def test_a_single_seed_that_contradicts_an_exact_claim_refutes_it_alone(change, claim):
    found = verdicts(recorded(**change))
    assert {name for name, verdict in found.items() if verdict != "reproduced"} == {claim}


def test_the_rule_stops_at_a_line_that_is_right_and_xor_has_none():
    for name in ("AND", "OR"):
        path = FILE.perceptron(FILE.ROWS, signs(name), 50)
        assert ((FILE.ROWS @ path[-1]) * signs(name) > 0).all()
        assert len(path) - 1 <= FILE.bound(FILE.ROWS, signs(name))
    path = FILE.perceptron(FILE.ROWS, signs("XOR"), 50)
    assert len(path) == 201
    assert not path[::4].any()  # every epoch ends where it began
    assert ((path @ FILE.ROWS.T) * signs("XOR") > 0).mean(1).max() <= 0.75


def test_each_update_is_one_example_s_gradient():
    path = FILE.perceptron(FILE.ROWS, signs("AND"), 50)
    steps = np.diff(path, axis=0)
    gradients = signs("AND")[:, None] * FILE.ROWS
    assert all((step == gradients).all(1).any() for step in steps)


def test_the_bound_has_the_widest_margin():
    x, y = np.array([[3.0, 4.0], [-3.0, -4.0]]), np.array([1.0, -1.0])
    assert FILE.bound(x, y) == pytest.approx(1)  # all of an example's length is margin
    x = np.array([[1.0, 2.0], [-1.0, 2.0]])
    assert FILE.bound(x, np.ones(2)) == pytest.approx(5 / 4)  # margin 2 along the second axis
    x, y = FILE.separable(np.random.default_rng(0), 50, 2, 0.2)
    angles = np.linspace(0, 2 * np.pi, 100_000)
    directions = np.stack([np.cos(angles), np.sin(angles)], 1)
    best = ((directions @ x.T) * y).min(1).max()
    assert FILE.bound(x, y) == pytest.approx(1 / best**2, rel=1e-3)


@pytest.mark.parametrize("name", FILE.GATES)
def test_alpha_at_zero_weights_is_its_closed_form(name):
    gradients = np.float32(-signs(name)[:, None] * FILE.ROWS)
    assert alpha({"w": gradients}) == pytest.approx(FILE.ALPHAS[name], abs=1e-6)
    assert FILE.alpha(gradients) == pytest.approx(FILE.ALPHAS[name], abs=1e-12)


@pytest.mark.slow
def test_the_smoke_preset_runs_judges_and_draws(tmp_path):
    arrays = perform(EXPERIMENT, EXPERIMENT.presets["smoke"], tmp_path)
    exact = [j for j in EXPERIMENT.judgements(arrays) if j.claim.tolerance is not None]
    assert {j.verdict for j in exact} == {"reproduced"}
    assert EXPERIMENT.table(arrays)
    png, *_ = gallery.draw(ROOT, "perceptron", tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000

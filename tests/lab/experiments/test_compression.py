"""Bits that are sent, alpha over workers, and the judge on made-up arrays."""

import types
from pathlib import Path

import jax
import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
FILE = load(ROOT / "experiments" / "compression.py")
EXPERIMENT = collect(FILE)


def recorded(ends=None, losses=None, law=1.0):
    """Recorded arrays of 4 seeds; accuracies and losses at the end, as given."""
    noise = np.linspace(-0.001, 0.001, 4)[:, None]
    arrays = {"ways": np.array([*FILE.WAYS])}
    for name in FILE.WAYS:
        end = {"32 bits": 0.95, "8 bits": 0.95, **(ends or {})}.get(name, 0.9)
        loss = {"1 %, forgetting": 1.0, "signs, forgetting": 1.0, **(losses or {})}.get(name, 0.1)
        arrays |= {
            f"{name}/step": np.array([0, 100, 1000]),
            f"{name}/bits": {"32 bits": 32.0, "8 bits": 8.0}.get(name, 0.5),
            f"{name}/test_accuracy": np.array([0.1, 0.8, end]) + noise,
            f"{name}/train_loss": np.array([2.0, 1.0, loss]) * np.exp(noise),
            f"{name}/alphas": np.ones((4, 3, 3)) * [0.1, 0.3 * law, 0.3],
        }
    return arrays | {"scale": "nowhere", "at_source_scale": False}


def verdicts(arrays):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(arrays)}


def test_what_is_as_claimed_reproduces_every_claim():
    found = verdicts(recorded())
    assert found.keys() == {claim.name for claim in EXPERIMENT.claims}
    assert set(found.values()) == {"reproduced"}


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        (
            {"losses": {"1 %, forgetting": 0.01}},
            {"feedback makes the largest coordinates enough"},
        ),
        ({"losses": {"signs, forgetting": 0.01}}, {"feedback helps signs"}),
        ({"ends": {"8 bits": 0.93}}, {"eight bits lose nothing"}),
        ({"ends": {"8 bits": 0.97}}, {"eight bits lose nothing"}),
        ({"ends": {"1 %": 0.1}}, {"more for the same bits"}),
        ({"law": 1.2}, {"workers are more coherent than examples"}),
    ],
)
def test_a_claim_that_numbers_contradict_is_not_reproduced(change, failing):
    found = verdicts(recorded(**change))
    assert {name for name, verdict in found.items() if verdict == "not reproduced"} == failing


def test_plain_averaging_is_read_at_as_many_bits():
    # 0.5 bits for 1,000 steps are 32 bits for 15.6 steps: 15.6 % of the way from 0.1 to 0.8.
    expected = 0.1 + 0.7 * 0.15625 + np.linspace(-0.001, 0.001, 4)
    np.testing.assert_allclose(FILE.at_bits(recorded(), "signs"), expected, atol=1e-9)


def test_bits_of_every_way_are_those_of_its_compressor():
    assert FILE.bits_of(FILE.WAYS["32 bits"], 1000) == 32_000
    assert FILE.bits_of(FILE.WAYS["8 bits"], 1000) == 8032
    assert FILE.bits_of(FILE.WAYS["signs"], 1000) == 1032
    assert FILE.bits_of(FILE.WAYS["1 %"], 1000) == 420


def test_alpha_over_workers_of_equal_and_of_orthogonal_gradients():
    view = lambda rows: types.SimpleNamespace(few={"w": np.float32(rows)}, key=jax.random.key(0))
    np.testing.assert_allclose(FILE.over_workers(view(np.ones((8, 3)))), [1, 1, 1], rtol=1e-5)
    # 8 orthogonal unit vectors in pairs: |mean|^2 is 1/8, a pair's 1/2.
    values = FILE.over_workers(view(np.eye(8)))
    np.testing.assert_allclose(values, [1 / 8, 1 / 4, 1 / 4], rtol=1e-5)


@pytest.mark.slow
def test_the_smoke_preset_runs_judges_and_draws(tmp_path):
    arrays = perform(EXPERIMENT, EXPERIMENT.presets["smoke"], tmp_path)
    assert {j.claim.name for j in EXPERIMENT.judgements(arrays)} == {
        claim.name for claim in EXPERIMENT.claims
    }
    assert EXPERIMENT.table(arrays)
    png, *_ = gallery.draw(ROOT, "compression", tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000

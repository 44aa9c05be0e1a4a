"""Memorization and datamodel scores on cases with known answers; the judge on made-up arrays."""

from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform

ROOT = Path(__file__).resolve().parents[3]
memorization = load(ROOT / "experiments" / "memorization.py")
EXPERIMENT = collect(memorization)


def test_memorization_is_how_much_more_often_the_label_is_given_with_the_example():
    inside = np.array([[True, True], [True, False], [False, True], [False, False]])
    outputs = inside * [True, False] | [False, True]  # the first by heart, the second always
    np.testing.assert_array_equal(memorization.memorization(outputs, inside), [1, 0])
    outputs[2, 0] = True  # one of two without it knows it nevertheless
    np.testing.assert_array_equal(memorization.memorization(outputs, inside), [0.5, 0])


def test_parts_are_the_ends_of_each_score():
    hard = {name: np.arange(10.0) for name in memorization.PRUNED}
    subsets = memorization.Subsets(examples=10, repeats=2)
    parts = subsets._parts(hard, np.random.default_rng(3)).reshape(
        len(memorization.PARTS), len(memorization.KEPT), 2, 10
    )
    np.testing.assert_array_equal(parts.sum(-1)[..., 0], [[2, 4, 6, 8]] * len(memorization.PARTS))
    for part, kept in zip(memorization.PARTS[1:], parts[1:]):
        few = np.flatnonzero(kept[0, 0])
        np.testing.assert_array_equal(few, [0, 1] if part.startswith("easiest") else [8, 9])


@pytest.mark.parametrize(("name", "sign"), [("early/el2n", 1), ("aum", -1), ("forgetting", 1)])
def test_hard_is_high(name, sign):
    values = memorization.hardness(name, [0.5, np.nan, np.inf])
    np.testing.assert_array_equal(values, [0.5 * sign, 0, 1e9 * sign])


def made_up(good, seeds=5):
    """Arrays in which agreement, influence, the audit and hard examples win, or lose."""
    rng, better = np.random.default_rng(4), 0.1 if good else -0.1
    draw = lambda *shape: 0.5 + 1e-4 * rng.normal(size=(2, seeds, *shape))
    arrays = {
        "spearman": draw(len(memorization.SCORES)),
        "datamodel": draw(len(memorization.METHODS)),
        "kept": draw(len(memorization.PARTS), len(memorization.KEPT)),
        "everything": draw(memorization.CHECKPOINTS),
        "memorized": draw(2) + np.array([0, 3.0 * better]),
    }
    for key, names, winners in (
        ("spearman", memorization.SCORES, ("own_class", "self_influence", "others")),
        ("datamodel", memorization.METHODS, ("damped influence", "gradcos")),
    ):
        for name in winners:
            arrays[key][..., names.index(name)] += better
    for name in ("easiest by own_class", "hardest by early/el2n"):
        arrays["kept"][:, :, memorization.PARTS.index(name)] += better
    return {"shares": np.array([0.0, 0.2]), "scale": np.array("made up"), **arrays} | {
        "at_source_scale": False
    }


@pytest.mark.parametrize(("good", "verdict"), [(True, "reproduced"), (False, "not reproduced")])
def test_the_judge_can_come_out_either_way(good, verdict):
    verdicts = {j.claim.name: j.verdict for j in EXPERIMENT.judgements(made_up(good))}
    assert len(verdicts) == len(EXPERIMENT.claims)
    assert set(verdicts.values()) == {verdict}


@pytest.mark.slow
def test_the_smoke_preset_runs_and_is_tabulated(tmp_path):
    recorded = perform(EXPERIMENT, memorization.PRESETS["smoke"], tmp_path)
    assert recorded["spearman"].shape == (2, 2, len(memorization.SCORES))
    assert ((recorded["kept"] >= 0) & (recorded["kept"] <= 1)).all()
    assert "damped influence" in memorization.table(recorded)

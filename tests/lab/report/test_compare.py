"""`compare`: settings that differ, and differences paired by seed."""

import math

import pytest

from coherence.lab.claims import interval
from coherence.lab.report import compare
from coherence.lab.report.comparing import COLUMNS
from coherence.lab.runs import Run
from tests.lab.report import recorded


def arm(folder, values, **config):
    """Runs `{seed: [losses]}` of one setting."""
    for seed, losses in values.items():
        with Run.open(folder / f"seed={seed}", config, seed=seed) as run:
            for step, loss in enumerate(losses):
                run.append({"step": step, "train_loss": loss, "alpha": loss})
    return folder


def line(comparison, quantity, value="final"):
    return next(one for one in comparison.lines if (one.quantity, one.value) == (quantity, value))


def test_differences_are_b_minus_a_of_the_same_seed(tmp_path):
    a = arm(tmp_path / "a", {0: [1.0], 1: [10.0], 2: [5.0]}, rate=0.1)
    b = arm(tmp_path / "b", {1: [11.0], 2: [6.5], 3: [0.0]}, rate=0.2)
    found = compare(a, b)
    assert line(found, "train_loss").difference == [1.0, 1.5]
    row = dict(zip(COLUMNS, next(found.rows())))
    assert (row["difference"], row["low"], row["high"]) == interval([1.0, 1.5])
    assert (row["a"], row["a_low"], row["a_high"]) == interval([1.0, 10.0, 5.0])
    assert (row["a_seeds"], row["b_seeds"], row["paired"]) == (3, 3, 2)
    assert "B - A paired over seeds 1, 2" in found.text()


def test_the_best_is_the_lowest_loss_and_only_what_has_a_best_gets_one(tmp_path):
    a, b = (
        arm(tmp_path / "a", {0: [3.0, 1.0, 2.0]}),
        arm(tmp_path / "b", {0: [math.nan, 3.0, 2.5]}, other=1),
    )
    found = compare(a, b)
    assert line(found, "train_loss", "best").a == {0: 1.0}
    assert line(found, "train_loss", "best").b == {0: 2.5}
    assert line(found, "train_loss").a == {0: 2.0}
    assert [one.quantity for one in found.lines if one.value == "best"] == ["train_loss"]


def test_the_best_accuracy_is_the_highest(tmp_path):
    recorded.run(tmp_path / "seed=0", probes=False)
    accuracies = [record["test_accuracy"] for record in Run.read(tmp_path / "seed=0").records()]
    assert line(compare(tmp_path, tmp_path), "test_accuracy", "best").a == {0: max(accuracies)}


def test_settings_that_differ_are_named_by_their_dotted_name(tmp_path):
    recorded.run(tmp_path / "a" / "seed=0", noise=0.0, probes=False)
    recorded.run(tmp_path / "b" / "seed=0", noise=0.5, probes=False)
    assert compare(tmp_path / "a", tmp_path / "b").settings == [("noise.fraction", "0.0", "0.5")]


def test_a_choice_of_another_kind_differs_in_its_kind_and_fields(tmp_path):
    a = arm(tmp_path / "a", {0: [1.0]}, model={"kind": "MLP", "width": 64}, lr=0.1)
    b = arm(tmp_path / "b", {0: [1.0]}, model={"kind": "CNN", "features": [8, 16]}, lr=0.1)
    assert compare(a, b).settings == [
        ("model", "MLP", "CNN"),
        ("model.width", "64", "absent"),
        ("model.features", "absent", "(8, 16)"),
    ]


def test_the_same_run_has_no_differences(tmp_path):
    recorded.run(tmp_path / "seed=0")
    found = compare(tmp_path, tmp_path / "seed=0")
    assert "the same settings" in found.text()
    assert all(
        difference == 0
        for one in found.lines
        for difference in one.difference
        if not math.isnan(difference)
    )


def test_layers_and_groups_are_compared_by_name(tmp_path):
    recorded.run(tmp_path / "a" / "seed=0", noise=0.25)
    recorded.run(tmp_path / "b" / "seed=0", noise=0.5)
    names = {one.quantity for one in compare(tmp_path / "a", tmp_path / "b").lines}
    assert {"train/m_coherence_by_layer[hidden_1]", "train/m_coherence_by_group[corrupt]"} <= names


def test_a_failed_seed_is_counted_not_left_out(tmp_path):
    for seed in range(3):
        recorded.run(tmp_path / "a" / f"seed={seed}", seed, probes=False)
        recorded.run(
            tmp_path / "b" / f"seed={seed}",
            seed,
            learning_rate=9.0,
            diverges_at=100 if seed == 1 else None,
            probes=False,
        )
    said = compare(tmp_path / "a", tmp_path / "b").text(width=200)
    assert "1 diverged" in said
    assert "nan in 1 of 3" in next(
        text for text in said.splitlines() if text.startswith("train_loss")
    )


def test_without_a_common_seed_there_is_nothing_to_pair(tmp_path):
    said = compare(arm(tmp_path / "a", {0: [1.0]}), arm(tmp_path / "b", {1: [2.0]})).text()
    assert "no seed is in both: nothing to pair" in said
    assert next(text for text in said.splitlines() if text.startswith("train_loss")).split() == [
        "train_loss",
        "1",
        "2",
        "-",
    ]


def test_runs_that_end_at_different_steps_say_so(tmp_path):
    recorded.run(tmp_path / "seed=0", 0, probes=False)
    recorded.run(tmp_path / "seed=1", 1, probes=False, ends_at=60)
    assert "seeds 0, 1; 1 of 2 done; up to step 60 or 280" in compare(tmp_path, tmp_path).text()


def test_a_quantity_that_only_one_side_has_is_listed(tmp_path):
    a, b = arm(tmp_path / "a", {0: [1.0]}), tmp_path / "b"
    with Run.open(b / "seed=0", {}, seed=0) as run:
        run.append({"step": 0, "test_loss": 1.0})
    found = line(compare(a, b), "test_loss")
    assert (found.a, found.b, found.difference) == ({}, {0: 1.0}, [])


def test_a_folder_of_several_settings_names_them(tmp_path):
    recorded.run(tmp_path / "a" / "seed=0", noise=0.0, probes=False)
    recorded.run(tmp_path / "b" / "seed=0", noise=0.5, probes=False)
    with pytest.raises(
        ValueError,
        match=r"holds runs of 2 different settings \(a, b\)\. Compare two of them: .*/a\.",
    ):
        compare(tmp_path, tmp_path)


def test_markdown_has_the_same_rows(tmp_path):
    said = compare(
        arm(tmp_path / "a", {0: [1.0]}, rate=1), arm(tmp_path / "b", {0: [2.0]}, rate=2)
    ).text("markdown")
    assert "| rate | 1 | 2 |" in said
    assert "| train_loss | 1 | 2 | 1 |" in said


def test_an_unknown_format_is_refused(tmp_path):
    recorded.run(tmp_path / "seed=0", probes=False)
    with pytest.raises(
        ValueError, match=r'text\(format\): "text", "markdown" or "latex", got \'html\'\.'
    ):
        compare(tmp_path, tmp_path).text("html")

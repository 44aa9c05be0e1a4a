"""Records become numbers in order: what a value is shows in its shape, and what is missing is kept
apart from what is nan.
"""

import math
import shutil

import numpy as np
import pytest

from coherence.lab.report import compare, describe, write
from coherence.lab.report import records as r
from coherence.lab.report.grouping import arms, find
from coherence.lab.runs import Run
from tests.lab.report import recorded

nan = math.nan


@pytest.mark.parametrize(
    ("value", "axes", "kind"),
    [
        (2.3, (), "scalar"),
        (nan, (), "scalar"),
        ({"a": 1.0, "b": nan}, (), "layers"),
        ([1.0, nan], ("group",), "groups"),
        ([0.1] * 40, ("class",), "groups"),
        ([0.1] * 40, (), "groups"),
        ([[1.0, 0.0], [0.0, 1.0]], ("class", "class"), "matrix"),
        ([[1.0, 0.0], [0.0]], ("group", "group"), "other"),
        ([0.5, 0.5], ("example",), "examples"),
        ({"a": [1.0, 2.0]}, ("layer",), "other"),
        ("text", (), "other"),
        ([], (), "other"),
        ({}, (), "other"),
    ],
)
def test_the_writer_says_what_a_value_is(value, axes, kind):
    assert r.kind("x", value, {"x": axes}) == kind


def test_quantities_come_probe_by_probe_and_the_sought_ones_first():
    records = [
        {"step": 0, "test/alpha": 1.0, "train/gsnr": 1.0},
        {"step": 1, "train/m_coherence": 1.0, "lr": 0.1, "train_loss": 1.0},
    ]
    assert r.quantities(records, {}, "scalar") == [
        "train_loss",
        "lr",
        "test/alpha",
        "train/m_coherence",
        "train/gsnr",
    ]


def test_a_quantity_that_starts_as_nothing_gets_its_kind_later():
    assert r.kinds([{"step": 0, "x": None}, {"step": 1, "x": 1.0}], {}) == {"x": "scalar"}


@pytest.mark.parametrize("odd", ["n/a", [1.0, 2.0]])
def test_a_value_of_another_type_was_not_measured(tmp_path, odd):
    with Run.open(tmp_path / "seed=0", {}, seed=0) as run:
        for step, value in enumerate(("text", 1.0, 2.0, odd)):
            run.append({"step": step, "train_loss": value, "loss": 0.5})
    assert r.series(run.records(), "train_loss") == [(1, 1.0), (2, 2.0)]
    table = describe(tmp_path, width=100).splitlines()[-5:]
    assert [line.split() for line in table] == [
        ["step", "train_loss", "loss"],
        *(["0", "0.5"], ["1", "1", "0.5"], ["2", "2", "0.5"], ["3", "0.5"]),
    ]
    assert [line.a for line in compare(tmp_path, tmp_path).lines][:2] == [{0: 2.0}, {0: 0.5}]
    assert "train_loss" in write([tmp_path], tmp_path / "page.html").read_text()


def test_every_number_of_a_value_has_a_name():
    assert list(r.parts(2)) == [("", 2.0)]
    assert list(r.parts({"a": [1.0, 2.0], "b": 3})) == [("a,0", 1.0), ("a,1", 2.0), ("b", 3.0)]
    assert list(r.parts([[1], [2]])) == [("0,0", 1.0), ("1,0", 2.0)]
    assert list(r.parts("text")) == []


def test_what_was_not_measured_is_not_what_was_nan():
    histories = [
        [{"step": 0, "x": nan}, {"step": 2, "x": 1.0}],
        [{"step": 0, "x": 3.0}, {"step": 1, "y": 0.0}],
    ]
    track = r.track(histories, "x")
    assert track.steps.tolist() == [0, 2]
    assert track.present.tolist() == [[True, True], [True, False]]
    np.testing.assert_array_equal(track.values, [[nan, 1.0], [3.0, nan]])


def test_layers_keep_their_names_and_a_missing_one_is_nan():
    track = r.track([[{"step": 0, "x": {"b": 1.0, "a": 2.0}}, {"step": 1, "x": {"a": 3.0}}]], "x")
    assert track.parts == ("b", "a")
    np.testing.assert_array_equal(track.values, [[[1.0, 2.0], [nan, 3.0]]])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["dense_0", "dense_1", "dense_10", "dense_2", "out"], [0, 1, 3, 2, 4]),
        (["0", "10", "9"], [0, 2, 1]),
        (["ab", "b", "b1", "b²"], [0, 1, 2, 3]),
        (["dense_10", "dense_2", "conv"], [0, 1, 2]),  # its own order
    ],
)
def test_layers_that_jax_has_by_letters_come_by_their_numbers(names, expected):
    value = {name: float(i) for i, name in enumerate(names)}
    track = r.track([[{"step": 0, "x": value}]], "x")
    assert track.values[0, 0].tolist() == expected
    assert track.parts == tuple(names[i] for i in expected)


def test_a_value_of_another_shape_does_not_count_as_measured():
    assert r.track(
        [[{"step": 0, "x": [1.0, 2.0]}, {"step": 1, "x": [1.0]}]], "x"
    ).present.tolist() == [[True, False]]


def test_arrays_of_any_depth_are_followed():
    values = np.arange(48.0).reshape(2, 2, 3, 4)
    history = [{"step": t, "x": value.tolist()} for t, value in enumerate(values)]
    np.testing.assert_array_equal(r.track([history], "x").values[0], values)
    with pytest.raises(ValueError, match="no run recorded numbers named 'x'"):
        r.track([[{"step": 0, "x": [[[1.0, 2.0]], [[1.0]]]}]], "x")


def test_asking_for_what_nobody_recorded_is_an_error():
    with pytest.raises(ValueError, match="no run recorded numbers named 'x'"):
        r.track([[{"step": 0}]], "x")


def test_a_run_diverged_where_a_loss_stops_being_a_number():
    assert (
        r.diverged(
            [
                {"step": 0, "train_loss": 1.0, "corrupt_accuracy": nan},
                {"step": 5, "test_loss": math.inf},
            ]
        )
        == 5
    )
    assert r.diverged([{"step": 0, "train_loss": 1.0, "corrupt_accuracy": nan}]) is None


@pytest.mark.parametrize(
    ("value", "axes", "axis"),
    [
        ({}, {}, "layer"),
        ({}, {"x": ("layer",)}, "layer"),
        ([], {"x": ("class",)}, "class"),
        ([], {"x": ("group", "group")}, "group"),
        ([], {"y": ("group",)}, "index"),
    ],
)
def test_what_the_parts_of_a_value_are(value, axes, axis):
    assert r.axis("x", value, axes) == axis


def test_runs_of_the_same_settings_are_one_arm_whatever_their_folder_is_called(tmp_path):
    for folder, seed, noise in (("first", 1, 0.0), ("again", 0, 0.0), ("noisy", 0, 0.5)):
        recorded.run(tmp_path / folder, seed, noise=noise, probes=False)
    assert [arm.seeds for arm in arms([tmp_path])] == [[0, 1], [0]]


def test_arms_are_named_by_what_tells_their_folders_apart(tmp_path):
    for noise in (0.0, 0.5):
        recorded.run(
            tmp_path / "runs" / f"noise={noise}" / "sgd" / "seed=0", noise=noise, probes=False
        )
    assert [arm.name for arm in arms([tmp_path])] == ["noise=0.0/sgd", "noise=0.5/sgd"]
    assert [arm.name for arm in arms([tmp_path / "runs" / "noise=0.0"])] == ["sgd"]


def test_arms_in_one_folder_are_named_by_the_settings_that_differ(tmp_path):
    for seed, noise in ((0, 0.0), (1, 0.5)):
        recorded.run(tmp_path / f"seed={seed}", seed, noise=noise, probes=False)
    assert [arm.name for arm in arms([tmp_path])] == ["noise.fraction=0.0", "noise.fraction=0.5"]


def test_a_run_named_twice_counts_once(tmp_path):
    recorded.run(tmp_path / "seed=0", probes=False)
    assert len(find([tmp_path, tmp_path / "seed=0", f"{tmp_path}/../{tmp_path.name}"])) == 1


@pytest.mark.parametrize("copy", ["seed=2-backup", "old/seed=2"])
def test_a_copy_of_a_run_is_refused_as_a_seed_of_its_own(tmp_path, copy):
    recorded.run(tmp_path / "arm" / "seed=2", seed=2, probes=False)
    shutil.copytree(tmp_path / "arm" / "seed=2", tmp_path / "arm" / copy)
    with pytest.raises(ValueError, match="the same settings and the same seed 2"):
        arms([tmp_path])
    with pytest.raises(ValueError, match="the same settings and the same seed 2"):
        compare(tmp_path / "arm", tmp_path / "arm")
    recorded.run(tmp_path / "noisy" / "seed=2", seed=2, noise=0.0, probes=False)
    assert len(arms([tmp_path / "arm" / "seed=2", tmp_path / "noisy"])) == 2


def test_a_folder_without_runs_is_said(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"holds no run\. Runs go to .*/EXPERIMENT/PRESET/ARM/seed=K\."
    ):
        arms([tmp_path])


def test_finals_are_the_last_record_that_has_the_quantity(tmp_path):
    with Run.open(tmp_path / "seed=3", {}, seed=3) as run:
        for record in ({"step": 0, "x": 1.0}, {"step": 1, "x": 2.0}, {"step": 2, "y": 0.0}):
            run.append(record)
    (arm,) = arms([tmp_path])
    assert arm.finals("x") == {3: 2.0}
    assert arm.finals("z") == {}

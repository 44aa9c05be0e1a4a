"""The most and least coherent examples: which they are, and how they are shown."""

import math

import numpy as np
import pytest

from coherence.lab.report import describe, drawing, write
from coherence.lab.report.examples import (
    Ranking,
    caption,
    early_and_last,
    images,
    is_corrupt,
    part_names,
    rankings,
    sample,
)
from coherence.lab.report.maps import example_ends
from coherence.lab.runs import Run
from tests.lab.report import recorded


def ranking(contributions, step=1):
    return rankings([{"step": step, "train/contributions": contributions}], "train")[0]


def test_the_order_is_by_contribution_and_leaves_out_what_is_nan():
    found = ranking([0.1, math.nan, 0.9, -0.3, 0.3])
    assert found.order.tolist() == [2, 4, 0, 3]
    most, least = found.ends(2)
    assert (most.tolist(), least.tolist()) == ([2, 4], [3, 0])


def test_ends_do_not_overlap():
    most, least = ranking([0.1, 0.2, 0.3]).ends(10)
    assert (most.tolist(), least.tolist()) == ([2], [0])


def test_a_record_of_nan_alone_is_no_ranking():
    assert rankings([{"step": 0, "contributions": [math.nan, math.nan]}], "") == []


@pytest.mark.parametrize(
    ("steps", "shown"), [([0, 5, 9], [5, 9]), ([0, 9], [9]), ([0], [0]), ([3], [3])]
)
def test_early_is_the_first_after_the_start(steps, shown):
    assert [one.step for one in early_and_last([ranking([1.0], step) for step in steps])] == shown


@pytest.mark.parametrize(
    ("contribution", "text"), [(1.23, "1.2x"), (-0.5, "-0.50x"), (1200.0, "1,200x"), (0.0, "0.00x")]
)
def test_contributions_are_in_average_examples(contribution, text):
    assert ranking([contribution]).times(0) == text


@pytest.mark.parametrize(
    ("shape", "dtype", "pictures"),
    [
        ((5, 64), np.float32, (5, 8, 8)),
        ((5, 784), np.uint8, (5, 28, 28)),
        ((5, 3072), np.float32, (5, 32, 32, 3)),
        ((5, 8, 8), np.float32, (5, 8, 8)),
        ((5, 28, 28, 1), np.uint8, (5, 28, 28)),
        ((5, 32, 32, 3), np.uint8, (5, 32, 32, 3)),
        ((5, 6), np.float32, None),
        ((5, 64), np.int32, None),
        ((5, 1), np.float32, None),
        ((5, 4, 4, 7), np.float32, None),
    ],
)
def test_inputs_are_pictures_if_their_shape_says_so(shape, dtype, pictures):
    found = images(np.zeros(shape, dtype))
    assert (None if found is None else found.shape) == pictures


def test_pictures_are_not_turned():
    pixels = np.arange(64.0).reshape(1, 64)
    assert images(pixels)[0, 0].tolist() == list(range(8))


def test_corrupt_is_the_group_that_is_called_so():
    kept = {
        "labels": np.array([7, 3]),
        "group": np.array([0, 1]),
        "group_names": np.array(["pristine", "corrupt"]),
    }
    assert [caption(kept, i) for i in (0, 1)] == ["label 7", "label 3, corrupt"]
    targets = {**kept, "labels": np.ones((2, 64))}  # what an autoencoder is to return
    assert [caption(targets, i) for i in (0, 1)] == ["", "corrupt"]
    assert not is_corrupt({"group": np.array([0, 1])}, 1)
    assert not is_corrupt({}, 0)


def test_groups_are_called_what_the_probe_calls_them(tmp_path):
    with Run.open(tmp_path, {}, seed=0) as run:
        run.save("examples-train", group=[0, 1], group_names=["pristine", "corrupt"])
        run.save("examples-classes", group=[0, 1])
        groups = ["train/m_coherence_by_group", "train/alpha_between"]
        run.annotate(axes={name: ["group"] for name in (*groups, "classes/m_coherence_by_group")})
    assert part_names(run, "train/m_coherence_by_group", ["0", "1"]) == ["pristine", "corrupt"]
    assert part_names(run, "train/alpha_between", ["0", "1"]) == ["pristine", "corrupt"]
    assert part_names(run, "train/m_coherence_by_group", ["0", "1", "2"]) == ["0", "1", "2"]
    assert part_names(run, "train/m_coherence_by_layer", ["a", "b"]) == ["a", "b"]
    assert part_names(run, "classes/m_coherence_by_group", ["0", "1"]) == ["0", "1"]
    assert part_names(run, "unknown/m_coherence_by_group", ["0", "1"]) == ["0", "1"]


def test_both_ends_are_drawn_in_order_and_corrupt_ones_are_framed():
    contributions = np.linspace(-2, 4, 30)
    groups = {
        "group": (np.arange(30) < 3).astype(int),
        "group_names": np.array(["pristine", "corrupt"]),
    }
    kept = {
        "inputs": np.random.default_rng(0).random((30, 8, 8)),
        "labels": np.arange(30),
        **groups,
    }
    figure = example_ends(Ranking("train", 9, np.argsort(-contributions), contributions), kept)
    axes = figure.axes
    assert [one.get_xlabel().splitlines()[0] for one in axes] == [
        f"label {i}" for i in [*range(29, 19, -1), *range(10)]
    ]
    np.testing.assert_array_equal(axes[0].images[0].get_array(), kept["inputs"][29])
    framed = [
        one.get_xlabel().splitlines()[0]
        for one in axes
        if one.spines["left"].get_edgecolor()[:3] == _rgb(drawing.COLOUR["corrupt"])
    ]
    assert framed == ["label 0", "label 1", "label 2"]
    assert [one.get_xlabel().endswith("corrupt") for one in axes] == [False] * 10 + [True] * 3 + [
        False
    ] * 7


def test_colour_pictures_and_missing_labels_are_drawn():
    kept = {"inputs": np.zeros((4, 3072), np.uint8)}
    figure = example_ends(ranking([0.1, 0.2, 0.3, 0.4]), kept)
    assert figure.axes[0].images[0].get_array().shape == (32, 32, 3)
    assert figure.axes[0].get_xlabel() == "0.40x"


def test_without_pictures_the_examples_are_listed(tmp_path):
    with Run.open(tmp_path / "seed=0", {}, seed=0) as run:
        run.annotate(axes={"train/contributions": ["example"]})
        run.append({"step": 4, "train/contributions": [1.5, 0.5]})
    page = write([tmp_path], tmp_path / "page.html").read_text()
    assert "seed 0, probe train, step 4, of 2 examples." in page
    assert '<th scope="row">most coherent</th><td>0</td><td>-</td><td>1.5x</td>' in page


def test_the_few_are_named_by_their_place_in_the_sample(tmp_path):
    with Run.open(tmp_path / "seed=0", {}, seed=0) as run:
        run.annotate(axes={"train/contributions": ["example"]})
        run.append({"step": 4, "train/contributions": [1.5, 0.5]})
        run.save("examples-train", index=[31, 47], labels=[7, 8])
    assert "most coherent: 31 (label 7, 1.5x)" in describe(tmp_path)
    assert (
        '<th scope="row">least coherent</th><td>47</td><td>label 8</td>'
        in write([tmp_path], tmp_path / "page.html").read_text()
    )


def test_a_run_without_kept_examples_has_none(tmp_path):
    assert sample(recorded.run(tmp_path / "seed=0", probes=False), "train") == {}


def _rgb(colour):
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))

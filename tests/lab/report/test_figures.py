"""The report's figures: colours with one meaning, means over the seeds there are, landmarks, and
nothing drawn that was not measured.
"""

import math

import matplotlib.colors
import numpy as np
import pytest

from coherence.lab.report import curves, drawing, labels, maps
from coherence.lab.report.grouping import Arm, arms
from coherence.lab.runs import Run, save_arrays
from tests.lab.report import recorded


@pytest.fixture(autouse=True)
def _in_house_style():
    with drawing.in_house_style():
        yield


def made(folder, *histories, config=None, axes=None):
    """One arm of runs with these records."""
    for seed, history in enumerate(histories):
        with Run.open(
            folder / f"seed={seed}", config or {}, seed=seed, manifest={"axes": axes or {}}
        ) as run:
            for record in history:
                run.append(record)
    return arms([folder])


def line(axes, label):
    return next(one for one in axes.lines if one.get_label() == label)


def test_arms_of_one_label_share_a_colour_and_differ_in_dashes():
    names = ["real-sgd", "real-winsorized", "random-sgd", "wide", "really"]
    looks = curves.looks([Arm(name, []) for name in names])
    assert looks["real-sgd"] == (drawing.COLOUR["real"], "-")
    assert looks["real-winsorized"] == (drawing.COLOUR["real"], "--")
    assert looks["random-sgd"] == (drawing.COLOUR["random"], "-")
    assert looks["really"][0] != looks["wide"][0]


def test_twelve_arms_look_different():
    looks = curves.looks([Arm(f"arm{i}", []) for i in range(12)])
    assert len(set(looks.values())) == 12


def test_arms_that_differ_in_one_number_are_shades_in_its_order(tmp_path):
    for rate in (10, 0.5, 2, 1):
        made(tmp_path / f"{rate}", [{"step": 0, "x": 1.0}], config={"rate": rate, "kind": "Run"})
    members = arms([tmp_path])
    looks = curves.looks(members)
    brightness = {name: sum(bytes.fromhex(colour[1:])) for name, (colour, _) in looks.items()}
    assert sorted(brightness, key=brightness.get) == ["0.5", "1", "2", "10"]
    axes = curves.over_training(members[:2], ["x"], members).axes[0]
    assert {one.get_label(): one.get_color() for one in axes.lines} == {
        name: looks[name][0] for name in ("0.5", "1")
    }


def test_arms_that_differ_in_a_word_or_in_two_numbers_are_no_shades(tmp_path):
    for i, config in enumerate(({"a": "x"}, {"a": "y"}, {"a": "z"})):
        made(tmp_path / "words" / f"{i}", [{"step": 0}], config=config)
    for i, config in enumerate(({"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 2})):
        made(tmp_path / "numbers" / f"{i}", [{"step": 0}], config=config)
    for folder in ("words", "numbers"):
        looks = curves.looks(arms([tmp_path / folder]))
        assert {colour for colour, _ in looks.values()} <= set(drawing.COLOUR.values())


def test_a_single_record_is_a_point(tmp_path):
    (arm,) = made(tmp_path, [{"step": 7, "x": 1.0}], [{"step": 7, "x": 2.0}])
    (point,) = curves.over_training([arm], ["x"]).axes[0].lines
    assert point.get_marker() == "o"


def test_the_mean_is_drawn_where_every_seed_was_measured_and_thin_lines_elsewhere(tmp_path):
    full = [{"step": step, "x": float(step)} for step in range(4)]
    (arm,) = made(tmp_path, full, [{"step": step, "x": step + 2.0} for step in range(2)])
    axes = curves.over_training([arm], ["x"]).axes[0]
    np.testing.assert_array_equal(line(axes, arm.name).get_xydata(), [[0, 1], [1, 2]])
    thin = [one.get_xydata().tolist() for one in axes.lines if one.get_linewidth() < 1]
    assert thin == [[[0, 0], [1, 1], [2, 2], [3, 3]], [[0, 2], [1, 3]]]


def test_whole_seeds_need_no_thin_lines(tmp_path):
    (arm,) = made(
        tmp_path, *[[{"step": step, "x": float(seed)} for step in range(3)] for seed in range(2)]
    )
    assert len(curves.over_training([arm], ["x"]).axes[0].lines) == 1


def test_m_coherence_is_on_a_logarithmic_axis_with_a_line_at_orthogonal(tmp_path):
    (arm,) = made(tmp_path, [{"step": step, "train/m_coherence": 2.0 + step} for step in range(3)])
    axes = curves.over_training([arm], ["train/m_coherence"]).axes[0]
    assert axes.get_yscale() == "log"
    assert axes.get_ylabel() == "examples helped\n(m-coherence)"
    assert [text.get_text() for text in axes.texts] == ["orthogonal"]
    assert axes.get_ylim()[0] < 1 < axes.get_ylim()[1]


@pytest.mark.parametrize(
    ("name", "values", "log"),
    [
        ("m_coherence", [1.0, 2.0], True),
        ("m_coherence", [0.0, 2.0], False),
        ("m_coherence", [math.nan], False),
        ("train_loss", [2.3, 1.0], False),
        ("train_loss", [2.3, 0.01], True),
        ("gsnr", [-1.0, 100.0], False),
        ("train_accuracy", [0.01, 1.0], False),
    ],
)
def test_axes_are_logarithmic_where_that_helps_and_is_possible(name, values, log):
    assert labels.is_logarithmic(name, np.array(values)) is log


def test_steps_are_logarithmic_where_they_were_recorded_so(tmp_path):
    (arm,) = made(tmp_path, [{"step": step, "x": 1.0} for step in recorded.STEPS])
    axes = curves.over_training([arm], ["x"]).axes[0]
    assert axes.get_xscale() == "log"
    assert line(axes, arm.name).get_xdata()[0] > 0
    assert not labels.is_spread_out(np.arange(0, 100, 10))


def test_pristine_is_green_and_corrupt_vermilion(tmp_path):
    records = [{"step": step, "alpha_by_group": [1.0, 2.0]} for step in range(3)]
    (arm,) = made(tmp_path, records, axes={"alpha_by_group": ["group"]})
    save_arrays(arm.runs[0].path / "examples.npz", group_names=["pristine", "corrupt"])
    axes = curves.by_group([arm], "alpha_by_group").axes[0]
    assert {one.get_label(): one.get_color() for one in axes.lines} == {
        name: drawing.COLOUR[name] for name in ("pristine", "corrupt")
    }


def test_a_narrow_band_of_seeds_does_not_blow_up_the_panel(tmp_path):
    (arm,) = made(
        tmp_path, *[[{"step": step, "x": 1.0 + seed} for step in range(3)] for seed in range(2)]
    )
    low, high = curves.over_training([arm], ["x"]).axes[0].get_ylim()
    assert (low, high) == pytest.approx((0.9, 2.1))


def test_layers_are_rows_in_order_and_colours_are_means_over_seeds(tmp_path):
    layers = lambda scale: {"first": scale, "second": 10.0 * scale}
    (arm,) = made(
        tmp_path,
        *[
            [{"step": step, "m_coherence_by_layer": layers(scale)} for step in (0, 1)]
            for scale in (1.0, 3.0)
        ],
    )
    figure = maps.by_layer([arm], "m_coherence_by_layer")
    panel, bar = figure.axes
    assert [text.get_text() for text in panel.get_yticklabels()] == ["first", "second"]
    assert panel.yaxis_inverted()
    mesh = panel.collections[0]
    np.testing.assert_array_equal(mesh.get_array(), [[2, 2], [20, 20]])
    assert isinstance(mesh.norm, matplotlib.colors.LogNorm)
    assert bar.get_ylabel() == "examples helped\n(m-coherence)"


def test_a_seed_that_was_not_measured_does_not_count_in_a_mean(tmp_path):
    layers = lambda step, value: {"step": step, "m_coherence_by_layer": {"first": value}}
    (arm,) = made(tmp_path, [layers(0, 1.0), layers(1, 5.0)], [layers(0, 3.0)])
    mesh = maps.by_layer([arm], "m_coherence_by_layer").axes[0].collections[0]
    np.testing.assert_array_equal(mesh.get_array(), [[2, 5]])


def test_diverged_seeds_are_left_out_of_maps_and_named(tmp_path):
    good = [{"step": 0, "train_loss": 1.0, "gsnr_by_layer": {"a": 1.0}}]
    bad = [{"step": 0, "train_loss": math.nan, "gsnr_by_layer": {"a": math.nan}}]
    (arm,) = made(tmp_path, good, bad)
    panel = maps.by_layer([arm], "gsnr_by_layer").axes[0]
    assert panel.get_title(loc="left").replace("\n", " ").endswith("without diverged seed 1")
    np.testing.assert_array_equal(np.ma.filled(panel.collections[0].get_array(), np.nan), [[1.0]])
    (lost,) = made(tmp_path / "lost", bad)
    assert np.isnan(
        np.ma.filled(
            maps.by_layer([lost], "gsnr_by_layer").axes[0].collections[0].get_array(), np.nan
        )
    ).all()


def test_a_matrix_with_negative_values_is_centred_on_zero_and_annotated(tmp_path):
    (arm,) = made(
        tmp_path,
        [{"step": 7, "stiffness_by_class": [[0.5, -0.25], [-0.1, 1.0]]}],
        axes={"stiffness_by_class": ["class", "class"]},
    )
    panel = maps.between_groups([arm], "stiffness_by_class").axes[0]
    assert panel.images[0].get_clim() == (-1.0, 1.0)
    assert [text.get_text() for text in panel.texts] == ["0.50", "-0.25", "-0.10", "1.00"]
    assert panel.get_xlabel() == "class"
    assert panel.get_title(loc="left").replace("\n", " ").endswith("step 7")


def test_cells_too_small_for_numbers_have_none(tmp_path):
    (arm,) = made(tmp_path, [{"step": 0, "stiffness_by_class": np.eye(100).tolist()}])
    assert len(maps.between_groups([arm], "stiffness_by_class").axes[0].texts) == 0


def test_arms_with_matrices_of_different_sizes_share_a_figure(tmp_path):
    made(tmp_path / "a", [{"step": 0, "x": np.eye(2).tolist()}], config={"classes": 2})
    made(tmp_path / "b", [{"step": 0, "x": np.eye(5).tolist()}], config={"classes": 5})
    panels = maps.between_groups(arms([tmp_path]), "x").axes[:2]
    assert [len(panel.get_xticks()) for panel in panels] == [2, 5]


def test_ticks_of_logarithmic_axes_are_plain_numbers():
    assert [labels.plain(x) for x in (0.001, 1, 50, 1e6, 1e-5)] == [
        "0.001",
        "1",
        "50",
        "1e6",
        "1e-5",
    ]
    assert [labels.sparse(x) for x in (2, 3, 0.5, 40)] == ["2", "", "0.5", ""]


def test_arms_in_several_figures_share_axes_and_colours(tmp_path):
    for i, top in enumerate((1.0, 50.0)):
        values = {
            "gsnr_by_layer": {"a": top, "b": 0.1},
            "gsnr_by_group": [top, 0.1],
            "alpha_between": [[top, 0.1], [0.1, top]],
        }
        made(tmp_path / f"{i}", [{"step": step, **values} for step in range(2)], config={"i": i})
    found = arms([tmp_path])
    first, second = (
        maps.by_layer([arm], "gsnr_by_layer", found).axes[0].collections[0].get_clim()
        for arm in found
    )
    assert first == second == (0.1, 50.0)
    first, second = (
        maps.between_groups([arm], "alpha_between", found).axes[0].images[0].get_clim()
        for arm in found
    )
    assert first == second == (0.1, 50.0)
    first, second = (curves.by_group([arm], "gsnr_by_group", found).axes[0] for arm in found)
    assert first.get_ylim() == second.get_ylim()
    assert first.get_yscale() == "log"

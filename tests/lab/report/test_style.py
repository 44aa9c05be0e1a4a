"""`style` and `plot`: the lab's look at any width."""

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

import coherence as co
from coherence.lab import cli
from coherence.lab.report import drawing, plot
from tests.lab.report import recorded


def test_text_has_the_stated_size_at_the_stated_width():
    before = dict(matplotlib.rcParams)
    with co.style("paper", width=3.3):
        assert matplotlib.rcParams["figure.figsize"] == [3.3, pytest.approx(0.62 * 3.3)]
        assert matplotlib.rcParams["font.size"] == 8
        assert matplotlib.rcParams["legend.fontsize"] >= 6
        assert Figure().get_figwidth() == 3.3
    assert dict(matplotlib.rcParams) == before


def test_the_settings_of_a_file_come_last(tmp_path):
    file = tmp_path / "matplotlibrc"
    file.write_text("font.size: 7\naxes.grid: False\n")
    with co.style("slides", matplotlibrc=file):
        assert matplotlib.rcParams["font.size"] == 7
        assert not matplotlib.rcParams["axes.grid"]
        assert matplotlib.rcParams["axes.labelsize"] == 14


@pytest.mark.parametrize(
    ("steps", "places"),
    [
        ([0, 1, 10], [0.7, 1, 10]),
        ([0, 100, 200], [70, 100, 200]),
        ([3, 6], [3, 6]),
        ([0], [0.7]),
        ([], []),
    ],
)
def test_step_0_is_just_before_the_next_on_a_logarithmic_axis(steps, places):
    np.testing.assert_allclose(drawing.log_steps(steps), places)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "poster"}, r"style\(name\): one of paper, page, slides, got 'poster'\."),
        ({"width": 0}, r"style: width and height are inches above 0, got 0 and None\."),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message), co.style(**arguments):
        pass


def test_a_run_is_drawn_at_the_width_of_a_column(tmp_path):
    for seed in (0, 1):
        recorded.run(tmp_path / f"seed={seed}", seed=seed)
    with co.style("paper", width=3.3, height=1.5):
        figure = plot([tmp_path], ["train_loss", "train_accuracy"])
    assert figure.get_size_inches().tolist() == [3.3, 3.0]
    assert len(figure.axes) == 2
    with pytest.raises(ValueError, match=r"plot\(quantities\): no 'loss' in these runs: "):
        plot([tmp_path], ["loss"])


def test_the_command_draws_one_figure(tmp_path, capsys):
    recorded.run(tmp_path / "run")
    file = tmp_path / "figure.pdf"
    command = ["report", str(tmp_path / "run"), "--figure", str(file), "--width", "3.3"]
    cli.main([*command, "--quantity", "train_loss"])
    assert file.read_bytes().startswith(b"%PDF")
    with pytest.raises(SystemExit):
        cli.main(command)
    assert "--figure draws what --quantity NAME says" in capsys.readouterr().err

"""Grids of runs: chosen by their settings, shown in order, as last values over settings."""

import csv
import io
import re
import sys

import numpy as np
import pytest

from coherence.lab import cli
from coherence.lab.claims import interval
from coherence.lab.report import describe, grids, html, showing
from coherence.lab.report.grouping import arms, find
from coherence.lab.report.tables import write_parquet
from coherence.lab.runs import Run


def config(rate=0.1, width=8, noise=0.5):
    model = {"kind": "MLP", "width": width}
    return {"rate": rate, "model": model, "noise": {"kind": "label_noise", "fraction": noise}}


def make(folder, *configs, seeds=2, ends=None):
    """Runs whose last loss is their rate times their width, and a thousandth for each seed."""
    for i, of_arm in enumerate(configs):
        for seed in range(seeds):
            with Run.open(folder / f"arm{i}" / f"seed={seed}", of_arm, seed=seed) as run:
                last = of_arm["rate"] * of_arm["model"]["width"] + 0.001 * seed
                run.append({"step": 0, "train_loss": 9.0, "train/alpha": 0.5})
                run.append({"step": 5, "train_loss": last})
                run.finish({"step": 5})
    return folder


GRID = [
    config(rate, width) for rate in (10.0, 2.0, 0.1, 0.5, 1.0, 3.0, 5.0) for width in (8, 16, 4, 2)
]


def test_conditions_choose_runs_by_setting_part_of_its_name_and_seed(tmp_path):
    make(tmp_path, config(), config(noise=0.25), config(rate=0.5, width=16))
    names = lambda *where: [run.path.parent.name for run in find([tmp_path], where=where)]
    assert (
        names("noise=0.25") == names("noise.fraction=0.25") == names("fraction=.25") == ["arm1"] * 2
    )
    assert names("width=16", "seed=1") == ["arm2"]
    assert names("model=MLP", "rate=1e-1", "seed=0") == ["arm0", "arm1"]


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("noise", r"--where noise: expected NAME=VALUE, such as noise=0\.5"),
        ("noise=0.75", r"no run has this value; there is 0\.25, 0\.5, label_noise"),
        ("nois=0.5", "no run has a setting nois. `coherence show` lists what differs"),
        ("seed=7", "there is 0, 1"),
    ],
)
def test_a_condition_that_chooses_nothing_says_what_there_is(tmp_path, condition, message):
    make(tmp_path, config(), config(noise=0.25))
    with pytest.raises(ValueError, match=message):
        find([tmp_path], where=[condition])


def test_very_many_runs_are_counted_and_the_first_shown(tmp_path, monkeypatch, capsys):
    make(tmp_path, config(), config(rate=0.5))
    monkeypatch.setattr(showing, "_MOST_RUNS", 3)
    text = describe(tmp_path, width=200)
    assert "4 runs, 4 done" in text
    assert text.count("/seed=") == 3 + 1  # and one of them in full
    assert "the first 3 of 4 runs. Others: --where rate=VALUE" in text
    cli.main(["show", str(tmp_path), "--where", "rate=0.5", "--where", "seed=1"])
    assert "arm1/seed=1: seed 1, done" in capsys.readouterr().out


def test_numbers_go_along_the_axis_few_values_are_colours_the_rest_panels():
    settings = [
        {"rate": str(rate), "width": str(width), "rule": rule, "depth": "3"}
        for rate in (0.1, 1.0, 10.0)
        for width in (2, 4)
        for rule in ("sum", "median")
    ]
    assert grids.plan(settings) == grids.Plan("rate", "width", ("rule",))


def test_many_settings_are_a_grid_in_order_and_its_numbers_those_of_the_runs(tmp_path):
    make(tmp_path / "runs", *GRID)
    page = html.write([tmp_path / "runs"], tmp_path / "page.html").read_text()
    assert "56 runs of 28 settings" in page
    assert page.count("<img") == 2  # loss and alpha, all widths in one panel
    (table,) = re.findall(r"this table as CSV</summary><pre>(.*?)</pre>", page, re.S)
    rows = [*csv.DictReader(io.StringIO(table))]
    places = [(float(row["rate"]), int(row["model.width"])) for row in rows]
    assert places == sorted((of_arm["rate"], of_arm["model"]["width"]) for of_arm in GRID)
    (drawn, _) = re.findall(r"numbers of this figure \(CSV\)</summary><pre>(.*?)</pre>", page, re.S)
    for row in csv.DictReader(io.StringIO(drawn)):
        last = float(row["x"]) * int(row["curve"])
        expected = interval([last, last + 0.001])
        numbers = [float(row[name]) for name in ("y", "low", "high")]
        np.testing.assert_allclose(numbers, expected, rtol=1e-5)
    html.write([tmp_path / "runs"], tmp_path / "some.html", where=["width=8"])
    some = (tmp_path / "some.html").read_text()
    assert "14 runs of 7 settings" in some
    assert "Over training" in some


def test_a_grid_names_what_is_unfinished_or_diverged_and_the_panels_it_leaves_out(
    tmp_path, monkeypatch
):
    make(tmp_path, *GRID, seeds=1)
    with Run.open(tmp_path / "arm0" / "seed=1", GRID[0], seed=1) as run:
        run.append({"step": 0, "train_loss": float("nan")})
    with Run.open(tmp_path / "words" / "seed=0", {**GRID[0], "words": "so"}, seed=0) as run:
        run.append({"step": 0, "train_loss": 1.0})
    monkeypatch.setattr(html, "_MOST_GRID_PANELS", 1)
    page = html.write([tmp_path], tmp_path / "page.html").read_text()
    assert "Unfinished or diverged: 2" in page
    assert "diverged: a loss is nan or infinite from step 0" in page
    assert "The first 1 of 2 panels." in page
    assert "words=absent" in page


def test_settings_in_words_are_ticks(tmp_path):
    configs = [{**config(), "rule": f"rule{i}"} for i in range(7)]
    grid = grids.Grid(arms([make(tmp_path, *configs)]))
    assert (grid.plan.across, grid.labels) == ("rule", [f"rule{i}" for i in range(7)])


def test_parquet_without_a_library_names_the_way_out(tmp_path, monkeypatch):
    for library in ("polars", "pandas"):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ValueError, match="neither is installed: pip install polars. --csv FILE"):
        write_parquet(tmp_path / "long.parquet", ["a"], [(1,)])


@pytest.mark.parametrize("library", ["polars", "pandas"])
def test_parquet_holds_the_numbers_of_the_csv(tmp_path, monkeypatch, library):
    loaded = pytest.importorskip(library)
    pytest.importorskip("polars" if library == "polars" else "pyarrow")
    if library == "pandas":
        monkeypatch.setitem(sys.modules, "polars", None)
    make(tmp_path / "runs", config())
    files = [str(tmp_path / name) for name in ("long.csv", "long.parquet")]
    cli.main(["show", str(tmp_path / "runs"), "--csv", files[0], "--parquet", files[1]])
    frames = loaded.read_csv(files[0]), loaded.read_parquet(files[1])
    columns = [[list(frame[name]) for name in ("run", "seed", "step", "value")] for frame in frames]
    assert columns[0] == columns[1]
    assert len(columns[0][0]) == 6

"""How long an experiment takes: stored per preset, scaled, and read off run folders."""

import dataclasses
import json
from pathlib import Path

import pytest

from coherence.lab import running
from coherence.lab.experiment import collect, load
from coherence.lab.grid import Grid
from coherence.lab.report import gallery
from coherence.lab.running import command, estimates
from coherence.lab.running.estimates import Estimate
from coherence.lab.runs import Run

ROOT = Path(__file__).resolve().parents[3]
TOY = collect(load(ROOT / "experiments" / "toy.py"))


def test_what_to_expect_is_in_proportion_to_the_measured_preset(tmp_path):
    (tmp_path / "experiments").mkdir()
    smoke = TOY.presets["smoke"]
    assert running.expected(tmp_path, TOY, "smoke", smoke) is None
    measured = Estimate(20, "counted", "an abacus")
    running.store(tmp_path, "toy", "smoke", measured)
    assert running.expected(tmp_path, TOY, "smoke", smoke) == measured
    assert str(measured) == "about 20 s (counted, an abacus)"
    more = dataclasses.replace(smoke, steps=3 * smoke.steps)
    assert running.expected(tmp_path, TOY, "smoke", more).seconds == 60
    assert running.expected(tmp_path, TOY, "cpu", TOY.presets["cpu"]) is None


def test_what_is_stored_is_read_again_and_others_stay(tmp_path):
    (tmp_path / "experiments").mkdir()
    first, second = Estimate(1, "a", "b"), Estimate(2, "c", "d")
    running.store(tmp_path, "toy", "smoke", first)
    running.store(tmp_path, "toy", "cpu", second)
    running.store(tmp_path, "toy", "smoke", second)
    assert running.stored(tmp_path) == {"toy": {"smoke": second, "cpu": second}}
    (tmp_path / estimates.FILE).write_text('{"toy": {"smoke": 8}}')
    with pytest.raises(ValueError, match="seconds.json holds no measured times"):
        running.stored(tmp_path)


def test_every_stored_time_is_of_an_experiment_and_says_how_it_was_measured():
    stored = running.stored(ROOT)
    assert len(stored) > 20
    for name, presets in stored.items():
        assert set(presets) <= set(collect(load(ROOT / "experiments" / f"{name}.py")).presets)
        for estimate in presets.values():
            assert estimate.seconds >= 1
            assert estimate.how
            assert estimate.machine


def folder(place, created, finished, **manifest):
    """A finished run of these times."""
    with Run.open(place, {}, seed=0) as run:
        run.finish()
    for name, change in (("manifest", {"created": created, **manifest}), ("DONE", {})):
        path = place / (name if name == "DONE" else f"{name}.json")
        content = json.loads(path.read_text())
        del content["_sha256"]
        content |= change if name == "manifest" else {"finished": finished}
        path.write_text(json.dumps(content))


def test_run_folders_say_how_long_somebody_trained(tmp_path):
    arm = dataclasses.make_dataclass("Arm", [("steps", int, 10)])()
    grid = Grid({"a": arm, "b": arm}, 2, tmp_path)
    assert estimates.from_folders(grid) is None
    time = "2026-11-28T10:{}+00:00".format
    host = {"cpus": 4, "system": "Linux-6.1-x86_64-with-glibc"}
    folder(grid.place("a", 0), time("00:00"), time("00:30"), host=host)
    folder(grid.place("a", 1), time("00:00"), time("01:00"), host=host)  # opened together
    folder(grid.place("b", 0), time("30:00"), time("31:00"), host=host)  # after a pause
    folder(grid.place("b", 1), time("31:00"), time("59:00"), host=host, resumed=[{}])
    seconds, how, machine = estimates.from_folders(grid)
    assert seconds == round((60 + 60) / 0.75)  # three of four runs
    assert (how, machine) == (estimates.FOLDERS, "4 CPUs, Linux x86_64")


def test_recording_keeps_the_time_it_took(tmp_path, monkeypatch, capsys):
    gallery.init(tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    monkeypatch.setenv("COHERENCE_RUNS", str(tmp_path / "runs"))
    path = tmp_path / "home" / estimates.FILE
    path.write_text("{}")
    command.main(TOY, ["--preset", "smoke", "--record"])
    took = running.stored(tmp_path / "home")["toy"]["smoke"]
    assert took.how == estimates.RECORDED
    assert took.machine == estimates.this_machine()
    assert 0 <= took.seconds < 60
    assert "expect" not in capsys.readouterr().out
    command.main(TOY, ["--preset", "smoke", "--record"])  # nothing was trained: that says nothing
    assert running.stored(tmp_path / "home")["toy"]["smoke"] == took
    assert f"expect {took}, less what is done already\n" in capsys.readouterr().out
    command.main(TOY, ["--preset", "smoke", "--steps", "5", "--record"])  # nor of the preset
    assert running.stored(tmp_path / "home")["toy"]["smoke"] == took
    path.write_text("{}")
    command.main(TOY, ["--preset", "smoke", "--record"])
    assert running.stored(tmp_path / "home")["toy"]["smoke"].how == estimates.FOLDERS

"""The script for accelerators, rehearsed on CPU with small sizes."""

import dataclasses
import json
import tarfile

import numpy as np
import pytest

from benchmarks import accelerator, accelerator_recordings
from coherence.lab.runs import Run
from coherence.lab.settings import digits


class Clock:
    """Over before the arm of this number."""

    def __init__(self, arms):
        self.arms = arms

    @property
    def over(self):
        self.arms -= 1
        return self.arms < 0

    def look(self, steps):
        pass


def names(file):
    with tarfile.open(file) as tar:
        return tar.getnames()


@pytest.fixture
def few(monkeypatch):
    """Digits instead of MNIST, and short."""
    original = accelerator_recordings.chosen_experiment

    def chosen(name, preset, tiny):
        experiment, settings = original(name, preset, True)
        run = dataclasses.replace(settings.run, data=digits(), steps=5)
        changes = {"noise": (0.5,), "c": (0.0, 2.0), "slower": (0.5,)}
        return experiment, dataclasses.replace(settings, run=run, **changes)

    monkeypatch.setattr(accelerator_recordings, "chosen_experiment", chosen)


@pytest.mark.slow  # trains the pieces that a GPU records
def test_what_is_finished_is_kept_after_every_arm_and_recorded(tmp_path, few):
    out, folder = tmp_path / "out", tmp_path / "runs"
    out.mkdir()
    accelerator_recordings.record(["winsorization:half:noise=0.5"], out, folder, True, Clock(10**6))
    done = "winsorization/half/noise=0.5,c=2/seed=1/DONE"
    assert done in names(out / "winsorization.tar.gz")
    with np.load(folder / "winsorization" / "half" / "recorded.npz") as recorded:
        settings = json.loads(str(recorded["settings"]))
        assert settings["slower"] == []  # those arms are not trained yet
    accelerator_recordings.record(["winsorization:half"], out, folder, True, Clock(10**6))
    with np.load(folder / "winsorization" / "half" / "recorded.npz") as recorded:
        assert recorded["slower/test_accuracy"].shape == (1, 2)
    assert names(out / "recorded.tar.gz") == ["winsorization-half.npz"]


def test_a_clock_that_is_over_trains_nothing_more(tmp_path, few):
    out = tmp_path / "out"
    out.mkdir()
    accelerator_recordings.record(["winsorization:half"], out, tmp_path / "runs", True, Clock(0))
    assert not list((tmp_path / "runs").rglob("DONE"))


def test_a_run_that_was_cut_goes_on_elsewhere(tmp_path, few, monkeypatch):
    out, first, second = (tmp_path / name for name in ("out", "first", "second"))
    out.mkdir()
    original = accelerator_recordings.chosen_experiment

    def long(*chosen):
        experiment, settings = original(*chosen)
        run = dataclasses.replace(settings.run, steps=10**6)
        return experiment, dataclasses.replace(settings, run=run)

    with monkeypatch.context() as patch:
        patch.setattr(accelerator_recordings, "chosen_experiment", long)
        clock = accelerator_recordings.Clock(0.1)
        accelerator_recordings.record(["winsorization:half:slower"], out, first, True, clock)
        clock.stop()
    with tarfile.open(out / "cut-0.tar.gz") as tar:
        tar.extractall(second, filter="data")
    run = "winsorization/half/slower=0.5/seed=0"
    copied, original = (Run.read(folder / run) for folder in (second, first))
    assert not copied.done
    assert max(copied.checkpoints()) == max(original.checkpoints()) > 0
    assert copied.records() == original.records()


def test_batches_are_pooled_by_windows():
    values = np.arange(accelerator_recordings.WINDOW * 2 + 3, dtype=np.float32)
    np.testing.assert_allclose(accelerator_recordings.pooled_mean(values), [24.5, 74.5])


def test_errors_are_relative():
    assert accelerator.error(np.array([3.0, 4.4]), np.array([3.0, 4.0])) == pytest.approx(0.08)
    assert accelerator.error({"a": np.float32(2.2)}, {"a": 2.0}) == pytest.approx(0.1)


@pytest.mark.slow  # compiles what is timed on a GPU
def test_probes_are_timed_in_a_table(tmp_path):
    accelerator.section("probes", tmp_path, True)
    table = (tmp_path / "probes.part.md").read_text()
    assert "| standard, m = 500 |" in table
    assert "failed" not in table

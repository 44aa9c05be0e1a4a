"""What `coherence status` says is what is so, for every state that a run can be in."""

import dataclasses
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest

from coherence.lab import cli
from coherence.lab.experiment import collect, load
from coherence.lab.grid import Grid, Unit
from coherence.lab.running.status import states, summary
from coherence.lab.runs import Run, locks
from coherence.lab.settings import plain
from tests.lab.test_locks import write

ROOT = Path(__file__).resolve().parents[3]
TOY = collect(load(ROOT / "experiments" / "toy.py"))


@dataclasses.dataclass(frozen=True)
class Fails:
    """A computation that its first two seeds survive."""

    message: str = "no such luck"

    def compute(self, seed):
        if seed == 2:
            raise ValueError(f"{self.message}\n")
        return {"accuracy": np.float64(seed)}


@pytest.fixture
def grid(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COHERENCE_RUNS", str(tmp_path))
    return Grid(TOY.grid(TOY.presets["smoke"]), 3, tmp_path / "toy" / "smoke")


def opened(grid, arm, seed):
    return Run.open(grid.place(arm, seed), plain(grid.arms[arm]), seed=seed)


def state_of(grid, arm, seed):
    (state,) = [state for state in states(grid) if state[:2] == (arm, seed)]
    return state


def test_a_run_that_is_written_shows_by_whom_and_how_far(grid, capsys):
    with opened(grid, "learnable-mean", 1) as run:
        run.reach(10)
        run.reach(40)
        time.sleep(0.01)
        locks._beat_all()
        state = state_of(grid, "learnable-mean", 1)
        assert (state.state, state.step, state.writer.pid) == ("running", 40, os.getpid())
        assert 0 < state.writer.steps_per_second < 30 / 0.01
        cli.main(["status", "toy", "--preset", "smoke", "--seeds", "3"])
    said = capsys.readouterr().out
    assert said.startswith(f"toy -> {grid.folder}\n12 runs: 1 running, 11 waiting\n")
    row = " ".join(said.splitlines()[-1].split())
    assert row.startswith("learnable-mean 1 40 of 60 ")
    assert f" {locks._host()} {os.getpid()} 20" in row
    assert re.search(r" \d+ s ago$", row)


def test_finished_stopped_and_failed_runs_are_told_apart(grid):
    for seed in range(2):
        with opened(grid, "learnable-mean", seed) as run:
            run.append({"step": 0})
            run.checkpoint(20, {"w": np.zeros(2)})
            if seed == 0:
                run.finish()
    with opened(grid, "memorizable-mean", 0) as run:
        run.fail(ValueError("a line\nno such luck"))
    assert [(s.seed, s.state, s.step) for s in states(grid)[:3]] == [
        (0, "done", None),
        (1, "stopped", 20),
        (2, "waiting", None),
    ]
    failed = state_of(grid, "memorizable-mean", 0)
    assert (failed.state, failed.error) == ("failed", "no such luck")
    assert summary(grid, states(grid)).split("\n\n") == [
        "12 runs: 1 done, 1 failed, 1 stopped, 9 waiting",
        "failed            seed  checkpoint  last line of its error.log\n"
        "memorizable-mean     0  0 of 60     no such luck",
        "stopped         seed  checkpoint  by\nlearnable-mean     1  20 of 60",
    ]


@pytest.mark.parametrize(  # later on a machine that slept in between, never sooner
    ("age", "sign"), [(35, r" (3[5-9]|[4-9]\d|1\d\d) s ago$"), (4000, r" 4,0\d\d s ago: dead\?$")]
)
def test_a_writer_on_another_machine_is_running_until_somebody_takes_over(grid, age, sign):
    with opened(grid, "learnable-mean", 0) as run:
        pass
    write(run.path / ".lock-1", age, step=33, steps_per_second=1234.5)
    text = summary(grid, states(grid))
    assert "12 runs: 1 running, 11 waiting" in text
    assert "33 of 60" in text
    assert "1,234.5" in text
    assert "node7" in text
    assert re.search(sign, text)


def test_a_killed_process_is_named(grid):
    with opened(grid, "learnable-mean", 0) as run:
        pass
    write(run.path / ".lock-1", space=locks._space(), pid=os.getpid(), started="before", step=7)
    state = state_of(grid, "learnable-mean", 0)
    assert (state.state, state.step) == ("stopped", None)
    assert summary(grid, [state]).endswith(
        f"killed: process {os.getpid()} on node7 since 2026-01-02T03:04"
    )


def test_what_fails_leaves_its_error_until_it_is_begun_once_more(tmp_path):
    grid = Grid({"fits": Fails()}, 4, tmp_path)
    with pytest.raises(ValueError, match="no such luck"):
        grid.train(Unit("fits", (0, 1, 2, 3)), lambda n: None, lambda line: None)
    assert [(s.state, s.error) for s in states(grid)] == [
        ("done", ""),
        ("done", ""),
        ("failed", "ValueError: no such luck"),
        ("failed", "ValueError: no such luck"),
    ]
    assert "Traceback" in (tmp_path / "fits" / "seed=2" / "error.log").read_text()
    with Run.open(grid.place("fits", 2), plain(Fails()), seed=2) as run:
        assert not (run.path / "error.log").exists()
    grid.train(Unit("fits", (3,)), lambda n: None, lambda line: None)
    assert [s.state for s in states(grid)] == ["done", "done", "stopped", "done"]


def test_of_many_runs_a_screen_is_shown(grid):
    many = Grid(grid.arms, 30, grid.folder)
    for seed in range(30):
        for arm in ("learnable-mean", "learnable-median"):
            opened(many, arm, seed).close()
    text = summary(many, states(many))
    assert "120 runs: 60 stopped, 60 waiting" in text
    assert text.endswith("and 20 more")
    assert len(text.splitlines()) == 1 + 1 + 41 + 2

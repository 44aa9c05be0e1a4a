"""The script that kills runs: what it finds, and a short round of it."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from coherence.lab.runs import Run

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "kill.py"


def recorded(folder, records, loss=0.5):
    with Run.open(folder, {}, seed=0) as run:
        for record in records:
            run.append(record)
        for name in ("params", "batches", "drawn"):
            run.save(name, loss=np.full(3, loss))
        run.finish({"step": len(records)})
    return folder


def test_every_kind_of_difference_is_found(tmp_path):
    spec = importlib.util.spec_from_file_location("kill", SCRIPT)
    kill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kill)
    records = [{"step": 0, "loss": float("nan")}, {"step": 1}]
    whole = recorded(tmp_path / "whole", records)
    assert kill.differences(whole, recorded(tmp_path / "same", records), records[:1]) == []
    assert kill.differences(whole, recorded(tmp_path / "doubled", [*records, records[-1]]), []) == [
        "metrics.jsonl",
        "DONE",
    ]
    assert kill.differences(whole, recorded(tmp_path / "other", records, 0.25), []) == [
        "params.npz",
        "batches.npz",
        "drawn.npz",
    ]
    for left in ([records[0], records[0]], [records[1]], [*records, {"step": 2}]):
        assert kill.differences(whole, tmp_path / "same", left) == ["records left by the kill"]


@pytest.mark.slow
def test_killed_runs_end_as_if_nothing_had_happened():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills", "2", "--seed", "7"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "2 of 2 resumed runs are identical to the uninterrupted one" in done.stdout

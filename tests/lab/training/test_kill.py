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


def script():
    spec = importlib.util.spec_from_file_location("kill", SCRIPT)
    kill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kill)
    return kill


def test_every_kind_of_difference_is_found(tmp_path):
    kill = script()
    records = [{"step": 0, "loss": float("nan")}, {"step": 1}]
    whole = recorded(tmp_path / "whole", records)
    same = recorded(tmp_path / "same", records)
    assert kill.differences(whole, same) == kill.halves(whole, tmp_path / "nothing", same) == []
    assert kill.differences(whole, recorded(tmp_path / "doubled", [*records, records[-1]])) == [
        "DONE",
        "metrics.jsonl",
    ]
    assert kill.differences(whole, recorded(tmp_path / "other", records, 0.25)) == [
        "batches.npz",
        "drawn.npz",
        "params.npz",
    ]
    (same / ".page.html.123.tmp").write_text("spare")
    (same / "drawn.npz").unlink()
    assert kill.differences(whole, same) == [".page.html.123.tmp", "drawn.npz"]


def test_half_a_file_is_found(tmp_path):
    kill = script()
    records = [{"step": 0, "loss": float("nan")}, {"step": 1}]
    whole = recorded(tmp_path / "whole", records)
    (whole / "page.html").write_text("a page")
    before = tmp_path / "before"
    before.mkdir()
    for left in ([records[0], records[0]], [records[1]], [*records, {"step": 2}]):
        folder = recorded(tmp_path / f"{len(left)}-{left[0]['step']}", left)
        assert kill.halves(whole, before, folder) == ["metrics.jsonl"]
    beginning = recorded(tmp_path / "beginning", records[:1])
    assert kill.halves(whole, before, beginning) == []
    (beginning / "page.html").write_text("a p")
    (beginning / "params.npz").write_bytes((whole / "params.npz").read_bytes()[:99])
    assert kill.halves(whole, before, beginning) == ["page.html", "params.npz"]
    (before / "page.html").write_text("a p")  # what was there before the kill may stay
    assert kill.halves(whole, before, beginning) == ["params.npz"]


@pytest.mark.slow
def test_killed_runs_end_as_if_nothing_had_happened():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills", "3", "--seed", "7"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "3 of 3 ended as if nothing had happened" in done.stdout

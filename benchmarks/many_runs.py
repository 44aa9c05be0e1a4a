"""Looking at a folder of 10,000 runs of 100 records: seconds of each command.

    python benchmarks/many_runs.py [--runs 10000] [--folder FOLDER]

The runs are those of `coherence run toy --preset smoke --seeds RUNS/4`, with made-up numbers; a
tenth is unfinished. Processor and wall seconds of a whole command, its start included. Targets:
`status`, `list` and `show` 3 s, `compare` of two runs 1 s; `report` of 500 runs, of four settings
and of a hundred, 30 s and 5 MB.
"""

import argparse
import itertools
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from coherence.lab.experiment import collect, load
from coherence.lab.grid import Grid
from coherence.lab.runs import Run
from coherence.lab.settings import plain

ROOT = pathlib.Path(__file__).resolve().parents[1]
RECORDS = 100


def make(folder, count):
    """Runs of all arms of the toy, as training would leave them."""
    os.fsync = lambda _: None  # nobody needs them after a power failure
    toy = collect(load(ROOT / "experiments" / "toy.py"))
    grid = Grid(toy.grid(toy.presets["smoke"]), count // 4, folder / "toy" / "smoke")
    rng = np.random.default_rng(0)
    for arm, settings in grid.arms.items():
        for seed in range(grid.seeds):
            with Run.open(grid.place(arm, seed), plain(settings), seed=seed) as run:
                for step, (loss, alpha) in enumerate(rng.random((RECORDS, 2)).tolist()):
                    run.append({"step": step, "train_loss": loss, "train/alpha": alpha})
                if seed % 10:
                    run.finish({"step": RECORDS - 1})
    return grid


def make_grid(folder):
    """500 runs of a hundred settings."""
    rng = np.random.default_rng(0)
    for rate, width in itertools.product(np.geomspace(0.01, 10, 20), (8, 16, 32, 64, 128)):
        config = {"rate": round(float(rate), 4), "model": {"kind": "MLP", "width": width}}
        for seed in range(5):
            with Run.open(
                folder / f"{rate:.3g}" / f"{width}" / f"seed={seed}", config, seed=seed
            ) as run:
                for step, (loss, alpha) in enumerate(rng.random((RECORDS, 2)).tolist()):
                    run.append({"step": step, "train_loss": loss + rate, "train/alpha": alpha})
                run.finish({"step": RECORDS - 1})


def seconds(words, folder):
    """`(processor, wall)` of a command."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "COHERENCE_RUNS": str(folder), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "coherence.lab", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr[-2000:]
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--folder", type=pathlib.Path, help="made there once, and kept")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = asked.folder or pathlib.Path(temporary)
        folder, few, grid = (home / name for name in ("many", "few", "grid"))
        for place, made in ((folder, asked.runs), (few, 500)):
            if not place.exists():
                make(place, made)
        if not grid.exists():
            make_grid(grid)
        arms = sorted(str(path) for path in (folder / "toy" / "smoke").iterdir() if path.is_dir())
        pair = [f"{arm}/seed=1" for arm in arms[:2]]
        pages = {name: home / f"{name}.html" for name in ("few", "grid")}
        commands = {
            "status": ["status", "toy", "--preset", "smoke", "--seeds", str(asked.runs // 4)],
            "list": ["list"],
            "show": ["show", str(folder)],
            "show one arm": ["show", arms[0]],
            "compare two runs": ["compare", *pair],
            "compare two arms": ["compare", *arms[:2]],
            "report 500 of 4 settings": ["report", str(few), "--output", str(pages["few"])],
            "report 500 of 100 settings": ["report", str(grid), "--output", str(pages["grid"])],
        }
        print(f"{asked.runs:,} runs of {RECORDS} records       processor s    wall s")
        for name, words in commands.items():
            processor, wall = seconds(words, folder)
            print(f"{name:<30}{processor:>16.2f}{wall:>10.2f}", flush=True)
        sizes = ", ".join(f"{page.stat().st_size / 1e6:.2f}" for page in pages.values())
        print(f"reports: {sizes} MB")


if __name__ == "__main__":
    main()

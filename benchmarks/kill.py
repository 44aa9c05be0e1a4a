"""kill -9 at random moments of a run: every resume must end as if nothing had happened.

    python benchmarks/kill.py [--kills 50] [--seed 0]

A classifier is trained on digits with wrong labels, in a process of its own that measures, records
and checkpoints every 10 steps. Then, a fresh folder each, it is killed at a moment uniform in the
time that run took from opening its folder to its end, and run again to the end. What the kill left
must read as a beginning of the whole run's records; what the resume ends with must be the whole
run's files, byte by byte. Exit status 1 at any difference.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from coherence.lab.runs import Run
from coherence.lab.settings import Probing
from coherence.probes import Every

STEPS, EVERY = 3000, 10
FILES = ("params.npz", "metrics.jsonl", "batches.npz", "drawn.npz")


def work(folder):
    """Train in `folder`, or go on there; says when it has opened the run and when it is done."""
    from coherence.lab.settings import MLP, label_noise
    from coherence.lab.training import Classification, train

    probes = (Probing(m=100, when=Every(EVERY)),)
    settings = Classification(
        noise=label_noise(0.25), model=MLP(width=64, depth=2), probes=probes, steps=STEPS
    )
    problem, schedule = settings.build(0), range(0, STEPS + 1, EVERY)
    run = Run.open(folder, {"batch_size": settings.batch_size}, seed=0)
    print("opened", flush=True)
    train(
        [problem],
        [run],
        steps=STEPS,
        batch_size=settings.batch_size,
        schedule=schedule,
        checkpoint_seconds=0,
    )
    print("done", flush=True)


def start(folder):
    """A process that trains in `folder` and has just opened it.

    What one compiles the next ones find in a cache.
    """
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(folder.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, __file__, "--work", str(folder)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **cache}
    )
    assert process.stdout.readline() == "opened\n"
    return process


def to_the_end(folder):
    """Seconds from opening the run to its end."""
    with start(folder) as process:
        opened = time.perf_counter()
        assert process.stdout.readline() == "done\n"
        took = time.perf_counter() - opened
    assert process.returncode == 0
    return took


def killed(folder, seconds):
    """Kill the run so long after it was opened.

    What it left: records and the newest checkpoint (None: none).
    """
    with start(folder) as process:
        time.sleep(seconds)
        process.kill()
    run = Run.read(folder)
    return run.records(), max(run.checkpoints(), default=None)


def differences(whole, other, left):
    """What is not as it should be: files of the resumed run, and the records that the kill left."""
    wrong = [name for name in FILES if (whole / name).read_bytes() != (other / name).read_bytes()]
    if Run.read(whole).summary != Run.read(other).summary:
        wrong.append("DONE")
    text = lambda records: [repr(record) for record in records]  # as text, nan is nan
    if text(left) != text(Run.read(whole).records()[: len(left)]):
        wrong.append("records left by the kill")
    return wrong


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--work", type=pathlib.Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        return work(asked.work)
    bad = 0
    with tempfile.TemporaryDirectory() as parent:
        whole = pathlib.Path(parent) / "whole"
        to_the_end(pathlib.Path(parent) / "compiling")
        took = to_the_end(whole)
        moments = np.random.default_rng(asked.seed).uniform(0, took, asked.kills)
        print(f"{STEPS} steps in {took:.1f} s; {asked.kills} moments drawn with seed {asked.seed}")
        print("kill  at second  records  checkpoint  after the resume")
        for number, moment in enumerate(moments, start=1):
            folder = pathlib.Path(parent) / f"killed-{number}"
            left, checkpoint = killed(folder, moment)
            to_the_end(folder)
            wrong = differences(whole, folder, left)
            bad += bool(wrong)
            verdict = f"DIFFERENT: {', '.join(wrong)}" if wrong else "identical"
            print(
                f"{number:>4}  {moment:>9.3f}  {len(left):>7}  {checkpoint!s:>10}  {verdict}",
                flush=True,
            )
    print(
        f"{asked.kills - bad} of {asked.kills} resumed runs are identical to the uninterrupted one"
    )
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())

"""SIGTERM: a checkpoint, one line that says so, status 143, and the same command goes on."""

import concurrent.futures
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coherence.lab.runs import Run
from tests.lab.training.test_loop import learn, same_bits

ROOT = Path(__file__).resolve().parents[3]


def terminate(*_):
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("vmapped", [False, True])
def test_asked_to_end_it_writes_a_checkpoint_says_so_and_goes_on_later_to_the_same_bits(
    tmp_path, capsys, vmapped
):
    seeds = (0, 1)
    whole = learn(tmp_path / "a", seeds, vmapped=vmapped)
    with pytest.raises(SystemExit) as stop:
        learn(
            tmp_path / "b", seeds, vmapped=vmapped, progress=terminate
        )  # in the first chunk, to step 3
    assert stop.value.code == 143
    others = " and 1 more" if vmapped else ""
    folder = tmp_path / "b" / "seed=0"
    said = (
        f"coherence: SIGTERM: checkpoint of step 3 written to {folder}{others}; "
        "the same command goes on from there.\n"
    )
    assert capsys.readouterr().err.lstrip() == said
    assert list(Run.read(folder).checkpoints()) == [3]
    assert [record["step"] for record in Run.read(folder).records()] == [0, 3]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    for one, other in zip(whole, learn(tmp_path / "b", seeds, vmapped=vmapped)):
        assert same_bits(one, other)
        assert one.records() == other.records()


def test_asked_to_end_in_the_last_chunk_it_finishes_and_begins_no_other_seed(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        learn(tmp_path, (0, 1), schedule=(0, 60), progress=terminate)
    assert stop.value.code == 143
    assert (
        "SIGTERM: every run that was begun is finished; the same command goes on"
        in capsys.readouterr().err
    )
    assert Run.read(tmp_path / "seed=0").done
    assert not Run.read(tmp_path / "seed=1").records()
    assert all(run.done for run in learn(tmp_path, (0, 1)))


def test_a_program_that_handles_sigterm_itself_keeps_its_way(tmp_path):
    came = []
    before = signal.signal(signal.SIGTERM, lambda *_: came.append(1))
    try:
        (run,) = learn(tmp_path, progress=terminate)
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    assert run.done
    assert len(came) == 3  # chunks


def test_it_trains_outside_the_main_thread_where_no_signal_can_be_handled(tmp_path):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        (run,) = pool.submit(learn, tmp_path).result()
    assert run.done


def test_the_command_ends_with_status_143_and_one_line_without_a_traceback(tmp_path):
    command = [
        sys.executable,
        "-m",
        "coherence.lab",
        "run",
        "toy",
        "--preset",
        "smoke",
        "--steps",
        "30000",
    ]
    environment = {**os.environ, "COHERENCE_RUNS": str(tmp_path), "PYTHONPATH": str(ROOT)}
    folder = tmp_path / "toy" / "smoke,steps=30000" / "learnable-mean" / "seed=0"
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        while process.poll() is None and not (
            (folder / "metrics.jsonl").exists() and len(Run.read(folder).records()) > 5
        ):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        said = process.communicate()[1]
    assert process.returncode == 143
    assert "Traceback" not in said
    (step,) = Run.read(folder).checkpoints()
    assert (
        f"\ncoherence: SIGTERM: checkpoint of step {step:,} written to {folder}; the same command "
        "goes on from there.\n" in said
    )
    assert step >= 5

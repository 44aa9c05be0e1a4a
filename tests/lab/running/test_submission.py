"""Experiments handed to Slurm, a real one, or to the background: killed, they end the same."""

import importlib.util
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import kill
from coherence.lab import cli
from coherence.lab.running import submission

ROOT = Path(__file__).resolve().parents[3]
WORDS = ["run", "toy", "--preset", "smoke", "--seeds", "2", "--steps", "1001"]
SEED = int(os.environ.get("COHERENCE_KILL_SEED", "0"))
SLURM = Path(__file__).with_name("slurm.sh")
needs_submitit = pytest.mark.skipif(
    not importlib.util.find_spec("submitit"), reason="pip install 'gradient-coherence[cluster]'"
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))

    def at(name):
        monkeypatch.setenv("COHERENCE_RUNS", str(tmp_path / name))
        return tmp_path / name / "toy"

    return at


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    if not all(map(shutil.which, ("sbatch", "slurmctld", "slurmd", "munged"))):
        pytest.skip("no Slurm to start: apt-get install slurm-wlm munge")
    port = str(20000 + os.getpid() % 20000)
    home = tmp_path / "slurm"
    monkeypatch.setenv("SLURM_CONF", str(home / "slurm.conf"))
    try:
        subprocess.run([SLURM, "up", home, port], check=True)
        yield home
    finally:
        subprocess.run(["scancel", "--user=root"], check=False)
        subprocess.run([SLURM, "down", home], check=False)


def output(*words):
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def children():
    """Process numbers of the `coherence run`s that the jobs' Pythons have started."""
    listed = output("ps", "-ww", "-eo", "pid,args").splitlines()  # of any width
    words = "coherence.lab run toy", WORDS[-1]
    return [int(line.split()[0]) for line in listed if all(word in line for word in words)]


def kill_daemon(home, rng, with_its_jobs):
    """Kill the node's daemon and start it; `with_its_jobs`: the node breaks down, and comes back.

    The jobs of a node that is down are queued again.
    """
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            name = (folder / "comm").read_text().strip()
        except OSError:  # it has ended
            continue
        in_job = name == "slurmstepd" or any(v.startswith(b"SLURM_JOB_ID=") for v in variables)
        if f"SLURM_CONF={home}/slurm.conf".encode() in variables and (
            name == "slurmd" or (with_its_jobs and in_job)
        ):
            os.kill(int(folder.name), signal.SIGKILL)
    if with_its_jobs:
        wait_until(lambda: "down" in output("sinfo", "-h", "-o", "%T"))
    else:
        time.sleep(rng.uniform(0, 2))
    subprocess.run([SLURM, "node", home], check=True)


def wait_until(condition, seconds=300, every=0.5):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(every)


@needs_submitit
@pytest.mark.slurm
@pytest.mark.slow  # starts a Slurm, and waits for it to find its node down
@pytest.mark.timeout(1800)
def test_a_grid_on_slurm_killed_requeued_and_preempted_ends_byte_identical(place, slurm, capfd):
    rng = np.random.default_rng(SEED)
    whole = place("whole")
    cli.main(WORDS)
    running = lambda: output("squeue", "-h", "-r", "-t", "R", "-o", "%i").split()
    ended = lambda: not output("squeue", "-h")
    # After a killed step its share is left to the last job, so that comes last.
    kinds = [*rng.permutation(["time limit", "preemption", "daemon", "node"]), "step"]
    grids, longest = [], 3.0
    while kinds:
        if ended():  # each kind of kill is needed: hand in another grid
            assert len(grids) < 12, f"jobs end before they can be killed; left: {kinds}"
            grids.append(place(f"cut{len(grids)}"))
            cli.main([*WORDS, "--submit", "slurm", "--shares", "2", "--option", "cpus-per-task=1"])
            assert "submitted as Slurm's job" in capfd.readouterr().out
        wait_until(lambda: (running() and children()) or ended(), every=0.1)
        time.sleep(rng.uniform(0, longest))
        jobs, processes = running(), children()
        if not jobs or not processes:
            longest /= 1.5  # this machine is fast
            continue
        kind = kinds.pop(0)
        if kind == "time limit":  # submitit asks for a checkpoint and requeues
            subprocess.run(["scancel", "--signal=USR2", rng.choice(jobs)], check=False)
        elif kind == "preemption":  # Slurm ends it by SIGTERM and SIGKILL, and queues it again
            subprocess.run(["scontrol", "requeue", rng.choice(jobs)], check=False)
        elif kind == "step":
            os.kill(rng.choice(processes), signal.SIGKILL)
        else:
            kill_daemon(slurm, rng, with_its_jobs=kind == "node")
    wait_until(ended, 900)
    for number, cut in enumerate(grids):
        place(f"cut{number}")
        cli.main(WORDS)  # where the last job was killed, too
        for logs in cut.rglob(submission._LOGS):
            shutil.rmtree(logs)
        assert kill.differences(whole, cut) == []


@needs_submitit
@pytest.mark.slow  # two processes of a background job, each with its own JAX
def test_local_submission_trains_in_the_background_and_goes_on_when_asked_to_end(place):
    cut = place("cut")
    words = [*WORDS[:-1], "200003", "--submit", "local"]
    said = output(sys.executable, "-m", "coherence.lab", *words)  # its pipes end with it
    (logs,) = cut.rglob(submission._LOGS)
    assert f"; logs: {logs}" in said
    (controller,) = [int(word) for word in said.split("process ")[1].split(";")[:1]]
    try:
        wait_until(lambda: any(cut.rglob("metrics.jsonl")), 120)
        (job,) = output("pgrep", "-P", str(controller)).split()
        os.kill(int(job), signal.SIGUSR2)  # as before a time limit
        err = lambda: "".join(path.read_text() for path in logs.glob("*_log.err"))
        out = lambda: "".join(path.read_text() for path in logs.glob("*_log.out"))
        wait_until(lambda: "SIGTERM: checkpoint of step" in err(), 120)
        wait_until(lambda: out().count("toy -> ") == 2, 120)  # it runs again
    finally:
        os.kill(controller, signal.SIGKILL)
        for text in (str(logs), "--steps 200003"):
            listed = subprocess.run(["pgrep", "-f", "--", text], capture_output=True, text=True)
            for pid in listed.stdout.split():
                os.kill(int(pid), signal.SIGKILL)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--submit", "nowhere"], "--submit: one of slurm, local, got 'nowhere'."),
        (["--submit", "local", "--shares", "0"], "--shares: among how many jobs the runs are"),
        (["--submit", "slurm", "--option", "gpu"], "--option gpu: expected NAME=VALUE as sbatch"),
        (["--submit", "local", "--option", "gpus=1"], "--submit local asks no Slurm: leave it out"),
        (["--submit", "local", "--share", "1/2"], "--submit hands all runs over, divided by"),
        (["--shares", "4"], "--shares and --option say how jobs are submitted: say where to"),
    ],
)
def test_no_submission_names_the_way_out(place, capsys, words, message):
    place("runs")
    with pytest.raises(SystemExit, match="2"):
        cli.main(["run", "toy", "--preset", "smoke", *words])
    assert message in capsys.readouterr().err


@needs_submitit
def test_importing_submitit_leaves_the_log_of_others_open(monkeypatch):
    """Of a caller that has absl, whose handler closes its stream when it is closed."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "submitit"]:
        monkeypatch.delitem(sys.modules, name)
    closed = []
    handler = logging.NullHandler()
    monkeypatch.setattr(handler, "close", lambda: closed.append(handler))
    submission._import_submitit()
    assert (closed, "SUBMITIT_LOG_LEVEL" in os.environ) == ([], False)


def refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["run", "toy", "--preset", "smoke", "--submit", "slurm"])
    return capsys.readouterr().err


def test_without_submitit_the_way_out_is_named(place, capsys, monkeypatch):
    place("runs")
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert "pip install 'gradient-coherence[cluster]'" in refused(capsys)


@needs_submitit
def test_without_slurm_the_way_out_is_named(place, capsys, monkeypatch):
    place("runs")
    monkeypatch.setattr(submission.shutil, "which", lambda name: None)
    assert "there is no sbatch here. Run this on a login node" in refused(capsys)


def test_options_are_those_of_sbatch_and_a_time_is_minutes():
    made = submission._parameters("toy", {"partition": "gpu", "gpus-per-node": "1", "time": "90"})
    assert (made["time"], made["additional_parameters"]) == (
        90,
        {"partition": "gpu", "gpus_per_node": "1"},
    )
    with pytest.raises(ValueError, match="--option time: a whole number of minutes, got '1:30'"):
        submission._parameters("toy", {"time": "1:30"})
    with pytest.raises(ValueError, match="--option cpus_per_task: a whole number, got '²'"):
        submission._parameters("toy", {"cpus-per-task": "²"})

"""One command on several hosts, here two processes: the first ends with what one process has."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import kill
from coherence.lab.running import hosts
from coherence.lab.running.hosts import Hosts, read_hosts
from coherence.lab.runs import load_arrays

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "-m", "coherence.lab", "run", "toy", "--preset", "smoke"]


def test_hosts_are_read_from_the_command_line():
    assert read_hosts("2/4@node1:9876") == Hosts(2, 4, "node1:9876")
    assert read_hosts("1/1@[::1]:80") == Hosts(1, 1, "[::1]:80")
    assert read_hosts("auto") is None


def test_a_first_process_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(hosts, "PATIENCE", 0.0)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"  # bound, and nobody listens
        with pytest.raises(ValueError, match=rf"--hosts: nobody listens at {address} .*1/N@"):
            hosts.connect(Hosts(2, 2, address))
    with pytest.raises(ValueError, match=r"nobody listens at localhost:99999 \("):
        hosts.connect(Hosts(2, 2, "localhost:99999"))


@pytest.mark.slow  # five processes, each with its own JAX
def test_two_processes_run_an_experiment_and_the_first_judges_it(tmp_path):
    def start(name, *words):
        environment = {"JAX_PLATFORMS": "cpu", "COHERENCE_RUNS": str(tmp_path / name)}
        options = {"cwd": ROOT, "env": {**os.environ, **environment}, "text": True}
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([*COMMAND, "--steps", "101", "--seeds", "2", *words], **options)

    def end(processes):
        said = [process.communicate(timeout=300) for process in processes]
        assert [process.returncode for process in processes] == [0] * len(processes), said
        return [out for out, _ in said]

    def both(first, second):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        names = {1: first, 2: second}
        return end(
            [start(name, "--hosts", f"{number}/2@{address}") for number, name in names.items()]
        )

    alone, (judged, nothing) = end([start("alone")])[0], both("first", "second")
    assert "reproduced" in judged
    said = [line for line in nothing.splitlines() if not line.startswith("[Gloo]")]
    assert (said, (tmp_path / "second").exists()) == ([], False)
    verdicts = lambda text: text[: text.index("figure:")].splitlines()[1:]
    rows = lambda text: [line.split()[:2] for line in verdicts(text) if line[:1].isalpha()]
    assert rows(judged) == rows(alone)
    one, two = (
        load_arrays(next((tmp_path / name).rglob("recorded.npz"))) for name in ("alone", "first")
    )
    for name in one:
        if one[name].dtype.kind == "f":
            np.testing.assert_allclose(two[name], one[name], 1e-5, atol=1e-6, err_msg=name)
    before = kill.files(tmp_path / "first")
    both("first", "second")  # all is done, which only the first process knows
    assert kill.files(tmp_path / "first") == before

"""An experiment handed to Slurm, or to this machine's background, through submitit.

To Slurm goes an array job of shares and a job that judges when they have ended; `local` is one
background process with as many workers. Before a time limit, and when preempted, a job writes
checkpoints and is queued again (submitit sends SIGUSR2 first; its child gets our SIGTERM).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

WHERE = ("slurm", "local")
GRACE = 80.0
"""Seconds for the last steps and a checkpoint; Slurm's jobs get their signal 90 before the end."""
_POLL = 0.1
_LOGS = ".submitted"
_MINUTES = 24 * 60  # of a job without --option time


@dataclasses.dataclass(frozen=True)
class Submission:
    """Where to, as how many shares, with which options of `sbatch`, and the rest of the command."""

    where: str
    shares: int
    options: Mapping[str, str]
    words: tuple[str, ...]


def read_submission(where: str, shares: str, options: Sequence[str], words: Sequence[str]) -> Any:
    """A `Submission` from what a command line says.

    Raises:
        ValueError: an unknown place, no number of shares, an option that is no NAME=VALUE.
    """
    if where not in WHERE:
        raise ValueError(f"--submit: one of {', '.join(WHERE)}, got {where!r}.")
    if not shares.isascii() or not shares.isdigit() or not 1 <= int(shares) <= 9999:
        raise ValueError(f"--shares: among how many jobs the runs are divided, got {shares!r}.")
    pairs = [option.partition("=") for option in options]
    for option, (name, equals, _) in zip(options, pairs):
        if not name or not equals:
            raise ValueError(
                f"--option {option}: expected NAME=VALUE as sbatch has it, such as partition=gpu."
            )
    if options and where == "local":
        raise ValueError("--option is for sbatch, and --submit local asks no Slurm: leave it out.")
    return Submission(where, int(shares), {a: b for a, _, b in pairs}, tuple(words))


def submit(name: str, folder: Path, submission: Submission) -> str:
    """Hand an experiment over; returns the lines that say what was submitted, and its logs.

    Raises:
        ValueError: submitit is not installed, or there is no Slurm here, or it refused.
    """
    try:
        submitit = _import_submitit()
    except ImportError:
        raise ValueError(
            f"--submit {submission.where} needs submitit: pip install "
            f"'gradient-coherence[cluster]'. Without it, coherence run {name} --share K/N trains a "
            "share wherever it is started (docs/scaling.md has the lines for sbatch)."
        ) from None
    logs = folder / _LOGS
    logs.mkdir(parents=True, exist_ok=True)
    command = [name, *submission.words]
    if submission.where == "local":
        executor: Any = submitit.LocalExecutor(logs, max_num_timeout=1000)
        executor.update_parameters(timeout_min=365 * _MINUTES, signal_delay_s=90)
        many = ["--workers", str(submission.shares)] if submission.shares > 1 else []
        with _detached():
            job = executor.submit(Job([*command, *many]))
        return f"submitted as process {job.job_id}; logs: {job.paths.stderr}"
    if shutil.which("sbatch") is None:
        raise ValueError(
            "--submit slurm: there is no sbatch here. Run this on a login node of the cluster, or "
            "say --submit local, or --workers N."
        )
    executor = submitit.SlurmExecutor(logs, max_num_timeout=1000)
    executor.update_parameters(**_parameters(name, submission.options))
    shares = [f"{i}/{submission.shares}" for i in range(1, submission.shares + 1)]
    with _refusals(submitit), executor.batch():
        jobs = [executor.submit(Job([*command, "--share", share])) for share in shares]
    array = jobs[0].job_id.partition("_")[0]
    executor.update_parameters(dependency=f"afterany:{array}")
    with _refusals(submitit):
        last = executor.submit(Job(command))
    return (
        f"submitted as Slurm's job {array} ({submission.shares} shares) and {last.job_id}, which "
        f"judges when they have ended; logs: {logs}"
    )


def _import_submitit() -> Any:
    """The package, kept from configuring `logging` when it is imported.

    That would end the handlers of all others, and absl's, which JAX's libraries bring, then closes
    its stream: the caller's stderr, or what stands for it.
    """
    name = "SUBMITIT_LOG_LEVEL"
    wish = os.environ.get(name)
    os.environ[name] = wish or "NOCONFIG"
    try:
        import submitit
    finally:
        if wish is None:
            del os.environ[name]  # jobs may log
    return submitit


class Job:
    """`coherence run` as a job of submitit: asked to end, it goes on from where it stopped."""

    def __init__(self, words: Sequence[str]):
        self.words = list(words)
        self._child = 0
        self._status: int | None = None

    def __call__(self) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "coherence.lab", "run", *self.words],
            stdin=subprocess.DEVNULL,
            preexec_fn=_ignore_submitit,
        )
        self._child = process.pid
        while self._running():
            time.sleep(_POLL)
        process.returncode = self._status
        if self._status:
            raise RuntimeError(
                f"coherence run {' '.join(self.words)} ended with status {self._status}"
            )

    def checkpoint(self) -> Any:
        """What is queued again; called by submitit's handler of signals, in the main thread."""
        from submitit.helpers import DelayedSubmission

        deadline = time.monotonic() + GRACE
        if self._running():
            os.kill(self._child, signal.SIGTERM)
        while self._running() and time.monotonic() < deadline:
            time.sleep(_POLL)
        return DelayedSubmission(Job(self.words))

    def _running(self) -> bool:
        """Whether the child runs. Not by Popen, whose lock the handler would wait for for ever."""
        if self._child and self._status is None:
            try:
                pid, status = os.waitpid(self._child, os.WNOHANG)
            except ChildProcessError:  # the handler came between these lines, and saw it end
                return False
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return bool(self._child) and self._status is None


def _ignore_submitit() -> None:
    """The signal is for the job; Slurm sends it to all of its processes."""
    from submitit.core.job_environment import JobEnvironment

    signal.signal(JobEnvironment._usr_sig(), signal.SIG_IGN)


def _parameters(name: str, options: Mapping[str, str]) -> dict[str, Any]:
    """Options of sbatch as submitit wants them; what it does not count with it passes on."""
    given = {key.replace("-", "_"): value for key, value in options.items()}
    counted = {key: given.pop(key) for key in ("time", "cpus_per_task") if key in given}
    for key, value in counted.items():
        if not re.fullmatch("[0-9]*[1-9][0-9]*", value):
            unit = " of minutes" * (key == "time")
            raise ValueError(f"--option {key}: a whole number{unit}, got {value!r}.")
    return {
        "job_name": f"coherence-{name}",
        "time": _MINUTES,
        "signal_delay_s": 90,
        "additional_parameters": given or None,
        **{key: int(value) for key, value in counted.items()},
    }


@contextlib.contextmanager
def _detached() -> Iterator[None]:
    """A context whose processes outlive the terminal and do not hold this one's pipes."""
    sys.stdout.flush()
    before_hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    kept, nowhere = {fd: os.dup(fd) for fd in (1, 2)}, os.open(os.devnull, os.O_WRONLY)
    try:
        for fd in kept:
            os.dup2(nowhere, fd)
        yield
    finally:
        for fd, before in kept.items():
            os.dup2(before, fd)
            os.close(before)
        os.close(nowhere)
        signal.signal(signal.SIGHUP, before_hangup)


class _refusals:
    """A context in which what sbatch says of a refused job becomes a `ValueError`."""

    def __init__(self, submitit: Any):
        self._error = submitit.core.utils.FailedJobError

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if isinstance(error, self._error | subprocess.CalledProcessError):
            raise ValueError(f"--submit slurm: sbatch refused: {error}") from error

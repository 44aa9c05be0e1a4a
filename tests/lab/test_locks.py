"""A lock has one holder, on one machine or several, whoever dies and whatever the clocks say."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from coherence.lab.runs import Run, RunBusy, locks
from coherence.lab.runs.locks import STALE, Lock, Writer, writer_of

HOUR = 3600


@pytest.fixture
def hasty(monkeypatch):
    """Watch for a quarter of a second instead of half a minute."""
    monkeypatch.setattr(locks, "WATCH", 0.25)
    monkeypatch.setattr(locks, "_DEAD", set())


def write(path, age=0.0, **changes):
    """A lock's file of a writer on another machine, whose last sign of life is so long ago."""
    values = {"host": "node7", "space": "node7 boot", "pid": 4711, "started": "99", "token": "t"}
    path.write_bytes(locks._content(Writer(**{**values, "since": "2026-01-02T03:04", **changes})))
    give_sign(path, age)


def give_sign(path, age=0.0):
    moment = time.time() - age
    os.utime(path, (moment, moment))


def files(folder):
    return sorted(path.name for path in folder.glob(".lock*"))


def test_a_lock_is_held_until_it_is_released_and_leaves_nothing(tmp_path):
    with Lock(tmp_path):
        assert files(tmp_path) == [".lock-1"]
        assert writer_of(tmp_path).pid == os.getpid()
        assert writer_of(tmp_path).lives()
        with pytest.raises(RunBusy, match=rf"by process {os.getpid()} on .* \(this one\)"):
            Lock(tmp_path)
    assert files(tmp_path) == []
    assert writer_of(tmp_path) is None
    forgotten = Lock(tmp_path)
    del forgotten
    Lock(tmp_path).release()


def test_a_finished_run_is_opened_without_a_lock(tmp_path):
    with Run.open(tmp_path, {}, seed=0) as run:
        run.append({"step": 0})
        run.finish()
    before = os.stat(tmp_path).st_mtime_ns
    assert Run.open(tmp_path, {}, seed=0).done
    assert os.stat(tmp_path).st_mtime_ns == before


def test_of_a_finished_run_only_a_dead_writer_s_lock_is_removed(tmp_path):
    with Run.open(tmp_path, {}, seed=0) as run:
        run.finish()
    write(tmp_path / ".lock-1", space=locks._space(), pid=os.getpid(), started="another start")
    write(tmp_path / ".lock-2")
    assert Run.open(tmp_path, {}, seed=0).done
    assert files(tmp_path) == [".lock-2"]


def test_a_file_system_without_flock_has_locks(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(fcntl, "lockf", refuse)
    with Lock(tmp_path), pytest.raises(RunBusy):
        Lock(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="elsewhere signs of life decide")
def test_the_lock_of_a_killed_process_is_free_at_once_even_if_nobody_asked_how_it_ended(tmp_path):
    program = f"""
import os, pathlib, signal
from coherence.lab.runs.locks import Lock
lock = Lock(pathlib.Path({str(tmp_path)!r}))
print("held", flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RunBusy, match=f"is being written by process {holder.pid} on "):
            Lock(tmp_path)
        os.kill(holder.pid, signal.SIGKILL)
        while locks._started(holder.pid) is not None:  # a zombie, until `wait`
            time.sleep(0.01)
        with Lock(tmp_path):
            assert files(tmp_path) == [".lock-2"]


def test_another_process_of_the_same_number_is_not_the_writer(tmp_path):
    space, started = locks._space(), locks._started(os.getpid())
    write(tmp_path / ".lock-1", space=space, pid=os.getpid(), started=started)
    with pytest.raises(RunBusy, match=rf"by process {os.getpid()} on node7 since 2026-01-02T03:04"):
        Lock(tmp_path)
    write(tmp_path / ".lock-1", space=space, pid=os.getpid(), started="before that")
    Lock(tmp_path).release()


@pytest.mark.parametrize("age", [0, 0.9 * STALE, -0.9 * STALE])
def test_a_writer_on_another_machine_is_refused_by_name(tmp_path, age):
    write(tmp_path / ".lock-3", age)
    with pytest.raises(
        RunBusy,
        match=r"is being written by process 4711 on node7 since 2026-01-02T03:04\. Wait for it, or "
        r"stop it .*\. Its last sign of life was \d+ s ago; one that gives none for 120 s loses",
    ):
        Lock(tmp_path)
    assert files(tmp_path) == [".lock-3"]


def test_the_same_number_on_another_machine_is_another_process(tmp_path):
    write(tmp_path / ".lock-1", pid=os.getpid(), started=locks._started(os.getpid()))
    with pytest.raises(RunBusy, match="on node7"):
        Lock(tmp_path)


@pytest.mark.parametrize("age", [STALE + 5, HOUR, -HOUR])
def test_a_silent_writer_on_another_machine_is_watched_once_and_taken_for_dead(
    tmp_path, capsys, hasty, age
):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / ".lock-1", age)
    with Lock(tmp_path / "a") as lock:
        assert files(tmp_path / "a") == [".lock-2"]
        lock.check()
        said = capsys.readouterr().err
        assert "a was being written by process 4711 on node7 since 2026-01-02T03:04; watch" in said
    with Lock(tmp_path / "b"):
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
def test_a_living_writer_whose_clock_is_an_hour_off_keeps_its_lock(
    tmp_path, monkeypatch, hasty, offset
):
    monkeypatch.setattr(locks, "WATCH", 5.0)
    path, end = tmp_path / ".lock-1", threading.Event()
    write(path, offset)

    def live():
        while not end.wait(0.1):
            give_sign(path, offset)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        with pytest.raises(RunBusy, match="on node7"):
            Lock(tmp_path)
    finally:
        end.set()
        thread.join()
    assert files(tmp_path) == [".lock-1"]


@pytest.mark.parametrize("content", [b"", b'{"host": "no', b"[]"])
def test_a_file_that_is_being_made_is_a_lock_and_one_that_never_was_is_none(
    tmp_path, hasty, content
):
    (tmp_path / ".lock-1").write_bytes(content)
    with pytest.raises(RunBusy, match="process unknown on an unknown machine since just now"):
        Lock(tmp_path)
    give_sign(tmp_path / ".lock-1", locks.BEAT + 1)
    Lock(tmp_path).release()


def test_signs_of_life_say_how_far_the_writer_has_come(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_thread", None)
    monkeypatch.setattr(locks, "BEAT", 0.02)
    with Lock(tmp_path) as lock:
        first = writer_of(tmp_path)
        assert (first.step, first.steps_per_second) == (None, None)
        lock.reach(100)
        lock.reach(150)
        end = time.monotonic() + 10
        while writer_of(tmp_path).steps_per_second is None and time.monotonic() < end:
            time.sleep(0.01)
        last = writer_of(tmp_path)
        assert last.step == 150
        assert last.steps_per_second >= 0
        assert last.seen > first.seen
        assert last.token == first.token
    # Ends the hasty thread: nothing is held.
    monkeypatch.setattr(locks, "BEAT", 10.0)


def test_who_lost_the_lock_writes_nothing_more(tmp_path):
    run = Run.open(tmp_path, {}, seed=0)
    run.append({"step": 0})
    (own,) = tmp_path.glob(".lock-*")
    own.unlink()
    write(tmp_path / ".lock-1")
    locks._beat_all()
    with pytest.raises(
        RunBusy, match=r"gave no sign of life for 120 s, and another has taken over"
    ):
        run.append({"step": 1})
    run.close()
    assert files(tmp_path) == [".lock-1"]
    assert writer_of(tmp_path).host == "node7"
    assert [record["step"] for record in Run.read(tmp_path).records()] == [0]


def test_a_forked_child_does_not_release_what_its_parent_holds(tmp_path, monkeypatch):
    with Lock(tmp_path) as lock:
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: 1)
            lock.beat()
            locks.Lock.__del__(lock)
        assert files(tmp_path) == [".lock-1"]


@pytest.mark.parametrize("dead", [False, True])
def test_of_many_at_once_one_at_a_time_holds_the_lock(tmp_path, monkeypatch, dead):
    """Half wait, half are refused; every holder counts itself while nobody else may."""
    inside, most, held = [], [], []
    gate = threading.Barrier(8)

    def work(wait):
        gate.wait()
        for _ in range(15):
            try:
                with Lock(tmp_path, wait=wait):
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0.001)
                    inside.pop()
                    held.append(wait)
            except RunBusy:
                time.sleep(0.002)

    if dead:
        write(tmp_path / ".lock-7", space=locks._space(), pid=os.getpid(), started="before")
    monkeypatch.setattr(locks, "POLL", 0.002)
    threads = [threading.Thread(target=work, args=(i % 2 == 0,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
    assert held.count(True) == 4 * 15


@pytest.mark.filterwarnings("ignore:os.fork")  # JAX's, where a test before has started it
def test_a_lock_appears_whole_and_what_a_killed_writer_left_of_it_is_none(tmp_path, monkeypatch):
    with monkeypatch.context() as killed:
        killed.setattr(os, "link", lambda *_: os._exit(9))
        child = os.fork()
        if not child:
            Lock(tmp_path)
        os.waitpid(child, 0)
    (left,) = files(tmp_path)
    assert left.endswith(".tmp")
    with Lock(tmp_path):
        assert files(tmp_path) == [".lock-1"]


def test_steps_of_numpy_are_told_with_the_signs_of_life(tmp_path):
    with Lock(tmp_path) as lock:
        for step in (np.int64(3), np.int32(5), 8):
            lock.reach(step)
            lock.beat()
            assert writer_of(tmp_path).step == int(step)


def test_without_hard_links_there_are_locks_too(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with Lock(tmp_path):
        assert files(tmp_path) == [".lock-1"]
        with pytest.raises(RunBusy):
            Lock(tmp_path)
    assert files(tmp_path) == []


HOLD = """
import pathlib, socket, sys, time
from coherence.lab.runs.locks import Lock
socket.sethostname(sys.argv[1])
with Lock(pathlib.Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_two_hosts_in_namespaces_of_their_own_share_a_folder(tmp_path, hasty):
    """Their networks and names are apart, as on two machines; processes are not asked about."""
    words = ["unshare", "--net", "--uts", sys.executable, "-c", HOLD]
    allowed = subprocess.run([*words[:3], "true"], capture_output=True)
    if allowed.returncode:
        pytest.skip("namespaces of one's own are not allowed here")
    with subprocess.Popen([*words, "nodea", tmp_path], stdout=subprocess.PIPE) as first:
        try:
            assert first.stdout.readline() == b"held\n"
            with pytest.raises(
                RunBusy, match="by process [0-9]+ on nodea since .* sign of life was"
            ):
                Lock(tmp_path)
            second = subprocess.run([*words, "nodeb", tmp_path], capture_output=True, text=True)
            assert "on nodea since" in second.stderr.splitlines()[-1]
        finally:
            first.kill()
    give_sign(tmp_path / ".lock-1")
    with pytest.raises(RunBusy):
        Lock(tmp_path)
    give_sign(tmp_path / ".lock-1", STALE + 10)
    with Lock(tmp_path):
        assert writer_of(tmp_path).pid == os.getpid()

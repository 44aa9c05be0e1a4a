"""Workers end as one process does, whoever of them is killed, and end when they are asked to."""

import os
import queue
import signal
import sys
from pathlib import Path

import pytest

from benchmarks import kill
from coherence.lab import cli
from coherence.lab.experiment import collect, load
from coherence.lab.grid import Grid
from coherence.lab.running import arguments, team, worker
from coherence.lab.running.status import states
from coherence.lab.runs import Run

ROOT = Path(__file__).resolve().parents[3]
TOY = collect(load(ROOT / "experiments" / "toy.py"))
BROKEN = '''"""Nothing works."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Settings:
    seeds: int = 2


@dataclasses.dataclass(frozen=True)
class Fit:
    sleep: float = 0.0

    def describe(self):
        return "nothing"

    def compute(self, seed):
        import os, resource, signal, time
        from pathlib import Path

        print("seed", seed, "begins")
        if "DISK_FULL" not in os.environ:
            time.sleep(self.sleep)
            raise ValueError("no such luck")
        if not self.sleep and os.environ["DISK_FULL"] == "yes":
            while len([*Path(os.environ["COHERENCE_RUNS"]).rglob("slow/*/DONE")]) < 2:
                time.sleep(0.05)
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        return {"seed": seed}


PRESETS = {"cpu": Settings()}
arms = lambda settings: {"broken": Fit(), "slow": Fit(sleep=600.0)}
record = judge = table = None
'''


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)

    def at(name):
        monkeypatch.setenv("COHERENCE_RUNS", str(tmp_path / name))
        return tmp_path / name

    return at


@pytest.fixture
def ends(monkeypatch):
    """How workers ended: `{number: status}`; that of the process that forked them is number 0."""
    statuses = {}

    class Noted(queue.SimpleQueue):
        def put(self, end):
            statuses[end[1]] = end[2]
            super().put(end)

    monkeypatch.setattr(team.queue, "SimpleQueue", Noted)
    return statuses


def at_first_progress(monkeypatch, act):
    """Call `act(process)` when the first worker says for the first time how far it is."""
    take, send = team._Progress.take, team._Workers.begin
    started, said = [], []

    def taken(self, number, message):
        take(self, number, message)
        if "arm" in message and message["steps"] > 1 and not said:
            said.append(number)
            (process,) = (one.processes[number] for one in started if number in one.processes)
            act(process)

    def begin(self, progress):
        started.append(self)
        send(self, progress)

    monkeypatch.setattr(team._Progress, "take", taken)
    monkeypatch.setattr(team._Workers, "begin", begin)


def test_of_two_workers_one_is_killed_and_all_ends_as_one_process_does(
    place, monkeypatch, ends, capsys
):
    words = ["run", "toy", "--preset", "smoke", "--steps", "300"]
    at_first_progress(monkeypatch, lambda process: os.kill(process, signal.SIGKILL))
    ours = place("workers")
    cli.main([*words, "--workers", "2"])
    assert ends.pop(0) == 0
    assert sorted(ends.values()) == [-signal.SIGKILL, 0]
    assert "was killed (status -9); the others take up what it has left" in capsys.readouterr().err
    whole = place("whole")
    cli.main(words)
    assert kill.differences(whole, ours) == []
    assert not list(ours.rglob(".lock*"))


def test_an_interrupt_ends_all_workers_with_checkpoints(place, monkeypatch, ends, request):
    folder = place("runs")
    # Processes that a shell starts in the background ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    at_first_progress(monkeypatch, lambda process: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(SystemExit, match="130"):
        cli.main(["run", "toy", "--preset", "smoke", "--steps", "20000", "--workers", "2"])
    assert ends.pop(0) == 0
    assert len(ends) == 2
    assert set(ends.values()) <= {team.ASKED_TO_END, -signal.SIGTERM}  # one had not begun
    assert team.ASKED_TO_END in ends.values()
    (grid_folder,) = (folder / "toy").iterdir()
    found = states(Grid(TOY.grid(TOY.presets["smoke"]), 1, grid_folder))
    assert {state.state for state in found} <= {"stopped", "waiting"}
    assert any(state.step for state in found)


def broken(tmp_path, monkeypatch):
    (tmp_path / "experiments" / "claims").mkdir(parents=True)
    (tmp_path / "experiments" / "broken.py").write_text(BROKEN)
    (tmp_path / "experiments" / "claims" / "broken.toml").write_text("sources = {}\nclaims = []\n")
    monkeypatch.setenv("COHERENCE_RUNS", str(tmp_path / "runs"))
    experiment = collect(load(tmp_path / "experiments" / "broken.py"))
    return experiment, arguments.read(experiment, [])


@pytest.mark.parametrize("forks", [True, False])
def test_an_error_ends_all_workers_and_is_said(tmp_path, monkeypatch, ends, forks, capfd):
    monkeypatch.setattr(team, "FORKS", forks)
    experiment, asked = broken(tmp_path, monkeypatch)
    with pytest.raises(RuntimeError, match=r"^worker 1: no such luck"):
        team.train_by_workers(experiment, asked.settings, asked.folder, [], 2)
    assert (ends[1], ends.get(2, -signal.SIGTERM)) == (2, -signal.SIGTERM)
    grid = Grid(experiment.grid(asked.settings), 2, asked.folder)
    assert states(grid)[0].error == "ValueError: no such luck"
    assert "seed 0 begins\n" in capfd.readouterr().out  # what is printed is shown, and no message


def test_a_bar_that_cannot_be_shown_ends_the_wait():
    class Closed:
        def take(self, worker, message):
            raise BrokenPipeError

    read, write = os.pipe()
    os.write(write, b'{"worker": 1, "steps": 1}\n')
    workers, ends = object.__new__(team._Workers), queue.SimpleQueue()
    workers._messages, workers._ends, workers.count = os.fdopen(read, "rb"), ends, 1
    workers._read(Closed())
    os.close(write)
    with pytest.raises(BrokenPipeError):
        team._wait([workers], ends, bar=None)


def test_a_full_disk_ends_one_worker_and_finished_runs_stay(tmp_path, monkeypatch):
    experiment, asked = broken(tmp_path, monkeypatch)
    monkeypatch.setenv("DISK_FULL", "yes")
    with pytest.raises(
        RuntimeError, match=r"^worker [12]: cannot write .*computed.* \(File too large\)"
    ):
        team.train_by_workers(experiment, asked.settings, asked.folder, [], 2)
    grid = Grid(experiment.grid(asked.settings), 2, asked.folder)
    (done,) = [unit for unit in grid.units() if grid.is_done(unit)]
    assert done.arm == "slow"
    before = kill.files(asked.folder / "slow")
    monkeypatch.setenv("DISK_FULL", "no")
    for unit in grid.units():
        grid.train(unit, lambda steps: None, print)
    assert all(map(grid.is_done, grid.units()))
    assert kill.files(asked.folder / "slow") == before


def test_runs_of_other_settings_in_the_folder_are_refused_and_stay(tmp_path, monkeypatch, ends):
    experiment, asked = broken(tmp_path, monkeypatch)
    other = asked.folder / "broken" / "seed=0"
    with Run.open(other, {"sleep": 1.0}, seed=0) as run:
        run.finish({})
    before = kill.files(other)
    with pytest.raises(RuntimeError, match=r"^worker 1: .*holds another run \(.*sleep"):
        team.train_by_workers(experiment, asked.settings, asked.folder, [], 2)
    assert ends[1] == 2
    assert kill.files(other) == before


def test_a_python_that_is_missing_is_named(tmp_path, monkeypatch, capsys, place):
    place("runs")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(SystemExit, match="2"):
        cli.main(["run", "toy", "--preset", "smoke", "--workers", "2"])
    expected = f"there is no {tmp_path / 'python'} on "
    assert expected in capsys.readouterr().err


def test_a_worker_looks_at_every_unit_its_own_first():
    grid = Grid(TOY.grid(TOY.presets["smoke"]), 3, Path("nowhere"))
    orders = [worker.in_turn(grid, number, 4) for number in (1, 2, 3, 4)]
    assert len({order[0] for order in orders}) == 4
    for order in orders:
        assert sorted(order) == sorted(grid.units())


def test_workers_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 5, 7}, raising=False)
    environment = {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "9"}
    assert [place[worker.CORES] for place in team.placements(2, environment)] == ["0,1", "2,5,7"]
    places = team.placements(7, environment)
    assert {core for place in places for core in place[worker.CORES].split(",")} == set("01257")
    assert {place["MKL_NUM_THREADS"] for place in places} == {"1"}
    assert not any("OMP_NUM_THREADS" in place for place in places)


def test_each_worker_gets_a_gpu():
    several = {"CUDA_VISIBLE_DEVICES": "4, GPU-ab,6"}
    assert team.placements(2, several) == [
        {"CUDA_VISIBLE_DEVICES": "4"},
        {"CUDA_VISIBLE_DEVICES": "GPU-ab"},
    ]
    with pytest.raises(ValueError, match=r"--workers 4: there are 3 GPUs, and each worker takes"):
        team.placements(4, several)
    assert len(team.placements(4, {**several, "JAX_PLATFORMS": "cpu"})) == 4
    assert team._gpus({"CUDA_VISIBLE_DEVICES": ""}) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "0"], "--workers: how many processes, at least 1, got '0'."),
        (["--workers", "two"], "--workers: how many processes, at least 1, got 'two'."),
        (["--devices", "0"], "--devices: among how many a run's batches are divided, at least 1"),
        (["--devices", "2", "--workers", "2"], "each worker computes on one device. Say --devices"),
        (["--workers", "2", "--share", "1/2"], "--share and --workers: a share is one process's."),
        (
            ["--workers", "2", "--hosts", "auto"],
            "each worker computes on one device. Say --devices",
        ),
        (["--hosts", "3/2@a:1"], "--hosts 3/2@a:1: expected K/N@HOST:PORT with K from 1 to N"),
        (["--hosts", "2"], "--hosts 2: expected K/N@HOST:PORT with K from 1 to N, such as 2/4@"),
        (
            ["--hosts", "auto", "--devices", "2"],
            "divided among all devices of all hosts: leave out",
        ),
        (["--hosts", "auto", "--share", "1/2"], "trains all runs, one after another: leave out"),
        (["--devices", "2", "--divide-above", "-1"], "of more numbers than this are divided among"),
        (["--divide-above", "100"], "--divide-above: among how many devices? Say --devices N"),
    ],
)
def test_no_number_of_workers_names_the_way_out(place, capsys, words, message):
    place("runs")
    with pytest.raises(SystemExit, match="2"):
        cli.main(["run", "toy", *words])
    assert message in capsys.readouterr().err

"""kill -9 at random moments of what writes: every resume must end as if nothing had happened.

    python benchmarks/kill.py [--kills 100] [--seed 0] [--only NAME ...]

Tasks: a classifier that measures, records and checkpoints every 10 steps; a fit; every experiment's
preset `smoke`; the commands that write pages, tables, figures and exports; a download; an
experiment by workers, of which one, the process that forked them or the first is killed, a share of
it, and a process that submits it (where submitit is installed). Each runs once to its end, those by
one process.
Then, a fresh folder each, it is killed at a moment uniform in the time that took, and run again to
the end. What the kill left must be whole files and beginnings of records; what the second run ends
with must be the files of the whole one, byte by byte, and no other. Exit status 1 at any
difference. Tasks take turns; without `--only` all of them.
"""

import argparse
import contextlib
import functools
import http.server
import importlib.util
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from coherence.lab.runs import Run, load_arrays, save_arrays
from coherence.lab.runs.files import Damaged, read_json

ROOT = pathlib.Path(__file__).resolve().parents[1]
STEPS, EVERY = 600, 10
RECORDED = ("toy.npz", "width.npz", "claims.json")
LAB = [sys.executable, "-m", "coherence.lab"]


# What is killed


def classifier(folder):
    """A run with a checkpoint after every measurement."""
    from coherence.lab.settings import MLP, Probing, label_noise
    from coherence.lab.training import Classification, train
    from coherence.probes import Every

    probes = (Probing(m=100, when=Every(EVERY)),)
    noise, model = label_noise(0.25), MLP(width=64, depth=2)
    settings = Classification(noise=noise, model=model, probes=probes, steps=STEPS)
    run = Run.open(folder / "run", {"batch_size": settings.batch_size}, seed=0)
    options = {"steps": STEPS, "batch_size": settings.batch_size, "checkpoint_seconds": 0}
    train([settings.build(0)], [run], schedule=range(0, STEPS + 1, EVERY), **options)


def fit(folder):
    """An estimator, whose parameters are then saved."""
    from coherence.lab.data import digits
    from coherence.lab.estimators import MLPClassifier
    from coherence.lab.training.checkpoints import to_arrays

    data, model = digits(), MLPClassifier(width=16, steps=300, aggregator="winsorize(c=10)")
    model.fit(data.x_train, data.y_train)
    save_arrays(folder / "params.npz", **to_arrays(model.params_))


def fetch(folder):
    """The files of MNIST from the server of this script."""
    from coherence.lab import data
    from coherence.lab.data import handwritten_digits

    handwritten_digits.MIRRORS = (os.environ["KILL_MIRROR"],)
    data.fetch("mnist")


WORK = {function.__name__: function for function in (classifier, fit, fetch)}
COMMANDS = {
    "figures": ["figures"],
    "claims": ["claims", "--write"],
    "report": ["report", "runs", "--output", "page.html"],
    "show": ["show", "runs", "--csv", "long.csv"],
    "compare": ["compare", "runs/rate=0.1", "runs/rate=0.2", "--csv", "compared.csv"],
    "export": ["export", "runs", "--tensorboard", "events"],
}


SPREAD = {
    "workers": ["--workers", "2"],
    "share": ["--share", "1/2"],
    "submit": ["--submit", "local", "--shares", "2"],
}
"""How the work of several processes begins; one process ends it."""
GRID = ["run", "toy", "--preset", "smoke", "--seeds", "2", "--steps", "500"]


def tasks():
    """The names of all tasks."""
    experiments = sorted(path.stem for path in (ROOT / "experiments").glob("*.py"))
    here = os.environ.get("COHERENCE_DATA", "")
    downloads = ["fetch"] if (pathlib.Path(here) / "mnist").is_dir() else []
    spread = [name for name in SPREAD if name != "submit" or importlib.util.find_spec("submitit")]
    runs = [f"run {name}" for name in experiments]
    return ["classifier", "fit", *downloads, *COMMANDS, *spread, *runs]


def prepare(task, folder):
    """What is there before: for commands a checkout with recordings, and runs."""
    folder.mkdir()
    if task not in COMMANDS:
        return
    (folder / "docs").mkdir()
    unused = shutil.ignore_patterns("__pycache__", "drawn", "recorded")
    for part in ("experiments", "paper_figures"):
        shutil.copytree(ROOT / part, folder / part, ignore=unused)
    recorded = pathlib.Path("paper_figures", "recorded")
    (folder / recorded).mkdir()
    for path in (ROOT / recorded).iterdir():
        if task == "claims" or path.name in RECORDED:  # its page is of all, drawing takes long
            shutil.copy(path, folder / recorded)
    for rate in (0.1, 0.2):
        for seed in range(2):
            path = folder / "runs" / f"rate={rate}" / f"seed={seed}"
            with Run.open(path, {"rate": rate}, seed=seed) as run:
                for step in range(200):
                    run.append({"step": step, "train_loss": rate + seed / (1 + step)})
                run.finish({"step": 199})


def start(task, folder, environment, spread=False):
    """A process of its own that does the task in the folder; `spread` by several, if it can be."""
    if task in SPREAD:
        command, place = [*LAB, *GRID, *(SPREAD[task] if spread else [])], ROOT
    elif task in COMMANDS:
        command, place = [*LAB, *COMMANDS[task]], folder
    elif task.startswith("run "):
        command, place = [*LAB, *task.split(), "--preset", "smoke"], ROOT
    else:
        command, place = [sys.executable, __file__, "--work", task, str(folder)], ROOT
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    own = {"COHERENCE_RUNS": str(folder), "PYTHONPATH": paths}
    if task == "fit":
        own |= {"TMPDIR": str(folder)}
    if task == "fetch":
        own |= {"COHERENCE_CACHE": str(folder), "COHERENCE_DATA": str(folder / "nowhere")}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=place, env={**os.environ, **environment, **own}, **quiet)


def to_the_end(task, folder, environment):
    """Seconds the task took."""
    began = time.perf_counter()
    with start(task, folder, environment) as process:
        error = process.stderr.read().decode()
    if process.returncode:
        raise RuntimeError(f"{task} failed by itself: {error[-2000:]}")
    return time.perf_counter() - began


def kill(task, folder, environment, seconds, which):
    """Kill the task so long after its start; of several processes one, by a number in [0, 1)."""
    with start(task, folder, environment, spread=True) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        others = children(process.pid)
        victims = [process.pid, *others] if task == "workers" else [process.pid]
        with contextlib.suppress(ProcessLookupError):
            os.kill(victims[int(which * len(victims))], signal.SIGKILL)
        if task != "submit":  # its process in the background holds this pipe
            process.stderr.read()
    # What a killed process started ends by itself, or has ended its work.
    while any(map(running, others)) or (task == "submit" and working_in(folder)):
        time.sleep(0.2)


def children(parent):
    """The numbers of the processes that a process started, and of those that they started."""
    listed = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True)
    own = [int(number) for number in listed.stdout.split()]
    return [*own, *(below for number in own for below in children(number))]


def running(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def working_in(folder):
    """Whether a submitted job has this folder's logs open, or runs for it."""
    return subprocess.run(["pgrep", "-f", str(folder)], capture_output=True).returncode == 0


# What must be there


def files(folder):
    """`{path: content}` of a folder and below, but for what differs from time to time."""
    found = {}
    for path in (path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if path.name == "manifest.json":
            manifest = read_json(path)
            found[name] = {key: manifest.get(key) for key in ("seed", "format", "axes", "data")}
        elif path.name == "DONE":
            found[name] = {key: read_json(path)[key] for key in ("summary", "metrics")}
        elif path.name.startswith("events."):
            found[str(pathlib.Path(name).parent / "events")] = b"with its own times"
        elif "__pycache__" not in name and ".submitted" not in name:
            found[name] = path.read_bytes()
    return found


def differences(whole, other):
    """Names of files that are not those of the whole run: other, missing or spare."""
    ours, theirs = files(whole), files(other)
    return [name for name in sorted({**ours, **theirs}) if ours.get(name) != theirs.get(name)]


def halves(whole, before, left):
    """Names of files that a kill left, and that are no whole file and no beginning of records."""
    wrong = []
    ends, begins = files(whole), files(before)
    for path in (path for path in left.rglob("*") if path.is_file()):
        name = str(path.relative_to(left))
        temporary = path.name.startswith(".") or path.suffix in (".part", ".tmp", ".pyc")
        if temporary or any(part.startswith(".") for part in path.relative_to(left).parts):
            continue
        try:
            if path.name == "metrics.jsonl":
                lines = path.read_bytes().rpartition(b"\n")[0]
                assert ends[name].startswith(lines)
            elif path.suffix == ".npz":
                load_arrays(path)
            elif path.suffix == ".json" or path.name == "DONE":
                read_json(path)
            elif not path.name.startswith("events."):
                assert path.read_bytes() in (ends.get(name), begins.get(name))
        except (AssertionError, Damaged):
            wrong.append(name)
    return sorted(wrong)


@contextlib.contextmanager
def mirror():
    """A server of the user's files of MNIST; yields its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    folder = str(pathlib.Path(os.environ.get("COHERENCE_DATA", ".")) / "mnist")
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def once(task, home, environment, took, share, which):
    """Kill the task after a share of the time it takes; what is wrong then, and after a resume."""
    # Always in a folder of one name, which pages show.
    whole, before, folder = (home / name for name in ("whole", "before", "now"))
    shutil.rmtree(folder, ignore_errors=True)
    if not whole.exists():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        prepare(task, before)
        shutil.copytree(before, folder)
        took[task] = to_the_end(task, folder, environment)
        folder.rename(whole)
    shutil.copytree(before, folder)
    kill(task, folder, environment, share * took[task], which)
    wrong = [f"half a file: {name}" for name in halves(whole, before, folder)]
    if task == "export" and any(folder.rglob("events.*")):
        shutil.rmtree(folder / "events")  # it asks for that: points would be there twice
    to_the_end(task, folder, environment)
    return wrong + differences(whole, folder)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these tasks, as `run toy`")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        return WORK[asked.work[0]](pathlib.Path(asked.work[1]))
    names = (asked.only or tasks())[: asked.kills]
    rng, bad = np.random.default_rng(asked.seed), 0
    with tempfile.TemporaryDirectory() as parent, mirror() as address:
        parent, took = pathlib.Path(parent), {}
        environment = {
            "KILL_MIRROR": address,
            "JAX_COMPILATION_CACHE_DIR": os.environ.get(
                "JAX_COMPILATION_CACHE_DIR", str(parent / "compiled")
            ),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        print("kill  task  at second of seconds  after the resume")
        for number in range(asked.kills):
            task, (share, which) = names[number % len(names)], rng.uniform(size=2)
            try:
                wrong = once(task, parent / task, environment, took, share, which)
            except RuntimeError as error:
                wrong = [str(error)]
            bad += bool(wrong)
            moment = f"{share * took.get(task, 0):.2f} of {took.get(task, 0):.2f}"
            verdict = f"DIFFERENT: {', '.join(wrong)}" if wrong else "identical"
            print(f"{number + 1:>4}  {task}  {moment}  {verdict}", flush=True)
    print(f"{asked.kills - bad} of {asked.kills} ended as if nothing had happened")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())

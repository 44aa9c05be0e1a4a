"""The papers' runs on an accelerator: seeds side by side, kept as they are finished."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import tarfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
PIECES = (
    "real_vs_random:paper:rate=0.1",
    "real_vs_random:paper:rate=0.02",
    "winsorization:half",
    "winsorization:clean",
    "winsorization:quarter",
    "winsorization:three_quarters",
    "winsorization:random",
)
MOST_BYTES = 15 * 2**20  # of a tar file
MOST_CUT = 3  # tar files of runs that were cut
WINDOW = 50  # steps that batches are pooled over where all of them are too much to keep


def chosen_experiment(name, preset, tiny):
    from coherence.lab.experiment import collect, load
    from coherence.lab.settings import MLP, mnist

    experiment = collect(load(ROOT / "experiments" / f"{name}.py"))
    settings = experiment.presets[preset]
    if not tiny:
        return experiment, settings
    run = settings.run
    probes = tuple(dataclasses.replace(probing, m=200) for probing in run.probes)
    run = dataclasses.replace(
        run, data=mnist(examples=1000), model=MLP(width=16, depth=1), steps=60, probes=probes
    )
    changes = {"run": run, "seeds": 2}
    if name == "real_vs_random":
        changes["steps"] = (60, 120)
    return experiment, dataclasses.replace(settings, **changes)


def record(pieces, out, folder, tiny, clock):
    """Train the pieces in turn, with what is done kept in `out` after every program's runs.

    Where the clock ends it, between two chunks and with checkpoints, what is finished is recorded.
    """
    for piece in pieces:
        name, preset, *part = piece.split(":")
        experiment, settings = chosen_experiment(name, preset, tiny)
        home = folder / name / preset
        arms = experiment.arms(settings)
        chosen = {arm: arms[arm] for arm in arms if all(word in arm for word in part)}
        for group in alike(chosen):
            if clock.over:
                break
            start = time.perf_counter()
            try:
                train_together(group, home, settings.seeds, clock)
                how = "done"
            except SystemExit:
                how = "cut"
            took = time.perf_counter() - start
            print(f"{name} {'; '.join(group)}: {settings.seeds} seeds, {how}, {took:.1f} s")
            pack(out, folder, name, next(iter(group)))
        write_recorded(experiment, settings, home)
        gather(out, folder)
        if clock.over:
            pack_cut(out, folder)
            return


def alike(arms):
    """Arms that differ in their labels alone, and so have one program: `[{arm: run settings}]`."""
    from coherence.lab.settings import label_noise

    groups = {}
    for arm, run in arms.items():
        same = dataclasses.replace(run, noise=label_noise(0.0))
        groups.setdefault(repr(same), {})[arm] = run
    return list(groups.values())


def train_together(arms, home, seeds, clock):
    """All seeds of all arms, side by side where that pays; what is finished is left alone."""
    from coherence.lab.runs import Run
    from coherence.lab.settings import plain
    from coherence.lab.training import train

    with contextlib.ExitStack() as stack:
        opened = [
            (run, stack.enter_context(Run.open(home / arm / f"seed={k}", plain(run), seed=k)))
            for arm, run in arms.items()
            for k in range(seeds)
        ]
        pending = [(run, one) for run, one in opened if not one.done]
        if pending:
            first = pending[0][0]
            train(
                [run.build(one.seed) for run, one in pending],
                [one for _, one in pending],
                steps=first.steps,
                batch_size=first.batch_size,
                schedule=first.schedule(),
                checkpoint_seconds=600.0,
                progress=clock.look,
                say=print,
            )


def write_recorded(experiment, settings, home):
    """`recorded.npz` of the finished arms, and their table."""
    from coherence.lab.experiment import perform

    if (trimmed := trim(experiment, settings, home)) is not None:
        start = time.perf_counter()
        recorded = perform(experiment, trimmed, home)
        print(
            f"\n{experiment.table(recorded)}\n\n{time.perf_counter() - start:.1f} s\n", flush=True
        )


class Clock:
    """Asks training to end when the minutes are over, as a batch system does: by SIGTERM.

    Only while somebody listens (`coherence.lab.training.signals`), so it rings every second.
    """

    def __init__(self, minutes):
        self.start, self.done, self.said = time.monotonic(), 0, 0.0
        self.end = self.start + 60 * minutes
        signal.signal(signal.SIGALRM, lambda *_: self.ring())
        signal.setitimer(signal.ITIMER_REAL, 60 * minutes, 1.0)

    @property
    def over(self):
        return time.monotonic() >= self.end

    def ring(self):
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            os.kill(os.getpid(), signal.SIGTERM)

    def stop(self):
        signal.setitimer(signal.ITIMER_REAL, 0)

    def look(self, steps):
        """Say every ten seconds how many steps are done, of all seeds and arms."""
        self.done += steps
        passed = time.monotonic() - self.start
        if passed - self.said > 10:
            self.said = passed
            print(f"{passed:.0f} s: {self.done:,} steps", flush=True)


def trim(experiment, settings, home):
    """The settings whose arms are all finished: all of them, or fewer; `None` without any."""
    done = lambda s: all(
        (home / arm / f"seed={seed}" / "DONE").is_file()
        for arm in experiment.arms(s)
        for seed in range(s.seeds)
    )
    fields = {field.name for field in dataclasses.fields(settings)}
    smaller = [settings]
    if "learning_rates" in fields:
        first = {"learning_rates": settings.learning_rates[:1], "steps": settings.steps[:1]}
        smaller += [
            dataclasses.replace(settings, **changes)
            for changes in ({"shares": ()}, first, {**first, "shares": ()})
        ]
    if "noise" in fields:
        noises = [settings.noise]
        noises += [settings.noise[:n] for n in range(len(settings.noise) - 1, 0, -1)]
        smaller += [
            dataclasses.replace(settings, noise=noise, slower=slower)
            for noise in noises
            for slower in (settings.slower, ())
        ]
        smaller += [
            dataclasses.replace(settings, c=settings.c[:n], slower=())
            for n in range(len(settings.c) - 1, 1, -1)
        ]
    return next((s for s in smaller if done(s)), None)


def pack(out, folder, name, arm):
    """A tar file of an experiment's runs, of those with a step size in the arm's name by it.

    Settings, records and batches, these pooled where they are many. Runs that were cut go into
    files of their own, whole, to be gone on with.
    """
    rate = arm.partition(",")[2] if "rate=" in arm else ""
    file = out / f"{name}{rate.replace('rate=', '-')}.tar.gz"
    done = {path.parent for path in (folder / name).rglob("DONE") if rate in str(path)}
    with writing(file) as tar:
        for run in sorted(done):
            for path in sorted(run.iterdir()):
                if path.suffix in (".json", ".jsonl") or path.name == "DONE":
                    tar.add(path, path.relative_to(folder))
                if path.name == "batches.npz":
                    add_batches(tar, path, path.relative_to(folder))
    if file.stat().st_size > MOST_BYTES:
        print(f"{file} has {file.stat().st_size:,} bytes: too many to be fetched")


def pack_cut(out, folder):
    """The runs that have a checkpoint and are not done, whole, in at most `MOST_CUT` tar files."""
    runs = {path.parent for path in folder.rglob("checkpoint-*.npz")}
    parts, size = [[]], 0
    for run in sorted(run for run in runs if not (run / "DONE").is_file()):
        checkpoints = sorted(run.glob("checkpoint-*.npz"), key=lambda path: path.stat().st_mtime)
        files = [path for path in run.iterdir() if path not in checkpoints[:-1]]
        files = [path for path in files if not path.name.startswith("examples-")]
        more = sum(path.stat().st_size for path in files)
        if size + more > MOST_BYTES and parts[-1]:
            parts, size = [*parts, []], 0
        parts[-1] += files
        size += more
    for i, files in enumerate(parts[:MOST_CUT]):
        with writing(out / f"cut-{i}.tar.gz") as tar:
            for path in files:
                tar.add(path, path.relative_to(folder))
    if len(parts) > MOST_CUT:
        print(f"runs cut: {len(parts) - MOST_CUT} files of them are left behind")


def add_batches(tar, path, name):
    """As they are, or means of `WINDOW` steps as `batches-pooled.npz`."""
    if path.stat().st_size < 2**20:
        tar.add(path, name)
        return
    import numpy as np

    with np.load(path) as batches:
        pooled = {key: pooled_mean(values) for key, values in batches.items()}
    smaller = path.with_name("batches-pooled.npz")
    np.savez_compressed(smaller, **pooled)
    tar.add(smaller, name.with_name(smaller.name))


def pooled_mean(values):
    whole = len(values) // WINDOW * WINDOW
    return values[:whole].reshape(-1, WINDOW).mean(1)


def gather(out, folder):
    """The recorded arrays of all experiments in one tar file."""
    with writing(out / "recorded.tar.gz") as tar:
        for path in sorted(folder.glob("*/*/recorded.npz")):
            name, preset, _ = path.relative_to(folder).parts
            tar.add(path, f"{name}-{preset}.npz")


@contextlib.contextmanager
def writing(file):
    """A tar file that appears when it is whole."""
    part = file.with_suffix(".part")
    with tarfile.open(part, "w:gz") as tar:
        yield tar
    part.replace(file)

"""What the package does on an accelerator: is it right there, how fast, and the papers' runs.

    python benchmarks/accelerator.py check  [--out FOLDER] [--minutes 3]
    python benchmarks/accelerator.py record [--out FOLDER] [--minutes 9] [--pieces A B]

`check` compares float32 on the device with float64 on the CPU, times steps, kernels and probes,
and writes `FOLDER/accelerator.md`, the table for `benchmarks/results/`. `record` trains the papers'
experiments at their scale, seeds side by side, most valuable first, and keeps in FOLDER what is
finished after each of them. The same command goes on where the last one ended. Every part is a
process of its own with a time limit. `--tiny` rehearses both on any machine in minutes.
"""

import argparse
import contextlib
import dataclasses
import functools
import os
import pathlib
import signal
import subprocess
import sys
import tarfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

SECTIONS = {"exact": 70, "rates": 120, "kernels": 60, "steps": 80, "probes": 40}  # most seconds
PIECES = (
    "real_vs_random:paper:rate=0.1",
    "real_vs_random:paper:rate=0.02",
    "winsorization:columns",
    "winsorization:levels",
)
RANKS = (1, 2, 4, 8)
ROLLED = tuple(slice(30 * i, 30 * i + 40) for i in range(3))  # three batches of one
PRECISIONS = ("default", "highest")  # of matrix products: a GPU's default for float32 is TF32
MOST_BYTES = 15 * 2**20  # of a tar file
MOST_CUT = 3  # tar files of runs that were cut
WINDOW = 50  # steps that batches are pooled over where all of them are too much to keep
SCAN = 50  # steps in a timed loop


# --- right?


def exact(tiny):
    """Largest relative errors (norm of the difference over the norm) against float64 on the CPU."""
    import jax
    from per_example import NETS, problem

    import coherence as co
    from coherence.lab.models import CNN, MLP, Transformer
    from coherence.optim.order_statistics import means

    small = {"mlp": MLP(width=32, depth=2), "cnn": CNN(), "transformer": Transformer(tied=False)}
    aggregators = {
        "winsorize(2)": co.optim.winsorize(2),
        "winsorize(8)": co.optim.winsorize(8),
        "M3": co.optim.median_of_means(3),
        "RM3": co.optim.rolling_median(3),
        "median()": co.optim.median(),
    }

    def statistics(loss, params, batch):
        losses, g = co.per_example_value_and_grad(loss)(params, batch)
        return losses, co.mean(g), co.gradients.squared_norms(g), co.alpha(g, by="layer")

    def aggregated(tx, loss, params, batch):
        state = tx.init(params)
        for part in ROLLED if tx is aggregators["RM3"] else (slice(None),):
            examples = jax.tree.map(lambda x, part=part: x[part], batch)
            _, g = co.per_example_value_and_grad(loss)(params, examples)
            update, state = tx.update(g, state, params)
        return update

    def at(precision, function, *arguments):
        with jax.default_matmul_precision(precision):
            return jax.device_get(jax.jit(function)(*arguments))

    means.use_triton = jax.default_backend() == "gpu"
    yield ("| net | precision | losses | mean gradient | squared norms | alpha by layer |", True)
    for name, model in small.items():
        net = NETS[name]
        loss, params, batch = problem(net._replace(model=model) if tiny or name == "mlp" else net)
        batch = jax.tree.map(lambda x, n=100 if name == "mlp" else 16: x[:n], batch)
        function = functools.partial(statistics, loss)
        expected = in_float64(function, params, batch)
        for precision in PRECISIONS:
            found = at(precision, function, params, batch)
            errors = [error(a, b) for a, b in zip(found, expected)]
            yield f"| {name} | {precision} | {' | '.join(f'{e:.0e}' for e in errors)} |"
            # Alpha is a ratio of sums: its error is what a reader of the metrics sees.
            assert errors[-1] < (3e-2 if precision == "default" else 1e-4), (name, errors)
        if name == "mlp":
            first = loss, params, batch
    yield (f"| aggregated gradient, mlp | {' | '.join(PRECISIONS)} |", True)
    for name, tx in aggregators.items():
        function = functools.partial(aggregated, tx, first[0])
        expected = in_float64(function, *first[1:])
        errors = [error(at(p, function, *first[1:]), expected) for p in PRECISIONS]
        yield f"| {name} | {' | '.join(f'{e:.0e}' for e in errors)} |"
        assert errors[-1] < 1e-4, (name, errors)


def in_float64(function, *arguments):
    import jax
    import numpy as np

    wide = lambda x: np.asarray(x, np.float64) if np.asarray(x).dtype.kind == "f" else np.asarray(x)
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        return jax.device_get(jax.jit(function)(*jax.tree.map(wide, arguments)))


def error(found, expected):
    """The norm of the difference over the norm, of a tree; of a dict of numbers the largest."""
    import jax
    import numpy as np

    pairs = [
        (np.asarray(a, np.float64), np.asarray(b, np.float64))
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    ]
    if all(a.ndim == 0 for a, _ in pairs):
        return max(float(abs(a - b) / abs(b)) for a, b in pairs)
    difference, size = (
        np.sqrt(sum((x**2).sum() for x in parts))
        for parts in ([a - b for a, b in pairs], [b for _, b in pairs])
    )
    return float(difference / size)


# --- how fast?


def kernels(tiny):
    """Clipped means of 100 outer products: ways to select, one compiled call each."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from coherence.optim.order_statistics import Products, clipped_mean, means

    rng = np.random.default_rng(0)
    height, width = (40, 64) if tiny else (784, 256)
    a, d = (rng.normal(size=(1, 100, n)).astype(np.float32) for n in (height, width))
    values = a[0, :, :, None].astype(np.float64) * d[0, :, None, :]
    ranked = np.sort(values, 0)
    formed = lambda a, d: (a[0, :, :, None] * d[0, :, None, :]).reshape(100, -1)

    def by_sort(k, a, d):
        g = formed(a, d)
        ranked = jnp.sort(g, 0)
        return jnp.clip(g, ranked[k], ranked[99 - k]).mean(0).reshape(1, height, width)

    def by_top_k(k, a, d):
        g = formed(a, d).T
        high, low = jax.lax.top_k(g, k + 1)[0][:, -1:], -jax.lax.top_k(-g, k + 1)[0][:, -1:]
        return jnp.clip(g, low, high).mean(1).reshape(1, height, width)

    def ours(k, a, d):
        return clipped_mean(Products(a, d), k)

    def bisected(k, a, d):
        return means._bisected(Products(a, d), k, False)

    on_cuda = jax.default_backend() == "gpu"
    ways = {"bisection": bisected, "top_k": by_top_k, "sort": by_sort, "XLA, unrolled": ours}
    if on_cuda:
        ways = {"Triton": ours, **ways}
    yield ("| way | rank | compile, s | ms | largest error |", True)
    for name, way in ways.items():  # the slow ones to compile last: a limit then costs least
        for k in RANKS if name in ("Triton", "XLA, unrolled") else RANKS[1::2]:
            means.use_triton = name == "Triton"
            expected = np.clip(values, ranked[k], ranked[99 - k]).mean(0)
            try:
                run, compiling = timed(functools.partial(way, k), a, d)
                worst = np.abs(np.asarray(run()[0], np.float64) - expected).max()
                yield f"| {name} | {k} | {compiling:.1f} | {best(run):.3f} | {worst:.0e} |"
            except Exception as failure:  # a table with a hole is worth more than none
                yield f"| {name} | {k} | failed: {str(failure)[:300]!r} | | |"


def timed(function, *arguments):
    """(a call that waits, seconds of tracing and compiling)."""
    import jax

    arguments = jax.device_put(arguments)
    start = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    took = time.perf_counter() - start
    return lambda: jax.block_until_ready(program(*arguments)), took


def best(run, seconds=1.0, most=50):
    """Median milliseconds of up to `most` calls, in about as many seconds."""
    import numpy as np

    run()
    took, end = [], time.perf_counter() + seconds
    while len(took) < 3 or (len(took) < most and time.perf_counter() < end):
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
    return 1e3 * float(np.median(took))


def steps(tiny):
    """SGD steps in one compiled loop: with per-example statistics, and robust, over plain ones."""
    import jax
    import jax.numpy as jnp
    import optax
    from per_example import NETS, problem

    import coherence as co
    from coherence.lab.models import MLP
    from coherence.optim.order_statistics import means as order_statistics

    sgd, times = optax.sgd(0.01), 3 if tiny else SCAN

    def loop(step):
        def run(params, state, batch):
            def body(carry, _):
                *carry, noted = step(*carry, batch)
                return tuple(carry), noted

            return jax.lax.scan(body, (params, state), None, length=times)

        return run

    def plain(loss, transformation):
        def step(params, state, batch):
            mean = lambda p: jnp.mean(jax.vmap(loss, (None, 0))(p, batch))
            value, g = jax.value_and_grad(mean)(params)
            updates, state = transformation.update(g, state, params)
            return optax.apply_updates(params, updates), state, value

        return step

    def per_example(loss, transformation, noted):
        def step(params, state, batch):
            losses, g = co.per_example_value_and_grad(loss)(params, batch)
            updates, state = transformation.update(g, state, params)
            return optax.apply_updates(params, updates), state, noted(losses, g)

        return step

    statistics = lambda losses, g: (losses, co.gradients.squared_norms(g), co.alpha(g, by="layer"))
    nothing = lambda losses, g: jnp.mean(losses)

    def milliseconds(step, params, transformation, batch):
        run, compiling = timed(loop(step), params, transformation.init(params), batch)
        return best(run) / times, compiling

    order_statistics.use_triton = _on_cuda()
    yield ("| step | ms | plain SGD, ms | ratio | compile, s |", True)

    def against(name, loss, params, batch, transformation, noted, base):
        try:
            ms, compiling = milliseconds(
                per_example(loss, transformation, noted), params, transformation, batch
            )
            return f"| {name} | {ms:.3f} | {base:.3f} | {ms / base:.2f} | {compiling:.1f} |"
        except Exception as failure:
            return f"| {name} | failed: {str(failure)[:300]!r} | | | |"

    names = ("mlp", "cnn", "transformer", *(() if tiny else ("resnet18", "lstm")))
    for name in names[: 1 if tiny else 3]:
        loss, params, batch = problem(NETS[name])
        base, _ = milliseconds(plain(loss, sgd), params, sgd, batch)
        averaged = co.optim.chain(co.optim.average(), sgd)
        yield against(f"{name}, statistics", loss, params, batch, averaged, statistics, base)
        if name != "mlp":
            continue
        means = {"M3": co.optim.median_of_means(3), "RM3": co.optim.rolling_median(3)}
        means |= {"RA3": co.optim.rolling_mean(3)}
        for aggregator, tx in means.items():
            one = f"{aggregator}, 784-2048-10"
            yield against(one, loss, params, batch, co.optim.chain(tx, sgd), nothing, base)
    net = NETS["mlp"]._replace(model=MLP(width=32 if tiny else 256, depth=3))
    loss, params, batch = problem(net)
    base, _ = milliseconds(plain(loss, sgd), params, sgd, batch)
    robust = {f"winsorize({c})": co.optim.winsorize(c) for c in RANKS}
    robust["median()"] = co.optim.median()

    def robustly(aggregator):
        name, tx = f"{aggregator}, 784-256-256-256-10", robust[aggregator]
        return against(name, loss, params, batch, co.optim.chain(tx, sgd), nothing, base)

    yield from map(robustly, list(robust)[:-1])
    for name in names[3:]:
        other, weights, examples = problem(NETS[name])
        slow, _ = milliseconds(plain(other, sgd), weights, sgd, examples)
        averaged = co.optim.chain(co.optim.average(), sgd)
        yield against(f"{name}, statistics", other, weights, examples, averaged, statistics, slow)
    yield robustly("median()")  # its network may take long to compile


def probes(tiny):
    """Probes on 784-2048-10 over one plain gradient of the same examples, and whole data sets."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import coherence as co
    from coherence.lab.models import MLP
    from coherence.lab.tasks import cross_entropy

    rng, m = np.random.default_rng(0), 500 if tiny else 10_000
    model = MLP(width=64 if tiny else 2048, depth=1)
    loss, params = cross_entropy(model), model.init(jax.random.key(0), jnp.zeros((1, 784)))
    sample = rng.random((m, 784), np.float32), rng.integers(10, size=m)
    mean_loss = lambda p, b: jnp.mean(jax.vmap(loss, (None, 0))(p, b))
    plain, _ = timed(jax.grad(mean_loss), params, sample)
    base = best(plain)
    yield ("| what | ms | plain gradient, ms | ratio |", True)
    for quantities in ("light", "standard", "full"):
        probe = co.probes.Probe(loss, sample, quantities=quantities, groups=sample[1] < 5)
        ms = best(lambda probe=probe: probe(params))
        yield f"| {quantities}, m = {m:,} | {ms:.1f} | {base:.2f} | {ms / base:.1f} |"
    ms = best(
        lambda: co.measure(loss, params, sample, batch_size=1000, by="layer", groups=sample[1] < 5),
        2.0,
        3,
    )
    yield f"| `measure` of {m:,}, by layer and group | {ms:.1f} | {base:.2f} | {ms / base:.1f} |"


def rates(tiny):
    """Steps of the recorded runs by the training loop, and what the pieces take by that."""
    from coherence.optim.order_statistics import means

    yield ("| arms | runs | ms a step of all | start, s | precision | kernel |", True)
    chosen = [("real_vs_random", "paper", "random,rate=0.1")]
    chosen += [("winsorization", "columns", f"noise=0.5,c={c}") for c in (0, 2, 8, 1, 4)]
    took = {}
    for triton in (True, False) if _on_cuda() else (False,):
        means.use_triton = triton
        for name, preset, arm in chosen if triton or not _on_cuda() else chosen[2:4]:
            try:
                row, ms, start = rate(name, preset, arm, tiny)
                took.setdefault(arm, (ms, start))
                yield row + (" Triton |" if triton else " XLA |")
            except Exception as failure:
                yield f"| {arm} | failed: {str(failure)[:300]!r} | | | | |"
    yield ("| piece | seconds expected, without probes |", True)
    _, settings = chosen_experiment("real_vs_random", "paper", tiny)
    for learning_rate, steps in zip(settings.learning_rates, settings.steps):
        ms, start = took["random,rate=0.1"]
        yield f"| real_vs_random:paper:rate={learning_rate:g} | {ms * steps / 1e3 + start:.0f} |"
    _, settings = chosen_experiment("winsorization", "columns", tiny)
    for arm, (ms, start) in list(took.items())[1:]:
        times = 1 + (len(settings.slower) if arm.endswith("c=0") else 0)
        seconds = times * (ms * settings.run.steps / 1e3 + start)
        yield f"| winsorization:columns, {arm}{', and slower' * (times > 1)} | {seconds:.0f} |"


def _on_cuda():
    import jax

    return jax.default_backend() == "gpu"


def rate(name, preset, arm, tiny):
    """The row of one arm: a start, then a short and a long run, whose difference is of steps."""
    import tempfile

    import jax

    from coherence.lab.runs import Run
    from coherence.lab.training import train

    experiment, settings = chosen_experiment(name, preset, tiny)
    (group,) = [group for group in alike(experiment.arms(settings)) if arm in group]
    arms = [dataclasses.replace(run, probes=()) for run in group.values()]
    seeds = list(range(settings.seeds)) * len(arms)
    run = arms[0]
    problems = [one.build(seed) for one in arms for seed in range(settings.seeds)]
    few, many = (20, 60) if tiny else (400, 2400)  # whole chunks

    def seconds(count):
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            runs = [
                stack.enter_context(Run.open(f"{folder}/{i}", {"batch_size": 100}, seed=seed))
                for i, seed in enumerate(seeds)
            ]
            start, size = time.perf_counter(), run.batch_size
            train(problems, runs, steps=count, batch_size=size, schedule=(0,), vmapped=True)
            return time.perf_counter() - start

    start, short = seconds(few), seconds(few)
    step = (seconds(many) - short) / (many - few)
    precision = jax.config.jax_default_matmul_precision or "default"
    row = f"| {'; '.join(group)} | {len(seeds)} | {1e3 * step:.3f} | {start:.1f} | {precision} |"
    return row, 1e3 * step, start


# --- the papers' runs


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


# --- the command


def environment():
    import jax

    device = jax.devices()[0]
    try:
        query = "--query-gpu=name,driver_version,memory.total,clocks.sm"
        card = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True
        ).stdout.strip()
    except FileNotFoundError:
        card = "no nvidia-smi"
    return (
        f"{device.device_kind} ({card}), {os.cpu_count()} CPU cores, Python "
        f"{sys.version.split()[0]}, JAX {jax.__version__}, {time.strftime('%Y-%m-%d')}"
    )


def section(name, out, tiny):
    """One section in this process: its rows, printed and appended to its file at once."""
    function = globals()[name]
    with open(out / f"{name}.part.md", "w") as file:
        print(f"\n## {name}\n\n{function.__doc__.strip()}\n", file=file, flush=True)
        for row in function(tiny):
            text, heading = row if isinstance(row, tuple) else (row, False)
            if heading:
                text = f"\n{text}\n|{'---|' * (text.count('|') - 1)}"
            print(text, file=file, flush=True)
            print(text, flush=True)


def check(out, minutes, tiny, sections):
    """Every section in a process of its own; the table is whole whatever happens to one."""
    start, failed = time.monotonic(), []
    table = [f"# Measured\n\n{child('environment', out, 60, tiny)[1].strip()}\n"]
    for name in sections:
        left = 60 * minutes - (time.monotonic() - start)
        limit = min(SECTIONS[name], left) if not tiny else 600
        status, _ = child(name, out, max(limit, 1), tiny)
        part = out / f"{name}.part.md"
        if part.is_file():
            table.append(part.read_text())
            part.unlink()
        if status:
            failed.append(name)
            table.append(f"\nThis section did not finish (status {status}).\n")
        (out / "accelerator.md").write_text("\n".join(table))
    print(f"\n{time.monotonic() - start:.0f} s; not finished: {', '.join(failed) or 'none'}")


def child(name, out, limit, tiny):
    """(status, output) of one section as a process; output is passed on as it comes."""
    command = [sys.executable, __file__, "section", "--only", name, "--out", str(out)]
    environ = {**os.environ, "JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    if name == "exact":  # says itself which
        environ.pop("JAX_DEFAULT_MATMUL_PRECISION")
    print(f"--- {name}, at most {limit:.0f} s", flush=True)
    process = subprocess.Popen(
        [*command, *(["--tiny"] if tiny else [])],
        env=environ,
        stdout=subprocess.PIPE if name == "environment" else None,
        text=True,
    )
    try:
        text, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return "time limit", ""
    print(text or "", end="", flush=True)
    return process.returncode, text or ""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("check", "record", "section"))
    parser.add_argument("--out", type=pathlib.Path, default=os.environ.get("OUT", "accelerator"))
    parser.add_argument("--runs", type=pathlib.Path, help="where run folders are; OUT/../runs")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--pieces", nargs="+", default=PIECES)
    parser.add_argument("--only", nargs="+", help="sections of the check")
    parser.add_argument("--xla", action="store_true", help="record without the Triton kernel")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal")
    chosen = parser.parse_args()
    chosen.out = pathlib.Path(chosen.out)
    chosen.out.mkdir(parents=True, exist_ok=True)
    if chosen.what == "section":
        (name,) = chosen.only
        if name == "environment":
            print(environment())
        else:
            section(name, chosen.out, chosen.tiny)
    elif chosen.what == "check":
        check(chosen.out, chosen.minutes, chosen.tiny, chosen.only or SECTIONS)
    else:
        import jax

        from coherence.optim.order_statistics import means

        jax.config.update("jax_default_matmul_precision", "highest")
        means.use_triton = not chosen.xla
        folder = chosen.runs or chosen.out.resolve().parent / "accelerator_runs"
        clock = Clock(chosen.minutes)
        record(chosen.pieces, chosen.out, folder, chosen.tiny, clock)
        clock.stop()


if __name__ == "__main__":
    main()

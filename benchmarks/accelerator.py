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
import functools
import os
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from benchmarks.accelerator_recordings import PIECES, Clock, record
from benchmarks.accelerator_timings import kernels, probes, rates, steps

ROLLED = tuple(slice(30 * i, 30 * i + 40) for i in range(3))  # three batches of one
PRECISIONS = ("default", "highest")  # of matrix products: a GPU's default for float32 is TF32


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


SECTIONS = {exact: 70, rates: 120, kernels: 60, steps: 80, probes: 40}  # most seconds
BY_NAME = {function.__name__: function for function in SECTIONS}


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
    function = BY_NAME[name]
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
        limit = min(SECTIONS[BY_NAME[name]], left) if not tiny else 600
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
        check(chosen.out, chosen.minutes, chosen.tiny, chosen.only or BY_NAME)
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

"""Per-example gradient norms by other libraries, on the nets of our own benchmarks.

Time over the plain gradient of the mean loss.

    python benchmarks/peers/run.py [--quick] [--nets WORD ...] [--peers WORD ...]

In the environment README.md describes. Each net and library is measured in a process of its own,
interleaved with the plain gradient of the same framework, and checked there against looped
gradients. Each cell goes into benchmarks/results/peers.json and .md.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
import warnings

HERE = pathlib.Path(__file__).parent
RESULTS = HERE.parent / "results" / "peers.md"
CELLS = RESULTS.with_suffix(
    ".json"
)  # every cell measured so far: a killed run loses one, a later one can replace some
NORMS = (
    "BackPACK",
    "Opacus ghost",
    "Opacus hooks",
    "torch.func",
    "jax_privacy",
    "jax_privacy microbatches",
    "micro_grad",
    "coherence",
)
CLIPPED = (
    "Opacus ghost, clipped",
    "jax_privacy, clipped",
    "jax_privacy microbatches, clipped",
    "coherence, clipped",
)
TORCH = (*NORMS[:4], CLIPPED[0])
JAX = (*NORMS[4:], *CLIPPED[1:])
NETS = (
    "MLP 784-2048-10, m=100",
    "CNN 32-64-64, 32x32x3, m=128",
    "ResNet-18, group norm, m=32",
    "transformer 4x256, T=128, m=16",
    "the same, tied embedding",
    "LSTM 128, T=64, m=32",
)
PACKAGES = (
    "torch",
    "backpack-for-pytorch",
    "opacus",
    "jax",
    "jax_privacy",
    "optax",
    "flax",
    "numpy",
)
CHECKED, TOLERANCE = 3, 1e-3
QUICK, FULL = (
    2,
    20,
)  # seconds of timing for one cell, but never fewer than 3 pairs, or 7 of less than 2 s


def measure(net, peer, budget):
    """One cell, in this process: a dict that JSON can hold."""
    sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]
    warnings.simplefilter("ignore")
    try:
        module = __import__("torch_peers" if peer in TORCH else "jax_peers")
        from timing import ratio, seconds

        run, plain, numbers, expected, note = module.case(net, peer, CHECKED)
        found, right = numbers(), expected()
        error = max(abs(a - b) / b for a, b in zip(found, right, strict=True))
        one = seconds(run) + seconds(plain)
        pairs = max(7 if budget > QUICK and one < 2 else 3, min(101, int(budget / one)))
        took = ratio(run, plain, pairs, warmup=0)  # both have run twice
    except Exception as problem:
        return {"error": f"{type(problem).__name__}: {problem}"}
    return {**took._asdict(), "wrong_by": error, "note": note, "machine": device(peer)}


def device(peer):
    """What computed."""
    if peer in TORCH:
        import torch

        return (
            torch.cuda.get_device_name()
            if torch.cuda.is_available()
            else f"CPU, {torch.get_num_threads()} threads in torch"
        )
    import jax

    return jax.devices()[0].device_kind


def in_its_own_process(net, peer, budget, limit):
    """What the child measured, or how it failed.

    A crash or a kill for memory is one cell, not the end of the table.
    """
    command = [sys.executable, __file__, "--case", net, peer, str(budget)]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"error": f"not finished after {limit:g} s"}
    try:
        return json.loads(child.stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        last = (child.stderr.strip().splitlines() or [""])[-1]
        return {
            "error": f"the process ended with status {child.returncode} (-9: killed, mostly for "
            f"memory). {last}"
        }


def cell(result, notes):
    """The ratio with its interval, or why there is none, as a numbered note."""
    if result.get("error") == "not measured":
        return "-"
    if "error" in result:
        return (
            f"unsupported{note(result['error'], notes)}"
            if refuses(result["error"])
            else f"failed{note(result['error'], notes)}"
        )
    text = f"{result['value']:.3g} [{result['low']:.3g}, {result['high']:.3g}]"
    if not result["wrong_by"] < TOLERANCE:  # nan counts as wrong
        why = f"differs from looped gradients by {result['wrong_by']:.2g} of the value"
        text = f"wrong{note(why, notes)} {text}"
    return text + (note(result["note"], notes) if result["note"] else "")


def refuses(error):
    return error.startswith(
        ("NotImplementedError", "UnsupportedModuleError", "ShouldReplaceModuleError")
    )


def note(text, notes):
    text = " ".join(text.split())
    text = text if len(text) < 240 else text[:240] + " ..."
    if text not in notes:
        notes.append(text)
    return f" ({notes.index(text) + 1})"


def table(results, nets, peers):
    """Markdown: a row a net, a column a library, both plain times, and the notes."""
    notes = []
    rows = [["time over plain, m examples", "torch plain, ms", *(p for p in peers if p in TORCH)]]
    rows[0] += ["JAX plain, ms", *(p for p in peers if p in JAX)]
    for net in nets:
        row = [net]
        for group in (TORCH, JAX):
            done = {
                p: results.get((net, p), {"error": "not measured"}) for p in peers if p in group
            }
            times = sorted(r["b"] for r in done.values() if "b" in r)
            row += [
                f"{1e3 * times[len(times) // 2]:.3g}" if times else "-",
                *(cell(r, notes) for r in done.values()),
            ]
        rows.append(row)
    rows.insert(1, ["---"] * len(rows[0]))
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, "", *(f"({i}) {text}  " for i, text in enumerate(notes, 1))])


def details(results):
    """Every measurement, one line each."""
    lines = [
        "| net | library | time over plain | ms | plain, ms | pairs | largest error |",
        "|---|---|---|---|---|---|---|",
    ]
    for (net, peer), r in results.items():
        if "error" not in r:
            took = (
                f"{r['value']:.3g} [{r['low']:.3g}, {r['high']:.3g}] | {1e3 * r['a']:.4g} | "
                f"{1e3 * r['b']:.4g}"
            )
            lines.append(f"| {net} | {peer} | {took} | {r['pairs']} | {r['wrong_by']:.1e} |")
    return "\n".join(lines)


def conditions(results):
    """Machine, versions and date."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        cpu = next(
            (
                line.split(":")[1].strip()
                for line in cpuinfo.read_text().splitlines()
                if line.startswith("model name")
            ),
            cpu,
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices = ", ".join(dict.fromkeys(r["machine"] for r in results.values() if "machine" in r))
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"Last run {datetime.date.today()}, with these versions; cells that it did not measure are "
        f"older. {cores} cores of {cpu}; computed by: {devices}. Python "
        f"{platform.python_version()}, {versions}."
    )


def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def document(results, nets, peers):
    return f"""# Other libraries on the same nets

Time for the mean gradient and every example's squared gradient norm, over the plain gradient of the
mean loss, same framework: median of the ratios of interleaved pairs with a 95 % interval (the whole
range below 6 pairs).
Made by `benchmarks/peers/run.py`; what is compared: `benchmarks/peers/README.md`.

{conditions(results)}

{table(results, nets, [p for p in peers if p in NORMS])}

## One step with clipped gradients

The mean of the gradients after each example's was scaled to a length of at most 1, with all
lengths: Opacus in two backward passes, the others in one.

{table(results, nets, [p for p in peers if p in CLIPPED])}

## Every measurement

Largest relative error: squared norms of {CHECKED} examples against looped gradients (for torch in
float64), and that of the mean gradient, clipped or not.

{details(results)}
"""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few pairs of each; writes nothing")
    parser.add_argument(
        "--nets",
        nargs="+",
        metavar="WORD",
        default=[""],
        help="only nets whose name has one of these words",
    )
    parser.add_argument(
        "--peers",
        nargs="+",
        metavar="WORD",
        default=[""],
        help="only libraries whose name has one of these words",
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=400,
        metavar="SECONDS",
        help="for one net and library (default 400)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=FULL,
        help=f"of timing for one net and library (default {FULL})",
    )
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        net, peer, budget = options.case
        return print(json.dumps(measure(net, peer, float(budget))))
    chosen = lambda names, words: [
        name for name in names if any(word.lower() in name.lower() for word in words)
    ]
    nets, peers = chosen(NETS, options.nets), chosen(TORCH + JAX, options.peers)
    results = {}
    for net in nets:
        for peer in peers:
            result = results[net, peer] = in_its_own_process(
                net, peer, QUICK if options.quick else options.seconds, options.limit
            )
            print(f"{net:32} {peer:24} {cell(result, [])}", file=sys.stderr, flush=True)
            if not options.quick:
                keep(net, peer, result)
    print(document(results, nets, peers))


def keep(net, peer, result):
    """One more cell among those recorded, and the table drawn anew."""
    cells = json.loads(CELLS.read_text()) if CELLS.exists() else {}
    cells.setdefault(net, {})[peer] = result
    CELLS.write_text(json.dumps(cells, indent=1, sort_keys=True))
    results = {
        (net, peer): cells[net][peer]
        for net in NETS
        for peer in TORCH + JAX
        if peer in cells.get(net, {})
    }
    RESULTS.write_text(document(results, NETS, TORCH + JAX))


if __name__ == "__main__":
    main()

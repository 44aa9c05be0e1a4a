"""Processor time from nothing to a result, with an empty and a full cache of compiled programs.

    python benchmarks/startup.py [--against CHECKOUT] [NAME ...]

Each row runs in processes of its own, first with an empty cache, then once more with what the first
left; user and system time of the process and its children. `--against` runs the same rows of
another checkout in the same sitting and prints ratios (that checkout may know no cache). `--record`
writes the times of the experiments' presets where `coherence run` reads what to expect.
"""

import argparse
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from coherence.lab.running.estimates import FILE, Estimate, store, this_machine

HOME = pathlib.Path(__file__).resolve().parents[1]
HOW = "processor time of benchmarks/startup.py"
PRESETS = {
    "winsorization smoke": ("winsorization", "smoke"),
    "demo": ("real_vs_random", "demo"),
} | {f"{path.stem} smoke": (path.stem, "smoke") for path in HOME.glob("experiments/*.py")}
STEP = """
import jax, jax.numpy as jnp, time
import coherence as co
from coherence import optim

def loss(params, example):
    x, y = example
    for w in params[:-1]:
        x = jax.nn.relu(x @ w)
    return -jax.nn.log_softmax(x @ params[-1])[y]

sizes = (784, 256, 256, 256, 10)
params = [jnp.ones(shape) * 0.01 for shape in zip(sizes, sizes[1:])]
batch = jnp.ones((100, 784)), jnp.zeros(100, int)
aggregator = optim.AGGREGATOR

@jax.jit
def step(params, batch):
    gradients = co.per_example_value_and_grad(loss)(params, batch)[1]
    return aggregator.update(gradients, aggregator.init(params), params)[0]

begin = time.process_time()
step.lower(params, batch).compile()
print(time.process_time() - begin)
"""
FIT = """
import time
import numpy as np
from sklearn.datasets import load_digits
PACKAGE
from sklearn.base import clone
x, y = load_digits(return_X_y=True)
classifier = MLPClassifier(steps=50, aggregator=Winsorize(c=2.0))
clone(classifier).fit(x, y)
begin = time.process_time()
clone(classifier).fit(x, y)
print(time.process_time() - begin)
"""


def environment(home, folder):
    """That of a user without settings of JAX's, whose runs and programs go to a folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    return {
        **kept,
        "PYTHONPATH": str(home),
        "COHERENCE_RUNS": str(folder / "runs"),
        "COHERENCE_COMPILATION_CACHE": str(folder / "compiled"),
    }


def run(home, folder, *command):
    """What a process prints; it runs in the checkout."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *command],
        cwd=home,
        env=environment(home, folder),
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return done.stdout


def processor_seconds(home, folder, *command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(home, folder, *command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def measure(home, name):
    """`{what: processor seconds}` of a row."""
    package = "coherence.lab" if (home / "coherence" / "lab").is_dir() else "coherence"
    with tempfile.TemporaryDirectory() as parent:
        folder = pathlib.Path(parent)
        if name in PRESETS:
            experiment, preset = PRESETS[name]
            command = ("-m", package, "run", experiment, "--preset", preset)
            times = {}
            for cache in ("empty", "full"):
                times[f"{name}, {cache} cache"] = processor_seconds(home, folder, *command)
                subprocess.run(["rm", "-r", folder / "runs"], check=True)
            return times
        if name == "second fit":
            return {name: float(run(home, folder, "-c", FIT.replace("PACKAGE", imports(package))))}
        code = STEP.replace("AGGREGATOR", name.removeprefix("compile "))
        return {name: float(run(home, folder, "-c", code))}


def imports(package):
    lab = package == "coherence.lab"
    winsorize = "lab.settings import winsorize as" if lab else "optim.settings import"
    return f"from {package}.estimators import MLPClassifier\nfrom coherence.{winsorize} Winsorize"


ROWS = (
    "winsorization smoke",
    "demo",
    "second fit",
    "compile average()",
    "compile winsorize(2)",
    "compile winsorize(8)",
    "compile median()",
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="rows, or EXPERIMENT smoke; all rows")
    parser.add_argument("--against", type=pathlib.Path, help="another checkout")
    parser.add_argument("--record", action="store_true", help=f"write {FILE.name}")
    asked = parser.parse_args()
    known = [*ROWS, *PRESETS]
    if wrong := [name for name in asked.names if name not in known]:
        parser.error(f"no rows {wrong}: there is {', '.join(dict.fromkeys(known))}.")
    print("| what | s | before, s | ratio |\n|---|---|---|---|")
    for name in asked.names or ROWS:
        now = measure(HOME, name)
        before = measure(asked.against.resolve(), name) if asked.against else {}
        for what, value in now.items():
            other = before.get(what)
            cells = (f"{other:.2f}", f"{value / other:.2f}") if other else ("-", "-")
            print(f"| {what} | {value:.2f} | {cells[0]} | {cells[1]} |", flush=True)
        if name in PRESETS and asked.record:
            seconds = round(now[f"{name}, empty cache"])
            store(HOME, *PRESETS[name], Estimate(seconds, HOW, this_machine()))


if __name__ == "__main__":
    main()

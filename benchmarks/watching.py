"""What recording and watching cost, and how soon a long run is on the page.

    python benchmarks/watching.py [--quick]

784-2048-10, batches of 100 of made-up data, a jitted step, 300 steps: with a `Recorder` that gets
loss, parameters and gradients at every step, alone and while the run is watched (a `Watcher` asked
every 2 seconds in the same process, whose time counts), against the same loop without. Ratios of
processor time, which other work on the machine disturbs less. Then a run of 10^5 records: until the
state is made and, where there is Chromium, until the page is drawn; the memory of the process.
"""

import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import itertools

from coherence.lab.recording import Recorder
from coherence.lab.runs import Run
from coherence.lab.watching import Watcher

STEPS, SIZES = 300, (784, 2048, 10)
RECORDS = 100_000
CHROMIUM = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), None)


def loss(params, x, y):
    hidden = jax.nn.relu(x @ params["hidden"]["kernel"])
    logits = hidden @ params["output"]["kernel"]
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))


def make():
    """`(first parameters, x, y, plain step, step that also returns its gradients)`."""
    keys = jax.random.split(jax.random.key(0), 4)
    kernels = [jax.random.normal(k, s) * 0.03 for k, s in zip(keys, itertools.pairwise(SIZES))]
    params = {name: {"kernel": k} for name, k in zip(("hidden", "output"), kernels)}
    x = jax.random.normal(keys[2], (STEPS, 100, SIZES[0]))
    y = jax.random.randint(keys[3], (STEPS, 100), 0, SIZES[-1])

    def step(params, x, y):
        value, gradients = jax.value_and_grad(loss)(params, x, y)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients), value, gradients

    plain = jax.jit(lambda *args: step(*args)[:2], donate_argnums=0)
    return params, x, y, plain, jax.jit(step, donate_argnums=0)


def by_hand(params, x, y, plain, _):
    """`(losses, processor seconds)`."""
    params, values = jax.tree.map(jnp.copy, params), []
    begun = time.process_time()
    for i in range(STEPS):
        params, value = plain(params, x[i], y[i])
        values.append(value)
    jax.block_until_ready(params)
    return [float(value) for value in values], time.process_time() - begun


def recorded(params, x, y, _, step, watch=False):
    """The same, without what opening and finishing a run takes, which is said by itself."""
    params, end = jax.tree.map(jnp.copy, params), threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        with Recorder(folder, {"steps": STEPS}) as recorder:
            watcher = Watcher([folder])
            thread = threading.Thread(target=follow, args=(watcher, end))
            begun = time.process_time()
            if watch:
                thread.start()
            for i in range(STEPS):
                params, value, gradients = step(params, x[i], y[i])
                recorder.record(i, {"train_loss": value}, params=params, gradients=gradients)
            jax.block_until_ready(params)
            end.set()
            if watch:
                thread.join()
            took = time.process_time() - begun
        return [record["train_loss"] for record in Run.read(folder).records()], took


def open_and_finish():
    """Processor seconds of a run without records."""
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as folder, Recorder(folder, {}):
        pass
    return time.process_time() - begun


def follow(watcher, end):
    """What a page does: ask now and every 2 seconds."""
    version = None
    while True:
        state = watcher.state(version)
        if state is not None:
            json.dumps(state)
            version = state["version"]
        if end.wait(2.0):
            return


def compare(pairs):
    made = make()
    sides = {
        "recording": lambda: recorded(*made),
        "recording and watching": lambda: recorded(*made, watch=True),
    }
    expected, _ = by_hand(*made)
    for run in sides.values():  # compiles
        np.testing.assert_allclose(run()[0], expected, rtol=1e-4)
    for name, run in sides.items():
        ratios = []
        for i in range(pairs):
            ours, theirs = run, lambda: by_hand(*made)
            order = (ours, theirs) if i % 2 else (theirs, ours)
            took = {one: one()[1] for one in order}
            ratios.append(took[ours] / took[theirs])
        low, high = np.quantile(ratios, [0.25, 0.75])
        print(
            f"{name} over the plain loop: {np.median(ratios):.3f} (quartiles {low:.3f}, "
            f"{high:.3f}; {pairs} pairs, processor time; target <= 1.02)",
            flush=True,
        )
    once = min(open_and_finish() for _ in range(5))
    print(f"to open and finish a run: {1000 * once:.0f} ms of processor time")


READ = """
import json, re, sys, time
begun = time.perf_counter()
from coherence.lab.watching import Watcher
state = Watcher([sys.argv[1]]).state()
assert state["runs"][0]["records"] == int(sys.argv[2])
text = json.dumps(state)
status = open("/proc/self/status").read() if sys.platform == "linux" else "VmHWM: 0"
peak = int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) / 1024
print(time.perf_counter() - begun, time.process_time(), peak, len(text) / 1e6)
"""


def long_run():
    with tempfile.TemporaryDirectory() as folder:
        Run.open(folder, {"steps": RECORDS}, seed=0).close()
        layers = {f"hidden_{i}": 0.123456789 for i in range(6)}
        bins = {name: [12.5] * 31 for name in layers}
        with open(pathlib.Path(folder) / "metrics.jsonl", "w") as file:
            for i in range(RECORDS):
                record = {"step": i, "train_loss": 2.3 / (1 + i / 1000), "gradient_norm": 0.1234567}
                if i % 10 == 0:
                    record |= {"distance_from_start": i**0.5, "norm_by_layer": layers}
                if i % 100 == 0:
                    record |= {
                        "gradient_histogram_counts": bins,
                        "gradient_histogram_limit": layers,
                    }
                file.write(json.dumps(record) + "\n")
            size = file.tell() / 1e6
        words = [sys.executable, "-c", READ, folder, str(RECORDS)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        wall, processor, peak, sent = map(float, done.stdout.split())
        print(
            f"a run of {RECORDS:,} records ({size:.1f} MB): state from nothing in {wall:.2f} s "
            f"(processor, with imports: {processor:.2f} s), memory {peak:.0f} MB, "
            f"{sent:.2f} MB to the page"
        )
        if CHROMIUM:
            print(f"drawn {painted(folder):.0f} ms after the page was asked for (target <= 1,000)")


def painted(folder):
    """Milliseconds from asking for the page to the first picture, the server's reading included."""
    command = [sys.executable, "-m", "coherence.lab", "watch", folder, "--port", "0"]
    home = pathlib.Path(__file__).parents[1]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=home) as server,
        tempfile.TemporaryDirectory() as profile,
    ):
        address = re.search(r"http\S+", server.stdout.readline())[0]
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        options += [f"--user-data-dir={profile}", address]
        dom = subprocess.run([CHROMIUM, *options], capture_output=True, text=True).stdout
        server.terminate()
    return float(re.search(r'data-drawn="(\d+)"', dom)[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer pairs")
    long_run()
    compare(3 if parser.parse_args().quick else 9)

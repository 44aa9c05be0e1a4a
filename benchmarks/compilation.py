"""What a training step costs before it runs: tracing and compiling it, and then each step.

    python benchmarks/compilation.py [--only median]

A multilayer perceptron 784-256-256-256-10, m = 100, plain SGD behind the aggregator. Processor
seconds, each step compiled in a process of its own with an empty cache; the step is the least of
several, in processor milliseconds. Compare numbers of one machine and one sitting only.
"""

import argparse
import itertools
import os
import pathlib
import subprocess
import sys
import time

STEPS = ["average()", "winsorize(2)", "winsorize(8)", "median()"]
TARGET = 3.0  # processor seconds


def measure(call):
    """Trace, lower, compile and run one step; prints a row of the table."""
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    import coherence as co
    from coherence.lab.models import MLP
    from coherence.lab.tasks import cross_entropy

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 784)), rng.integers(10, size=100)
    batch = jnp.asarray(x, jnp.float32), jnp.asarray(y)
    model = MLP(width=256, depth=3)
    loss, params = cross_entropy(model), model.init(jax.random.key(0), batch[0][:1])
    tx = co.optim.chain(eval(f"co.optim.{call}"), optax.sgd(0.1))
    state = tx.init(params)

    def step(params, batch):
        _, gradients = co.per_example_value_and_grad(loss)(params, batch)
        updates, new = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), new

    times = [time.process_time()]
    traced = jax.jit(step).trace(params, batch)
    times.append(time.process_time())
    lowered = traced.lower()
    times.append(time.process_time())
    compiled = lowered.compile()
    times.append(time.process_time())
    trace, lower, compilation = (after - before for before, after in itertools.pairwise(times))
    least = float("inf")
    for _ in range(20):
        start = time.process_time()
        for _ in range(5):
            jax.block_until_ready(compiled(params, batch))
        least = min(least, (time.process_time() - start) / 5)
    total = trace + lower + compilation
    parts = f"{trace:.2f} | {lower:.2f} | {compilation:.2f} | {total:.2f} | <= {TARGET:g}"
    print(f"| `{call}` | {parts} | {1e3 * least:.1f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="steps whose call contains this")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        measure(chosen.one)
        return
    print("| step | trace, s | lower, s | compile, s | together, s | target | step, ms |")
    print("|---|---|---|---|---|---|---|", flush=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    for call in STEPS:
        if chosen.only in call:
            command = [sys.executable, __file__, "--one", call]
            subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    main()

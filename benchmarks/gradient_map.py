"""The map of 2,000 MNIST examples by their gradients: from starting the process to the plane."""

import pathlib
import resource
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np

import coherence as co
from coherence.lab.experiment import load

TARGET = 30  # seconds


def main():
    begun = time.perf_counter()
    experiment = load(pathlib.Path(__file__).parents[1] / "experiments" / "gradient_map.py")
    problem = experiment.Training().build(0)
    x, y = problem.data["train"]
    import jax

    sketch = jax.jit(
        lambda params, batch: co.gradients.project(
            co.per_example_value_and_grad(problem.loss)(params, batch)[1],
            experiment.DRAWN,
            jax.random.key(0),
        )
    )
    sketches = np.asarray(sketch(problem.params, (x, y)))
    places = experiment.tsne(sketches, 0)
    wall = time.perf_counter() - begun
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = usage.ru_utime + usage.ru_stime
    share = np.mean(y[experiment.nearest(places)] == y[:, None])
    print(f"{len(places):,} examples, neighbours of the same label: {share:.0%}")
    print(f"{wall:.0f} s of wall time, {used:.0f} processor seconds (<= {TARGET})")


if __name__ == "__main__":
    main()

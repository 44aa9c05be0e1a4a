"""One run on many devices: what one device learns and reads, also resumed and of two processes."""

import os
import socket
import subprocess
import sys

import pytest

from coherence.lab.training.devices import mesh_of
from tests import eight_devices

COMMON = """
import dataclasses, pathlib, sys
import jax, jax.numpy as jnp, numpy as np, optax
from coherence.lab.grid import Devices, Grid, Unit
from coherence.lab.runs import Run
from coherence.lab.settings import MLP, Probing, label_noise
from coherence.lab.settings import average, median, median_of_means, winsorize
from coherence.lab.tasks.chunks import sum_over_chunks
from coherence.lab.training import Classification, Problem, train
from coherence.lab.training import loop
from coherence.lab.training.devices import LargestAxis, compiles_side_by_side, mesh_of, placement
from coherence.optim import chain
from coherence.probes import Every, Probe
from tests import zoo

def loss(p, example):
    x, y = example
    return 0.5 * jnp.sum((jnp.tanh(x @ p["w"] + p["b"]) @ p["v"] - y) ** 2)

def measure(p, data):
    mean = lambda *chunk: jnp.sum(jax.vmap(loss, (None, 0))(p, chunk))
    return {"loss": sum_over_chunks(mean, data["train"], 24) / 50}

def problem(seed, rule=winsorize(20).build(), dtype=np.float32, **changes):
    normal = lambda i, *shape: np.asarray(zoo.normal(i, *shape), dtype)
    data = normal(9, 50, 12), normal(8, 50, 3)
    sample = jax.tree.map(lambda x: x[:40], data)
    made = Problem(
        loss=loss,
        params={"w": normal(seed, 12, 16), "b": np.zeros(16, dtype), "v": normal(7, 16, 3)},
        data={"train": data},
        optimizer=chain(rule, optax.sgd(0.1)),
        per_example=True,
        measure=measure,
        track_batches=True,
        probes=(
            Probe(loss, sample, when=Every(3)),
            Probe(
                loss, sample, name="parts", when=Every(3), batch_size=16, groups=np.arange(40) < 9
            ),
        ),
    )
    return dataclasses.replace(made, **changes)

def learn(folder, steps, mesh, seeds=(0,), changes={}, **options):
    runs = [Run.open(folder / str(seed), {"settings": 1}, seed=seed) for seed in seeds]
    problems = [problem(seed, **changes) for seed in seeds]
    schedule = range(0, steps + 1, 3)
    train(problems, runs, steps=steps, batch_size=20, schedule=schedule, mesh=mesh, **options)
    return runs

def check_same(runs, others, rtol=1e-6, records=True):
    for run, other in zip(runs, others):
        for name in ("params", "batches"):
            for a, b in zip(run.load(name).values(), other.load(name).values()):
                np.testing.assert_allclose(a, b, rtol, atol=rtol, err_msg=name)
        both = (run.records(), other.records()) if records else ({}, {})
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 20 * rtol, atol=rtol), *both)
"""

EIGHT = """
folder, steps = pathlib.Path(sys.argv[1]), 12
alone = learn(folder / "alone", steps, mesh_of(1), (0, 1))
assert alone[0].manifest["devices"] == 1
# Batches of 20 are divided among 4 of 8 devices, the sample of 40 among all.
learn(folder / "eight", 6, mesh_of(8), (0, 1))
eight = learn(folder / "eight", steps, mesh_of(8), (0, 1))
check_same(eight, alone)
# The two seeds are divided among four devices first, then batches.
groups, begin = [], loop._Group.__init__
def noting(self, *arguments):
    begin(self, *arguments)
    groups.append(self)
loop._Group.__init__ = noting
places_of = lambda: {
    name: x.sharding.shard_shape(x.shape) for name, x in groups.pop().state["params"].items()
}
learn(folder / "fewer", 6, mesh_of(4), (0, 1), vmapped=True)
assert places_of() == {"w": (1, 12, 16), "b": (1, 16), "v": (1, 16, 3)}
fewer = learn(folder / "fewer", steps, mesh_of(1), (0, 1))
check_same(fewer, alone)
places = lambda run: (run.manifest, *run.manifest.get("resumed", []))
counts = lambda run: [place["devices"] for place in places(run)]
assert (counts(eight[0]), counts(fewer[1])) == ([8, 8], [4, 1])

# Parameters of more than 16 numbers are divided, and batches come from the host.
host = {"streamed": True, "measure": lambda params, data: {}}
part = learn(folder / "part", 6, mesh_of(8), shard=LargestAxis(16), changes=host)
assert places_of() == {"w": (12, 2), "b": (16,), "v": (2, 3)}
part = learn(folder / "part", steps, mesh_of(8), shard=LargestAxis(16), changes=host)
check_same(part, alone, records=False)

@dataclasses.dataclass(frozen=True)
class Arm:
    steps: int = 3
    batch_size: int = 20
    build = lambda self, seed: problem(seed)
    schedule = lambda self: ()

grid, unit, quiet = Grid({"arm": Arm()}, 1, folder / "grid", Devices(4)), Unit("arm", (0,)), str
(run,) = grid.train(unit, quiet, quiet)
assert (run.done, counts(run)) == (True, [4])
"""

PLACES = """
# Seeds, batches and parameters at a time; six devices are two by three.
fits = lambda count, seeds: compiles_side_by_side(placement(mesh_of(count), seeds, None))
assert [fits(6, seeds) for seeds in (2, 3, 5)] == [True, True, False] and fits(8, 5) and fits(1, 5)
folder, host = pathlib.Path(sys.argv[1]), {"streamed": True, "measure": lambda params, data: {}}
alone = learn(folder / "alone", 12, None, (0, 1, 2))
for number, (count, seeds, options) in enumerate([
    (8, (0, 1), {"shard": LargestAxis(16)}),
    (8, (0, 1), {"shard": lambda name, shape: 0 if name == "params/v" else None}),
    (8, (0, 1), {"changes": host}),
    (6, (0, 1), {}),
    (6, (0, 1, 2), {"shard": LargestAxis(16)}),
]):
    for steps in (6, 12):
        runs = learn(folder / str(number), steps, mesh_of(count), seeds, vmapped=True, **options)
    check_same(runs, alone, records="changes" not in options)
"""

PATHS = """
folder, steps = pathlib.Path(sys.argv[1]), 200
jax.config.update("jax_enable_x64", True)  # of the last part: what Classification has is float32

def path(rule, count):
    settings = Classification(
        aggregator=rule, noise=label_noise(0.25), model=MLP(width=64, depth=2), batch_size=96,
        steps=steps, probes=(Probing(m=96), Probing(of="test", m=100)),
    )
    with Run.open(folder / str(rule) / str(count), {}, seed=0) as run:
        made, schedule = settings.build(0), settings.schedule()
        train([made], [run], steps=steps, batch_size=96, schedule=schedule, mesh=mesh_of(count))
    return run

for rule in (average(), winsorize(2), median_of_means(3)):
    one, eight = path(rule, 1), path(rule, 8)
    assert one.load("batches")["loss"].dtype == np.float32
    check_same([eight], [one])

# A median's path magnifies rounding: parameters 3e-7 apart give losses 1e-3 apart after 200 steps,
# on one device. So its path is compared in float64.
def median_path(count):
    made = problem(0, median().build(), np.float64)
    with Run.open(folder / "median" / str(count), {}, seed=0) as run:
        train([made], [run], steps=steps, batch_size=40, schedule=(0, 99), mesh=mesh_of(count))
    return run

check_same([median_path(8)], [median_path(1)])
"""

TWO = """
folder, address, number = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(address, num_processes=2, process_id=number)
mesh = mesh_of(None)
assert mesh.size == 2 and mesh.is_multi_process
learn(folder / f"of {number}", 6, mesh, (0, 1))
# The other process has nothing of its own to go on from.
again = learn(folder / ("of 0" if number == 0 else "new"), 12, mesh, (0, 1))
assert again[0].manifest["processes"] == 2
learn(folder / ("of 0" if number == 0 else "newer"), 12, mesh, (0, 1))  # finished in the first
if number == 0:
    check_same(again, alone := learn(folder / "alone", 12, None, (0, 1)))
# Seeds on a process each, and parameters divided between the processes.
for options in ({"vmapped": True}, {"shard": LargestAxis(16)}):
    name = str(sorted(options))
    learn(folder / f"{name} {number}", 6, mesh, (0, 1), **options)
    place = folder / (f"{name} 0" if number == 0 else f"new {name}")
    last = learn(place, 12, mesh, (0, 1), **options)
    if number == 0:
        check_same(last, alone)
"""


def test_eight_devices_learn_and_read_what_one_does_also_resumed(tmp_path):
    eight_devices.run(COMMON + EIGHT, tmp_path)


@pytest.mark.slow  # five programs of steps and their probes
def test_seeds_batches_and_parameters_are_divided_at_a_time(tmp_path):
    eight_devices.run(COMMON + PLACES, tmp_path)


@pytest.mark.slow  # 200 steps of four rules, each compiled twice
def test_200_steps_of_four_rules_are_those_of_one_device(tmp_path):
    eight_devices.run(COMMON + PATHS, tmp_path)


@pytest.mark.slow  # two processes, each with its own JAX, besides the one of eight devices
def test_two_processes_train_one_run_and_the_first_has_it(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]),
    }
    words = [sys.executable, "-c", COMMON + TWO, str(tmp_path), address]
    options = {"env": environment, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([*words, str(number)], **options) for number in range(2)]
    try:
        for process in both:
            _, error = process.communicate()
            assert process.returncode == 0, error[-2000:]
    finally:
        for process in both:
            process.kill()
            process.wait()
            process.stderr.close()


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"this process sees 1 \(cpu\), got 9. On CPU XLA_FLAGS="):
        mesh_of(9)

"""Every training step and probe lowers for every platform, on a machine that has one of them."""

import re
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

from coherence import per_example_value_and_grad
from coherence.lab.runs import Run
from coherence.lab.settings import (
    MLP,
    Aggregators,
    Probing,
    average,
    digits,
    evidence,
    label_noise,
    median,
    scaled_sign,
    winsorize,
)
from coherence.lab.training import Classification, train
from coherence.lab.training.step import initial_state, make_advance, make_step
from coherence.optim.order_statistics import triton
from coherence.probes import Probe
from coherence.probes import reader as programs
from tests import zoo


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
@pytest.mark.parametrize("aggregator", [average(), winsorize(2.0), median()], ids=repr)
def test_a_chunk_of_steps_and_the_probes_lower(aggregator, platform):
    settings = Classification(
        model=MLP(16, 1), noise=label_noise(0.5), aggregator=aggregator, batch_size=20
    )
    problem = settings.build(0)
    advance = jax.jit(make_advance(make_step(problem.recipe), 5))
    indices = np.zeros((5, 20), np.int32)
    assert export.export(advance, platforms=[platform])(
        initial_state(problem), problem.data["train"], indices, 5
    )
    assert export.export(jax.jit(problem.measure), platforms=[platform])(
        problem.params, problem.data
    )


def test_tracking_batches_adds_no_product_of_parameters_size_to_a_chunk():
    def products(track):
        settings = Classification(
            data=digits(), model=MLP(16, 1), batch_size=20, track_batches=track
        )
        problem = settings.build(0)
        advance = jax.jit(make_advance(make_step(problem.recipe), 5))
        indices = np.zeros((5, 20), np.int32)
        arguments = initial_state(problem), problem.data["train"], indices, 5
        return re.findall(r"= f32\[64,16\]\S* dot\(", advance.lower(*arguments).compile().as_text())

    assert len(products(True)) == len(products(False)) == 1


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_the_full_probe_lowers(platform):
    loss, params, batch = zoo.dense()
    probe = Probe(loss, batch, quantities="full", groups=np.arange(len(batch[0])) % 2 == 0)
    assert export.export(programs.read_at_once, platforms=[platform])(
        params, probe.sample, reader=probe.reader
    )


@pytest.mark.parametrize(
    "setting",
    [
        setting
        for setting in typing.get_args(Aggregators)
        if setting not in (average, winsorize, median)
    ],
)
def test_every_aggregator_lowers(setting):
    inner = {"compressed": (scaled_sign(),), "with_statistics": (average(),)}
    arguments = inner.get(setting.__name__, ())
    tx, params = setting(*arguments).build(), {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}
    batch = jnp.ones((20, 3)), jnp.ones((20, 2))
    loss = lambda p, e: jnp.sum((jnp.tanh(e[0] @ p["w"] + p["b"]) - e[1]) ** 2)
    step = lambda p, state, batch: tx.update(
        per_example_value_and_grad(loss)(p, batch)[1], state, p
    )
    assert export.export(jax.jit(step), platforms=["cpu", "cuda", "tpu"])(
        params, tx.init(params), batch
    )


def test_every_seed_draws_its_own_noise_once_and_shares_the_images():
    settings = Classification(model=MLP(16, 1), noise=label_noise(0.5), probes=(Probing(m=50),))
    one, again, other = (settings.build(seed) for seed in (0, 0, 1))
    assert one.data["train"][0] is other.data["train"][0]
    np.testing.assert_array_equal(one.data["train"][1], again.data["train"][1])
    assert not np.array_equal(one.data["train"][1], other.data["train"][1])
    assert 0.35 < one.data["corrupt"].mean() < 0.5


def test_the_noisy_labels_are_kept_with_the_run(tmp_path):
    settings = Classification(
        model=MLP(8, 1), noise=label_noise(0.5), probes=(Probing(m=50),), steps=1
    )
    problem = settings.build(3)
    with Run.open(tmp_path, {}, seed=3) as run:
        train([problem], [run], steps=1, batch_size=100, schedule=(0, 1))
    kept = Run.read(tmp_path).load("drawn")
    np.testing.assert_array_equal(kept["labels"], problem.data["train"][1])
    np.testing.assert_array_equal(kept["corrupt"], kept["labels"] != digits().build().y_train)


def test_samples_that_cannot_be_are_refused():
    with pytest.raises(
        ValueError, match=r"Probing\(m\): of all 1437 training examples at most, got 5000"
    ):
        Classification(probes=(Probing(m=5000),)).build(0)
    with pytest.raises(
        ValueError, match="probes need names of their own, got train, train: give them, Probing"
    ):
        Classification(probes=(Probing(m=5), Probing(m=6)))
    with pytest.raises(
        ValueError,
        match="the stopping rule looks at gradients of training examples: add a probe of them",
    ):
        Classification(probes=(), stopping=evidence()).build(0)


@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated")  # JAX 0.12
def test_the_kernel_for_cuda_lowers_seeds_side_by_side():
    kernel = jax.vmap(lambda a, d: triton.winsorized_mean(a, d, k=8))
    unstable = export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")
    device = AbstractDevice("NVIDIA H100", num_cores=132, platform="gpu")
    with use_abstract_mesh(AbstractMesh((1,), ("x",), abstract_device=device)):
        lowered = export.export(jax.jit(kernel), platforms=["cuda"], disabled_checks=[unstable])(
            np.zeros((2, 1, 100, 70), np.float32), np.zeros((2, 1, 100, 30), np.float32)
        )
    assert "xla.gpu.triton" in lowered.mlir_module()

"""Layers that `lax.scan` goes over are measured one by one, as if each had leaves of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import coherence as co
from coherence import metrics
from coherence.metrics import pool
from coherence.probes import Probe
from tests import zoo

LAYERS, WIDTH, M = 3, 8, 10


def normal(seed, *shape):
    return zoo.normal(seed, *shape)


def dense(h, layer):
    return jnp.tanh(h @ layer["kernel"] + layer["bias"]), None


def convolve(h, layer):
    out = jax.lax.conv_general_dilated(
        h[None], layer["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.tanh(out[0] + layer["bias"]), None


def over_time(h, layer):
    """Three positions, and a matrix that meets the layer's input twice."""
    return jnp.tanh(h @ layer["kernel"] + (h @ layer["kernel"].T) * layer["bias"]), None


def problem(step, shape, kernel):
    params = {
        "layers": {
            "kernel": 0.4 * normal(0, LAYERS, *kernel),
            "bias": 0.1 * normal(1, LAYERS, kernel[-1]),
        },
        "head": {"kernel": normal(2, kernel[-1])},
    }

    def scanned(p, example):
        h, _ = jax.lax.scan(step, example[0], p["layers"])
        return jnp.sum((h @ p["head"]["kernel"] - example[1]) ** 2)

    def unrolled(p, example):
        h = example[0]
        for i in range(LAYERS):
            h, _ = step(h, p[f"layers/{i}"])
        return jnp.sum((h @ p["head"]["kernel"] - example[1]) ** 2)

    own = {
        f"layers/{i}": jax.tree.map(lambda x, i=i: np.asarray(x)[i], params["layers"])
        for i in range(LAYERS)
    }
    batch = normal(3, M, *shape), normal(4, M)
    return scanned, params, unrolled, {**own, "head": params["head"]}, batch


def gradients(loss):
    value_and_grad = jax.jit(co.per_example_value_and_grad(loss))
    return lambda params, batch: value_and_grad(params, batch)[1]


PROBLEMS = {
    "dense": lambda: problem(dense, (WIDTH,), (WIDTH, WIDTH)),
    "positions": lambda: problem(over_time, (3, WIDTH), (WIDTH, WIDTH)),
    "convolution": lambda: problem(convolve, (5, 5, 3), (3, 3, 3, 3)),
}


@pytest.mark.parametrize("make", PROBLEMS.values(), ids=PROBLEMS)
def test_scanned_layers_are_read_as_unrolled_ones(make):
    scanned, params, unrolled, own, batch = make()
    g = gradients(scanned)(params, batch)
    expected = gradients(unrolled)(own, batch)
    groups = {"groups": np.arange(M) % 2, "num_groups": 2}
    direction = lambda g: co.mean(g)
    readings = {
        "alpha": lambda g: co.alpha(g, by="layer"),
        "pooled": lambda g: co.m_coherence(pool(g), by="layer"),
        "groups": lambda g: co.metrics.alpha_unbiased(g, by="layer", **groups),
        "moments": lambda g: metrics.moments(g, by="layer"),
        "gsnr": lambda g: metrics.mean_gsnr(g, by="layer"),
        "norms": lambda g: co.gradients.squared_norms(g, by="layer"),
        "dots": lambda g: co.gradients.dot(g, direction(g), by="layer"),
        "without": lambda g: metrics.alpha_without(g, by="layer"),
    }
    read = jax.jit(lambda g: {name: read(g) for name, read in readings.items()})
    found, wanted = read(g), read(expected)
    found["eager"], wanted["eager"] = readings["alpha"](g), wanted["alpha"]
    for name in found:
        assert found[name].keys() == wanted[name].keys() == {*own}, name
        for layer, value in wanted[name].items():
            for a, b in zip(jax.tree.leaves(found[name][layer]), jax.tree.leaves(value)):
                np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-6, err_msg=f"{name} {layer}")
    alpha = jax.jit(co.alpha)
    assert alpha(g) == pytest.approx(float(alpha(expected)), rel=1e-4)
    assert set(co.alpha(g, by="leaf")) == {
        "head/kernel",
        *(f"layers/{leaf}/{i}" for leaf in ("kernel", "bias") for i in range(LAYERS)),
    }
    assert set(co.alpha(g, by=lambda path: path[0].key)) == {"layers", "head"}


def test_a_probe_and_a_whole_data_set_are_read_by_layer():
    scanned, params, unrolled, own, batch = PROBLEMS["dense"]()
    for options in ({}, {"batch_size": 4, "few": 4}):
        found = Probe(scanned, batch, **options)(params)["train/m_coherence_by_layer"]
        wanted = Probe(unrolled, batch, **options)(own)["train/m_coherence_by_layer"]
        assert found == pytest.approx(wanted, rel=1e-3)
    measured = co.measure(scanned, params, batch, batch_size=4, by="layer")
    wanted = co.measure(unrolled, own, batch, batch_size=4, by="layer")
    for ends in ("value", "low", "high"):
        assert getattr(measured, ends) == pytest.approx(getattr(wanted, ends), rel=1e-3)
    assert set(measured.by) == set(own)


def test_a_mask_keeps_and_drops_single_layers():
    scanned, params, unrolled, own, batch = PROBLEMS["dense"]()
    g = gradients(scanned)(params, batch)
    coherence = jax.jit(lambda g: co.m_coherence(g, by="layer"))(g)
    between = np.mean(sorted(float(coherence[f"layers/{i}"]) for i in range(LAYERS))[:2])
    mask = jax.jit(co.optim.coherence_mask(between).update)
    updates, _ = mask(g, None)
    wanted, _ = mask(gradients(unrolled)(own, batch), None)
    zeros = [bool(np.all(np.asarray(updates["layers"]["kernel"])[i] == 0)) for i in range(LAYERS)]
    assert sum(zeros) == 1
    for i in range(LAYERS):
        for name in ("kernel", "bias"):
            np.testing.assert_allclose(
                np.asarray(updates["layers"][name])[i],
                wanted[f"layers/{i}"][name],
                rtol=1e-4,
                atol=1e-6,
            )


def test_the_frameworks_own_scans_are_split():
    x, y = normal(0, M, WIDTH), normal(1, M)

    class Block(linen.Module):
        @linen.compact
        def __call__(self, x, _):
            return jnp.tanh(linen.Dense(WIDTH)(x)), None

    class Deep(linen.Module):
        @linen.compact
        def __call__(self, x):
            blocks = linen.scan(
                Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=LAYERS
            )
            return linen.Dense(1)(blocks()(x, None)[0])[0]

    model = Deep()
    params = jax.jit(model.init)(jax.random.key(0), x[0])
    loss = lambda p, e: (model.apply(p, e[0]) - e[1]) ** 2
    names = set(jax.jit(lambda g: co.alpha(g, by="layer"))(gradients(loss)(params, (x, y))))
    assert names == {"Dense_0", *(f"ScanBlock_0/Dense_0/{i}" for i in range(LAYERS))}

    @nnx.vmap(in_axes=0, out_axes=0)
    def blocks(key):
        return nnx.Linear(WIDTH, WIDTH, rngs=nnx.Rngs(key))

    graph, state = nnx.split(blocks(jax.random.split(jax.random.key(0), LAYERS)), nnx.Param)

    def stacked(state, e):
        step = nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(
            lambda h, layer: jnp.tanh(layer(h))
        )
        return jnp.sum((step(e[0], nnx.merge(graph, state)) - e[1]) ** 2)

    g = gradients(stacked)(state, (x, y))
    assert {name.rpartition("/")[2] for name in co.alpha(g, by="leaf")} == {"0", "1", "2"}


def test_scans_over_time_are_one_layer():
    g = zoo.gradients(zoo.recurrent)
    assert not any(name[-1].isdigit() for name in co.alpha(g, by="leaf"))


def test_what_optimizers_make_of_scanned_layers_has_their_shapes():
    scanned, params, _, _, batch = PROBLEMS["dense"]()
    tx = co.optim.chain(co.optim.winsorize(2), optax.sgd(0.1))
    g = gradients(scanned)(params, batch)
    updates, _ = jax.eval_shape(tx.update, g, tx.init(params), params)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)

"""Per-example gradients pass through JAX's transformations and frameworks' parameter containers."""

import contextlib
import warnings

import equinox as eqx
import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import export

import coherence as co
from coherence.gradients import tracked
from tests import reference, situations, zoo


def test_jit_scan_and_vmap_over_parameters_give_the_same_numbers():
    loss, params, batch = zoo.dense()
    alpha = lambda p: co.alpha(co.per_example_value_and_grad(loss)(p, batch)[1])
    expected = reference.alpha(reference.flat(reference.gradients(loss, params, batch)))
    np.testing.assert_allclose(jax.jit(alpha)(params), expected, rtol=1e-5)
    replicas = jax.tree.map(lambda x: np.stack([x, 2 * x]), params)
    np.testing.assert_allclose(jax.jit(jax.vmap(alpha))(replicas)[0], expected, rtol=1e-5)
    scanned = jax.jit(lambda replicas: jax.lax.scan(lambda c, p: (c, alpha(p)), 0, replicas)[1])
    np.testing.assert_allclose(scanned(replicas)[0], expected, rtol=1e-5)


def test_gradients_are_a_pytree_that_crosses_jit_without_retracing():
    loss, params, batch = zoo.dense()
    traces = []

    @jax.jit
    def norms(gradients):
        traces.append(1)
        return co.gradients.squared_norms(gradients)

    make = jax.jit(co.per_example_value_and_grad(loss))
    for _ in range(3):
        result = norms(make(params, batch)[1])
    assert len(traces) == 1
    np.testing.assert_allclose(
        result, (reference.flat(reference.gradients(loss, params, batch)) ** 2).sum(1), rtol=1e-5
    )


def test_a_metric_of_the_gradients_can_be_differentiated():
    loss, params, batch = zoo.dense()
    norm = lambda p: co.gradients.squared_norms(
        co.per_example_value_and_grad(loss)(p, batch)[1]
    ).sum()
    by_rows = lambda p: sum(
        jnp.sum(g**2) for g in jax.tree.leaves(jax.vmap(jax.grad(loss), (None, 0))(p, batch))
    )
    both = (jax.tree.leaves(jax.jit(jax.grad(f))(params)) for f in (norm, by_rows))
    for ours, theirs in zip(*both):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_metric_can_be_differentiated_through_a_large_custom_derivative():
    """Residuals count, too."""
    layer = jax.custom_jvp(lambda x, w: jnp.tanh(x @ w))
    slope = lambda x, w: 1 - layer(x, w) ** 2
    layer.defjvp(lambda p, t: (layer(*p), slope(*p) * (t[0] @ p[1] + p[0] @ t[1])))
    loss = lambda w, x: jnp.sum(layer(layer(x, w), w) ** 2)
    w, x = 0.1 * zoo.normal(0, 66, 66), zoo.normal(1, 4, 66)
    ours = lambda w: co.alpha(co.per_example_value_and_grad(loss)(w, x)[1])
    by_rows = lambda w: co.alpha(jax.vmap(jax.grad(loss), (None, 0))(w, x))
    a, b = jax.jit(jax.grad(ours))(w), jax.jit(jax.grad(by_rows))(w)
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * float(jnp.abs(b).max()))


@pytest.mark.parametrize(
    "model",
    [
        situations.guarded_by_cond,
        situations.layers_by_number,
        situations.checkpointed_block,
        situations.heads_one_by_one,
        situations.product_spelled_out,
        situations.stacked_leaves,
    ],
    ids=lambda model: model.__name__,
)
def test_a_metric_can_be_differentiated_however_the_factors_are_made(model, monkeypatch):
    monkeypatch.setattr(tracked, "ROWS", 0 if model in situations.LARGE else 4096)
    loss, params, batch = model()
    ours = lambda p: co.alpha(co.per_example_value_and_grad(loss)(p, batch)[1])
    by_rows = lambda p: co.alpha(jax.vmap(jax.grad(loss), (None, 0))(p, batch))
    pairs = (jax.tree.leaves(jax.jit(jax.grad(f))(params)) for f in (ours, by_rows))
    for a, b in zip(*pairs):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * float(jnp.abs(b).max()))


@pytest.mark.filterwarnings("ignore::coherence.gradients.transform.RecomputedWarning")
def test_gradients_leave_a_jit_whose_arguments_the_loss_closes_over():
    """A leaf without a rule is differentiated again, after that trace."""

    @jax.jit
    def merged(p, frozen, batch):
        loss = lambda p, e: jnp.sum((e @ (frozen + jnp.sort(p["a"] @ p["b"], 0))) ** 2)
        return co.per_example_value_and_grad(loss)(p, batch)

    p = {"a": zoo.normal(0, 70, 64), "b": zoo.normal(1, 64, 70)}
    frozen, batch = zoo.normal(2, 70, 70), zoo.normal(3, 4, 70)
    _, g = merged(p, frozen, batch)
    assert isinstance(g["a"], co.gradients.Recomputed)
    loss = lambda p, e: jnp.sum((e @ (frozen + jnp.sort(p["a"] @ p["b"], 0))) ** 2)
    mean = jax.jit(jax.grad(lambda p: jax.vmap(loss, (None, 0))(p, batch).mean()))(p)
    for ours, theirs in zip(jax.tree.leaves(jax.jit(co.mean)(g)), jax.tree.leaves(mean)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


STRICT = [*zoo.FAST, *zoo.FALLBACK, *(m for models in situations.ALL.values() for m in models)]
STRICT.remove(
    situations.ordinary_differential_equation
)  # JAX looks for leaks in odeint for minutes
FAST = {*zoo.FAST[::4], *zoo.FALLBACK, *(models[0] for models in situations.ALL.values())}


@pytest.mark.parametrize(
    "model",
    [pytest.param(model, marks=() if model in FAST else pytest.mark.slow) for model in STRICT],
    ids=[model.__name__ for model in STRICT],
)
def test_nothing_leaks_and_no_dtype_or_rank_is_promoted_in_silence(model, monkeypatch):
    monkeypatch.setattr(tracked, "ROWS", 0 if model in situations.LARGE else 4096)
    loss, params, batch = model()
    strict = jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise")
    with contextlib.ExitStack() as stack:
        for context in strict:
            stack.enter_context(context)
        try:
            jax.eval_shape(jax.vmap(jax.grad(loss), (None, 0)), params, batch)
        except (TypeError, ValueError):
            pytest.skip("the loss itself promotes")
        stack.enter_context(jax.checking_leaks())
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", co.gradients.RecomputedWarning)

        def everything(p, b):
            _, g = co.per_example_value_and_grad(loss)(p, b)
            sums = (
                co.mean(g),
                co.gradients.weighted_sum(g, jnp.ones(jax.tree.leaves(b)[0].shape[0])),
            )
            return (
                co.gradients.squared_norms(g),
                co.gradients.gram(g),
                co.gradients.dot(g, p),
                co.gradients.rows(g, jnp.array([0])),
                sums,
            )

        jax.eval_shape(everything, params, batch)


class _Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(3)(linen.relu(linen.Dense(8)(x)))


class _NNX(nnx.Module):
    def __init__(self, rngs):
        self.first, self.second = nnx.Linear(5, 8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        return self.second(nnx.relu(self.first(x)))


def _linen():
    model = _Linen()
    return model.apply, jax.jit(model.init)(jax.random.key(0), jnp.ones(5))


def _nnx():
    graph, params = nnx.split(_NNX(nnx.Rngs(0)), nnx.Param)
    return lambda p, x: nnx.merge(graph, p)(x), params


def _equinox():
    model = eqx.nn.MLP(5, 3, 8, 1, key=jax.random.key(0))
    params, rest = eqx.partition(model, eqx.is_inexact_array)
    return lambda p, x: eqx.combine(p, rest)(x), params


def _plain():
    params = [(zoo.normal(0, 5, 8), zoo.normal(1, 8)), (zoo.normal(2, 8, 3), zoo.normal(3, 3))]

    def apply(p, x):
        (w1, b1), (w2, b2) = p
        return jax.nn.relu(x @ w1 + b1) @ w2 + b2

    return apply, params


@pytest.mark.parametrize("framework", [_linen, _nnx, _equinox, _plain])
def test_every_framework_keeps_its_containers_and_gets_exact_factors(framework):
    apply, params = framework()
    x, y = zoo.normal(5, 6, 5), np.arange(6) % 3
    loss = lambda p, e: optax.losses.softmax_cross_entropy_with_integer_labels(apply(p, e[0]), e[1])
    _, gradients = jax.jit(co.per_example_value_and_grad(loss))(params, (x, y))
    read = jax.jit(lambda g: (co.mean(g), co.alpha(g, by="layer")))
    mean, by_layer = read(gradients)
    assert jax.tree.structure(mean) == jax.tree.structure(params)
    exact = jax.jit(jax.grad(lambda p: jax.vmap(loss, (None, 0))(p, (x, y)).mean()))(params)
    for ours, theirs in zip(jax.tree.leaves(mean), jax.tree.leaves(exact)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    node = lambda g: isinstance(
        g, co.gradients.Factored | co.gradients.Stacked | co.gradients.Recomputed
    )
    assert not any(
        isinstance(g, co.gradients.Recomputed) for g in jax.tree.leaves(gradients, is_leaf=node)
    )
    assert len(by_layer) == 2


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_norms_and_alpha_lower_for_every_platform(platform):
    loss, params, batch = zoo.dense()

    def step(p, b):
        _, gradients = co.per_example_value_and_grad(loss)(p, b)
        return (
            co.gradients.squared_norms(gradients),
            co.alpha(gradients, by="layer"),
            co.mean(gradients),
        )

    assert export.export(jax.jit(step), platforms=[platform])(params, batch).platforms == (
        platform,
    )


def test_the_examples_x_parameters_array_is_never_formed():
    params = {"w": jnp.zeros((400, 300)), "b": jnp.zeros(300)}
    loss = lambda p, e: jnp.sum(jnp.tanh(e @ p["w"] + p["b"]) ** 2)

    def everything(p, b):
        _, gradients = co.per_example_value_and_grad(loss)(p, b)
        return (
            co.gradients.squared_norms(gradients),
            co.gradients.gram(gradients),
            co.alpha(gradients, by="layer"),
            co.mean(gradients),
        )

    memory = jax.jit(everything).lower(params, jnp.ones((64, 400))).compile().memory_analysis()
    parameters = 400 * 300 + 300
    assert (
        memory.temp_size_in_bytes + memory.output_size_in_bytes < 4 * 3 * parameters
    )  # the array alone would be 4 * 64 * parameters

"""Every mistake is named together with the way out."""

import equinox as eqx
import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import coherence as co

W, X = jnp.ones((3, 2)), jnp.ones((4, 3))


def _dense(w, x):
    return jnp.sum(x @ w)


def test_a_loss_of_the_whole_batch_is_refused():
    with pytest.raises(
        ValueError,
        match=r"loss must return a scalar for one example, got shape \(2,\). Did you pass a "
        r"loss of the whole batch",
    ):
        co.per_example_value_and_grad(lambda w, x: x @ w)(W, X)


def test_a_forgotten_has_aux_is_named():
    with pytest.raises(
        ValueError, match=r"got a tuple. If it returns \(scalar, aux\), pass has_aux=True"
    ):
        co.per_example_value_and_grad(lambda w, x: (_dense(w, x), x))(W, X)
    with pytest.raises(ValueError, match=r"with has_aux=True the loss must return \(scalar, aux\)"):
        co.per_example_value_and_grad(_dense, has_aux=True)(W, X)


def test_an_integer_loss_is_refused():
    with pytest.raises(ValueError, match="loss must return a float for one example, got int32"):
        co.per_example_value_and_grad(lambda w, x: jnp.argmax(x @ w))(W, X)


def test_integer_parameters_are_refused_with_the_nnx_filter():
    class Dropped(nnx.Module):
        def __init__(self, rngs):
            self.drop = nnx.Dropout(0.5, rngs=rngs)

    _, state = nnx.split(Dropped(nnx.Rngs(0)))
    with pytest.raises(
        TypeError,
        match=r"leaf drop/rngs/.*: gradients need floats. With Flax NNX, split with a filter: "
        r"nnx.split\(model, nnx.Param",
    ):
        co.per_example_value_and_grad(lambda p, x: jnp.sum(x))(state, X)


def test_parameters_that_are_no_arrays_are_refused_with_equinoxs_filter():
    model = eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0))
    with pytest.raises(
        TypeError,
        match=r"leaf activation is a custom_jvp: gradients need floats.*with Equinox, "
        r"eqx.partition\(model, eqx.is_inexact_array\)",
    ):
        co.per_example_value_and_grad(lambda p, x: jnp.sum(p(x)))(model, X)


class _Dropped(nnx.Module):
    def __init__(self, layer, rngs):
        self.linear, self.layer = nnx.Linear(3, 2, rngs=rngs), layer

    def __call__(self, x):
        return self.layer(self.linear(x))


@pytest.mark.parametrize("layer", [nnx.Dropout, nnx.BatchNorm])
def test_an_nnx_module_whose_state_changes_is_refused_with_nnxs_ways_out(layer):
    rngs = nnx.Rngs(0)
    made = layer(0.5, rngs=rngs) if layer is nnx.Dropout else layer(2, rngs=rngs)
    model = _Dropped(made, rngs)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    loss = lambda p, x: jnp.sum(nnx.merge(graphdef, p, rest)(x[None]) ** 2)
    with pytest.raises(
        ValueError,
        match=r"loss of one example cannot be traced: it changes the state of an NNX "
        r"module.*model.eval\(\) before "
        r"nnx.split.*nnx.reseed\(model, default=key, dropout=key\).*TraceContextError",
    ):
        co.per_example_value_and_grad(loss)(params, X)
    model.eval()  # the way out
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    assert co.alpha(co.per_example_value_and_grad(loss)(params, X)[1]) > 0


def test_the_way_out_for_nnx_dropout_draws_for_every_example():
    rngs = nnx.Rngs(0)
    graphdef, params, rest = nnx.split(_Dropped(nnx.Dropout(0.5, rngs=rngs), rngs), nnx.Param, ...)

    def loss(p, example):
        x, key = example
        model = nnx.merge(graphdef, p, rest, copy=True)
        nnx.reseed(model, default=key, dropout=key)
        return jnp.sum(model(x))

    batch = jnp.ones((64, 3)), jax.random.split(jax.random.key(0), 64)
    losses, _ = co.per_example_value_and_grad(loss)(params, batch)
    assert len(np.unique(losses)) > 1


def test_a_linen_module_whose_variables_change_is_refused_with_linens_ways_out():
    norm = linen.BatchNorm(use_running_average=False)
    variables = jax.jit(norm.init)(jax.random.key(0), X)
    loss = lambda p, x: jnp.sum(norm.apply({**variables, "params": p}, x[None]))
    with pytest.raises(
        ValueError,
        match=r"it changes variables of a Flax module, which are not passed as "
        r"mutable.*use_running_average=True",
    ):
        co.per_example_value_and_grad(loss)(variables["params"], X)


def test_an_equinox_state_read_twice_is_refused_and_its_way_out_works():
    layer = eqx.nn.Linear(3, 2, key=jax.random.key(0))
    norm, state = eqx.nn.make_with_state(eqx.nn.SpectralNorm)(
        layer, "weight", key=jax.random.key(1)
    )
    params, rest = eqx.partition(norm, eqx.is_inexact_array)
    first = lambda p, x: jnp.sum(eqx.combine(p, rest)(x, state)[0] ** 2)
    co.per_example_value_and_grad(first)(params, X)
    loss = lambda p, x: jnp.sum(eqx.combine(p, rest)(x, state)[0])
    with pytest.raises(
        ValueError,
        match=r"it reads an Equinox State "
        r"twice.*eqx.nn.inference_mode\(model\).*jax.tree.unflatten\(treedef, leaves\)",
    ):
        co.per_example_value_and_grad(loss)(params, X)
    norm, state = eqx.nn.make_with_state(eqx.nn.SpectralNorm)(
        layer, "weight", key=jax.random.key(1)
    )
    leaves, treedef = jax.tree.flatten(state)
    copied = lambda p, x: jnp.sum(eqx.combine(p, rest)(x, jax.tree.unflatten(treedef, leaves))[0])
    for _ in range(2):
        co.per_example_value_and_grad(copied)(params, X)


@pytest.mark.parametrize(
    "dropped",
    [
        lambda x: linen.Dropout(0.5, deterministic=False).apply({}, x),
        lambda x: eqx.nn.Dropout(0.5)(x),
    ],
    ids=["linen", "equinox"],
)
def test_randomness_without_a_key_is_refused_with_the_way_out(dropped):
    with pytest.raises(
        ValueError, match=r"it draws random numbers without a key. Put one key per example into"
    ):
        co.per_example_value_and_grad(lambda w, x: jnp.sum(dropped(x @ w)))(W, X)


def test_a_loss_that_fails_otherwise_fails_with_its_own_error():
    with pytest.raises(KeyError, match="missing"):
        co.per_example_value_and_grad(lambda w, x: {}["missing"])(W, X)


def test_mismatched_empty_and_axisless_batches_are_refused():
    transform = co.per_example_value_and_grad(lambda w, e: _dense(w, e[0]))
    with pytest.raises(
        ValueError,
        match=r"batch leaves disagree about the number of examples \(their first axis\): \{'0': "
        r"4, '1': 5\}",
    ):
        transform(W, (X, jnp.ones(5)))
    with pytest.raises(ValueError, match="batch is empty \\(0 examples\\)"):
        transform(W, (X[:0], jnp.ones(0)))
    with pytest.raises(TypeError, match="batch leaf 1 has no example axis, got 3.0"):
        transform(W, (X, 3.0))
    with pytest.raises(ValueError, match="batch holds no array"):
        transform(W, ())


def test_a_wrong_mask_is_refused():
    with pytest.raises(
        ValueError, match=r"mask must be bool \[4\], one entry an example, got float32 \[4\]"
    ):
        co.per_example_value_and_grad(_dense)(W, X, jnp.ones(4))
    with pytest.raises(
        ValueError, match=r"mask must be bool \[4\], one entry an example, got bool \[3\]"
    ):
        co.per_example_value_and_grad(_dense)(W, X, jnp.ones(3, bool))


def test_a_microbatch_of_nothing_is_refused():
    with pytest.raises(
        ValueError,
        match="microbatch_size must be at least 1 example, or None for the whole batch, got 0",
    ):
        co.per_example_value_and_grad(_dense, microbatch_size=0)


def test_reductions_refuse_what_is_no_per_example_gradient():
    with pytest.raises(ValueError, match="gradients hold no leaf"):
        co.mean({})
    with pytest.raises(ValueError, match="leaf b has no example axis, got a scalar"):
        co.mean({"b": jnp.float32(1)})
    with pytest.raises(
        ValueError,
        match=r"leaves disagree about the number of examples \(their first axis\): \{'a': 3, "
        r"'b': 4\}",
    ):
        co.gradients.squared_norms({"a": jnp.ones((3, 2)), "b": jnp.ones((4, 2))})
    with pytest.raises(ValueError, match="gradients are of 0 examples"):
        co.gradients.squared_norms(jnp.ones((0, 2)))
    with pytest.raises(TypeError, match="leaf all is int32: gradients need floats"):
        co.gradients.squared_norms(jnp.ones((3, 2), jnp.int32))
    with pytest.raises(
        ValueError, match=r"tree must have the parameters' shapes \[\(2,\)\], got \[\(3,\)\]"
    ):
        co.gradients.dot(jnp.ones((4, 2)), jnp.ones(3))


def test_a_leaf_without_a_rule_is_said_by_name():
    loss = lambda p, x: jnp.sort(p["odd"])[0] * jnp.sum(x)
    with pytest.warns(
        co.gradients.RecomputedWarning,
        match=r"no rule where these parameters meet their first data: odd \(sort\)",
    ):
        jax.jit(co.per_example_value_and_grad(loss))({"odd": jnp.ones(5000)}, X)


def test_nan_and_infinite_gradients_show():
    _, gradients = co.per_example_value_and_grad(_dense)(
        W, X.at[0, 0].set(jnp.nan).at[1, 0].set(jnp.inf)
    )
    norms = co.gradients.squared_norms(gradients)
    assert jnp.isnan(norms[0])
    assert jnp.isinf(norms[1])
    assert jnp.isfinite(norms[2:]).all()


def test_explicit_shardings_are_refused_before_jax_refuses_a_reduction():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    x = jax.device_put(
        jnp.ones((4, 3)), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    )
    message = (
        r"batch leaf all is sharded over a mesh with explicit axes \(float32\[4@data,3\]\): "
        r".*axis_types=\(jax"
    )
    with pytest.raises(ValueError, match=message):
        co.per_example_value_and_grad(lambda w, x: jnp.dot(w, x))(jnp.ones(3), x)

"""A batch norm over one example is refused where it can be seen; norms of one example are not."""

import equinox as eqx
import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import coherence as co
from coherence.gradients import batch_statistics
from tests import zoo

IMAGES = zoo.normal(0, 4, 6, 6, 3)
VECTORS = zoo.normal(1, 4, 5)


def seen(loss, params, example):
    return batch_statistics.find(
        jax.make_jaxpr(loss)(params, example), len(jax.tree.leaves(params))
    )


class _Dense(linen.Module):
    norm: linen.Module

    @linen.compact
    def __call__(self, x):
        return linen.Dense(2)(linen.relu(self.norm(linen.Dense(8)(x))))


class _Convolutional(linen.Module):
    norm: linen.Module

    @linen.compact
    def __call__(self, x):
        return linen.Dense(2)(linen.relu(self.norm(linen.Conv(8, (3, 3))(x))).mean((1, 2)))


def _linen(net, x):
    """A loss of one example, handed to the model as a batch of one, and its parameters."""
    variables = jax.jit(net.init)(jax.random.key(0), x[:1])
    rest = {k: v for k, v in variables.items() if k != "params"}

    def loss(p, example):
        out, _ = net.apply({"params": p, **rest}, example[None], mutable=["batch_stats"])
        return jnp.sum(out**2)

    return loss, variables["params"], x[0]


def _nnx(use_running_average):
    model = nnx.Sequential(
        nnx.Linear(5, 8, rngs=nnx.Rngs(0)),
        nnx.BatchNorm(8, rngs=nnx.Rngs(0), use_running_average=use_running_average),
    )
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    return (
        lambda p, e: jnp.sum(nnx.merge(graph, p, rest, copy=True)(e[None]) ** 2),
        params,
        VECTORS[0],
    )


def _plain(normalize, wrap=lambda f: f):
    net = wrap(lambda w, x: normalize(x @ w))
    return lambda w, e: jnp.sum(jnp.tanh(net(w, e[None]))), zoo.normal(3, 5, 4), VECTORS[0]


def centred(x):
    return x - x.mean(0)


def standardized(x):
    return (x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-5)


def folded(x):
    """x s + (b - mean s): how some frameworks write it."""
    s = jax.lax.rsqrt(x.var(0) + 1e-5)
    return x * s + (1 - x.mean(0) * s)


@jax.custom_jvp
def _custom(x):
    return standardized(x)


_custom.defjvp(lambda x, t: jax.jvp(standardized, x, t))


def _scanned(x):
    return jax.lax.scan(lambda h, _: (standardized(h), None), x, None, length=2)[0]


def _branched(x):
    return jax.lax.cond(x.sum() > 0, standardized, lambda x: x, x)


def _masked(x):
    return x - x.mean(0, where=jnp.ones(x.shape, bool))


def _upcast(x):
    half = x.astype(jnp.bfloat16)
    return half - half.mean(0)


TRAPS = {
    "linen": lambda: _linen(_Dense(linen.BatchNorm(use_running_average=False)), VECTORS),
    "linen, slow variance": lambda: _linen(
        _Dense(linen.BatchNorm(use_running_average=False, use_fast_variance=False)), VECTORS
    ),
    "linen, after a convolution": lambda: _linen(
        _Convolutional(linen.BatchNorm(use_running_average=False)), IMAGES
    ),
    "linen, half precision": lambda: _linen(
        _Dense(linen.BatchNorm(use_running_average=False, dtype=jnp.bfloat16)), VECTORS
    ),
    "nnx": lambda: _nnx(False),
    "centred": lambda: _plain(centred),
    "standardized": lambda: _plain(standardized),
    "folded": lambda: _plain(folded),
    "masked": lambda: _plain(_masked),
    "upcast": lambda: _plain(_upcast),
    "in jit": lambda: _plain(standardized, jax.jit),
    "in a jitted function of its own": lambda: _plain(jax.jit(standardized)),
    "in remat": lambda: _plain(standardized, jax.checkpoint),
    "in custom_jvp": lambda: _plain(_custom),
    "in scan": lambda: _plain(_scanned),
    "in cond": lambda: _plain(_branched),
}


@pytest.mark.parametrize("trap", TRAPS.values(), ids=TRAPS.keys())
def test_a_batch_norm_of_one_example_is_seen(trap):
    (sentence,) = {s.partition(" (")[0] for s in seen(*trap())}
    assert sentence == "a mean over a batch of one example is subtracted from that example"


def test_what_is_seen_names_the_layer():
    (sentence,) = seen(*TRAPS["linen"]())
    assert sentence.endswith("(_Dense/norm)")


_shifted = jax.jit(lambda x: jnp.tanh(x) + 1)


def _standardized_kernels(w, e):
    """Weight standardization of a 1 x 1 convolution: centred over size-1 axes, but no data."""
    w = w - w.mean((0, 1, 2), keepdims=True)
    return jnp.sum(
        jax.lax.conv_general_dilated(
            e[None], w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        ** 2
    )


def _reported_only(w, e):
    h = e[None] @ w
    return jnp.sum(h**2), standardized(h)


NO_TRAPS = {
    "linen, frozen statistics": lambda: _linen(
        _Dense(linen.BatchNorm(use_running_average=True)), VECTORS
    ),
    "nnx, frozen statistics": lambda: _nnx(True),
    "layer norm on features": lambda: _linen(_Dense(linen.LayerNorm()), VECTORS),
    "rms norm": lambda: _linen(_Dense(linen.RMSNorm()), VECTORS),
    "group norm, one group": lambda: _linen(_Convolutional(linen.GroupNorm(num_groups=1)), IMAGES),
    "group norm": lambda: _linen(_Convolutional(linen.GroupNorm(num_groups=4)), IMAGES),
    "instance norm": lambda: _linen(_Convolutional(linen.InstanceNorm()), IMAGES),
    "layer norm of a map": lambda: _linen(
        _Convolutional(linen.LayerNorm(reduction_axes=(1, 2, 3), feature_axes=-1)), IMAGES
    ),
    "softmax": lambda: _plain(jax.nn.softmax),
    "log-softmax over a batch of one": lambda: _plain(lambda x: jax.nn.log_softmax(x, axis=0)),
    "[1, d] centred over d": lambda: _plain(lambda x: x - x.mean(1, keepdims=True)),
    "[1, d] centred over everything": lambda: _plain(lambda x: x - x.mean()),
    "layer norm on one feature": lambda: _plain(
        lambda x: linen.LayerNorm(use_bias=False, use_scale=False).apply({}, x.T)
    ),
    "a mean over a batch of one, not subtracted": lambda: _plain(lambda x: jnp.tanh(x).mean(0)),
    "a mean over a batch of one, subtracted from another": lambda: _plain(
        lambda x: jnp.tanh(x) - jnp.cos(x).mean(0)
    ),
    "a mean added to its own operand": lambda: _plain(lambda x: x + x.mean(0)),
    "two calls of one jitted function": lambda: _plain(
        lambda x: _shifted(x) - _shifted(jnp.cos(x)).mean(0)
    ),
    "pooling of a size-1 map": lambda: (
        lambda w, e: jnp.sum((e[None] @ w).mean((0, 1)) ** 2),
        zoo.normal(3, 5, 4),
        VECTORS[:1],
    ),
    "a contrast along time": lambda: (
        lambda w, e: jnp.sum(jnp.tanh(centred(e @ w))),
        zoo.normal(3, 5, 4),
        VECTORS,
    ),
    "standardized 1 x 1 kernels": lambda: (
        _standardized_kernels,
        zoo.normal(3, 1, 1, 3, 4),
        IMAGES[0],
    ),
    "statistics only reported": lambda: (_reported_only, zoo.normal(3, 5, 4), VECTORS[0]),
}


@pytest.mark.parametrize("harmless", NO_TRAPS.values(), ids=NO_TRAPS.keys())
def test_other_norms_and_means_are_left_alone(harmless):
    assert seen(*harmless()) == []


@pytest.mark.parametrize("model", [*zoo.FAST, *zoo.FALLBACK], ids=lambda model: model.__name__)
def test_no_odd_model_is_taken_for_a_batch_norm(model):
    loss, params, batch = model()
    assert seen(loss, params, jax.tree.map(lambda x: x[0], batch)) == []


def test_the_transform_refuses_and_names_three_ways_out():
    loss, params, _ = TRAPS["linen"]()
    with pytest.raises(
        ValueError,
        match=r"loss of one example needs statistics of a batch: a mean over a batch of one "
        r"example is subtracted from that example "
        r"\(_Dense/norm\).*use_running_average=True.*GroupNorm or "
        r"LayerNorm.*alpha_from_minibatches.*allow_batch_statistics=True",
    ):
        co.per_example_value_and_grad(loss)(params, VECTORS)


def test_the_refusal_can_be_overridden_and_then_shows_the_trap():
    loss, params, _ = TRAPS["linen"]()
    _, gradients = co.per_example_value_and_grad(loss, allow_batch_statistics=True)(params, VECTORS)
    first = [
        np.asarray(leaf) for leaf in jax.tree.leaves(co.gradients.materialize(gradients)["Dense_0"])
    ]
    assert not any(leaf.any() for leaf in first)


def test_a_named_axis_bound_outside_is_refused():
    loss = lambda w, e: jnp.sum((e @ w - jax.lax.pmean(e @ w, "devices")) ** 2)
    shards = VECTORS.reshape(2, 2, 5)
    with pytest.raises(
        ValueError,
        match="loss of one example needs statistics of a batch: psum.* over the named axis devices",
    ):
        jax.vmap(
            lambda x: co.gradients.squared_norms(
                co.per_example_value_and_grad(loss)(zoo.normal(3, 5, 4), x)[1]
            ),
            axis_name="devices",
        )(shards)


def test_a_named_axis_bound_nowhere_is_refused_in_the_same_words():
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(5, axis_name="batch", mode="batch")
    params, rest = eqx.partition(norm, eqx.is_inexact_array)
    loss = lambda p, e: jnp.sum(eqx.combine(p, rest)(e, state)[0] ** 2)
    with pytest.raises(
        ValueError,
        match="it reduces over the named axis batch.*GroupNorm or "
        "LayerNorm.*alpha_from_minibatches",
    ):
        co.per_example_value_and_grad(loss)(params, VECTORS)


def test_other_name_errors_are_passed_on():
    with pytest.raises(NameError, match="undefined_name"):
        co.per_example_value_and_grad(lambda w, e: undefined_name)(jnp.ones(3), jnp.ones((4, 3)))  # noqa: F821


def test_an_axis_that_the_loss_binds_itself_is_its_own_business():
    inside = lambda e: jax.vmap(lambda x: x - jax.lax.pmean(x, "features"), axis_name="features")(e)
    assert seen(lambda w, e: jnp.sum(inside(e @ w) ** 2), zoo.normal(3, 5, 4), VECTORS[0]) == []
    mesh = jax.make_mesh((1,), ("model",), devices=jax.devices()[:1])
    spec = jax.sharding.PartitionSpec()
    split = jax.shard_map(
        lambda x: jax.lax.psum(x, "model"),
        mesh=mesh,
        in_specs=spec,
        out_specs=spec,
        check_vma=False,
    )
    assert seen(lambda w, e: jnp.sum(split(e @ w) ** 2), zoo.normal(3, 5, 4), VECTORS[0]) == []

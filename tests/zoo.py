"""Odd models, one a rule or a composition: `name.

(loss, params, batch)` with what each leaf is expected to become.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.ode import odeint

import coherence as co


@functools.cache
def gradients(model):
    """Per-example gradients of a model, made by one program for all tests that read them."""
    loss, params, batch = model()
    return jax.jit(co.per_example_value_and_grad(loss))(params, batch)[1]


def normal(seed, *shape):
    return jax.device_put(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def _half(prediction, y):
    return 0.5 * jnp.sum((prediction - y) ** 2)


def dense():
    params = {"w": normal(0, 5, 3), "b": normal(1, 3)}
    return (
        lambda p, e: _half(jnp.tanh(e[0] @ p["w"] + p["b"]), e[1]),
        params,
        (normal(2, 6, 5), normal(3, 6, 3)),
    )


def transposed():
    return (
        lambda p, e: _half(p["w"] @ e[0], e[1]),
        {"w": normal(0, 3, 5)},
        (normal(2, 6, 5), normal(3, 6, 3)),
    )


def transposed_view():
    return (
        lambda p, e: _half(e[0] @ p["w"].T, e[1]),
        {"w": normal(0, 3, 5)},
        (normal(2, 6, 5), normal(3, 6, 3)),
    )


def sequence():
    """The same weights at every position.

    Few positions, so that Gram matrices are the cheap way.
    """
    return (
        lambda p, e: _half(jnp.tanh(e[0] @ p["w"]), e[1]),
        {"w": normal(0, 9, 8)},
        (normal(2, 4, 3, 9), normal(3, 4, 3, 8)),
    )


def long_sequence():
    """Many positions: forming one example's gradient is the cheap way."""
    return (
        lambda p, e: _half(jnp.tanh(e[0] @ p["w"]), e[1]),
        {"w": normal(0, 4, 3)},
        (normal(2, 5, 20, 4), normal(3, 5, 20, 3)),
    )


def heads():
    """An attention projection: weights [heads, d, k], an einsum with two free dimensions."""
    loss = lambda p, e: _half(jnp.einsum("td,hdk->htk", e[0], p["w"]), e[1])
    return loss, {"w": normal(0, 2, 4, 3)}, (normal(2, 5, 6, 4), normal(3, 5, 2, 6, 3))


def stacked_weights():
    """A batch dimension of the product: each group has its own weights."""
    loss = lambda p, e: _half(jnp.einsum("gd,gdk->gk", e[0], p["w"]), e[1])
    return loss, {"w": normal(0, 3, 4, 2)}, (normal(2, 5, 3, 4), normal(3, 5, 3, 2))


def scaled_weights():
    """The width-independent parametrization: w / sqrt(n)."""
    return (
        lambda p, e: _half(e[0] @ (p["w"] / 5**0.5) * 2, e[1]),
        {"w": normal(0, 5, 3)},
        (normal(2, 6, 5), normal(3, 6, 3)),
    )


def sliced_weights():
    """One leaf cut in two that meet different data, and a part that meets none."""
    loss = lambda p, e: _half(e[0] @ p["w"][:5] + jnp.tanh(e[0]) @ p["w"][5:10], e[1])
    return loss, {"w": normal(0, 11, 3)}, (normal(2, 6, 5), normal(3, 6, 3))


def tied():
    """An autoencoder with tied weights: used as w and as its transpose."""
    return (
        lambda p, e: _half(jnp.tanh(e @ p["w"]) @ p["w"].T, e),
        {"w": normal(0, 5, 3)},
        normal(2, 6, 5),
    )


def siamese():
    """The same layer on two inputs."""
    loss = lambda p, e: _half(jnp.tanh(e[0] @ p["w"] + p["b"]), jnp.tanh(e[1] @ p["w"] + p["b"]))
    return loss, {"w": normal(0, 5, 3), "b": normal(1, 3)}, (normal(2, 6, 5), normal(3, 6, 5))


def norm_layer():
    def loss(p, e):
        x, y = e
        z = (x - x.mean()) / jnp.sqrt(x.var() + 1e-5)
        return _half((1 + p["scale"]) * z - p["shift"], y)

    return loss, {"scale": normal(0, 5), "shift": normal(1, 5)}, (normal(2, 6, 5), normal(3, 6, 5))


def broadcast_parameters():
    """Biases and scales of a sequence, a learned position, one number for all.

    Broadcast along some dimensions.
    """

    def loss(p, e):
        x = e[0] * p["channel"] + p["position"][:, None] - p["both"]
        return _half(x * p["all"] + p["position"][:, None] * e[0], e[1])

    params = {
        "channel": normal(0, 4),
        "position": normal(1, 3),
        "both": normal(2, 3, 4),
        "all": normal(4),
    }
    return loss, params, (normal(2, 6, 3, 4), normal(3, 6, 3, 4))


def inside_jit_and_remat():
    layer = jax.checkpoint(jax.jit(lambda w, x: jnp.tanh(x @ w)))
    loss = lambda p, e: _half(layer(p["w2"], layer(p["w1"], e[0])), e[1])
    return loss, {"w1": normal(0, 5, 4), "w2": normal(1, 4, 3)}, (normal(2, 6, 5), normal(3, 6, 3))


def frozen():
    """A leaf behind stop_gradient and one that is never used: zero gradients."""
    loss = lambda p, e: _half(e[0] @ jax.lax.stop_gradient(p["w"]) + p["b"], e[1])
    return (
        loss,
        {"w": normal(0, 5, 3), "b": normal(1, 3), "unused": normal(2, 2, 2)},
        (normal(2, 6, 5), normal(3, 6, 3)),
    )


def low_rank():
    """Parameter meets parameter."""
    loss = lambda p, e: _half(e[0] @ (p["u"] @ p["v"]) + p["b"], e[1])
    return (
        loss,
        {"u": normal(0, 5, 2), "v": normal(1, 2, 3), "b": normal(4, 3)},
        (normal(2, 6, 5), normal(3, 6, 3)),
    )


def penalized():
    """Weight decay inside the loss."""
    loss = lambda p, e: _half(e[0] @ p["w"], e[1]) + 0.1 * jnp.sum(p["w"] ** 2)
    return loss, {"w": normal(0, 5, 3)}, (normal(2, 6, 5), normal(3, 6, 3))


def _convolving(x, *kernel, orders=("NHWC", "HWIO", "NHWC"), m=3, **options):
    """A convolution of one image x [h, w, c] (or [h, c]); what it makes is compared with noise."""

    def convolve(p, x):
        return jax.lax.conv_general_dilated(x[None], p["k"], dimension_numbers=orders, **options)

    x, params = normal(2, m, *x), {"k": normal(0, *kernel)}
    y = normal(3, m, *jax.eval_shape(convolve, params, x[0]).shape)
    return lambda p, e: _half(jnp.tanh(convolve(p, e[0])), e[1]), params, (x, y)


def convolution():
    def loss(p, e):
        x = jax.lax.conv_general_dilated(
            e[0][None], p["k"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return _half(jnp.tanh(x).mean((0, 1, 2)) + p["b"], e[1])

    return (
        loss,
        {"k": normal(0, 3, 3, 2, 4), "b": normal(1, 4)},
        (normal(2, 3, 5, 5, 2), normal(3, 3, 4)),
    )


def convolution_of_a_small_map():
    """Few positions, many channels: Gram matrices of patches, and factors instead of rows."""
    return _convolving((3, 3, 24), 3, 3, 24, 20, window_strides=(2, 2), padding="SAME")


def convolution_of_a_large_map():
    """Larger than what is worked on at a time."""
    return _convolving((32, 32, 3), 5, 5, 3, 4, window_strides=(1, 1), padding="VALID", m=4)


def strided_dilated_convolution():
    return _convolving(
        (9, 8, 2), 3, 2, 2, 4, window_strides=(2, 1), padding=((2, 1), (0, -1)), rhs_dilation=(2, 3)
    )


def grouped_convolution():
    """Channels first, as in other frameworks, in two groups."""
    orders = ("NCHW", "OIHW", "NCHW")
    return _convolving(
        (6, 5, 4),
        4,
        3,
        3,
        3,
        orders=orders,
        window_strides=(1, 2),
        padding="SAME",
        feature_group_count=2,
    )


def depthwise_convolution():
    return _convolving(
        (6, 5, 3), 3, 3, 1, 6, window_strides=(1, 1), padding="SAME", feature_group_count=3
    )


def transposed_convolution():
    def loss(p, e):
        return _half(
            jax.lax.conv_transpose(e[0][None], p["k"], (2, 2), "SAME", transpose_kernel=True), e[1]
        )

    return loss, {"k": normal(0, 3, 3, 4, 2)}, (normal(2, 3, 4, 3, 2), normal(3, 3, 1, 8, 6, 4))


def convolution_in_one_dimension():
    return _convolving(
        (11, 3), 4, 3, 2, orders=("NHC", "HIO", "NHC"), window_strides=(3,), padding="VALID"
    )


def convolution_in_three_dimensions():
    orders = ("NDHWC", "DHWIO", "NDHWC")
    return _convolving(
        (4, 3, 5, 2), 2, 3, 2, 2, 3, orders=orders, window_strides=(1, 1, 2), padding="SAME"
    )


def siamese_convolution():
    """One kernel on two images of a size, and on a third of another."""

    def loss(p, e):
        convolve = lambda x: jnp.tanh(
            jax.lax.conv_general_dilated(
                x, p["k"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        )
        return _half(convolve(e[0]).mean(0), convolve(e[1][None])[0]) + jnp.sum(
            convolve(e[2][None])
        )

    return (
        loss,
        {"k": normal(0, 2, 2, 2, 3)},
        (normal(1, 3, 2, 4, 4, 2), normal(2, 3, 4, 4, 2), normal(3, 3, 3, 2, 2)),
    )


def _sentence(seed, m, length, words):
    return jax.device_put(np.random.default_rng(seed).integers(words, size=(m, length)))


def embedding():
    """Words repeat within a sentence."""
    loss = lambda p, e: _half(jnp.tanh(jnp.take(p["table"], e[0], axis=0)), e[1])
    return loss, {"table": normal(0, 40, 6)}, (_sentence(1, 4, 5, 3), normal(2, 4, 5, 6))


def embedding_with_few_words():
    """A table no larger than what is looked up in it."""
    loss = lambda p, e: _half(jnp.tanh(p["table"][e[0]]), e[1])
    return loss, {"table": normal(0, 3, 4)}, (_sentence(1, 4, 9, 3), normal(2, 4, 9, 4))


def embedding_of_one_word():
    loss = lambda p, e: _half(p["table"][e[0][0]] + p["other"][:, e[0]].sum(1), e[1])
    return (
        loss,
        {"table": normal(0, 40, 4), "other": normal(1, 4, 30)},
        (_sentence(1, 5, 2, 30), normal(2, 5, 4)),
    )


def embedding_out_of_range():
    """Words outside of the table: dropped or clipped, as the look-up says."""

    def loss(p, e):
        dropped = jnp.take(p["table"], e[0], axis=0, mode="fill", fill_value=1.0)
        return _half(dropped + jnp.take(p["table"], 2 * e[0] - 10, axis=0, mode="clip"), e[1])

    return loss, {"table": normal(0, 20, 4)}, (_sentence(1, 5, 3, 30), normal(2, 5, 3, 4))


def indexed_by_pairs():
    """Relative positions and the like: two dimensions of a parameter indexed by data."""
    loss = lambda p, e: _half(jnp.tanh(p["bias"][:, e[0], e[0][::-1]]), e[1])
    return loss, {"bias": normal(0, 2, 6, 6)}, (_sentence(1, 4, 7, 6), normal(2, 4, 2, 7))


def long_text():
    """More positions than are compared pair by pair."""
    loss = lambda p, e: _half(jnp.tanh(p["table"][e[0]]), e[1])
    return loss, {"table": normal(0, 2000, 2)}, (_sentence(1, 3, 600, 50), normal(2, 3, 600, 2))


def tied_embedding():
    """Looked up at the input, multiplied with at the output."""

    def loss(p, e):
        hidden = jnp.tanh(p["table"][e] @ p["w"])
        return -jnp.sum(jax.nn.log_softmax(hidden[:-1] @ p["table"].T)[jnp.arange(4), e[1:]])

    return loss, {"table": normal(0, 20, 6), "w": normal(1, 6, 6)}, _sentence(2, 3, 5, 8)


def recurrent():
    """Shared weights, used at every time step; the initial state is learned, too."""

    def loss(p, e):
        step = lambda h, x: (jnp.tanh(x @ p["w"] + h @ p["u"] + p["b"]), h[0] * p["s"])
        h, out = jax.lax.scan(step, p["h"], e[0])
        return _half(h, e[1]) + out.sum()

    params = {
        "w": normal(0, 2, 3),
        "u": normal(1, 3, 3),
        "b": normal(4, 3),
        "h": normal(5, 3),
        "s": normal(6),
    }
    return loss, params, (normal(2, 4, 6, 2), normal(3, 4, 3))


def backwards_in_time():
    def loss(p, e):
        step = lambda h, x: (h @ p["u"] + x, jnp.tanh(h @ p["v"]))
        h, out = jax.lax.scan(step, 0 * e[0], e, reverse=True)
        return jnp.sum(h**2) + jnp.sum(out)

    return loss, {"u": normal(0, 3, 3), "v": normal(1, 3, 2)}, normal(2, 4, 5, 3)


def scanned_layers():
    """Stacked weights: each step of the scan is a layer."""

    def loss(p, e):
        layer = lambda x, w: (jnp.tanh(x @ w["kernel"].T + w["bias"]), None)
        return _half(jax.lax.scan(layer, e[0], p)[0], e[1])

    return (
        loss,
        {"kernel": normal(0, 4, 3, 3), "bias": normal(1, 4, 3)},
        (normal(2, 5, 3), normal(3, 5, 3)),
    )


def scanned_layers_over_time():
    """A scan in a scan: stacked recurrent layers, and one weight all layers and times share."""

    def loss(p, e):
        def layer(x, w):
            step = lambda h, z: ((h := jnp.tanh(z @ w + h @ p["shared"])), h)
            return jax.lax.scan(step, 0 * x[0], x)[1], None

        return jnp.sum(jax.lax.scan(layer, e, p["stacked"])[0] ** 2)

    return loss, {"stacked": normal(0, 2, 3, 3), "shared": normal(1, 3, 3)}, normal(2, 4, 5, 3)


def _joined(axis, shape, equation, out):
    """Two parameters concatenated before they meet data."""

    def loss(p, e):
        w = jnp.concatenate([p["u"], p["v"]], axis)
        return _half(jnp.einsum(equation, e[0], w), e[1])

    n = shape["x"][0]
    return (
        loss,
        {"u": normal(0, *shape["u"]), "v": normal(1, *shape["v"])},
        (normal(2, *shape["x"]), normal(3, n, *out)),
    )


def joined_outputs():
    return _joined(1, {"u": (5, 3), "v": (5, 2), "x": (6, 4, 5)}, "td,dk->tk", (4, 5))


def joined_inputs():
    return _joined(0, {"u": (3, 4), "v": (2, 4), "x": (6, 5)}, "d,dk->k", (4,))


def joined_outputs_first():
    return _joined(0, {"u": (3, 5), "v": (2, 5), "x": (6, 4, 5)}, "td,kd->kt", (5, 4))


def joined_batch():
    return _joined(0, {"u": (2, 5, 3), "v": (1, 5, 3), "x": (6, 3, 5)}, "gd,gdk->gk", (3, 3))


def convolutions_and_words_over_time():
    """A convolution and a look-up inside a scan."""

    def loss(p, e):
        images, words = e

        def step(h, xs):
            x, word = xs
            y = jax.lax.conv_general_dilated(
                (x + h)[None], p["k"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )[0]
            return jnp.tanh(y + p["table"][word]), None

        return jnp.sum(jax.lax.scan(step, 0 * images[0], (images, words))[0] ** 2)

    words = jnp.asarray(np.random.default_rng(3).integers(5, size=(3, 2)))
    return (
        loss,
        {"k": normal(0, 3, 3, 3, 3), "table": normal(1, 5, 3)},
        (normal(2, 3, 2, 4, 4, 3), words),
    )


def branches():
    """A branch an example takes by its own data."""

    def loss(p, e):
        return _half(
            jax.lax.cond(
                e[0][0] > 0, lambda x: x @ p["w"], lambda x: jnp.tanh(x @ p["v"] + p["b"]), e[0]
            ),
            e[1],
        )

    return (
        loss,
        {"w": normal(0, 5, 3), "v": normal(1, 5, 3), "b": normal(4, 3)},
        (normal(2, 6, 5), normal(3, 6, 3)),
    )


def custom_derivative():
    """A parameter inside a function with a derivative rule of its own, which must be kept (this
    one is wrong on purpose)."""

    @jax.custom_jvp
    def prelu(x, slope):
        return jnp.where(x > 0, x, slope * x)

    prelu.defjvp(lambda xs, ts: (prelu(*xs), ts[0] + 7 * xs[0] * ts[1]))
    loss = lambda p, e: _half(prelu(e[0] @ p["w"], p["slope"]), e[1])
    return loss, {"w": normal(0, 5, 3), "slope": normal(1, 3)}, (normal(2, 6, 5), normal(3, 6, 3))


def large_custom_jvp():
    """A dense layer whose derivative in the weights is 7 times too large on purpose."""

    @jax.custom_jvp
    def layer(x, w):
        return jnp.tanh(x @ w)

    def rule(primals, tangents):
        (x, w), (dx, dw) = primals, tangents
        return layer(x, w), (1 - layer(x, w) ** 2) * (dx @ w + 7 * x @ dw)

    layer.defjvp(rule)
    return lambda p, e: _half(layer(layer(e[0], p["w"]), p["v"]), e[1]), *_two_layers()


def large_custom_vjp():
    """The same by a rule for cotangents."""

    @jax.custom_vjp
    def layer(x, w):
        return jnp.tanh(x @ w)

    def backward(kept, dy):
        x, w, y = kept
        dy = (1 - y**2) * dy
        return w @ dy, 7 * jnp.outer(x, dy)

    layer.defvjp(lambda x, w: (layer(x, w), (x, w, layer(x, w))), backward)
    return lambda p, e: _half(layer(layer(e[0], p["w"]), p["v"]), e[1]), *_two_layers()


def quantized_weights():
    """Rounded on the way in, as if not on the way back (straight through)."""
    rounded = jax.custom_jvp(lambda w: jnp.round(4 * w) / 4)
    rounded.defjvp(lambda ws, ts: (rounded(*ws), ts[0]))
    return lambda p, e: _half(
        jnp.tanh(e[0] @ rounded(p["w"])) @ rounded(p["v"]), e[1]
    ), *_two_layers()


def clipped_backward():
    """A backward pass that is not linear: no factors, exact all the same."""

    @jax.custom_vjp
    def layer(x, w):
        return x @ w

    layer.defvjp(
        lambda x, w: (x @ w, (x, w)),
        lambda kept, dy: (kept[1] @ dy, jnp.outer(kept[0], jnp.clip(dy, -0.1, 0.1))),
    )
    return lambda p, e: _half(jnp.tanh(layer(e[0], p["w"])) @ p["v"], e[1]), *_two_layers()


def _two_layers():
    return {"w": normal(0, 5, 4), "v": normal(1, 4, 3)}, (normal(2, 6, 5), normal(3, 6, 3))


def scaled_by_computed_numbers():
    """Weights scaled by the root of their fan-in, and moved away from where they started."""
    start = normal(4, 4, 3)
    loss = lambda p, e: _half(
        jnp.tanh(e[0] @ (p["w"] / jnp.sqrt(5.0))) @ (start + jnp.sqrt(jnp.array(0.25)) * p["v"]),
        e[1],
    )
    return loss, *_two_layers()


def pruned_weights():
    """A fixed mask on a large matrix."""
    kept = normal(4, 5, 4) > 0
    return lambda p, e: _half(jnp.tanh(e[0] @ (p["w"] * kept)) @ p["v"], e[1]), *_two_layers()


def noise_level():
    """A small parameter through functions no rule knows."""
    loss = lambda p, e: jnp.sum(
        (e[0] - p["mean"]) ** 2 / jnp.exp(p["log_variance"]) + jnp.sin(p["log_variance"])
    )
    return loss, {"mean": normal(0, 5), "log_variance": normal(1, 5)}, (normal(2, 6, 5),)


FAST = (
    dense,
    transposed,
    transposed_view,
    sequence,
    long_sequence,
    heads,
    stacked_weights,
    scaled_weights,
    sliced_weights,
    tied,
    siamese,
    norm_layer,
    broadcast_parameters,
    inside_jit_and_remat,
    frozen,
    low_rank,
    penalized,
    convolution,
    convolution_of_a_small_map,
    convolution_of_a_large_map,
    strided_dilated_convolution,
    grouped_convolution,
    depthwise_convolution,
    transposed_convolution,
    convolution_in_one_dimension,
    convolution_in_three_dimensions,
    siamese_convolution,
    embedding,
    embedding_with_few_words,
    embedding_of_one_word,
    embedding_out_of_range,
    indexed_by_pairs,
    long_text,
    tied_embedding,
    recurrent,
    backwards_in_time,
    scanned_layers,
    scanned_layers_over_time,
    joined_outputs,
    joined_inputs,
    joined_outputs_first,
    joined_batch,
    convolutions_and_words_over_time,
    branches,
    custom_derivative,
    large_custom_jvp,
    large_custom_vjp,
    quantized_weights,
    scaled_by_computed_numbers,
    noise_level,
    pruned_weights,
)
FALLBACK = {clipped_backward: {"w"}}
SMALL_COUNT_AS_LARGE = {
    *FALLBACK,
    low_rank,
    penalized,
    large_custom_jvp,
    large_custom_vjp,
    quantized_weights,
    scaled_by_computed_numbers,
    pruned_weights,
}


# Situations people reported, and their siblings: a kind of mistake each.


def _computed_in(dtype, model):
    """A model whose float32 parameters and data are computed with in half precision."""
    loss, params, batch = model()
    low = lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x
    cast = lambda tree: jax.tree.map(low, tree)
    return lambda p, e: loss(cast(p), cast(e)).astype(jnp.float32), params, batch


def dense_in_bfloat16():
    """Float32 weights and data, cast inside the loss."""
    return _computed_in(jnp.bfloat16, dense)


def dense_in_float16():
    """The same in the narrower range."""
    return _computed_in(jnp.float16, dense)


def sequence_in_bfloat16():
    """Several positions."""
    return _computed_in(jnp.bfloat16, sequence)


def convolution_in_float16():
    """Pairs of patches."""
    return _computed_in(jnp.float16, convolution_of_a_small_map)


def embedding_in_bfloat16():
    """A table looked up and multiplied with."""
    return _computed_in(jnp.bfloat16, tied_embedding)


def layers_scanned_in_bfloat16():
    """The state stays in float32, as mixed precision has it."""

    def loss(p, e):
        layer = lambda h, w: (
            jnp.tanh(h.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)).astype(jnp.float32),
            None,
        )
        return _half(jax.lax.scan(layer, e[0], p)[0], e[1])

    return loss, normal(0, 3, 4, 4), (normal(2, 5, 4), normal(3, 5, 4))


def halved_weights_in_float16():
    """Scaled after the cast: a layout with a number in half precision."""
    loss = lambda p, e: jnp.sum((e[0] @ (p.astype(jnp.float16).T / 3)).astype(jnp.float32) * e[1])
    return loss, normal(0, 3, 5), (normal(2, 6, 5).astype(jnp.float16), normal(3, 6, 3))


def fourier_transformed_inputs():
    """Real weights meet complex numbers."""
    loss = lambda p, e: jnp.sum(jnp.abs(jnp.fft.fft(e) @ p) ** 2)
    return loss, normal(0, 5, 3), normal(2, 6, 5)


def fourier_transformed_sequence():
    """A bias among complex numbers, several positions."""
    loss = lambda p, e: jnp.sum(jnp.tanh((jnp.fft.fft(e, axis=0) @ p["w"] + p["b"]).real))
    return loss, {"w": normal(0, 8, 7), "b": normal(1, 7)}, normal(2, 4, 3, 8)


def filtered_spectrum():
    """Weights multiply a spectrum, and shift it."""
    loss = lambda p, e: jnp.sum(jnp.fft.irfft(jnp.fft.rfft(e) * p["gain"] + p["shift"], 8) ** 3)
    return loss, {"gain": normal(0, 5), "shift": normal(1, 5)}, normal(2, 6, 8)


def complex_weights():
    """Real and imaginary part are leaves of their own."""
    loss = lambda p, e: jnp.sum(jnp.abs(e @ (p["re"] + 1j * p["im"]) + 1) ** 2)
    return loss, {"re": normal(0, 5, 3), "im": normal(1, 5, 3)}, normal(2, 6, 5)


def convolved_spectrum():
    """A real kernel on complex images."""

    def loss(p, e):
        spectrum = jnp.fft.fft2(e[..., 0])[None, :, :, None]
        kernel = p.astype(jnp.complex64)
        y = jax.lax.conv_general_dilated(
            spectrum, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jnp.sum(jnp.abs(y) ** 2)

    return loss, normal(0, 3, 3, 1, 2), normal(2, 3, 4, 4, 1)


def _counts():
    return normal(2, 4, 3), jnp.array([2.0, 0.0, 1.0, 3.0])


def guarded_by_cond():
    """A division by zero in the branch that is not taken."""

    def loss(p, e):
        mean = lambda: jnp.sum(jnp.tanh(e[0] @ p)) / e[1]
        return jax.lax.cond(e[1] > 0, mean, lambda: jnp.sum(0 * p))

    return loss, normal(0, 3, 2), _counts()


def guarded_by_switch():
    """Three branches, one of which nobody takes."""

    def loss(p, e):
        x, n = e
        cases = [
            lambda: jnp.sum(p["b"]) * x[0],
            lambda: jnp.sum(jnp.tanh(x @ p["w"])) / n,
            lambda: jnp.log(n) * jnp.sum(x @ p["w"] + p["b"]),
        ]
        return jax.lax.switch(n.astype(int), cases)

    return loss, {"w": normal(0, 3, 2), "b": normal(1, 2)}, _counts()


def guarded_within_a_scan():
    """A branch in every step, by its number and the data."""

    def loss(p, e):
        x, n = e

        def step(h, t):
            seen = lambda: jnp.tanh(h @ p + x / jnp.maximum(n - t, 0))
            return jax.lax.cond(t < n, seen, lambda: h), None

        return jnp.sum(jax.lax.scan(step, x, jnp.arange(3.0))[0] ** 2)

    return loss, normal(0, 3, 3), _counts()


def guarded_look_up():
    """Branches with a table, a nested branch and a parameter of their own."""

    def loss(p, e):
        x, i = e
        look = lambda: (
            p["table"][jnp.maximum(i, 0)] * jnp.log(jnp.maximum(i, 0).astype(jnp.float32))
        )
        dense = lambda: jax.lax.cond(x[0] > 0, lambda: x @ p["w"], lambda: -x @ p["w"])
        return jnp.sum(jax.lax.cond(i > 0, look, dense) ** 2)

    params = {"table": normal(0, 6, 2), "w": normal(1, 3, 2)}
    return loss, params, (normal(2, 4, 3), jnp.array([5, -1, 2, 0]))


def chosen_by_a_constant():
    """A branch no example chooses: only one is walked."""
    loss = lambda p, e: jnp.sum(
        jax.lax.cond(jnp.array(True), lambda: e @ p["w"], lambda: jnp.sin(p["u"])[:2]) ** 2
    )
    return loss, {"w": normal(0, 3, 2), "u": normal(1, 5)}, normal(2, 4, 3)


def chosen_by_a_parameter():
    """A branch all examples take alike."""
    loss = lambda p, e: jnp.sum(
        jax.lax.cond(p["u"][0] > 0, lambda: e @ p["w"], lambda: jnp.tanh(e @ p["w"])) ** 2
    )
    return loss, {"w": normal(0, 3, 2), "u": normal(1, 5)}, normal(2, 4, 3)


def _ids(dtype, *rows):
    return jnp.array(rows, dtype)


def bytes_taken():
    """Tokens in a byte, a table of 256."""
    loss = lambda p, e: jnp.sum(jnp.take(p, e, axis=0) ** 2)
    return loss, normal(0, 256, 3), _ids(jnp.uint8, (0, 1, 0), (200, 255, 200), (7, 7, 7))


def bytes_of_a_larger_table():
    """A byte, a table of 300."""
    loss = lambda p, e: jnp.sum(p[e] ** 2)
    return loss, normal(0, 300, 3), _ids(jnp.uint8, (0, 1), (200, 255), (7, 7))


def signed_bytes():
    """Counted from the end where negative."""
    loss = lambda p, e: jnp.sum(p[e] ** 2)
    return loss, normal(0, 100, 3), _ids(jnp.int8, (0, -1), (99, -100), (7, 7))


def one_byte_as_an_index():
    """A row sliced out."""
    loss = lambda p, e: jnp.sum(jax.lax.dynamic_index_in_dim(p, e, keepdims=False) ** 2)
    return loss, normal(0, 256, 3), jnp.array([0, 200, 255], jnp.uint8)


def one_short_as_an_index():
    """Two bytes, counted from the end where negative."""
    loss = lambda p, e: jnp.sum(p[e] ** 3)
    return loss, normal(0, 500, 3), jnp.array([0, 499, -500], jnp.int16)


def indices_out_of_range():
    """Clipped on the way in, and dropped on the way back."""
    loss = lambda p, e: jnp.sum(p[e] ** 2) + jnp.sum(p.at[e].get(mode="clip") ** 3)
    return loss, normal(0, 6, 3), jnp.array([[0, 6], [5, 100], [-7, -6]])


def one_index_out_of_range():
    """Filled in or dropped."""
    loss = lambda p, e: jnp.sum(p[e] ** 2) + jnp.sum(p.at[e].get(mode="fill", fill_value=0) ** 3)
    return loss, normal(0, 6, 3), jnp.array([0, 6, -7])


def affine_backward():
    """A backward pass that adds a penalty."""

    @jax.custom_vjp
    def layer(x, w):
        return x @ w

    layer.defvjp(
        lambda x, w: (x @ w, (x, w)),
        lambda kept, dy: (kept[1] @ dy, jnp.outer(kept[0], dy) + 0.1 * kept[1]),
    )
    return lambda p, e: _half(jnp.tanh(layer(e[0], p["w"])) @ p["v"], e[1]), *_two_layers()


def gated_backward():
    """A backward pass with branches and zeros, linear all the same."""

    @jax.custom_vjp
    def layer(x, w):
        return x @ w

    def backward(kept, dy):
        x, w = kept
        dy = jnp.where(x[0] > 0, dy, 0) + jnp.zeros_like(dy)
        return w @ dy, jnp.einsum("i,j->ij", x, dy)

    layer.defvjp(lambda x, w: (x @ w, (x, w)), backward)
    return lambda p, e: _half(jnp.tanh(layer(e[0], p["w"])) @ p["v"], e[1]), *_two_layers()


def custom_derivative_over_time():
    """A function with a rule of its own in every step of a scan."""

    @jax.custom_vjp
    def layer(x, w):
        return jnp.tanh(x @ w)

    def backward(kept, dy):
        x, w, y = kept
        dy = (1 - y**2) * dy
        return w @ dy, jnp.outer(x, dy)

    layer.defvjp(lambda x, w: (layer(x, w), (x, w, layer(x, w))), backward)
    step = lambda w: lambda h, x: (layer(h + x, w), None)
    loss = lambda p, e: jnp.sum(jax.lax.scan(step(p), jnp.tanh(e[0]), e)[0] ** 2)
    return loss, normal(0, 4, 4), normal(2, 3, 5, 4)


def stacked_leaves():
    """Layers kept apart, stacked for a scan."""

    def loss(p, e):
        layer = lambda h, w: (jnp.tanh(h @ w), None)
        return jnp.sum(jax.lax.scan(layer, e, jnp.stack([p["a"], p["b"], p["c"]]))[0] ** 2)

    params = {name: normal(i, 4, 4) for i, name in enumerate("abc")}
    return loss, params, normal(3, 5, 4)


def concatenated_leaves():
    """The same, two layers to a leaf."""

    def loss(p, e):
        layer = lambda h, w: (jnp.tanh(h @ w), None)
        return jnp.sum(jax.lax.scan(layer, e, jnp.concatenate([p["a"], p["b"]]))[0] ** 2)

    return loss, {"a": normal(0, 2, 4, 4), "b": normal(1, 1, 4, 4)}, normal(3, 5, 4)


def stacked_projections():
    """Queries and keys in one product."""
    loss = lambda p, e: jnp.sum(jnp.tanh(jnp.einsum("td,sdk->stk", e, jnp.stack([p["q"], p["k"]]))))
    return loss, {"q": normal(0, 5, 3), "k": normal(1, 5, 3)}, normal(2, 4, 6, 5)


def split_weights():
    """One leaf, two gates."""

    def loss(p, e):
        u, v = jnp.split(p, 2, axis=1)
        return jnp.sum(jax.nn.sigmoid(e @ u) * (e @ v))

    return loss, normal(0, 5, 6), normal(2, 4, 5)


def joined_and_cast():
    """Cast after concatenation."""
    loss = lambda p, e: jnp.sum(
        jnp.tanh(
            e.astype(jnp.bfloat16) @ jnp.concatenate([p["u"], p["v"]], 1).astype(jnp.bfloat16)
        ).astype(jnp.float32)
    )
    return loss, {"u": normal(0, 5, 3), "v": normal(1, 5, 2)}, normal(2, 4, 5)


def joined_and_transposed():
    """Transposed after concatenation."""
    loss = lambda p, e: jnp.sum(jnp.tanh(e @ jnp.concatenate([p["u"], p["v"]]).T))
    return loss, {"u": normal(0, 3, 5), "v": normal(1, 2, 5)}, normal(2, 4, 5)


def joined_with_a_constant():
    """Padding."""
    loss = lambda p, e: jnp.sum(jnp.tanh(e @ jnp.concatenate([p, jnp.ones((2, 3))])))
    return loss, normal(0, 5, 3), normal(2, 4, 7)


def prepended_token():
    """A learned vector in front of the data."""
    loss = lambda p, e: jnp.sum(jnp.tanh(jnp.concatenate([p["cls"], e]) @ p["w"]))
    return loss, {"cls": normal(0, 1, 5), "w": normal(1, 5, 3)}, normal(2, 4, 3, 5)


def permuted_weights():
    """A constant permutation of rows."""
    order = np.random.default_rng(0).permutation(5)
    return lambda p, e: jnp.sum(jnp.tanh(e @ p[order])), normal(0, 5, 3), normal(2, 4, 5)


def repeated_weights():
    """Rows used twice, chosen by a constant."""
    rows = np.array([0, 0, 2, 1])
    loss = lambda p, e: jnp.sum(jnp.tanh(e @ p[jnp.asarray(rows)] / 2))
    return loss, normal(0, 3, 4), normal(2, 4, 4)


def pruned_over_time():
    """A fixed mask, known within the loop."""
    kept = (np.random.default_rng(0).random((4, 4)) > 0.5).astype(np.float32)

    def loss(p, e):
        step = lambda h, x: (jnp.tanh(h @ (p * kept) + x), None)
        return jnp.sum(jax.lax.scan(step, e[0], e)[0] ** 2)

    return loss, normal(0, 4, 4), normal(2, 3, 5, 4)


def centred_weights():
    """Divided by an array of constants, and shifted by one."""
    size = jnp.asarray(np.random.default_rng(0).uniform(1, 2, (5, 3)), jnp.float32)
    return lambda p, e: jnp.sum(jnp.tanh(e @ (p / size - size))), normal(0, 5, 3), normal(2, 4, 5)


def _loop(index, layers, steps):
    def model():
        def loss(p, e):
            body = lambda i, h: jnp.tanh(h @ p[index(i)])
            return jnp.sum(jax.lax.fori_loop(0, steps, body, e) ** 2)

        return loss, normal(0, layers, 4, 4), normal(2, 5, 4)

    return model


def layers_by_number():
    """`w[i]` in a loop."""
    return _loop(lambda i: i, 3, 3)()


def layers_backwards():
    """`w[n - i]`."""
    return _loop(lambda i: 2 - i, 3, 3)()


def layers_used_again():
    """`w[i % 2]`: shared layers."""
    return _loop(lambda i: i % 2, 3, 5)()


def layers_by_a_scanned_number():
    """Numbers that are scanned, weights transposed."""

    def loss(p, e):
        step = lambda h, i: (jnp.tanh(h @ p[i].T), p[i][0] @ h)
        h, out = jax.lax.scan(step, e, jnp.array([2, 0, 1]))
        return jnp.sum(h**2) + jnp.sum(out)

    return loss, normal(0, 3, 4, 4), normal(2, 5, 4)


def columns_one_by_one():
    """Every step meets the same data with a column of its own."""
    loss = lambda p, e: jnp.sum(jax.lax.map(lambda w: jnp.tanh(e @ w), p.T) ** 2)
    return loss, normal(0, 5, 3), normal(2, 4, 5)


def scaled_step_by_step():
    """Constants that are scanned: of a step only its own is known."""
    step = lambda w: lambda h, c: (jnp.tanh(h @ (w / c)), None)
    scales = np.array([1.0, 2.0, 4.0], np.float32)
    return (
        lambda p, e: jnp.sum(jax.lax.scan(step(p), e, scales)[0] ** 2),
        normal(0, 3, 3),
        normal(2, 4, 3),
    )


def heads_one_by_one():
    """The same with a matrix."""
    loss = lambda p, e: jnp.sum(jax.lax.map(lambda w: jnp.tanh(e @ w), p) ** 2)
    return loss, normal(0, 3, 5, 2), normal(2, 4, 6, 5)


def same_data_at_every_step():
    """Shared weights meet what no step changes."""

    def loss(p, e):
        step = lambda h, _: (jnp.tanh(h * jnp.sum(e @ p["w"]) + e @ p["w"] + p["b"]), None)
        return jnp.sum(jax.lax.scan(step, e[:3] * 0, None, length=3)[0] ** 2)

    return loss, {"w": normal(0, 5, 3), "b": normal(1, 3)}, normal(2, 4, 5)


def no_step():
    """A scan over nothing."""
    step = lambda p: lambda h, x: (jnp.tanh(h @ p["w"] + x), h[0])
    loss = lambda p, e: sum(map(jnp.sum, jax.lax.scan(step(p), e @ p["v"], jnp.zeros((0, 3)))))
    return loss, {"w": normal(0, 3, 3), "v": normal(1, 4, 3)}, normal(2, 5, 4)


def one_step():
    """A scan of length 1."""
    step = lambda p: lambda h, x: (jnp.tanh(h @ p + x), h[0])
    loss = lambda p, e: sum(map(jnp.sum, jax.lax.scan(step(p), e[0], e)))
    return loss, normal(0, 3, 3), normal(2, 5, 1, 3)


def product_spelled_out():
    """A matrix product as a broadcast product and a sum."""
    loss = lambda p, e: jnp.sum(jnp.tanh((e[:, None] * p["w"]).sum(0) @ p["v"]))
    return loss, {"w": normal(0, 5, 4), "v": normal(1, 4, 3)}, normal(2, 6, 5)


def products_spelled_out():
    """With a dimension they share."""
    loss = lambda p, e: jnp.sum(jnp.tanh((e[..., None] * p["w"]).sum(1)))
    return loss, {"w": normal(0, 2, 5, 3)}, normal(2, 4, 2, 5)


def product_that_nothing_sums():
    """Rows of an example's gradient would be as large as the parameter."""
    loss = lambda p, e: jnp.sum(jnp.sin(e[:, None] * p["w"]))
    return loss, {"w": normal(0, 5, 3)}, normal(2, 4, 5)


def checkpointed_block():
    """Activations that are made again."""

    @jax.checkpoint
    def block(p, h):
        return jnp.tanh(jnp.sin(h @ p["w"]) * p["s"] + p["b"])

    params = {"w": normal(0, 4, 4), "s": normal(1, 4), "b": normal(3, 4)}
    return lambda p, e: jnp.sum(block(p, block(p, e)) ** 2), params, normal(2, 5, 4)


def checkpointed_steps():
    """A step made again, with a policy."""
    step = lambda w: jax.checkpoint(
        lambda h, x: (jnp.tanh(h @ w + x), None), policy=jax.checkpoint_policies.dots_saveable
    )
    loss = lambda p, e: jnp.sum(jax.lax.scan(step(p), e[0], e)[0] ** 2)
    return loss, normal(0, 4, 4), normal(2, 3, 5, 4)


def checkpointed_branch():
    """A branch inside."""

    @jax.checkpoint
    def block(w, x):
        return jax.lax.cond(x[0] > 0, lambda: jnp.tanh(x @ w), lambda: x @ w.T)

    return lambda p, e: jnp.sum(block(p, e) ** 2), normal(0, 4, 4), normal(2, 5, 4)


def ordinary_differential_equation():
    """Times that are closed over, in a function with a derivative of its own."""
    times = np.array([0.0, 0.5], np.float32)

    def loss(p, e):
        flow = lambda z, t, w: jnp.tanh(z @ w)
        return jnp.sum(odeint(flow, e, times, p)[-1] ** 2)

    return loss, normal(0, 3, 3), normal(2, 3, 3)


def low_rank_attention():
    """Low-rank parts beside the weights of a projection to heads, both of them learned."""

    def loss(p, e):
        w = p["w"] + 0.5 * jnp.einsum("dr,rhk->dhk", p["u"], p["v"])
        return _half(jnp.einsum("td,dhk->htk", e[0], w), e[1])

    params = {"w": normal(0, 5, 2, 3), "u": normal(1, 5, 2), "v": normal(4, 2, 2, 3)}
    return loss, params, (normal(2, 4, 4, 5), normal(3, 4, 2, 4, 3))


def low_rank_kernel():
    """A convolution's kernel, flattened."""

    def loss(p, e):
        kernel = (p["u"] @ p["v"]).reshape(3, 3, 2, 4)
        numbers = ("NHWC", "HWIO", "NHWC")
        out = jax.lax.conv_general_dilated(
            e[None], kernel, (1, 1), "SAME", dimension_numbers=numbers
        )
        return jnp.sum(jnp.tanh(out) ** 2)

    return loss, {"u": normal(0, 18, 2), "v": normal(1, 2, 4)}, normal(2, 3, 5, 5, 2)


def low_rank_table():
    """A table of words with a low-rank part."""
    loss = lambda p, e: jnp.sum(jnp.tanh((p["table"] + p["u"] @ p["v"])[e]) ** 2)
    params = {"table": normal(0, 7, 3), "u": normal(1, 7, 2), "v": normal(4, 2, 3)}
    return loss, params, _ids(np.int32, [0, 3, 3, 6], [1, 1, 1, 1], [6, 5, 4, 3])


def low_rank_in_a_scan():
    """Once a layer inside of the scan, once for all steps outside of it, once within each step."""

    def loss(p, e):
        shared = p["u"][0] @ p["v"][0]
        layer = lambda h, w: (jnp.tanh(h @ (w[0] @ w[1]) + h @ shared), None)
        h, _ = jax.lax.scan(layer, e, (p["u"], p["v"]))
        stacked = p["w"] + jnp.einsum("ldr,lrn->ldn", p["u"], p["v"])
        h, _ = jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), h, stacked)
        return jnp.sum(h**2)

    params = {"u": normal(0, 2, 4, 2), "v": normal(1, 2, 2, 4), "w": normal(3, 2, 4, 4)}
    return loss, params, normal(2, 3, 3, 4)


def joined_low_rank():
    """A fused projection of which one part is low-rank, within a checkpoint."""

    @jax.checkpoint
    def block(p, e):
        w = jnp.concatenate([p["w"] + (p["u"] * p["s"]) @ p["v"], p["k"]], 1)
        return jnp.tanh(e @ w)

    params = {"w": normal(0, 5, 3), "u": normal(1, 5, 2), "v": normal(4, 2, 3), "s": normal(5, 2)}
    loss = lambda p, e: jnp.sum(block(p, e) ** 2)
    return loss, params | {"k": normal(6, 5, 2)}, normal(2, 4, 4, 5)


def masked_by_a_value():
    """A mask that is not known while tracing."""

    def loss(p, e):
        mask = jax.lax.stop_gradient(p["mask"])
        w = jnp.where(mask > -0.5, p["scale"] * p["w"], 0) * mask
        return _half(jnp.tanh(e[0] @ w), e[1])

    params = {"w": normal(0, 5, 3), "mask": normal(1, 5, 3), "scale": normal(4)}
    return loss, params, (normal(2, 6, 5), normal(3, 6, 3))


def weight_norm():
    """Lengths and directions of columns, of weights with a low-rank part (DoRA)."""

    def loss(p, e):
        w = p["w"] + p["u"] @ p["v"]
        return _half(jnp.tanh(e[0] @ (p["g"] * w / jnp.linalg.norm(w, axis=0))), e[1])

    params = {"w": normal(0, 5, 3), "u": normal(1, 5, 2), "v": normal(4, 2, 3), "g": normal(5, 3)}
    return loss, params, (normal(2, 6, 5), normal(3, 6, 3))


SITUATIONS = {
    "half precision": (
        dense_in_bfloat16,
        dense_in_float16,
        sequence_in_bfloat16,
        convolution_in_float16,
        embedding_in_bfloat16,
        layers_scanned_in_bfloat16,
        halved_weights_in_float16,
    ),
    "complex numbers": (
        fourier_transformed_inputs,
        fourier_transformed_sequence,
        filtered_spectrum,
        complex_weights,
        convolved_spectrum,
    ),
    "branches": (
        guarded_by_cond,
        guarded_by_switch,
        guarded_within_a_scan,
        guarded_look_up,
        chosen_by_a_constant,
        chosen_by_a_parameter,
    ),
    "indices": (
        bytes_taken,
        bytes_of_a_larger_table,
        signed_bytes,
        one_byte_as_an_index,
        one_short_as_an_index,
        indices_out_of_range,
        one_index_out_of_range,
    ),
    "custom derivatives": (
        affine_backward,
        gated_backward,
        custom_derivative_over_time,
        ordinary_differential_equation,
    ),
    "weights put together": (
        stacked_leaves,
        concatenated_leaves,
        stacked_projections,
        split_weights,
        joined_and_cast,
        joined_and_transposed,
        joined_with_a_constant,
        prepended_token,
        permuted_weights,
        repeated_weights,
        pruned_over_time,
        centred_weights,
    ),
    "loops": (
        layers_by_number,
        layers_backwards,
        layers_used_again,
        layers_by_a_scanned_number,
        columns_one_by_one,
        heads_one_by_one,
        scaled_step_by_step,
        same_data_at_every_step,
        no_step,
        one_step,
    ),
    "products spelled out": (product_spelled_out, products_spelled_out, product_that_nothing_sums),
    "parameters that meet": (
        low_rank_attention,
        low_rank_kernel,
        low_rank_table,
        low_rank_in_a_scan,
        joined_low_rank,
        masked_by_a_value,
        weight_norm,
    ),
    "checkpoints": (checkpointed_block, checkpointed_steps, checkpointed_branch),
}
LARGE_SITUATIONS = {
    model
    for kind in (
        "custom derivatives",
        "weights put together",
        "loops",
        "products spelled out",
        "parameters that meet",
    )
    for model in SITUATIONS[kind]
} | {complex_weights}
RECOMPUTED_SITUATIONS = {
    affine_backward: {"w"},
    complex_weights: {"im"},
    ordinary_differential_equation: {"all"},
    product_that_nothing_sums: {"w"},
}

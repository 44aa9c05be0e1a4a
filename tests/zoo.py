"""Odd models, one a rule or a composition: each returns `(loss, params, batch)`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import coherence as co


@functools.cache
def gradients(model):
    """Per-example gradients of a model, made by one program for all tests that read them."""
    loss, params, batch = model()
    return jax.jit(co.per_example_value_and_grad(loss))(params, batch)[1]


def normal(seed, *shape):
    return jax.device_put(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def half_square(prediction, y):
    return 0.5 * jnp.sum((prediction - y) ** 2)


def dense():
    params = {"w": normal(0, 5, 3), "b": normal(1, 3)}
    return (
        lambda p, e: half_square(jnp.tanh(e[0] @ p["w"] + p["b"]), e[1]),
        params,
        (normal(2, 6, 5), normal(3, 6, 3)),
    )


def transposed():
    return (
        lambda p, e: half_square(p["w"] @ e[0], e[1]),
        {"w": normal(0, 3, 5)},
        (normal(2, 6, 5), normal(3, 6, 3)),
    )


def transposed_view():
    return (
        lambda p, e: half_square(e[0] @ p["w"].T, e[1]),
        {"w": normal(0, 3, 5)},
        (normal(2, 6, 5), normal(3, 6, 3)),
    )


def sequence():
    """The same weights at every position.

    Few positions, so that Gram matrices are the cheap way.
    """
    return (
        lambda p, e: half_square(jnp.tanh(e[0] @ p["w"]), e[1]),
        {"w": normal(0, 9, 8)},
        (normal(2, 4, 3, 9), normal(3, 4, 3, 8)),
    )


def long_sequence():
    """Many positions: forming one example's gradient is the cheap way."""
    return (
        lambda p, e: half_square(jnp.tanh(e[0] @ p["w"]), e[1]),
        {"w": normal(0, 4, 3)},
        (normal(2, 5, 20, 4), normal(3, 5, 20, 3)),
    )


def heads():
    """An attention projection: weights [heads, d, k], an einsum with two free dimensions."""
    loss = lambda p, e: half_square(jnp.einsum("td,hdk->htk", e[0], p["w"]), e[1])
    return loss, {"w": normal(0, 2, 4, 3)}, (normal(2, 5, 6, 4), normal(3, 5, 2, 6, 3))


def stacked_weights():
    """A batch dimension of the product: each group has its own weights."""
    loss = lambda p, e: half_square(jnp.einsum("gd,gdk->gk", e[0], p["w"]), e[1])
    return loss, {"w": normal(0, 3, 4, 2)}, (normal(2, 5, 3, 4), normal(3, 5, 3, 2))


def scaled_weights():
    """The width-independent parametrization: w / sqrt(n)."""
    return (
        lambda p, e: half_square(e[0] @ (p["w"] / 5**0.5) * 2, e[1]),
        {"w": normal(0, 5, 3)},
        (normal(2, 6, 5), normal(3, 6, 3)),
    )


def sliced_weights():
    """One leaf cut in two that meet different data, and a part that meets none."""
    loss = lambda p, e: half_square(e[0] @ p["w"][:5] + jnp.tanh(e[0]) @ p["w"][5:10], e[1])
    return loss, {"w": normal(0, 11, 3)}, (normal(2, 6, 5), normal(3, 6, 3))


def tied():
    """An autoencoder with tied weights: used as w and as its transpose."""
    return (
        lambda p, e: half_square(jnp.tanh(e @ p["w"]) @ p["w"].T, e),
        {"w": normal(0, 5, 3)},
        normal(2, 6, 5),
    )


def siamese():
    """The same layer on two inputs."""
    loss = lambda p, e: half_square(
        jnp.tanh(e[0] @ p["w"] + p["b"]), jnp.tanh(e[1] @ p["w"] + p["b"])
    )
    return loss, {"w": normal(0, 5, 3), "b": normal(1, 3)}, (normal(2, 6, 5), normal(3, 6, 5))


def norm_layer():
    def loss(p, e):
        x, y = e
        z = (x - x.mean()) / jnp.sqrt(x.var() + 1e-5)
        return half_square((1 + p["scale"]) * z - p["shift"], y)

    return loss, {"scale": normal(0, 5), "shift": normal(1, 5)}, (normal(2, 6, 5), normal(3, 6, 5))


def broadcast_parameters():
    """Biases and scales of a sequence, a learned position, one number for all.

    Broadcast along some dimensions.
    """

    def loss(p, e):
        x = e[0] * p["channel"] + p["position"][:, None] - p["both"]
        return half_square(x * p["all"] + p["position"][:, None] * e[0], e[1])

    params = {
        "channel": normal(0, 4),
        "position": normal(1, 3),
        "both": normal(2, 3, 4),
        "all": normal(4),
    }
    return loss, params, (normal(2, 6, 3, 4), normal(3, 6, 3, 4))


def inside_jit_and_remat():
    layer = jax.checkpoint(jax.jit(lambda w, x: jnp.tanh(x @ w)))
    loss = lambda p, e: half_square(layer(p["w2"], layer(p["w1"], e[0])), e[1])
    return loss, {"w1": normal(0, 5, 4), "w2": normal(1, 4, 3)}, (normal(2, 6, 5), normal(3, 6, 3))


def frozen():
    """A leaf behind stop_gradient and one that is never used: zero gradients."""
    loss = lambda p, e: half_square(e[0] @ jax.lax.stop_gradient(p["w"]) + p["b"], e[1])
    return (
        loss,
        {"w": normal(0, 5, 3), "b": normal(1, 3), "unused": normal(2, 2, 2)},
        (normal(2, 6, 5), normal(3, 6, 3)),
    )


def low_rank():
    """Parameter meets parameter."""
    loss = lambda p, e: half_square(e[0] @ (p["u"] @ p["v"]) + p["b"], e[1])
    return (
        loss,
        {"u": normal(0, 5, 2), "v": normal(1, 2, 3), "b": normal(4, 3)},
        (normal(2, 6, 5), normal(3, 6, 3)),
    )


def penalized():
    """Weight decay inside the loss."""
    loss = lambda p, e: half_square(e[0] @ p["w"], e[1]) + 0.1 * jnp.sum(p["w"] ** 2)
    return loss, {"w": normal(0, 5, 3)}, (normal(2, 6, 5), normal(3, 6, 3))


def _convolving(x, *kernel, orders=("NHWC", "HWIO", "NHWC"), m=3, **options):
    """A convolution of one image x [h, w, c] (or [h, c]); what it makes is compared with noise."""

    def convolve(p, x):
        return jax.lax.conv_general_dilated(x[None], p["k"], dimension_numbers=orders, **options)

    x, params = normal(2, m, *x), {"k": normal(0, *kernel)}
    y = normal(3, m, *jax.eval_shape(convolve, params, x[0]).shape)
    return lambda p, e: half_square(jnp.tanh(convolve(p, e[0])), e[1]), params, (x, y)


def convolution():
    def loss(p, e):
        x = jax.lax.conv_general_dilated(
            e[0][None], p["k"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return half_square(jnp.tanh(x).mean((0, 1, 2)) + p["b"], e[1])

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
        return half_square(
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
        return half_square(convolve(e[0]).mean(0), convolve(e[1][None])[0]) + jnp.sum(
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
    loss = lambda p, e: half_square(jnp.tanh(jnp.take(p["table"], e[0], axis=0)), e[1])
    return loss, {"table": normal(0, 40, 6)}, (_sentence(1, 4, 5, 3), normal(2, 4, 5, 6))


def embedding_with_few_words():
    """A table no larger than what is looked up in it."""
    loss = lambda p, e: half_square(jnp.tanh(p["table"][e[0]]), e[1])
    return loss, {"table": normal(0, 3, 4)}, (_sentence(1, 4, 9, 3), normal(2, 4, 9, 4))


def embedding_of_one_word():
    loss = lambda p, e: half_square(p["table"][e[0][0]] + p["other"][:, e[0]].sum(1), e[1])
    return (
        loss,
        {"table": normal(0, 40, 4), "other": normal(1, 4, 30)},
        (_sentence(1, 5, 2, 30), normal(2, 5, 4)),
    )


def embedding_out_of_range():
    """Words outside of the table: dropped or clipped, as the look-up says."""

    def loss(p, e):
        dropped = jnp.take(p["table"], e[0], axis=0, mode="fill", fill_value=1.0)
        return half_square(dropped + jnp.take(p["table"], 2 * e[0] - 10, axis=0, mode="clip"), e[1])

    return loss, {"table": normal(0, 20, 4)}, (_sentence(1, 5, 3, 30), normal(2, 5, 3, 4))


def indexed_by_pairs():
    """Relative positions and the like: two dimensions of a parameter indexed by data."""
    loss = lambda p, e: half_square(jnp.tanh(p["bias"][:, e[0], e[0][::-1]]), e[1])
    return loss, {"bias": normal(0, 2, 6, 6)}, (_sentence(1, 4, 7, 6), normal(2, 4, 2, 7))


def long_text():
    """More positions than are compared pair by pair."""
    loss = lambda p, e: half_square(jnp.tanh(p["table"][e[0]]), e[1])
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
        return half_square(h, e[1]) + out.sum()

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
        return half_square(jax.lax.scan(layer, e[0], p)[0], e[1])

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
        return half_square(jnp.einsum(equation, e[0], w), e[1])

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
        return half_square(
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
    loss = lambda p, e: half_square(prelu(e[0] @ p["w"], p["slope"]), e[1])
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
    return lambda p, e: half_square(layer(layer(e[0], p["w"]), p["v"]), e[1]), *two_layers()


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
    return lambda p, e: half_square(layer(layer(e[0], p["w"]), p["v"]), e[1]), *two_layers()


def quantized_weights():
    """Rounded on the way in, as if not on the way back (straight through)."""
    rounded = jax.custom_jvp(lambda w: jnp.round(4 * w) / 4)
    rounded.defjvp(lambda ws, ts: (rounded(*ws), ts[0]))
    return lambda p, e: half_square(
        jnp.tanh(e[0] @ rounded(p["w"])) @ rounded(p["v"]), e[1]
    ), *two_layers()


def clipped_backward():
    """A backward pass that is not linear: no factors, exact all the same."""

    @jax.custom_vjp
    def layer(x, w):
        return x @ w

    layer.defvjp(
        lambda x, w: (x @ w, (x, w)),
        lambda kept, dy: (kept[1] @ dy, jnp.outer(kept[0], jnp.clip(dy, -0.1, 0.1))),
    )
    return lambda p, e: half_square(jnp.tanh(layer(e[0], p["w"])) @ p["v"], e[1]), *two_layers()


def two_layers():
    return {"w": normal(0, 5, 4), "v": normal(1, 4, 3)}, (normal(2, 6, 5), normal(3, 6, 3))


def scaled_by_computed_numbers():
    """Weights scaled by the root of their fan-in, and moved away from where they started."""
    start = normal(4, 4, 3)
    loss = lambda p, e: half_square(
        jnp.tanh(e[0] @ (p["w"] / jnp.sqrt(5.0))) @ (start + jnp.sqrt(jnp.array(0.25)) * p["v"]),
        e[1],
    )
    return loss, *two_layers()


def pruned_weights():
    """A fixed mask on a large matrix."""
    kept = normal(4, 5, 4) > 0
    return lambda p, e: half_square(jnp.tanh(e[0] @ (p["w"] * kept)) @ p["v"], e[1]), *two_layers()


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

"""Situations that people reported, and their siblings: a kind of mistake each, as in `zoo`."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.ode import odeint

from tests.zoo import (
    convolution_of_a_small_map,
    dense,
    half_square,
    normal,
    sequence,
    tied_embedding,
    two_layers,
)


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
        return half_square(jax.lax.scan(layer, e[0], p)[0], e[1])

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
    return lambda p, e: half_square(jnp.tanh(layer(e[0], p["w"])) @ p["v"], e[1]), *two_layers()


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
    return lambda p, e: half_square(jnp.tanh(layer(e[0], p["w"])) @ p["v"], e[1]), *two_layers()


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
        return half_square(jnp.einsum("td,dhk->htk", e[0], w), e[1])

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
        return half_square(jnp.tanh(e[0] @ w), e[1])

    params = {"w": normal(0, 5, 3), "mask": normal(1, 5, 3), "scale": normal(4)}
    return loss, params, (normal(2, 6, 5), normal(3, 6, 3))


def weight_norm():
    """Lengths and directions of columns, of weights with a low-rank part (DoRA)."""

    def loss(p, e):
        w = p["w"] + p["u"] @ p["v"]
        return half_square(jnp.tanh(e[0] @ (p["g"] * w / jnp.linalg.norm(w, axis=0))), e[1])

    params = {"w": normal(0, 5, 3), "u": normal(1, 5, 2), "v": normal(4, 2, 3), "g": normal(5, 3)}
    return loss, params, (normal(2, 6, 5), normal(3, 6, 3))


ALL = {
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
LARGE = {
    model
    for kind in (
        "custom derivatives",
        "weights put together",
        "loops",
        "products spelled out",
        "parameters that meet",
    )
    for model in ALL[kind]
} | {complex_weights}
RECOMPUTED = {
    affine_backward: {"w"},
    complex_weights: {"im"},
    ordinary_differential_equation: {"all"},
    product_that_nothing_sums: {"w"},
}

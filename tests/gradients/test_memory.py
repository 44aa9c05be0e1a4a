"""What is never formed.

Memory of compiled programs, against that of the examples x parameters array.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coherence as co

M, D = 64, 128
SQUARE = (D, D)


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def memory(function, *shapes):
    analysis = jax.jit(function).lower(*shapes).compile().memory_analysis()
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes


def norms_and_mean(loss, **kwargs):
    def reduced(params, batch):
        _, g = co.per_example_value_and_grad(loss, **kwargs)(params, batch)
        return co.gradients.squared_norms(g), co.mean(g)

    return reduced


def squares(x):
    return jnp.sum(jnp.tanh(x) ** 2)


def by_number(w, e):
    return squares(jax.lax.fori_loop(0, 8, lambda i, h: jnp.tanh(h @ w[i]), e))


def by_number_in_a_scan(w, e):
    return squares(jax.lax.scan(lambda h, i: (jnp.tanh(h @ w[i]), None), e, jnp.arange(8)[::-1])[0])


def column_by_column(w, e):
    return squares(jax.lax.map(lambda column: e @ column, w.T))


def spelled_out(w, e):
    return squares((e[:, None] * w).sum(0))


def permuted(w, e):
    return squares(e @ w[np.arange(D)[::-1]])


def masked_in_a_scan(w, e):
    kept = np.arange(D) % 2 == 0
    step = lambda h, _: (jnp.tanh(h @ (w * kept.astype(np.float32)[:, None])), None)
    return squares(jax.lax.scan(step, e, None, length=3)[0])


_layer = jax.custom_vjp(lambda x, w: x @ w)
_layer.defvjp(lambda x, w: (x @ w, (x, w)), lambda kept, dy: (kept[1] @ dy, jnp.outer(kept[0], dy)))


def outer_backward(w, e):
    return squares(_layer(e, w))


@pytest.mark.parametrize(
    ("loss", "size"),
    [
        (by_number, (8, D, D)),
        (by_number_in_a_scan, (8, D, D)),
        (column_by_column, SQUARE),
        (spelled_out, SQUARE),
        (permuted, SQUARE),
        (outer_backward, SQUARE),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_weights_met_in_odd_ways_are_not_formed_for_every_example(loss, size):
    rows = 4 * M * int(np.prod(size))
    assert memory(norms_and_mean(loss), shape(*size), shape(M, D)) < rows / 8


def test_an_elementwise_product_with_broadcast_data_is_named_and_not_formed():
    loss = lambda w, e: jnp.sum(jnp.tanh(e[:, None] * w))
    with pytest.warns(co.gradients.RecomputedWarning, match=r"first data: all \(mul\)\."):
        needed = memory(norms_and_mean(loss), shape(*SQUARE), shape(M, D))
    assert needed < 4 * M * D * D / 8


def test_masked_weights_are_formed_a_few_examples_at_a_time():
    many = 16 * M  # the array of all would have 64 MiB
    assert memory(norms_and_mean(masked_in_a_scan), shape(*SQUARE), shape(many, D)) < 2**26 / 1.5


def test_a_checkpoint_keeps_its_effect():
    def block(w, h):
        for _ in range(4):
            h = jnp.sin(h) * jnp.cos(h) + jnp.tanh(h)
        return h @ w

    def loss(wrap):
        layer = wrap(block)

        def deep(params, h):
            for w in params:
                h = layer(w, h)
            return jnp.sum(h**2)

        return deep

    shapes = [shape(*SQUARE)] * 4, shape(8, 64, D)
    plain, checkpointed = (
        memory(norms_and_mean(loss(wrap)), *shapes) for wrap in (lambda f: f, jax.checkpoint)
    )
    assert checkpointed < 0.6 * plain


def test_gram_matrices_of_an_embedding_need_no_table():
    words = 100_000
    loss = lambda table, ids: squares(table[ids])

    def gram(table, ids):
        return co.gradients.gram(co.per_example_value_and_grad(loss)(table, ids)[1])

    assert memory(gram, shape(words, 16), shape(8, 12, dtype=jnp.int32)) < 4 * words


@pytest.mark.parametrize(
    "reduce", [co.gradients.dot, lambda g, p: co.gradients.gram(g)], ids=["dot", "gram"]
)
def test_recomputed_leaves_honour_microbatches(reduce):
    """A hidden layer of 4 MB an example, of which few are held."""

    def loss(p, e):
        return squares(jnp.repeat(e, 2**10) * jnp.sort(p["odd"])[0])

    def reduced(size):
        def function(p, e):
            with pytest.warns(co.gradients.RecomputedWarning):
                _, g = co.per_example_value_and_grad(loss, microbatch_size=size)(p, e)
            return reduce(g, p)

        return function

    shapes = {"odd": shape(5000)}, shape(16, 2**10)
    hidden = 16 * 4 * 2**20  # bytes, of all examples; some versions of XLA need not hold them
    whole = memory(reduced(None), *shapes)
    assert memory(reduced(2), *shapes) < max(0.4 * whole, hidden / 100)


@pytest.mark.parametrize(
    ("inputs", "kind"), [(32, co.gradients.Factored), (4, co.gradients.Stacked)]
)
def test_gates_that_are_large_together_are_no_rows_that_every_step_adds_to(inputs, kind):
    """As of a recurrent cell: four matrices are read side by side at every step."""
    gates = {name: np.zeros((inputs, 40), np.float32) for name in "ifgo"}

    def loss(gates, e):
        step = lambda h, x: (jnp.tanh(h + x @ jnp.concatenate(list(gates.values()), 1)), None)
        return jnp.sum(jax.lax.scan(step, jnp.zeros(160), e)[0] ** 2)

    batch = np.zeros((M, 10, inputs), np.float32)
    _, nodes = jax.eval_shape(co.per_example_value_and_grad(loss), gates, batch)
    assert {type(node) for node in nodes.values()} == {kind}

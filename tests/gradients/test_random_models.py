"""Models nobody thought of: random chains of layers, exact against the loop."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import coherence as co
from tests import reference
from tests.zoo import normal


def _dense(p, x):
    return jnp.tanh(x @ p["w"] + p["b"])


def _transposed(p, x):
    return x + p["w"] @ x if x.ndim == 1 else x + x @ p["w"].T


def _residual_norm(p, x):
    z = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-3)
    return x + z * p["s"] + p["b"]


def _time(p, x):
    xs = x if x.ndim == 2 else x[None]
    out = jax.lax.scan(
        lambda h, z: ((h := jnp.tanh(h @ p["u"] + z @ p["w"])), h), jnp.zeros(xs.shape[-1]), xs
    )[1]
    return out if x.ndim == 2 else out[0]


def _depth(p, x):
    return jax.lax.scan(lambda h, w: (h + jnp.sin(h @ w), None), x, p["stack"])[0]


def _gate(p, x):
    return x * jax.nn.sigmoid(x * p["s"]) + jax.nn.softplus(p["b"])


def _rematerialized(p, x):
    return jax.checkpoint(jax.jit(_dense))(p, x)


def _scaled(p, x):
    return x @ (0.5 * p["w"].T / 3) - p["b"]


def _halves(p, x):
    d = x.shape[-1]
    return x + x @ p["w"][:, :d] + jnp.tanh(x @ p["u"].reshape(d, d))


LAYERS = [
    _dense,
    _transposed,
    _residual_norm,
    _time,
    _depth,
    _gate,
    _rematerialized,
    _scaled,
    _halves,
]
D = 4


def _parameters(seed):
    shapes = {"w": (D, D), "u": (D, D), "b": (D,), "s": (D,), "stack": (2, D, D)}
    return {name: 0.7 * normal(seed + i, *shape) for i, (name, shape) in enumerate(shapes.items())}


@settings(max_examples=15)
@given(
    st.lists(st.integers(0, len(LAYERS) - 1), min_size=1, max_size=4),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_random_compositions_are_exact(chain, sequence, tied, bare):
    """`tied`: every layer uses the same parameters; `bare`.

    Small parameters get no help, so rules or recomputing must do.
    """
    from coherence.gradients import tracked

    params = [_parameters(0 if tied else 10 * i) for i in range(1 if tied else len(chain))]

    def loss(p, x):
        for i, layer in enumerate(chain):
            x = LAYERS[layer](p[0 if tied else i], x)
        return jnp.sum(jnp.cos(x) * x)

    batch = normal(99, *((3, 5, D) if sequence else (3, D)))

    @jax.jit
    def reduced(params, batch):
        _, g = co.per_example_value_and_grad(loss)(params, batch)
        ours = co.gradients.squared_norms(g), co.gradients.gram(g), co.mean(g)
        return ours, jax.vmap(jax.grad(loss), (None, 0))(params, batch)

    rows, tracked.ROWS = tracked.ROWS, 0 if bare else tracked.ROWS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", co.gradients.RecomputedWarning)
            (norms, gram, mean), truth = reduced(params, batch)
    finally:
        tracked.ROWS = rows
    g = reference.flat(truth)
    scale = np.abs(g @ g.T).max() + 1e-6
    np.testing.assert_allclose(norms, (g**2).sum(1), rtol=1e-4, atol=1e-4 * scale)
    np.testing.assert_allclose(gram, g @ g.T, rtol=1e-4, atol=1e-4 * scale)
    np.testing.assert_allclose(
        reference.flat(jax.tree.map(lambda x: x[None], mean))[0],
        g.mean(0),
        rtol=1e-4,
        atol=1e-4 * scale**0.5,
    )

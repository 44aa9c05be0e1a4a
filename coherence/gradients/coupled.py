"""The other contract: `losses(params, batch) -> [m]`, whose examples may interact.

Rows of its Jacobian, never formed.
"""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from coherence.trees import PyTree
from coherence.trees import leaf as leaf_name

from .arguments import check_params, varying_with
from .factors import accumulator

# probes up to which the loop is unrolled: on CPU, convolutions inside a loop body take a path 200
# times slower
_UNROLLED = 32


Losses: TypeAlias = Callable[[Any, Any], jax.Array]  # `(params, batch) -> [m]`


class Estimate(NamedTuple):
    """A random estimate with its error.

    `low` and `high` bound a nominal 95 % interval (Student's t over the probes).

    >>> Estimate(value=2.0, standard_error=0.1, low=1.8, high=2.2).low
    1.8
    """

    value: jax.Array
    standard_error: jax.Array
    low: jax.Array
    high: jax.Array


def alignments(losses: Losses, params: PyTree, batch: PyTree, direction: PyTree) -> jax.Array:
    r"""How fast each example's loss changes along a direction in parameter space.

    .. math::
        a_i = r_i \cdot v, \qquad r_i = \partial\,\mathrm{losses}_i / \partial\,\mathrm{params}

    by one forward derivative, for any model: no rule, no row, one gradient of memory. In the units
    of a loss over those of the parameters times v's length: positive where a step along -v helps
    the example. With v the mean gradient, :math:`a_i / Q` with
    :math:`Q = \sum_i \|r_i\|^2` are the examples' shares of alpha, and they sum to it.

    Where examples do not interact, r_i is the gradient g_i of example i. Where they do (batch norm
    in training mode, losses that contrast examples), r_i is a row of the *coupled* Jacobian: the
    derivative of loss i with the whole batch present, which depends on the other examples. The rows
    still sum to the batch's gradient, but they are not the papers' g_i, which such a network does
    not have; nor is r_i the part of the batch's gradient that example i causes, which would also
    hold its effect on the other losses.

    Args:
        losses: `(params, batch) -> [m]`, one loss an example.
        params: a pytree of floating-point arrays.
        batch: passed on to `losses`.
        direction: v, a pytree of the parameters' shapes; for example `mean` of per-example
            gradients.

    Returns:
        [m]. Costs about two evaluations of `losses`.

    Raises:
        TypeError: a parameter is not floating-point.
        ValueError: `losses` returns no [m]; `direction` has other shapes than `params`.

    >>> losses, batch = (lambda w, x: x @ w), jnp.array([[3.0, 0.0], [0.0, 4.0]])
    >>> alignments(losses, jnp.ones(2), batch, jnp.array([1.0, -1.0]))
    Array([ 3., -4.], dtype=float32)
    """
    of_params, _ = _checked("alignments", losses, params, batch)
    leaves, treedef = jax.tree.flatten(params)
    ours, theirs = _shapes(params), _shapes(direction)
    if list(ours.values()) != list(theirs.values()):
        raise ValueError(
            f"alignments(direction): direction must have the parameters' shapes {ours}, got "
            f"{theirs}."
        )
    tangents = [
        jnp.asarray(v, jnp.result_type(x)) for v, x in zip(jax.tree.leaves(direction), leaves)
    ]
    return jax.jvp(of_params, (params,), (jax.tree.unflatten(treedef, tangents),))[1]


def squared_norm_total(
    losses: Losses, params: PyTree, batch: PyTree, key: jax.Array, probes: int
) -> Estimate:
    r"""An unbiased estimate of :math:`\sum_i \|r_i\|^2`, alpha's denominator (times m).

    It takes a few ordinary gradients:

    .. math::
        \mathbb{E}\,\big\|\nabla \sum_i s_i\,\mathrm{losses}_i\big\|^2
        = \sum_{ij} \mathbb{E}[s_i s_j]\,r_i\cdot r_j = \sum_i\|r_i\|^2

    for random signs s. The rows r_i of the Jacobian are g_i where examples do not interact, and
    rows of the coupled Jacobian where they do: see `alignments`, and do not report the latter as
    the papers' alpha.

    One probe has variance :math:`2\sum_{i\ne j}(r_i\cdot r_j)^2`: a standard deviation of up to
    :math:`\sqrt2` of the value itself where gradients agree, little where they are unrelated. The
    sign rows are drawn without replacement from an orthogonal set (a Hadamard matrix with randomly
    signed columns), so the error falls faster than 1/sqrt(probes) and is 0 from m rounded up to a
    power of two on; further probes are not run. With few probes and coherent gradients a probe is
    far from normally distributed and the interval covers less than it says: in simulations of equal
    gradients 82 % instead of 95 with 4 probes, 88 with 16, 92 with 64; 95 for unrelated ones. Over
    steps of training, pool the values and divide last.

    Args:
        losses: `(params, batch) -> [m]`, one loss an example.
        params: a pytree of floating-point arrays.
        batch: passed on to `losses`.
        key: from `jax.random.key`.
        probes: how many, static, at least 2. Each costs one backward pass; the forward pass is
            shared, one gradient held at a time. Above 32 they run in a loop: with convolutions on
            CPU rather call this several times with new keys, and average.

    Returns:
        `Estimate(value, standard_error, low, high)`, scalars of at least float32; `low` is never
        below 0.

    Raises:
        TypeError: a parameter is not floating-point.
        ValueError: `losses` returns no [m], or `probes` < 2.

    >>> losses, key = (lambda w, x: x @ w), jax.random.key(0)
    >>> squared_norm_total(losses, jnp.ones(2), 2 * jnp.eye(2), key, probes=2).value
    Array(8., dtype=float32)
    """
    probes = operator.index(probes)
    if probes < 2:
        raise ValueError(
            f"squared_norm_total(probes): at least 2, or there is no error bar, got {probes}."
        )
    of_params, out = _checked("squared_norm_total", losses, params, batch)
    (m,), dtype = out.shape, accumulator(out.dtype)
    population = max(2, 1 << (m - 1).bit_length())
    signs = _orthogonal_signs(key, m, population, min(probes, population)).astype(out.dtype)
    _, pull_back = jax.vjp(of_params, varying_with(params, batch))

    def probe(s):
        (gradient,) = pull_back(s)
        return sum(jnp.sum(jnp.square(x.astype(dtype))) for x in jax.tree.leaves(gradient))

    if len(signs) <= _UNROLLED:
        unrolled: list[jax.Array] = []
        for s in signs:
            if unrolled:
                # Never true, but XLA cannot know: it finishes one gradient before the next, and
                # holds one at a time.
                s = jnp.where(unrolled[-1] < 0, -s, s)
            unrolled.append(probe(s))
        squares = jnp.stack(unrolled)
    else:
        squares = jax.lax.map(probe, signs)
    return _estimate(squares, population)


def _orthogonal_signs(key, m, population, rows):
    """Rows of a Hadamard matrix, H[k, i] = (-1)^(number of ones in k & i), its columns randomly
    signed: [rows, m]."""
    which, flips = jax.random.split(key)
    index = jax.random.permutation(which, population)[:rows]
    ones = jax.lax.population_count(index[:, None] & jnp.arange(m)[None, :])
    return jax.random.rademacher(flips, (m,)) * (1 - 2 * (ones % 2))


def _estimate(squares, population):
    """Mean and error of a sample drawn without replacement.

    The mean over the population is the exact value.
    """
    from scipy import stats

    n = len(squares)
    value = squares.mean()
    error = jnp.sqrt(squares.var(ddof=1) / n * (1 - n / population))
    half = float(stats.t.ppf(0.975, n - 1)) * error
    return Estimate(value, error, jnp.maximum(value - half, 0), value + half)


def _checked(name, losses, params, batch):
    """`params -> losses` and what it returns, where that is one float an example."""
    check_params(params)
    of_params = lambda p: losses(p, batch)
    out = jax.eval_shape(of_params, params)
    shape = getattr(out, "shape", None)
    if shape is None or len(shape) != 1 or not jnp.issubdtype(out.dtype, jnp.floating):
        given = f"a {type(out).__name__}" if shape is None else f"{out.dtype} of shape {shape}"
        raise ValueError(
            f"{name}(losses): losses(params, batch) must return one float an example, shape [m], "
            f"got {given}. "
            "Did you return the mean? Return the losses themselves; for a loss of one example "
            "use per_example_value_and_grad."
        )
    return of_params, out


def _shapes(tree):
    return {leaf_name(path): jnp.shape(x) for path, x in jax.tree.leaves_with_path(tree)}

"""What every aggregator shares: per-example gradients in, one update out, as an optax transformation."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from coherence.gradients.factors import is_node
from coherence.gradients.reductions import mean
from coherence.trees import leaf as leaf_name


class Aggregator(optax.GradientTransformationExtraArgs):
    """An optax transformation of per-example gradients into one update; it goes first in a `chain`.

    Attributes:
        name: the call that makes it, as `winsorize(c=2)`; also its `repr`.
        takes_batch_gradient: whether the mean gradient of a batch will do, too.
    """

    name: str
    takes_batch_gradient: bool

    def __new__(
        cls,
        init: Callable[..., Any],
        update: Callable[..., Any],
        name: str,
        takes_batch_gradient: bool = False,
    ) -> "Aggregator":
        self = super().__new__(cls, init, update)
        self.name, self.takes_batch_gradient = name, takes_batch_gradient
        return self

    def __getnewargs__(self) -> tuple:  # what copying needs
        return (*self, self.name, self.takes_batch_gradient)

    def __repr__(self) -> str:
        return self.name


def aggregator(
    combine: Callable[..., Any],
    name: str,
    *,
    takes_batch_gradient: bool = False,
    init: Callable[[Any], Any] | None = None,
) -> Aggregator:
    """An `Aggregator` from a pure function of per-example gradients.

    Its `update(gradients, state, params=None)` takes a tree of nodes (`Factored`, `Stacked`,
    `Recomputed`), or a plain tree with a leading example axis. Given `params` it recognizes a batch
    gradient (each leaf has its parameter's shape); without them a plain tree counts as per-example.

    Args:
        combine: `gradients -> one gradient` in the parameters' shapes, such as
        `coordinatewise(function of one leaf)`.
        name: the call that makes it, as users write it: its `repr`, and in error messages.
        takes_batch_gradient: whether a batch gradient passes through; else it is refused.
        init: `params -> state` for a rule that remembers; `combine` is then `(gradients, state) ->
            (one gradient, state)`.

    >>> first = aggregator(lambda g: jax.tree.map(lambda x: x[0], g), "first()")
    >>> first.update(jnp.arange(6.0).reshape(3, 2), first.init(None))[0]
    Array([0., 1.], dtype=float32)
    """

    def update(gradients, state, params=None, **extra):
        del extra
        if params is not None and _is_batch_gradient(gradients, params, name):
            if not takes_batch_gradient:
                raise ValueError(
                    f"{name} needs per-example gradients, got a batch gradient (every leaf has its parameter's shape). "
                    "Make them with coherence.per_example_value_and_grad(loss), loss taking ONE example."
                )
            return gradients, state
        combined, state = (combine(gradients), state) if init is None else combine(gradients, state)
        if params is not None:
            combined = jax.tree.map(lambda g, p: g.astype(jnp.result_type(p)), combined, params)
        return combined, state

    start = init or (lambda params: optax.EmptyState())
    return Aggregator(start, update, name, takes_batch_gradient)


def averaged(transformation: optax.GradientTransformation, name: str) -> Aggregator:
    """An `Aggregator` that takes the mean over examples, and then an optax transformation of one gradient.

    It takes batch gradients too: they are averaged already.

    >>> sign = averaged(optax.scale_by_sign(), "sign()")
    >>> sign.update(jnp.array([[1.0, -3.0], [1.0, 1.0]]), sign.init(None))[0]
    Array([ 1., -1.], dtype=float32)
    """
    first = aggregator(mean, name, takes_batch_gradient=True)
    both = optax.with_extra_args_support(optax.chain(first, transformation))
    return Aggregator(both.init, both.update, name, takes_batch_gradient=True)


def _is_batch_gradient(gradients, params, name):
    """Whether every leaf has its parameter's shape, rather than one axis more."""
    leaves, treedef = jax.tree.flatten_with_path(gradients, is_leaf=is_node)
    if treedef != jax.tree.structure(params):
        raise ValueError(
            f"{name}: gradients and params differ in structure: {treedef} and {jax.tree.structure(params)}."
        )
    batch = []
    for (path, gradient), parameter in zip(leaves, jax.tree.leaves(params)):
        given, shape = (
            gradient.shape if is_node(gradient) else jnp.shape(gradient)[1:],
            jnp.shape(parameter),
        )
        whole = not is_node(gradient) and jnp.shape(gradient) == shape
        if not whole and (tuple(given) != shape or not (is_node(gradient) or jnp.ndim(gradient))):
            got = f"one example's {list(given)}" if is_node(gradient) else list(jnp.shape(gradient))
            raise ValueError(
                f"{name}: leaf {leaf_name(path)} has shape {got}, but its parameter {list(shape)}. "
                "Per-example gradients have the parameter's shape behind one leading axis of m examples."
            )
        batch.append(whole)
    if any(batch) and not all(batch):
        some = leaf_name(leaves[batch.index(True)][0])
        raise ValueError(
            f"{name}: leaf {some} has its parameter's shape, others have one more axis. Give per-example gradients for all leaves."
        )
    return bool(batch) and batch[0]

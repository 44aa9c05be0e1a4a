"""The interface of aggregators, an optax transformation of per-example gradients, and `chain`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from coherence.gradients.factors import is_node
from coherence.gradients.reductions import mean
from coherence.trees import leaf as leaf_name

from .decay import Last, turns_away

if TYPE_CHECKING:
    from optax import GradientTransformationExtraArgs as _Base
else:
    try:
        from optax.experimental import aggregating

        _Base = aggregating.Aggregator
    except ImportError:  # experimental: it may move, and then they are plain transformations
        _Base = optax.GradientTransformationExtraArgs


class Aggregator(_Base):
    """An optax transformation of per-example gradients into one update; it goes first in a `chain`.

    Attributes:
        name: the call that makes it, as `winsorize(c=2)`; also its `repr`.
        takes_batch_gradient: whether the mean gradient of a batch will do, too.
        rest: what stands behind it in its chain.
    """

    name: str
    takes_batch_gradient: bool
    rest: tuple[optax.GradientTransformation, ...]

    def __new__(
        cls,
        init: Callable[..., Any],
        update: Callable[..., Any],
        name: str,
        takes_batch_gradient: bool = False,
        rest: tuple[optax.GradientTransformation, ...] = (),
    ) -> "Aggregator":
        self = super().__new__(cls, init, update)
        self.name, self.takes_batch_gradient, self.rest = name, takes_batch_gradient, rest
        return self

    def __getnewargs__(self) -> tuple:  # what copying needs
        return (*self, self.name, self.takes_batch_gradient, self.rest)

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
            `coherence.optim.order_statistics.coordinatewise(function)`.
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
        if not takes_batch_gradient:
            refuse_batch_gradient(gradients, params, name)
        elif params is not None and _is_batch_gradient(gradients, params, name):
            return gradients, state
        combined, state = (combine(gradients), state) if init is None else combine(gradients, state)
        if params is not None:
            combined = jax.tree.map(lambda g, p: g.astype(jnp.result_type(p)), combined, params)
        return combined, state

    start = init or (lambda params: optax.EmptyState())
    return Aggregator(start, update, name, takes_batch_gradient)


def refuse_batch_gradient(gradients: Any, params: Any, name: str) -> None:
    """Raise a `ValueError` where every leaf has its parameter's shape (`params` may be `None`)."""
    if params is not None and _is_batch_gradient(gradients, params, name):
        raise ValueError(
            f"{name} needs per-example gradients, got a batch gradient (every leaf has its "
            "parameter's shape). Make them with "
            "coherence.per_example_value_and_grad(loss), loss taking ONE example."
        )


def averaged(
    transformation: optax.GradientTransformation,
    name: str,
    combine: Callable[[Any], Any] = mean,
) -> Aggregator:
    """An `Aggregator`: the mean over examples, then an optax transformation of one gradient.

    It takes batch gradients too: they are averaged already. `combine` takes the place of the mean
    where the transformation needs less of it, such as its sign.

    >>> sign = averaged(optax.scale_by_sign(), "sign()")
    >>> sign.update(jnp.array([[1.0, -3.0], [1.0, 1.0]]), sign.init(None))[0]
    Array([ 1., -1.], dtype=float32)
    """
    first = aggregator(combine, name, takes_batch_gradient=True)
    both = optax.with_extra_args_support(optax.chain(first, transformation))
    return Aggregator(both.init, both.update, name, takes_batch_gradient=True)


def chain(aggregator: Aggregator, *rest: optax.GradientTransformation) -> Aggregator:
    """`optax.chain` that begins with an aggregator: from per-example gradients to updates.

    Refuses anything in front of the aggregator, which would map over factors (scaling both sides of
    a product by 2 scales it by 4), a second aggregator behind it, which would get one gradient
    instead of many, anything behind `soft_threshold`, which would move its exact zeros, and weight
    decay behind the learning rate, which would make weights grow: also within chains of optax's, if
    it can be tried on one weight. To accumulate steps, do so after the aggregation:
    `chain(winsorize(2), optax.MultiSteps(optax.sgd(0.1), 4).gradient_transformation())`.

    >>> from coherence.optim import median
    >>> tx = chain(median(), optax.sgd(0.1))
    >>> tx.update(jnp.array([[0.0], [1.0], [50.0]]), tx.init(jnp.zeros(1)))[0]
    Array([-0.1], dtype=float32)
    """
    if not isinstance(aggregator, Aggregator):
        raise TypeError(
            "chain(aggregator, *rest) starts with an aggregator such as average(), winsorize(2) "
            f"or median(), got {_describe(aggregator)}. What comes before it would act on "
            "factors, not on gradients: put it behind, or start with average()."
        )
    for place, transformation in enumerate(rest, 2):
        if isinstance(transformation, Aggregator):
            raise TypeError(
                f"chain: argument {place} is a second aggregator, but the first leaves one "
                "gradient and no examples to aggregate. Keep one. For one a layer see "
                "docs/optimizers.md."
            )
        if isinstance(transformation, Last) and place <= len(rest):
            raise TypeError(
                f"chain: argument {place} of {len(rest) + 1} is a soft_threshold, which goes last: "
                "what comes behind it would move its exact zeros. Put it at the end, behind the "
                "learning rate."
            )
    behind = (*aggregator.rest, *rest)
    if turns_away(behind):
        raise ValueError(
            "chain: weight decay behind the learning rate makes weights grow, for what comes there "
            "is added as it is. Put l1_decay, l2_decay or optax.add_decayed_weights in front of "
            "the optimizer: chain(average(), l2_decay(1e-4), optax.sgd(0.1))."
        )
    whole = optax.with_extra_args_support(optax.chain(aggregator, *rest))
    name = f"chain({aggregator.name}, ...)" if rest else f"chain({aggregator.name})"
    return Aggregator(whole.init, whole.update, name, aggregator.takes_batch_gradient, behind)


def _is_batch_gradient(gradients: Any, params: Any, name: str) -> bool:
    """Whether every leaf has its parameter's shape, rather than one axis more."""
    leaves, treedef = jax.tree.flatten_with_path(gradients, is_leaf=is_node)
    expected: Any = jax.tree.structure(params)
    if expected != treedef:
        raise ValueError(
            f"{name}: gradients and params differ in structure: {treedef} and {expected}."
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
                "Per-example gradients have the parameter's shape behind one leading axis of m "
                "examples."
            )
        batch.append(whole)
    if any(batch) and not all(batch):
        first = leaf_name(leaves[batch.index(True)][0])
        raise ValueError(
            f"{name}: leaf {first} has its parameter's shape, others have one more axis. "
            "Give per-example gradients for all leaves."
        )
    return bool(batch) and batch[0]


def _describe(x):
    if isinstance(x, optax.GradientTransformation):
        return "an optax transformation that takes one gradient"
    return type(x).__name__

"""`chain`: an aggregator and what follows it."""

import optax

from .aggregation import Aggregator
from .decay import Last


def chain(aggregator: Aggregator, *rest: optax.GradientTransformation) -> Aggregator:
    """`optax.chain` that begins with an aggregator: per-example gradients go in, parameter updates come out.

    Refuses anything in front of the aggregator, which would map over factors (scaling both sides of
    a product by 2 scales it by 4), a second aggregator behind it, which would get one gradient
    instead of many, and anything behind `soft_threshold`, which would move its exact zeros. To
    accumulate steps, do so after the aggregation: `chain(winsorize(2),
    optax.MultiSteps(optax.sgd(0.1), 4).gradient_transformation())`.

    >>> import jax.numpy as jnp
    >>> from coherence.optim import median
    >>> tx = chain(median(), optax.sgd(0.1))
    >>> tx.update(jnp.array([[0.0], [1.0], [50.0]]), tx.init(jnp.zeros(1)))[0]
    Array([-0.1], dtype=float32)
    """
    if not isinstance(aggregator, Aggregator):
        raise TypeError(
            f"chain(aggregator, *rest) starts with an aggregator such as average(), winsorize(2) or median(), got {_describe(aggregator)}. "
            "What comes before it would act on factors, not on gradients: put it behind, or start with average()."
        )
    for place, one in enumerate(rest, 2):
        if isinstance(one, Aggregator):
            raise TypeError(
                f"chain: argument {place} is a second aggregator, but the first leaves one gradient and no examples to aggregate. Keep one."
            )
        if isinstance(one, Last) and place <= len(rest):
            raise TypeError(
                f"chain: argument {place} of {len(rest) + 1} is a soft_threshold, which goes last: what comes behind it would move its "
                "exact zeros. Put it at the end, behind the learning rate."
            )
    whole = optax.with_extra_args_support(optax.chain(aggregator, *rest))
    name = f"chain({aggregator.name}, ...)" if rest else f"chain({aggregator.name})"
    return Aggregator(whole.init, whole.update, name, aggregator.takes_batch_gradient)


def _describe(x):
    return (
        "an optax transformation that takes one gradient"
        if isinstance(x, optax.GradientTransformation)
        else f"{type(x).__name__}"
    )

"""`check_aggregator`: what every aggregator must do, and the properties of this one."""

import operator
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
import optax

from coherence.trees import PyTree

from . import example_gradients
from .distances import examples, worst
from .properties import Property
from .reports import AggregatorCheck, Finding
from .requirements import REQUIREMENTS, TOLERANCE, Broken, Run, agreed


def leafwise(function: Callable[[np.ndarray], Any]) -> Callable[[PyTree], PyTree]:
    """A reference for trees from one for a single leaf, [m, ...] -> [...]: each leaf by itself.

    >>> leafwise(lambda leaf: leaf.mean(0))({"w": np.array([1.0, 3.0]), "b": np.array([0.0, 1.0])})
    {'b': np.float64(0.5), 'w': np.float64(2.0)}
    """
    return lambda gradients: jax.tree.map(function, gradients)


def check_aggregator(
    tx: optax.GradientTransformation,
    *,
    properties: Iterable[Property] = (),
    twin: Callable[[PyTree], PyTree] | None = None,
    steps: int = 1,
) -> AggregatorCheck:
    """Whether a method works like the other aggregators, is what it says, and has its properties.

    Asked of every method: updates have the parameters' structure, shapes and dtypes; the state is
    arrays that keep theirs; a jitted step is traced once; `**extra` arguments are let through;
    `chain` takes it, before optax's SGD and Adam; gradients as factors (one vector, a sequence), as
    rows and recomputed give the same update as plain arrays; masked examples do not count.

    Properties and twin are tried on plain gradients of 20 and of 21 examples: what rounds ranks
    often differs for odd and even m. Everything runs in float32, and takes seconds.

    Methods with a memory: each comparison starts from a fresh state and feeds the same gradients
    `steps` times, then looks at the last update. A window is full after as many steps as it is
    long, and then sees one gradient in all its places; what it does with different ones is a matter
    for a test of its own.

    Args:
        tx: the method, such as `winsorize(2)`; or a `chain`.
        properties: functions `(aggregate, gradients) -> violation`, from
            `coherence.checks.properties` or your own.
        twin: the definition again, as slow and plain as possible: from a tree of float64 numpy
            arrays [m, ...] to one gradient. Wrap one that looks at each leaf alone in `leafwise`.
        steps: how often the same gradients are fed before the update counts.

    Returns:
        An `AggregatorCheck`: prints as a table; `.ok`, `.problems`, `.findings`.

    Raises:
        TypeError: `tx` is no optax transformation.
        ValueError: `steps` < 1.

    >>> from coherence.checks import properties
    >>> from coherence.optim import median
    >>> kept = [properties.odd, properties.breakdown(0.5)]
    >>> twin = leafwise(lambda g: np.median(g, 0))
    >>> check = check_aggregator(median(), properties=kept, twin=twin)
    >>> check.ok
    True
    """
    if not isinstance(tx, optax.GradientTransformation):
        raise TypeError(
            "check_aggregator(tx): an optax transformation such as median(), got "
            f"{type(tx).__name__}. Did you call it?"
        )
    steps = operator.index(steps)
    if steps < 1:
        raise ValueError(
            f"check_aggregator(steps): the gradients are fed at least once, got {steps}."
        )
    run, gradients = Run(tx, steps), [example_gradients.plain(m) for m in (20, 21)]
    findings = [_finding(rule.__name__.replace("_", " "), rule, run) for rule in REQUIREMENTS]
    if twin is not None:
        findings.append(
            _finding("its twin agrees", lambda g: _twin_agrees(run, twin, g), *gradients)
        )
    for violation in properties:
        name = getattr(violation, "__name__", repr(violation))
        findings.append(
            _finding(
                f"property: {name}",
                lambda g, violation=violation: _holds(run, violation, g),
                *gradients,
            )
        )
    return AggregatorCheck(tuple(findings), TOLERANCE)


def _finding(name, check, *subjects):
    """The worst of the check's differences, or the first problem."""
    try:
        differences = [check(subject) for subject in subjects]
    except Broken as broken:
        return Finding(name, broken.difference, str(broken))
    except Exception as error:  # the user's code: the other checks still say something
        return Finding(name, None, f"{type(error).__name__}: {error}")
    return Finding(name, None if None in differences else worst(differences), "")


def _twin_agrees(run, twin, gradients):
    expected = twin(jax.tree.map(lambda x: np.asarray(x, np.float64), gradients))
    return agreed(
        run(gradients), expected, gradients, f"of {examples(gradients)} examples, it differs"
    )


def _holds(run, violation, gradients):
    size = float(violation(run, gradients))
    if not size <= TOLERANCE:  # nan is wrong too
        what = (violation.__doc__ or "").strip().split("\n")[0]
        raise Broken(
            f"violated by {size:.1e} ({examples(gradients)} examples). {what}".rstrip(),
            size,
        )
    return size

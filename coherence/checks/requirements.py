"""The requirements of every aggregator, one function each.

`requirement(run) -> difference`, or `None` where nothing is measured; raises `Broken` if not done.
"""

import collections
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from coherence.gradients.factors import is_node
from coherence.optim import chain
from coherence.trees import leaf as leaf_name

from . import example_gradients
from .distances import differences, largest, worst

TOLERANCE = (
    float(jnp.finfo(jnp.float32).eps) ** 0.5
)  # rounding stays below it, another definition does not
# of the largest entry of any leaf: below it differences count as rounding of the others, not of
# the leaf's own
_SMALL = 1e-2
_LEARNING_RATE = 0.1


class Broken(Exception):
    """What is wrong, and the difference that shows it, if any."""

    def __init__(self, problem, difference=None):
        super().__init__(problem)
        self.difference = difference


class Run:
    """The method under test.

    Called with gradients it gives the last of `steps` updates from a fresh state.

    `traces` counts how often the jitted update was traced for gradients of the same shapes.
    """

    def __init__(self, tx, steps):
        self.tx, self.steps = tx, steps
        self.traces: collections.Counter[Any] = collections.Counter()

        def update(gradients, state, params):
            self.traces[_key(gradients)] += 1
            return tx.update(gradients, state, params)

        self._update = jax.jit(update)

    def __call__(self, gradients, params=None, steps=None):
        params = example_gradients.parameters(gradients) if params is None else params
        state = self.tx.init(params)
        for _ in range(steps or self.steps):
            updates, state = self._update(gradients, state, params)
        return updates


def updates_are_like_the_parameters(run):
    gradients, params = _mixed()
    updates, _ = jax.eval_shape(run.tx.update, gradients, run.tx.init(params), params)
    _alike(updates, params, "update", "its parameter is")


def state_is_arrays_that_keep_their_shape(run):
    gradients, params = _mixed()
    state = run.tx.init(params)
    for path, leaf in jax.tree.leaves_with_path(state):
        if not isinstance(leaf, jax.Array | np.ndarray):
            raise Broken(
                f"leaf {leaf_name(path)} of init's state is of type {type(leaf).__name__}: make "
                "it an array, such as jnp.zeros(())"
            )
    _alike(
        jax.eval_shape(run.tx.update, gradients, state, params)[1],
        state,
        "after a step, state",
        "before it was",
    )


def a_step_is_traced_once(run):
    gradients, steps = example_gradients.plain(20), 3
    run(gradients, steps=steps)
    if (traces := run.traces[_key(gradients)]) != 1:
        raise Broken(
            f"{traces} traces of steps whose gradients have the same shapes. What in the state "
            "changes its dtype or structure?"
        )


def extra_arguments_are_let_through(run):
    gradients, params = _mixed()
    try:
        jax.eval_shape(
            lambda g: run.tx.update(g, run.tx.init(params), params, value=1.0, anything=2.0),
            gradients,
        )
    except TypeError as error:
        raise Broken(
            f"update(gradients, state, params, value=1.0) fails: {error}. Give update an "
            "argument **extra"
        ) from error


def chains_with_sgd_and_adam(run):
    gradients = example_gradients.plain(20)
    params = example_gradients.parameters(gradients)
    adam = chain(run.tx, optax.adam(_LEARNING_RATE))
    updates, _ = jax.eval_shape(adam.update, gradients, adam.init(params), params)
    _alike(updates, params, "update of Adam behind it", "its parameter is")
    stepped = Run(chain(run.tx, optax.sgd(_LEARNING_RATE)), run.steps)(gradients)
    expected = jax.tree.map(lambda u: -_LEARNING_RATE * np.asarray(u), run(gradients))
    return agreed(
        stepped,
        expected,
        gradients,
        "SGD behind it makes other steps than -learning_rate times its updates",
    )


def factors_rows_and_plain_arrays_agree(run):
    real = example_gradients.real()
    given = [f"{name} is {type(node).__name__}" for name, node in real.nodes.items()]
    expected = run(real.rows, real.params)
    return agreed(
        run(real.nodes, real.params),
        expected,
        real.rows,
        f"another update than of plain arrays ({', '.join(given)})",
    )


def masked_examples_do_not_count(run):
    real = example_gradients.real()
    message = (
        f"another update than without them ({real.masked['bias'].m} examples, "
        f"{len(real.present['bias'])} left)"
    )
    return agreed(run(real.masked, real.params), run(real.present, real.params), real.rows, message)


REQUIREMENTS = (
    updates_are_like_the_parameters,
    state_is_arrays_that_keep_their_shape,
    a_step_is_traced_once,
    extra_arguments_are_let_through,
    chains_with_sgd_and_adam,
    factors_rows_and_plain_arrays_agree,
    masked_examples_do_not_count,
)


def agreed(result, expected, gradients, message):
    """The largest difference of any leaf; `Broken` with the message if it is more than rounding.

    Relative to the leaf's largest entry expected; where that is next to nothing, to a share of the
    largest of all leaves.
    """
    _alike(result, jax.tree.map(np.asarray, expected), "result", "expected is", dtypes=False)
    floor = _SMALL * (largest(expected) or largest(gradients))
    names = [leaf_name(path) for path, _ in jax.tree.leaves_with_path(result)]
    pairs = zip(jax.tree.leaves(differences(result, expected)), jax.tree.leaves(expected))
    relative = {
        name: largest(wrong) / max(largest(other), floor)
        for name, (wrong, other) in zip(names, pairs)
    }
    difference = worst(relative.values())
    if not difference <= TOLERANCE:  # nan is wrong too
        wrong = [f"{name} by {d:.1e}" for name, d in relative.items() if not d <= TOLERANCE]
        raise Broken(f"{message}: {', '.join(wrong)} (allowed: {TOLERANCE:.1e})", difference)
    return difference


def _mixed():
    """Gradients and parameters, both of which are float32 in one leaf and bfloat16 in the next."""
    gradients = example_gradients.plain(20)
    params = example_gradients.parameters(gradients, (jnp.float32, jnp.bfloat16))
    return jax.tree.map(lambda g, p: np.asarray(g).astype(p.dtype), gradients, params), params


def _alike(got, wanted, what, but, dtypes=True):
    """The same structure and shapes, and dtypes if they matter."""
    structures: list[Any] = [jax.tree.structure(tree) for tree in (got, wanted)]
    if structures[0] != structures[1]:
        raise Broken(f"{what} is {structures[0]}, but {but} {structures[1]}")
    for (path, x), other in zip(jax.tree.leaves_with_path(got), jax.tree.leaves(wanted)):
        if x.shape != other.shape or (dtypes and x.dtype != other.dtype):
            raise Broken(
                f"{what} {leaf_name(path)} is {x.dtype}{list(x.shape)}, but {but} "
                f"{other.dtype}{list(other.shape)}"
            )


def _key(gradients):
    leaves, treedef = jax.tree.flatten(gradients, is_leaf=is_node)
    kind = lambda x: type(x) if is_node(x) else jax.Array  # inside jit they are tracers
    return treedef, tuple((kind(x), x.shape, jnp.result_type(x.dtype)) for x in leaves)

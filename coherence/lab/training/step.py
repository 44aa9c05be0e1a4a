"""One training step, many of them in one compiled call, and the programs that runs share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding

from coherence.gradients.jax_internals import contains
from coherence.gradients.placement import divided, everywhere
from coherence.gradients.reductions import mean
from coherence.gradients.transform import per_example_value_and_grad
from coherence.metrics.coherence import moments

from .devices import Placement
from .order import batches
from .problem import Problem, Recipe
from .programs import PROGRAMS

FlatAxes = tuple[Any, tuple[int | None, ...]]
TRACKED = ("loss", "squared_norm_of_mean", "mean_squared_norm")
CHUNK = 200  # most steps between two looks of the host


def make_step(recipe: Recipe, placement: Placement | None = None) -> Callable:
    """`(state, examples, indices [b]) -> (state, tracked [3])`: one optimizer step.

    The batch is the examples at `indices`, all of them for `None`. What is tracked of it is
    `TRACKED`; the norms are nan unless batches are tracked. With noise every example ends with a
    key of its own, a function of the noise's key, the step and the place in the batch, or with the
    chain that this key has moved.

    Args:
        recipe: a `Problem`'s (`Problem.recipe`).
        placement: where the state lies, `None` for a single device.
    """

    def step(state, examples, indices):
        batch = examples
        if indices is not None:
            batch = jax.tree.map(lambda x: x[indices], examples)
        if recipe.draws:
            key, done = state["noise"]
            examples_in_batch = jax.tree.leaves(batch)[0].shape[0]
            last = jax.random.split(jax.random.fold_in(key, done), examples_in_batch)
            state = {**state, "noise": (key, done + 1)}
            if recipe.move is not None:
                move = jax.vmap(recipe.move, (None, 0, 0))
                last = move(state["params"], *divided((state["chains"], last)))
                state = {**state, "chains": last}
            batch = (*batch, last)
        batch = divided(batch)
        loss, gradients, norms = _gradients(recipe, state["params"], batch)
        updates, opt_state = recipe.update(gradients, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        tracked = jnp.stack([loss, *norms]).astype(jnp.float32)
        state = {**state, "params": params, "opt_state": opt_state}
        return state if placement is None else placement.constrain(state), everywhere(tracked)

    return step


def _gradients(recipe, params, batch):
    if not (recipe.per_example or recipe.track_batches):
        mean_loss = lambda p: jnp.mean(jax.vmap(recipe.loss, (None, 0))(p, batch))
        return *jax.value_and_grad(mean_loss)(params), (jnp.nan, jnp.nan)
    losses, gradients = per_example_value_and_grad(recipe.loss)(params, batch)
    norms = moments(gradients)[:2] if recipe.track_batches else (jnp.nan, jnp.nan)
    return jnp.mean(losses), gradients if recipe.per_example else mean(gradients), norms


def make_advance(step: Callable, length: int, whole: bool = False) -> Callable:
    """`(state, examples, indices [length, b], n) -> (state, tracked [length, 3])`: n steps.

    Where `indices` is `None`, the examples are [length, b, ...], a batch each step. n is at most
    `length` and dynamic, so that one program serves chunks of any length; `whole` takes n to be
    `length`. With `length` 1 there is no loop:
    on CPU, XLA computes a convolution's gradient inside a loop body some forty times slower than
    outside (jax issue 12868).
    """

    def at(i, examples, indices):
        if indices is None:
            return jax.tree.map(lambda x: x[i], examples), None
        return examples, indices[i]

    def advance(state, examples, indices, n):
        if length == 1:
            state, tracked = step(state, *at(0, examples, indices))
            return state, tracked[None]

        def body(i, carry):
            state, history = carry
            state, tracked = step(state, *at(i, examples, indices))
            return state, history.at[i].set(tracked)

        history = jnp.full((length, len(TRACKED)), jnp.nan, jnp.float32)
        return jax.lax.fori_loop(0, length if whole else n, body, (state, history))

    return advance


def initial_state(problem: Problem) -> dict[str, Any]:
    """The state that a run starts with: copies, since the state is donated and no problem is."""
    state = {"params": problem.params, "opt_state": problem.optimizer.init(problem.params)}
    if problem.stopping is not None:
        state["stopping"] = problem.stopping[0].init(problem.params)
    if problem.noise is not None:
        state["noise"] = (problem.noise, jnp.int32(0))
    if problem.chains is not None:
        state["chains"] = problem.chains[0]
    return jax.tree.map(lambda x: jnp.array(x, copy=True), state)


class Steps:
    """The compiled steps of problems that differ in values alone, traced once for each shape.

    Args:
        recipe: the problems'.
        axes: of seeds computed side by side, which leaves of `data["train"]` are stacked: a tree of
            0 and `None` (shared), flattened by `flat_axes`; `None` for a single seed.
        placement: where states lie in the mesh in which they run (`jax.set_mesh`), `None` for a
            single device.
    """

    def __init__(
        self, recipe: Recipe, axes: FlatAxes | None = None, placement: Placement | None = None
    ):
        self.axes, self.placement = axes, placement
        self.step = jax.jit(make_step(recipe, placement))
        self._advances: dict[tuple[int, bool], Callable] = {}

    def chunk(self, state: Any, examples: Any, batch_size: int) -> int:
        """Steps a call: 1 where a loop would be slow, with a convolution on CPU."""
        if jax.default_backend() != "cpu":
            return CHUNK
        indices = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
        jaxpr = self.step.trace(state, examples, indices).jaxpr
        return 1 if contains(jaxpr.jaxpr, "conv_general_dilated") else CHUNK

    def advance(self, length: int, whole: bool = False) -> Any:
        """`make_advance` of the step, compiled; the state is donated.

        On CPU whole chunks have no program of their own. Elsewhere they do: where the device
        decides how many steps there are, the host waits for its answer after each of them.
        """
        whole = whole and jax.default_backend() != "cpu"
        if (length, whole) not in self._advances:
            advance = make_advance(self.step, length, whole)
            if self.axes is not None:
                advance = _each_seed(advance, (0, tree_of(self.axes), 0, None), self.placement)
            self._advances[length, whole] = jax.jit(
                advance, donate_argnums=0, out_shardings=(None, _whole(self.placement))
            )
        return self._advances[length, whole]


def compiled_measure(
    measure: Callable, axes: FlatAxes | None = None, placement: Placement | None = None
) -> Any:
    """A problem's `measure`, compiled; the rest as for `Steps`, `axes` of all the data."""
    if axes is not None:
        measure = _each_seed(measure, (0, tree_of(axes)), placement)
    return jax.jit(measure, out_shardings=_whole(placement))


def _each_seed(function: Callable, axes: Any, placement: Placement | None) -> Callable:
    """The function of seeds side by side, which a placement may divide among devices."""
    if placement is None or not placement.seeds:
        return jax.vmap(function, axes)
    return jax.vmap(function, axes, spmd_axis_name=placement.seeds)


def _whole(placement: Placement | None) -> NamedSharding | None:
    return None if placement is None else placement.sharding()


def snapshots(
    problem: Problem, seed: int, schedule: Iterable[int], batch_size: int
) -> Iterator[tuple[int, Any]]:
    """`(step, params)` at each step of a schedule, trained as `train` does; nothing is recorded.

    `seed` orders the batches. For measurements that are too large for a run's records.
    """
    advance = PROGRAMS.get(Steps, problem.recipe).advance(CHUNK)
    state, examples = initial_state(problem), jax.device_put(problem.data["train"])
    size = {"examples": len(jax.tree.leaves(examples)[0]), "batch_size": batch_size}
    position = 0
    for goal in schedule:
        while position < goal:
            stop = min(goal, position + CHUNK)
            indices = np.zeros((CHUNK, batch_size), np.int32)
            indices[: stop - position] = batches(seed, position, stop, **size)
            state, _ = advance(state, examples, indices, stop - position)
            position = stop
        yield goal, jax.tree.map(lambda x: jnp.array(x, copy=True), state["params"])


def flat_axes(axes: Any) -> FlatAxes:
    """A tree of 0 and `None` as something that can be compared: its structure and its leaves."""
    leaves, treedef = jax.tree.flatten(axes, is_leaf=lambda x: x is None)
    return treedef, tuple(leaves)


def tree_of(axes: FlatAxes) -> Any:
    treedef, leaves = axes
    return jax.tree.unflatten(treedef, leaves)

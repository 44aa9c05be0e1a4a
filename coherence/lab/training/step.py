"""One training step, and many of them in one compiled call."""

import jax
import jax.numpy as jnp
import optax

from coherence.gradients.reductions import mean
from coherence.gradients.transform import per_example_value_and_grad
from coherence.jax_internals import contains
from coherence.metrics.coherence import moments

TRACKED = ("loss", "squared_norm_of_mean", "mean_squared_norm")


def make_step(problem):
    """`(state, data, indices [b]) -> (state, tracked [3])`: one optimizer step on the examples at `indices`.

    What is tracked of the batch is `TRACKED`; the norms are nan unless the problem tracks batches.
    With noise every example ends with a key of its own, a function of the noise's key, the step and
    the place in the batch.
    """

    def step(state, data, indices):
        batch = jax.tree.map(lambda x: x[indices], data["train"])
        if problem.noise is not None:
            key, done = state["noise"]
            batch = (*batch, jax.random.split(jax.random.fold_in(key, done), len(indices)))
            state = {**state, "noise": (key, done + 1)}
        loss, gradients, norms = _gradients(problem, state["params"], batch)
        updates, opt_state = problem.optimizer.update(
            gradients, state["opt_state"], state["params"]
        )
        params = optax.apply_updates(state["params"], updates)
        return {**state, "params": params, "opt_state": opt_state}, jnp.stack(
            [loss, *norms]
        ).astype(jnp.float32)

    return step


def _gradients(problem, params, batch):
    if not (problem.per_example or problem.track_batches):
        mean_loss = lambda p: jnp.mean(jax.vmap(problem.loss, (None, 0))(p, batch))
        return *jax.value_and_grad(mean_loss)(params), (jnp.nan, jnp.nan)
    losses, gradients = per_example_value_and_grad(problem.loss)(params, batch)
    norms = moments(gradients)[:2] if problem.track_batches else (jnp.nan, jnp.nan)
    return jnp.mean(losses), gradients if problem.per_example else mean(gradients), norms


def make_advance(step, length):
    """`(state, data, indices [length, b], n) -> (state, tracked [length, 3])`: n <= length steps.

    n is dynamic, so that one program serves chunks of any length. With `length` 1 there is no loop:
    on CPU, XLA computes a convolution's gradient inside a loop body some forty times slower than
    outside (jax issue 12868).
    """

    def advance(state, data, indices, n):
        if length == 1:
            state, tracked = step(state, data, indices[0])
            return state, tracked[None]

        def body(i, carry):
            state, tracked = carry
            state, one = step(state, data, indices[i])
            return state, tracked.at[i].set(one)

        return jax.lax.fori_loop(
            0, n, body, (state, jnp.full((length, len(TRACKED)), jnp.nan, jnp.float32))
        )

    return advance


def convolves(step, *args):
    """Whether the step contains a convolution."""
    return contains(jax.make_jaxpr(step)(*args).jaxpr, "conv_general_dilated")

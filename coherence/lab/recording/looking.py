"""What a recorder reads of parameters and gradients, as compiled programs; imports JAX."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from coherence.probes.histograms import histogram


@jax.jit
def copy(tree: Any) -> Any:
    """The same arrays in memory of their own."""
    return jax.tree.map(jnp.copy, tree)


@jax.jit
def distance(a: Any, b: Any) -> jax.Array:
    """The Euclidean distance of two trees."""
    return _norm(jax.tree.map(lambda x, y: _wide(x) - _wide(y), a, b))


@jax.jit
def look(params: Any, start: Any, gradients: Any) -> dict[str, Any]:
    """Distance from the start, norm of the gradients, histograms; of what is `None` nothing."""
    seen: dict[str, Any] = {}
    if params is not None:
        seen["distance_from_start"] = distance(params, start)
        seen |= _named("parameter_histogram", params)
    if gradients is not None:
        seen["gradient_norm"] = _norm(gradients)
        seen |= _named("gradient_histogram", gradients)
    return seen


def _named(name: str, tree: Any) -> dict[str, Any]:
    spread = histogram(tree)
    return {f"{name}_counts": spread.counts, f"{name}_limit": spread.limit}


def _wide(x: Any) -> jax.Array:
    return jnp.asarray(x).astype(jnp.promote_types(jnp.result_type(x), jnp.float32))


def _norm(tree: Any) -> jax.Array:
    squares = [jnp.sum(jnp.square(jnp.abs(_wide(leaf)))) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(sum(squares, jnp.float32(0)))

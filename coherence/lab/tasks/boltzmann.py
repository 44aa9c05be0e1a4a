r"""Restricted Boltzmann machines: contrastive divergence as a loss, and what a machine says.

The log-likelihood of a state is :math:`\log p(v) = -F(v) - \log Z`, and its gradient

.. math:: -\nabla \log p(v) = \nabla F(v) - E_{v' \sim p} \nabla F(v')

a positive phase of the data and a negative phase of the machine's own draws. Contrastive divergence
takes one v' for each example, from k sweeps of Gibbs sampling: begun at the example (CD-k), or at a
chain that goes on through all of training (persistent). With v' held fixed this is the gradient of
a loss of one example, F(v) - F(v'): its value is no measure of fit and has no lower bound. `model`
is everywhere an `RBM`.

Hinton (2002); Tieleman, Training restricted Boltzmann machines using approximations to the
likelihood gradient (2008).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ENUMERABLE = 20
"""Most units whose joint states are enumerated: a million states."""


def contrastive_divergence(model: Any, k: int = 1) -> Callable[[Any, tuple], jax.Array]:
    r"""The loss of one example `(x, key)`, or `(x, y, key)` of a machine with classes.

    .. math:: \ell = F(v) - F(\mathrm{stop}(v_k))

    with :math:`v_k` from k sweeps that begin at v = [x, one-hot y]. The key is what they are drawn
    from. The terms alone: `phases`.
    """
    both = phases(model, k)

    def loss(params, example):
        positive, negative = both(params, example)
        return positive - negative

    return loss


def phases(model: Any, k: int = 1) -> Callable[[Any, tuple], tuple[jax.Array, jax.Array]]:
    """`(params, example) -> (F(v), F(v_k))`, v_k held fixed; see `contrastive_divergence`."""
    sweep = sweeps(model, k)

    def both(params, example):
        x, *labels, key = example
        v = model.joined(x, *labels)
        drawn = sweep(jax.lax.stop_gradient(params), v, key)
        free = _ask(model, "free_energy", params, jnp.stack([v, drawn]))
        return free[0], free[1]

    return both


def against_chain(model: Any) -> Callable[[Any, tuple], jax.Array]:
    """F(v) - F(v') of one example `(x, v')` or `(x, y, v')`: v' a state that somebody drew."""

    def loss(params, example):
        x, *labels, drawn = example
        states = jnp.stack([model.joined(x, *labels), drawn])
        free = _ask(model, "free_energy", params, states)
        return free[0] - free[1]

    return loss


def sweeps(
    model: Any, k: int = 1, *, clamped: bool = False
) -> Callable[[Any, jax.Array, jax.Array], jax.Array]:
    """`(params, v, key) -> v` after k sweeps of Gibbs sampling; `clamped`: the label stays.

    Raises:
        ValueError: k below 1, or labels to clamp in a machine without.
    """
    if k < 1:
        raise ValueError(f"contrastive divergence (k): at least 1 sweep of sampling, got {k}.")
    if clamped and not model.classes:
        raise ValueError("clamped: the machine has no label to hold; give it classes=10.")

    def one(params, v, key):
        return model.apply(params, v, key, clamped=clamped, method="gibbs")

    if k == 1:
        return one

    def many(params, v, key):
        each = lambda v, key: (one(params, v, key), None)
        return jax.lax.scan(each, v, jax.random.split(key, k))[0]

    return many


def conditional_draws(model: Any, k: int = 500) -> Callable[[Any, Any, jax.Array], jax.Array]:
    """`(params, labels [m], key) -> x [m, visible]`: zeros and ones drawn from p(x | y).

    By k sweeps with the label held, from even chances. Compiled; labels are integers below
    `classes`.
    """
    sweep = sweeps(model, k, clamped=True)

    @jax.jit
    def states(params, labels, key):
        def single(y, key):
            start, rest = jax.random.split(key)
            x = jax.random.bernoulli(start, 0.5, (model.visible,)).astype(jnp.float32)
            return sweep(params, model.joined(x, y), rest)[: model.visible]

        return jax.vmap(single)(labels, jax.random.split(key, len(labels)))

    def draws(params, labels, key):
        labels = np.asarray(labels)
        outside = labels[(labels < 0) | (labels >= model.classes)]
        if outside.size:
            raise ValueError(
                f"conditional_draws(labels): from 0 to {model.classes - 1}, got {outside[0]}."
            )
        return states(params, labels, key)

    return draws


def log_pseudo_likelihood(model: Any) -> Callable[[Any, jax.Array], jax.Array]:
    r"""`(params, v) -> sum of log p(v_i | all others)` (nats) over the binary units of one state.

    .. math:: \sum_i \log \sigma(F(\tilde v_i) - F(v))

    with :math:`\tilde v_i` v with unit i flipped: exact, where scikit-learn's
    `BernoulliRBM.score_samples` flips one unit at random and multiplies by their number. The label
    counts as one unit: log p(y | x).
    """

    def total(params, v):
        weights = params["params"]
        x = v[: model.visible]
        logits = _ask(model, "hidden_logits", params, v)
        change = (1 - 2 * x)[:, None]  # what flipping adds to a unit
        flipped = jnp.sum(jax.nn.softplus(logits + change * weights["kernel"]), -1)
        rise = jnp.sum(jax.nn.softplus(logits)) - flipped - change[:, 0] * weights["bias"]
        pixels = jnp.sum(jax.nn.log_sigmoid(rise))
        if not model.classes:
            return pixels
        scores = jax.nn.log_softmax(_ask(model, "label_logits", params, x))
        return pixels + scores @ v[model.visible :]

    return total


def log_partition(model: Any) -> Callable[[Any], jax.Array]:
    """`params -> log Z` (nats), exactly: a sum over all states of the hidden units.

    Raises:
        ValueError: more than 20 hidden units.
    """
    if model.hidden > ENUMERABLE:
        raise ValueError(
            f"log_partition: 2^{model.hidden} states of {model.hidden} hidden units are too many "
            f"to enumerate, at most {ENUMERABLE}. Estimate it: annealed_log_partition."
        )
    low = min(model.hidden, 12)  # states that are looked at together: 2^12

    def states(numbers, units):
        return ((numbers[:, None] >> jnp.arange(units)) & 1).astype(jnp.float32)

    def log_z(params):
        inner = states(jnp.arange(2**low), low)

        def some(outer):
            h = jnp.concatenate([inner, jnp.broadcast_to(outer, (len(inner), outer.size))], 1)
            return jax.nn.logsumexp(_log_weight(model, params, h))

        outer = states(jnp.arange(2 ** (model.hidden - low)), model.hidden - low)
        return jax.nn.logsumexp(jax.lax.map(some, outer))

    return log_z


def log_likelihood(model: Any) -> Callable[[Any, jax.Array], jax.Array]:
    """`(params, states [m, ...]) -> mean log p(v)` (nats), exactly; differentiable.

    For machines of at most 20 hidden units.
    """
    log_z = log_partition(model)
    return lambda params, v: -jnp.mean(_ask(model, "free_energy", params, v)) - log_z(params)


def annealed_log_partition(
    model: Any, *, temperatures: int = 1000, chains: int = 100
) -> Callable[[Any, jax.Array], jax.Array]:
    r"""`(params, key) -> log Z` (nats), estimated by annealed importance sampling.

    From the machine without weights, whose hidden units are independent and whose Z is known, to
    the whole one: W grows as :math:`\beta W`, evenly, and a chain makes one sweep at each
    :math:`\beta`. The mean of the chains' weights is unbiased for Z; so log Z comes out too low
    rather than too high, by less the more temperatures there are.

    Salakhutdinov & Murray, On the quantitative analysis of deep belief networks (2008).
    """
    if temperatures < 1 or chains < 1:
        raise ValueError(
            "annealed_log_partition: temperatures and chains are at least 1, got "
            f"temperatures={temperatures}, chains={chains}."
        )
    sweep = sweeps(model)
    kernels = ("kernel", "label_kernel")

    def heated(params, beta):
        inner = params["params"]
        scaled = {name: inner[name] * (beta if name in kernels else 1) for name in inner}
        return {"params": scaled}

    def log_weight(params, key):
        """Of one chain: the sum of log p*_(next beta)(v) - log p*_beta(v)."""
        first, rest = jax.random.split(key)
        blank = jnp.zeros(model.visible + model.classes)
        start = sweep(heated(params, 0.0), blank, first)  # without weights exact

        def step(carry, i):
            v, total = carry
            free = lambda beta: _ask(model, "free_energy", heated(params, beta), v)
            total += free(i / temperatures) - free((i + 1) / temperatures)
            v = sweep(heated(params, (i + 1) / temperatures), v, jax.random.fold_in(rest, i))
            return (v, total), None

        return jax.lax.scan(step, (start, 0.0), jnp.arange(temperatures))[0][1]

    def log_z(params, key):
        weights = jax.vmap(log_weight, (None, 0))(params, jax.random.split(key, chains))
        biases = params["params"]
        base = jnp.sum(jax.nn.softplus(biases["bias"]))
        base += jnp.sum(jax.nn.softplus(biases["hidden_bias"]))
        if model.classes:
            base += jax.nn.logsumexp(biases["label_bias"])
        return base + jax.nn.logsumexp(weights) - jnp.log(chains)

    return log_z


def _ask(model: Any, method: str, params: Any, *states: jax.Array) -> jax.Array:
    return model.apply(params, *states, method=method)


def _log_weight(model, params, h):
    """log of the sum of exp(-E(v, h)) over all v, for each h."""
    logits = _ask(model, "visible_logits", params, h)
    total = h @ params["params"]["hidden_bias"]
    total += jnp.sum(jax.nn.softplus(logits[..., : model.visible]), -1)
    if model.classes:
        total += jax.nn.logsumexp(logits[..., model.visible :], -1)
    return total

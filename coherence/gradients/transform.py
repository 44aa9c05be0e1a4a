"""`per_example_value_and_grad`: a per-example loss in, per-example gradients as factors out."""

import dataclasses
import warnings
from typing import Literal, Protocol, overload

import jax
import jax.numpy as jnp

from coherence.trees import LeafFilter, Loss, PyTree
from coherence.trees import leaf as leaf_name

from . import batch_statistics, jax_internals
from .arguments import check_batch, check_loss_output, check_params, explained, varying_with
from .factors import Recomputed, node
from .terms import Term
from .tracing import Walk
from .tracked import Fixed, Tracked


class RecomputedWarning(UserWarning):
    """Warns that some leaves have no rule: exact, but each reduction differentiates them again.

    `reasons` is {leaf name: primitive}.
    """

    def __init__(self, reasons: dict[str, str]):
        super().__init__(
            "no rule where these parameters meet their first data: "
            f"{', '.join(f'{name} ({why})' for name, why in reasons.items())}. "
            "Their per-example gradients are exact but recomputed by every reduction."
        )
        self.reasons = reasons


class ValueAndGrad(Protocol):
    """What `per_example_value_and_grad` returns.

    `(params, batch, mask=None) -> (losses, gradients)`.
    """

    def __call__(
        self, params: PyTree, batch: PyTree, mask: jax.Array | None = None
    ) -> tuple[jax.Array, PyTree]: ...


class ValueAuxAndGrad(Protocol):
    """The same with `has_aux`: `-> ((losses, aux), gradients)`."""

    def __call__(
        self, params: PyTree, batch: PyTree, mask: jax.Array | None = None
    ) -> tuple[tuple[jax.Array, PyTree], PyTree]: ...


@overload
def per_example_value_and_grad(
    loss: Loss,
    *,
    has_aux: Literal[False] = False,
    microbatch_size: int | None = None,
    only: LeafFilter | None = None,
    allow_batch_statistics: bool = False,
) -> ValueAndGrad: ...
@overload
def per_example_value_and_grad(
    loss: Loss,
    *,
    has_aux: Literal[True],
    microbatch_size: int | None = None,
    only: LeafFilter | None = None,
    allow_batch_statistics: bool = False,
) -> ValueAuxAndGrad: ...
@overload
def per_example_value_and_grad(
    loss: Loss,
    *,
    has_aux: bool,
    microbatch_size: int | None = None,
    only: LeafFilter | None = None,
    allow_batch_statistics: bool = False,
) -> ValueAndGrad | ValueAuxAndGrad: ...
def per_example_value_and_grad(
    loss, *, has_aux=False, microbatch_size=None, only=None, allow_batch_statistics=False
):
    r"""Every example's loss and its gradient, without an examples x parameters array: as factors.

    The result is a function `(params, batch, mask=None) -> (losses, gradients)`, with `has_aux`
    `((losses, aux), gradients)`. g_i is the gradient of the *unscaled* loss of example i: the mean
    loss has gradient `mean(gradients)`, without any 1/m to undo.

    Works by tracing `loss` for one example (no layer list, no wrapper): where a parameter meets
    data in a primitive with a rule (`coherence.gradients.rules`), the factors are that data and the
    output's cotangent, for all examples from one backward pass. A leaf without a rule is
    `Recomputed`: exact, said once by a `RecomputedWarning`, and differentiated again by each
    reduction.

    Args:
        loss: `(params, example) -> scalar` for ONE example, with `has_aux` `-> (scalar, aux)`.
            Pure; any JAX model.
        has_aux: whether the loss returns auxiliary values; they come back with a leading example
            axis.
        only: a function from a leaf's key path to whether its gradients are wanted (`None`: all).
            The others count as frozen: their gradients are zero and cost nothing.
        microbatch_size: how many examples are differentiated at a time; bounds activations and
            recomputed leaves, not factors.
        allow_batch_statistics: do not refuse a loss that looks as if a batch norm in it normalized
            one example by itself.

    Returns:
        A function of `params` (a pytree of floating-point arrays), `batch` (a pytree whose leaves
        share a leading axis of m examples; for randomness put a key per example into it) and `mask`
        (bool [m] or `None`: examples to leave out; the gradients carry it and everything downstream
        honours it). `losses` is [m], 0 where masked, as auxiliary values are; `gradients` has the
        containers of `params` with one node (`Factored`, `Stacked` or `Recomputed`) at each leaf.

    Raises:
        TypeError: a parameter is not floating-point, or a batch leaf is no array.
        ValueError: the loss is no scalar; batch or mask disagree about m, or are empty;
            `microbatch_size` < 1; the loss needs statistics of a batch (training-mode batch norm),
            which one example does not have.

    >>> losses, g = per_example_value_and_grad(lambda w, x: jnp.dot(w, x))(jnp.ones(2), jnp.eye(2))
    >>> losses
    Array([1., 1.], dtype=float32)
    """
    if microbatch_size is not None and microbatch_size < 1:
        raise ValueError(
            "microbatch_size must be at least 1 example, or None for the whole batch, got "
            f"{microbatch_size}."
        )

    scalar_loss = (lambda params, example: loss(params, example)[0]) if has_aux else loss

    def value_and_grad(params, batch, mask=None):
        check_params(params)
        m = check_batch(batch, mask)
        # Numpy's own cannot be indexed by what is traced.
        batch, mask = jax.tree.map(jnp.asarray, (batch, mask))
        params = varying_with(params, (batch, mask))
        trace = _Trace(loss, has_aux, only, allow_batch_statistics, params, batch)
        if mask is not None:
            batch = without_masked(batch, mask)
        of_example = lambda pair: trace.of_example(jax.tree.leaves(params), *pair)
        if microbatch_size is None or microbatch_size >= m:
            losses, aux, factors = jax.vmap(of_example)((batch, mask))
        else:
            losses, aux, factors = jax.lax.map(
                of_example, (batch, mask), batch_size=microbatch_size
            )
        consts, reentrant_loss = trace.reentrant(scalar_loss)
        without_rule = lambda index: Recomputed(
            params, batch, mask, consts, reentrant_loss, index, microbatch_size
        )
        first = jax.tree.map(lambda x: x[0], batch)
        constants = trace.constants(jax.tree.leaves(params), first)
        gradients = trace.gradients(factors, constants, m, mask, without_rule)
        return ((losses, aux) if has_aux else losses), gradients

    return value_and_grad


class _Trace:
    """The jaxpr of one example's loss and what the walk over it found."""

    def __init__(self, loss, has_aux, only, allow_batch_statistics, params, batch):
        self.has_aux = has_aux
        self.paths, self.treedef = jax.tree.flatten_with_path(params)
        example = jax.eval_shape(lambda batch: jax.tree.map(lambda x: x[0], batch), batch)
        try:
            self.closed, self.out = jax.make_jaxpr(loss, return_shape=True)(params, example)
        except Exception as error:
            axis = isinstance(error, NameError) and batch_statistics.unbound(error)
            if refusal := axis or explained(error):
                raise refusal from error
            raise
        check_loss_output(self.out, has_aux)
        if not allow_batch_statistics:
            batch_statistics.refuse(self.closed, len(self.paths))
        self.measured = [only is None or bool(only(path)) for path, _ in self.paths]

        def find_meetings(leaves, example):
            walk = Walk()
            self.outputs(walk, leaves, example)
            self.given_up, self.meetings = walk.given_up, list(map(_without_values, walk.meetings))

        jax.eval_shape(find_meetings, [leaf for _, leaf in self.paths], example)
        if self.given_up:
            reasons = {leaf_name(self.paths[i][0]): why for i, why in sorted(self.given_up.items())}
            warnings.warn(RecomputedWarning(reasons), stacklevel=4)

    def reentrant(self, loss):
        """What the loss closes over of a function being traced, and the loss as a function of
        it too: it can be called after that trace."""
        if not any(map(jax_internals.is_traced, self.closed.consts)):
            return (), loss
        jaxpr = self.closed.jaxpr

        def reentered(params, example, *consts):
            leaves = jax.tree.leaves((params, example))
            return jax_internals.evaluate_jaxpr(jaxpr, consts, leaves)[0]

        return tuple(self.closed.consts), reentered

    def outputs(self, walk, leaves, example):
        """What the loss returns for one example, flat, by way of `walk`."""
        tracked = [
            Tracked(i, (), leaf, shape=jnp.shape(leaf)) if measured else Fixed(leaf)
            for i, (leaf, measured) in enumerate(zip(leaves, self.measured))
        ]
        return walk.run(
            self.closed.jaxpr, self.closed.consts, [*tracked, *jax.tree.leaves(example)]
        )

    def of_example(self, leaves, example, keep):
        """Loss, aux and the factors of every meeting, for one example.

        `keep` is its entry of the mask, or `None`.
        """

        def perturbed(perturbations):
            walk = Walk(perturbations)
            value, *aux = self.outputs(walk, leaves, example)
            value = value if keep is None else jnp.where(keep, value, 0)
            return value, (value, aux, walk.operands)

        zeros = [jax_internals.zeros_like(meeting.output) for meeting in self.meetings]
        cotangents, (value, aux, operands) = jax.grad(perturbed, has_aux=True)(zeros)
        factors = {}
        for i, meeting in enumerate(self.meetings):
            for j, share in enumerate(meeting.shares):
                if share.leaf not in self.given_up:
                    factors[i, j] = share.factors(operands[i], cotangents[i])
        if not self.has_aux:
            return value, None, factors
        _, aux = jax.tree.unflatten(jax.tree.structure(self.out), [value, *aux])
        return value, aux if keep is None else _kept(keep, aux), factors

    def constants(self, leaves, example):
        """The values that steps of layouts hold, by meeting and share.

        They are made of parameters alone: whose example it is does not matter.
        """
        if not any(share.constants for meeting in self.meetings for share in meeting.shares):
            return {}
        walk = Walk()
        self.outputs(walk, leaves, example)
        return {
            (i, j): share.constants
            for i, meeting in enumerate(walk.meetings)
            for j, share in enumerate(meeting.shares)
        }

    def gradients(self, factors, constants, m, mask, recomputed):
        """The tree of nodes; `recomputed(index)` makes the node of a leaf without a rule."""
        terms: dict[int, list[tuple[Term, tuple]]] = {i: [] for i in range(len(self.paths))}
        for (i, j), met in factors.items():
            share = self.meetings[i].shares[j]
            term = dataclasses.replace(met, layout=share.layout)
            terms[share.leaf].append((term, constants.get((i, j), ())))
        nodes = []
        for i, (_, leaf) in enumerate(self.paths):
            if i in self.given_up:
                nodes.append(recomputed(i))
            else:
                parameter = jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))
                nodes.append(node(terms[i], parameter, m, mask))
        return jax.tree.unflatten(self.treedef, nodes)


def _without_values(meeting):
    """A meeting found in a trace that ends: of the values that layouts hold, the shapes."""
    structs = lambda values: tuple(jax_internals.struct_like(x, jnp.shape(x)) for x in values)
    shares = (
        dataclasses.replace(share, constants=structs(share.constants)) for share in meeting.shares
    )
    return dataclasses.replace(meeting, shares=tuple(shares))


def _kept(keep, aux):
    """Zeros in place of what a masked example's stand-in gave; random keys stay."""
    is_key = lambda x: jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key)
    return jax.tree.map(lambda x: x if is_key(x) else jnp.where(keep, x, jnp.zeros_like(x)), aux)


def without_masked(batch, mask):
    """Masked examples replaced by one that is kept.

    Padding of any content, nan too, then cannot reach a sum as 0 * nan. Where none is kept, as on a
    device that has nothing but padding, zeros take the place of what is not finite.
    """
    index = jnp.where(mask, jnp.arange(mask.shape[0]), jnp.argmax(mask))
    some = jnp.any(mask)

    def cut(x):
        x = x[index]
        is_float = jnp.issubdtype(x.dtype, jnp.floating)
        return jnp.where(some | jnp.isfinite(x), x, 0) if is_float else x

    return jax.tree.map(cut, batch)

"""The cost of a probe, from its programs compiled for shapes: nothing is computed or allocated."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from coherence.gradients.arguments import check_params
from coherence.metrics.batching import count_examples
from coherence.trees import PyTree

from . import reader as programs
from .probe import Probe


class Cost(NamedTuple):
    """The price of one reading of a probe.

    gradients: arithmetic, in plain gradients of the mean loss over the sample.
    operations: arithmetic, in floating-point operations.
    bytes: memory.

    >>> print(Cost(gradients=1.1, operations=2e6, bytes=2**20))
    a reading takes about 1.1 gradients of its sample and 1 MiB
    """

    gradients: float
    operations: float
    bytes: int

    def __str__(self) -> str:
        mebibytes = f"{self.bytes / 2**20:,.0f} MiB"
        return f"a reading takes about {self.gradients:.2g} gradients of its sample and {mebibytes}"


def cost(probe: Probe, params: PyTree) -> Cost:
    """The cost of a reading at parameters of these shapes, besides sample and parameters.

    Memory is the compiler's count. Arithmetic is the compiler's too, where the body of a loop
    counts once (convolutions by groups of examples, recurrences), so there it is a lower bound; it
    says nothing about how fast memory is. The programs are those of the readings: they are not
    compiled again.

    Args:
        params: the parameters, or their shapes (`jax.eval_shape`).

    Raises:
        TypeError: a parameter is not floating-point.
    """
    check_params(params)
    reader, sample, params = probe.reader, _shapes(probe.sample), _shapes(params)
    m = count_examples(sample.examples)
    size = min(reader.batch_size, m)
    cut = lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)
    batch = jax.tree.map(cut, sample.examples)
    mean_loss = lambda params, batch: jnp.mean(jax.vmap(reader.loss, (None, 0))(params, batch))
    gradient = m / size * operations(jax.jit(jax.grad(mean_loss)).lower(params, batch))
    if reader.fits(sample):
        program = programs.read_at_once.lower(params, sample, reader=reader).compile()
        return Cost(operations(program) / gradient, operations(program), _bytes(program))
    lowered = programs.pool_batch.lower(params, batch, None, reader=reader)
    parts = [lowered.out_info] * (reader.num_groups or 1)
    first = lowered.compile()
    last = programs.read_parts.lower(params, sample, parts, reader=reader).compile()
    total = m / size * operations(first) + operations(last)
    held = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(parts))
    return Cost(total / gradient, total, held + max(_bytes(first), _bytes(last)))


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), tree)


def operations(program: Any) -> float:
    """The compiler's count for a lowered or compiled program; nan where it has none."""
    return float((program.cost_analysis() or {}).get("flops", math.nan))


def _bytes(program: Any) -> int:
    memory = program.memory_analysis()
    return memory.temp_size_in_bytes + memory.output_size_in_bytes

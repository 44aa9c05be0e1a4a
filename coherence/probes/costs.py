"""What a probe will cost, known before anything of it is computed or allocated: its programs are compiled for shapes."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from coherence.gradients.arguments import check_params
from coherence.metrics.batching import count_examples

from . import reader as programs


class Cost(NamedTuple):
    """Of one reading: arithmetic in plain gradients of the mean loss over the sample, and in operations; memory in bytes."""

    gradients: float
    operations: float
    bytes: int

    def __str__(self):
        return f"a reading takes about {self.gradients:.2g} gradients of its sample and {self.bytes / 2**20:,.0f} MiB"


def cost(probe, params):
    """What one reading of the probe costs at parameters of these shapes, besides the sample and the parameters themselves.

    Memory is the compiler's count. Arithmetic is the compiler's too, where the body of a loop
    counts once (convolutions by groups of examples, recurrences), so there it is a lower bound; it
    says nothing about how fast memory is. The programs are those of the readings: they are not
    compiled again.

    Args:
        params: the parameters, or their shapes (`jax.eval_shape`).
    """
    check_params(params)
    reader, sample = probe.reader, _shapes(probe.sample)
    params = _shapes(params)
    m = count_examples(sample.examples)
    size = min(reader.batch_size, m)
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), sample.examples
    )
    mean_loss = lambda params, batch: jnp.mean(jax.vmap(reader.loss, (None, 0))(params, batch))
    plain = m / size * operations(jax.jit(jax.grad(mean_loss)).lower(params, batch))
    if reader.fits(sample):
        program = programs.at_once.lower(params, sample, reader=reader).compile()
        return Cost(operations(program) / plain, operations(program), _bytes(program))
    first = programs.of_batch.lower(params, batch, None, reader=reader)
    parts = [first.out_info] * (reader.num_groups or 1)
    first, last = (
        first.compile(),
        programs.read_parts.lower(params, sample, parts, reader=reader).compile(),
    )
    spent = m / size * operations(first) + operations(last)
    held = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(parts))
    return Cost(spent / plain, spent, held + max(_bytes(first), _bytes(last)))


def _shapes(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), tree)


def operations(program):
    """What the compiler counts in a lowered or compiled program; nan where it does not say."""
    return float((program.cost_analysis() or {}).get("flops", math.nan))


def _bytes(program):
    memory = program.memory_analysis()
    return memory.temp_size_in_bytes + memory.output_size_in_bytes

"""Dense layers, einsums, projections: y = x . w over any contracting and batch dimensions."""

import math

import jax

from coherence.gradients.layout import reshaping, transposition
from coherence.jax_internals import contraction


def dot_general(equation, place):
    """G[b, k, n] = sum_t x[b, t, k] dy[b, t, n]: b batch, k contracted, t the data's own, n the parameter's own dimensions."""
    return _Product(equation, place).part(equation.invars[place].aval.shape)


def dot_general_of_parts(equation, place, axis, sizes):
    """The same for each of the parameters concatenated along `axis`: it sees its slice of the data, or of the cotangent, or both."""
    product = _Product(equation, place)
    shape, start, answers = list(equation.invars[place].aval.shape), 0, []
    for size in sizes:
        shape[axis] = size
        answers.append(product.part(tuple(shape), product.slices(axis, start, size)))
        start += size
    return answers


class _Product:
    """Which dimensions of parameter, data and output belong together."""

    def __init__(self, equation, place):
        contracting, batching = contraction(equation)
        self.place, self.data = place, equation.invars[1 - place].aval.shape
        self.w_batch, self.w_contract = batching[place], contracting[place]
        self.x_batch, self.x_contract = batching[1 - place], contracting[1 - place]
        dimensions = range(equation.invars[place].aval.ndim)
        self.w_free = tuple(i for i in dimensions if i not in (*self.w_batch, *self.w_contract))
        self.x_free = tuple(
            i for i in range(len(self.data)) if i not in (*self.x_batch, *self.x_contract)
        )

    def part(self, shape, slices=lambda x, dy: (x, dy)):
        """(steps, factors) for a parameter of `shape` that sees `slices` of data and cotangent."""
        size = lambda axes: math.prod(shape[i] for i in axes)
        b, k, n = size(self.w_batch), size(self.w_contract), size(self.w_free)
        t = math.prod(self.data[i] for i in self.x_free)

        def factors(x, dy):
            x, dy = slices(x, dy)
            inputs = x.transpose(*self.x_batch, *self.x_free, *self.x_contract).reshape(b, t, k)
            if self.place == 1:  # the output's dimensions are batch, lhs free, rhs free
                return inputs, dy.reshape(b, t, n)
            return inputs, dy.reshape(b, n, t).swapaxes(1, 2)

        return (
            transposition((*self.w_batch, *self.w_contract, *self.w_free)),
            reshaping((b, k, n)),
        ), factors

    def slices(self, axis, start, size):
        """Data and cotangent as seen by a stretch of the parameter's `axis`."""
        cut = lambda y, at: jax.lax.slice_in_dim(y, start, start + size, axis=at)
        if axis in self.w_contract:
            return lambda x, dy: (cut(x, self.x_contract[self.w_contract.index(axis)]), dy)
        if axis in self.w_batch:
            i = self.w_batch.index(axis)
            return lambda x, dy: (cut(x, self.x_batch[i]), cut(dy, i))
        own = (
            len(self.w_batch)
            + self.w_free.index(axis)
            + (len(self.x_free) if self.place == 1 else 0)
        )
        return lambda x, dy: (x, cut(dy, own))

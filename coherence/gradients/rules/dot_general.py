"""Dense layers, einsums, projections: y = x . w over any contracting and batch dimensions."""

import math

from ..layout import reshaping, transposition


def dot_general(equation, place):
    """G[b, k, n] = sum_t x[b, t, k] dy[b, t, n]: b batch, k contracted, t the data's own, n the parameter's own dimensions."""
    (contracting, batching) = equation.params["dimension_numbers"]
    weights, data = equation.invars[place].aval, equation.invars[1 - place].aval
    w_batch, w_contract = batching[place], contracting[place]
    x_batch, x_contract = batching[1 - place], contracting[1 - place]
    w_free = tuple(i for i in range(weights.ndim) if i not in (*w_batch, *w_contract))
    x_free = tuple(i for i in range(data.ndim) if i not in (*x_batch, *x_contract))

    def size(aval, axes):
        return math.prod(aval.shape[i] for i in axes)

    b, k, n, t = size(weights, w_batch), size(weights, w_contract), size(weights, w_free), size(data, x_free)

    def factors(x, dy):
        inputs = x.transpose(*x_batch, *x_free, *x_contract).reshape(b, t, k)
        if place == 1:  # the output's dimensions are batch, lhs free, rhs free
            return inputs, dy.reshape(b, t, n)
        return inputs, dy.reshape(b, n, t).swapaxes(1, 2)

    return (transposition((*w_batch, *w_contract, *w_free)), reshaping((b, k, n))), factors

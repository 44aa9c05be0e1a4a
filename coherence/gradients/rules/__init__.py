"""One rule a primitive: what a parameter's gradient is made of where it meets data.

A rule is asked about one equation of the trace of one example: `rule(equation, place)` with `place`
the parameter's position among the operands. It answers `None` where it does not apply, else a pair:
`steps`, the layout from that operand to the canonical gradient [B, K, N], and `factors(data,
cotangent)` for one example: `(inputs [B, T, K], cotangents [B, T, N])` of an `Outer`, or another
kind of term (`coherence.gradients.terms`).
"""

from .convolution import conv_general_dilated
from .dot_general import dot_general
from .elementwise import add, mul, sub
from .lookup import dynamic_slice, gather

RULES = {
    "dot_general": dot_general,
    "conv_general_dilated": conv_general_dilated,
    "gather": gather,
    "dynamic_slice": dynamic_slice,
    "add": add,
    "add_any": add,
    "sub": sub,
    "mul": mul,
}

"""One rule a primitive: what a parameter's gradient is made of where it meets data.

A rule is asked about one equation of the trace of one example: `rule(equation, place)` with `place` the parameter's position
among the operands. It answers `None` where it does not apply, else a pair: `steps`, the layout from that operand to the
canonical gradient [B, K, N], and `factors(data, cotangent) -> (inputs [B, T, K], cotangents [B, T, N])` for one example.
"""

from .dot_general import dot_general
from .elementwise import add, mul, sub

RULES = {"dot_general": dot_general, "add": add, "add_any": add, "sub": sub, "mul": mul}

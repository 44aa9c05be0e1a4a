"""Settings from what they print."""

from __future__ import annotations

import ast
import math
import sys
import types
from typing import Any

from coherence.lab.suggestions import suggestion

from .rooms import everything
from .values import Setting, choices, converted, field_types

_NUMBERS = {"inf": math.inf, "nan": math.nan}


def parse(text: str, kind: Any) -> Any:
    """`name` or `name(value, field=value, ...)` as a setting of type `kind`.

    Case does not matter in the name. Values are Python's literals and other settings, of those that
    the field may hold. What settings print is read as they were: `parse(repr(settings),
    type(settings)) == settings`. Settings of a class that a field's type does not name are read
    where `kind` names it; a function's name is looked up in the modules that define `kind`.

    Args:
        kind: a settings class, or a union of them, with `None` or as a tuple.

    Raises:
        ValueError: no such expression, another name, an unknown field or a value of another type.
    """
    kinds = tuple(choices(kind))
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        node = None
    if not isinstance(node, ast.Call | ast.Name | ast.Tuple | ast.Constant):
        raise ValueError(f"{text!r} is none of {_listing(kinds)}.")
    try:
        return converted(_value(node, kinds, kinds), kind, "a setting")
    except TypeError as error:
        raise ValueError(f"{text!r}: {error}") from None


def _setting(node, kinds, known):
    """The setting of a call or a name, out of `kinds`, or of those `known` in the whole text."""
    call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
    name = ast.unparse(call.func)
    if Setting in kinds:
        kinds = tuple(everything().values())
    by_name = {kind.__name__.lower(): kind for kind in (*known, *kinds)}
    function = _function(name, known) if isinstance(node, ast.Name) else None
    if function is not None and name.lower() not in by_name:
        return function
    if name.lower() not in by_name:
        close = suggestion(name, [kind.__name__ for kind in kinds])
        raise ValueError(f"{name!r} is none of {_listing(kinds)}.{close}")
    kind = by_name[name.lower()]
    held = field_types(kind)
    in_any_field = tuple(choice for field in held.values() for choice in choices(field))
    args = [_value(argument, in_any_field, known) for argument in call.args]
    keywords = {}
    for keyword in call.keywords:
        field = str(keyword.arg)
        keywords[field] = _value(keyword.value, tuple(choices(held.get(field, Any))), known)
    return kind(*args, **keywords)


def _function(name, known):
    """The function of that name in the modules that define the settings of the whole text."""
    modules = (sys.modules.get(kind.__module__) for kind in known)
    values = (getattr(module, name, None) for module in modules)
    return next((value for value in values if isinstance(value, types.FunctionType)), None)


def _value(node, kinds, known):
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(_value(element, kinds, known) for element in node.elts)
    negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    number = ast.unparse(node.operand if negative else node)
    if number in _NUMBERS:
        return -_NUMBERS[number] if negative else _NUMBERS[number]
    if isinstance(node, ast.Call | ast.Name):
        return _setting(node, kinds, known)
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(f"{ast.unparse(node)!r} is no plain value.") from None


def _listing(kinds):
    described = [f"{kind.__name__}({', '.join(field_types(kind))})" for kind in kinds]
    return ", ".join(described)

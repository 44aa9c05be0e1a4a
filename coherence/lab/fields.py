"""Command-line fields from an experiment's settings, and back."""

from __future__ import annotations

import ast
import dataclasses
import typing


def parse(settings, arguments, prog):
    """`settings` with the fields that `arguments` (`--learning-rate 0.05 --data MNIST`) change; help and errors are tyro's.

    A field that is a choice between settings takes one as it prints: `--model
        "FullyConnected(width=64, depth=2)"`.
    """
    import tyro

    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(_choice)
    return tyro.cli(
        type(settings), default=settings, args=list(arguments), prog=prog, registry=registry
    )


def _choice(info):
    import tyro

    kinds = [
        kind
        for kind in typing.get_args(info.type) or (info.type,)
        if dataclasses.is_dataclass(kind)
    ]
    if not kinds:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="|".join(kind.__name__ for kind in kinds),
        instance_from_str=lambda words: read(words[0], kinds),
        is_instance=lambda value: isinstance(value, tuple(kinds)),
        str_from_instance=lambda value: [repr(value)],
    )


def read(text, kinds):
    """`Name` or `Name(field=value, ...)` as one of the settings `kinds`; case does not matter in the name.

    Raises:
        ValueError: another name, an unknown field, or no such expression.
    """
    allowed = ", ".join(
        f"{kind.__name__}({', '.join(f.name for f in dataclasses.fields(kind))})" for kind in kinds
    )
    try:
        node = ast.parse(text, mode="eval").body
        name, keywords = (
            (node.func.id, node.keywords)
            if isinstance(node, ast.Call) and not node.args
            else (node.id, [])
        )
        values = {k.arg: ast.literal_eval(k.value) for k in keywords}
        kind = {kind.__name__.lower(): kind for kind in kinds}[name.lower()]
        return kind(**values)
    except (SyntaxError, AttributeError, KeyError, TypeError):
        raise ValueError(f"{text!r} is none of {allowed}.") from None

"""Settings as flags of the command line; help and errors are tyro's."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any

from .text import parse
from .values import Setting, choices, converted, field_types


def apply_flags(settings: Any, arguments: Sequence[str], prog: str) -> Any:
    """`settings` with the fields that `arguments` (`--learning-rate 0.05 --data mnist`) change.

    A field that is a choice between settings takes one as it prints: `--model "MLP(width=64)"`;
    the fields of settings within settings are flags of their own: `--brief.steps 7`.
    """
    import tyro

    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(_choice)
    return tyro.cli(
        type(settings), default=settings, args=list(arguments), prog=prog, registry=registry
    )


def explain(cls: type) -> str:
    """The choices in the fields of a settings class, each with its own fields, as text."""
    paragraphs: dict[type, str] = {}
    for kind in field_types(cls).values():
        for choice in choices(kind):
            if choice not in paragraphs:
                generated = issubclass(choice, Setting)
                paragraphs[choice] = _explained(choice) if generated else explain(choice)
    return "\n".join(filter(None, paragraphs.values()))


def _explained(choice):
    lines = [f"{choice.__name__}: {(choice.__doc__ or '').partition(chr(10))[0]}"]
    for field in dataclasses.fields(choice):
        default = inspect.signature(choice).parameters[field.name].default
        given = "" if default is inspect.Parameter.empty else f"={default!r}"
        lines.append(f"    {field.name}{given}  {field.metadata['help']}".rstrip())
    return "\n".join(lines)


def _choice(info):
    """How tyro reads a choice; `None` for other fields, and for settings within settings."""
    import tyro

    kinds = tuple(choices(info.type))
    nested = info.type in kinds and not issubclass(info.type, Setting)
    if not kinds or nested:
        return None

    def is_instance(value):
        try:
            return converted(value, info.type, "") == value
        except TypeError:
            return False

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="|".join(kind.__name__ for kind in kinds),
        instance_from_str=lambda words: parse(words[0], info.type),
        is_instance=is_instance,
        str_from_instance=lambda value: [repr(value).replace("'", '"')],
    )

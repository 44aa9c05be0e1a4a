"""Settings as recorded: one line each, and which of them differ. No settings class is imported, so any run can be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ABSENT = "absent"


def flat(config: dict, prefix: str = "") -> dict[str, str]:
    """`{"model": "FullyConnected", "model.width": "64"}`: every setting by its dotted name, as text; a choice by its kind."""
    values = {prefix.rstrip(".") or "kind": config["kind"]} if "kind" in config else {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            values |= flat(value, f"{prefix}{key}.")
        elif key != "kind":
            values[f"{prefix}{key}"] = text(value)
    return values


def differences(settings: Sequence[dict[str, str]]) -> list[str]:
    """The names of flat settings that are not the same in all, in order of appearance."""
    names = dict.fromkeys(name for one in settings for name in one)
    return [name for name in names if len({one.get(name, ABSENT) for one in settings}) > 1]


def text(value: Any) -> str:
    """A setting as it would be typed: `FullyConnected(width=64, depth=3)`, `0.1`, `(1, 2)`."""
    if isinstance(value, dict) and "kind" in value:
        return f"{value['kind']}({', '.join(f'{key}={text(one)}' for key, one in value.items() if key != 'kind')})"
    if isinstance(value, list):
        return f"({', '.join(map(text, value))}{',' * (len(value) == 1)})"
    return repr(value) if isinstance(value, float) else str(value)

"""Settings as values: arguments of a function that compare, print and go into JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import inspect
import numbers
import os
import re
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any, ClassVar, Literal

MOST_LETTERS = 200  # of a folder's name; file systems take 255
SCALAR = Annotated[float, "Scalar"]  # the type of a parameter annotated so


class Setting:
    """The base of all classes made by `signatures.setting`; fields are a function's parameters.

    Making one checks names and types. What a value has to be, the function says when it is built.
    """

    source: ClassVar[str | Callable]
    """`module:name`, or the function itself."""
    given: ClassVar[tuple[str, ...]]
    """Parameters that are no settings: `build` gets them."""

    def __init__(self, *args: Any, **values: Any):
        signature = inspect.signature(type(self))
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_POSITIONAL and name in values:
                args = (*args, *values.pop(name))
        try:
            bound = signature.bind(*args, **values)
        except TypeError as error:
            fields = ", ".join(signature.parameters)
            raise TypeError(f"{type(self).__name__}({fields}): {error}.") from None
        bound.apply_defaults()
        for name, kind in field_types(type(self)).items():
            who = f"{type(self).__name__}({name})"
            object.__setattr__(self, name, converted(bound.arguments[name], kind, who))

    def build(self, *given: Any, **traced: Any) -> Any:
        """What the function returns for these values; settings among them are built first.

        Args:
            given: the parameters that are no settings, such as a network's number of outputs;
                where there are none, the function's own defaults.
            traced: values in place of `scalars`, which may be traced.
        """
        args, keywords = (), dict(zip(self.given, given, strict=bool(given)))
        for name, parameter in inspect.signature(type(self)).parameters.items():
            value = traced[name] if name in traced else _built(getattr(self, name))
            if parameter.kind is parameter.VAR_POSITIONAL:
                args = value
            elif value is not UNSET:
                keywords[name] = value
        return self.target()(*args, **keywords)

    @classmethod
    def target(cls) -> Callable:
        """The function or class itself, imported now."""
        if not isinstance(cls.source, str):
            return cls.source
        module, name = cls.source.split(":")
        return getattr(importlib.import_module(module), name)

    def __repr__(self) -> str:
        parameters = inspect.signature(type(self)).parameters
        words: list[str] = []
        for name, value in set_fields(self).items():
            if parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
                words += map(repr, value)
            else:
                words.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(words)})"


class _Unset:
    """The default of a parameter that is no plain value: left to the function."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Any = _Unset()


def set_fields(setting: Any) -> dict[str, Any]:
    """The fields by name, without options that stay at their default of `None`."""
    silent = {name for name in _options(setting) if getattr(setting, name) in (None, UNSET)}
    names = [field.name for field in dataclasses.fields(setting)]
    return {name: getattr(setting, name) for name in names if name not in silent}


def _options(setting):
    """The parameters that may be left out and then say nothing."""
    if not isinstance(setting, Setting):
        return []
    parameters = inspect.signature(type(setting)).parameters.values()
    return [p.name for p in parameters if p.default is None or p.default is UNSET]


def scalars(setting: Setting) -> dict[str, float]:
    """The numbers that the function also takes traced, by name: those annotated `Scalar`."""
    values = {
        field.name: getattr(setting, field.name)
        for field in dataclasses.fields(typing.cast(Any, setting))
        if SCALAR in (field.type, *typing.get_args(field.type))
    }
    return {name: value for name, value in values.items() if isinstance(value, float)}


def field_types(cls: type) -> dict[str, Any]:
    """The types of the fields of a settings class, by name."""
    try:
        hints = typing.get_type_hints(cls)
    except NameError:  # a class made inside a function, with its annotations as text
        hints = {}
    return {field.name: hints.get(field.name, Any) for field in dataclasses.fields(cls)}


def choices(kind: Any) -> Iterator[type]:
    """The settings classes among the alternatives of a type, in tuples too."""
    if dataclasses.is_dataclass(kind) or kind is Setting:
        yield typing.cast(type, kind)
    for part in typing.get_args(kind):
        yield from choices(part)


# Values.


def converted(value: Any, kind: Any, who: str) -> Any:
    """`value` as a `kind`: numpy's numbers become Python's, whole numbers floats, lists tuples.

    Raises:
        TypeError: it is of another type; `who` names the setting and the field.
    """
    if isinstance(value, list):
        value = tuple(value)
    if value is UNSET:
        return value
    for alternative in _alternatives(kind):
        try:
            return _as(value, alternative, who)
        except TypeError:
            continue
    raise TypeError(f"{who}: {' or '.join(map(_words, _alternatives(kind)))}, got {value!r}.")


def _alternatives(kind):
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return typing.get_args(kind)
    return (kind,)


def _as(value, kind, who):
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    truth = isinstance(value, bool)
    if kind is Any:
        return value
    if kind is float and isinstance(value, numbers.Real) and not truth:
        return float(value)
    if kind is int and isinstance(value, numbers.Integral) and not truth:
        return int(value)
    if kind is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    if kind in (None, type(None)) and value is None:
        return value
    if origin is Literal and value in parts:
        return value
    if (kind is Callable or origin is CALLABLE) and callable(value):
        return value
    if origin is tuple and isinstance(value, tuple):
        each = parts[:1] * len(value) if parts[1:] == (...,) else parts
        if len(each) == len(value):
            return tuple(converted(x, part, who) for x, part in zip(value, each))
    if kind is Setting and dataclasses.is_dataclass(value):
        return value
    if isinstance(kind, type) and kind not in (int, float) and isinstance(value, kind):
        return value
    raise TypeError


CALLABLE = typing.get_origin(typing.Callable)
_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text in quotes",
    type(None): "None",
    Setting: "a setting",
}


def _words(kind):
    if typing.get_origin(kind) is Literal:
        return " or ".join(map(repr, typing.get_args(kind)))
    return _WORDS.get(kind, str(kind).removeprefix("typing."))


def _built(value):
    if isinstance(value, tuple):
        return tuple(_built(x) for x in value)
    return value.build() if isinstance(value, Setting) else value


# What is done with settings, generated or written as dataclasses.


def plain(settings: Any) -> Any:
    """Settings as values for JSON; each names itself as `kind`, to tell choices apart."""
    if dataclasses.is_dataclass(settings):
        return {
            "kind": type(settings).__name__,
            **{name: plain(value) for name, value in set_fields(settings).items()},
        }
    if isinstance(settings, tuple | list):
        return [plain(x) for x in settings]
    if isinstance(settings, types.FunctionType):
        return settings.__name__
    return settings


def check(settings: Any, path: str = "") -> None:
    """Build every choice among the settings once, so that their functions say now what they refuse.

    Raises:
        ValueError: a function refuses its values; the field is named by its whole path.
    """
    for name, value in set_fields(settings).items():
        where = f"{path}.{name}" if path else name
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Setting):
                try:
                    part.build()
                except (ValueError, TypeError, OSError) as error:
                    raise ValueError(f"{where}={part!r}: {error}") from error
            elif dataclasses.is_dataclass(part):
                check(part, where)


def variant(preset: str, settings: Any, default: Any) -> str:
    """A folder's name for a preset with changed fields: `cpu`, `cpu,brief.steps=100`.

    Fields are named by their whole paths. Where letters that no folder's name can have are
    replaced, or too many are left out, a digest of the whole tells such names apart. `seeds` is no
    change: more seeds join those that are there.
    """
    changes = [(path, value) for path, value in _changes(settings, default) if path != "seeds"]
    name = ",".join([preset, *(f"{path}={_slug(value)}" for path, value in changes)])
    exact = all(_exact(value) for _, value in changes)
    if exact and len(name) <= MOST_LETTERS:
        return name
    digest = hashlib.sha256(repr(changes).encode()).hexdigest()[:8]
    return f"{name[:MOST_LETTERS]}~{digest}"


def _changes(settings, default, path=""):
    if not dataclasses.is_dataclass(settings) or type(settings) is not type(default):
        if settings != default:
            yield path, settings
        return
    for field in dataclasses.fields(settings):
        value, usual = getattr(settings, field.name), getattr(default, field.name)
        yield from _changes(value, usual, f"{path}.{field.name}" if path else field.name)


def _slug(value):
    if dataclasses.is_dataclass(value):
        return "-".join([type(value).__name__, *map(_slug, set_fields(value).values())])
    if isinstance(value, tuple):
        return "+".join(map(_slug, value))
    return re.sub(r"[^A-Za-z0-9._+-]", "-", str(value))


def _exact(value):
    """Whether no other value has its slug."""
    if dataclasses.is_dataclass(value):
        options = set(_options(value))
        given = options & set_fields(value).keys()
        return (not given or given == options) and all(map(_exact, set_fields(value).values()))
    if isinstance(value, tuple):
        return all(map(_exact, value)) and not any(isinstance(x, tuple) for x in value)
    return not isinstance(value, str) or re.fullmatch(r"[A-Za-z0-9._]*", value) is not None

"""Settings from signatures: a class for a function or class, without importing it.

`setting("coherence.optim:winsorize")` reads the source of `winsorize` and returns a frozen
dataclass of the same name with its parameters as fields, their types, defaults and descriptions. So
`winsorize(c=2)` is a plain value, and `winsorize(c=2).build()` imports the function and calls it.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib.util
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from inspect import Parameter
from pathlib import Path
from typing import Any

from .values import SCALAR, UNSET, Setting, set_fields

PLAIN = (bool, int, float, str, type(None), Setting)
# What an annotation may say. A name that is none of these is no plain value, and is not checked.
_KNOWN = {
    **{name: getattr(typing, name) for name in ("Any", "Callable", "Literal", "Optional")},
    # What settings build: where one is wanted, a setting is.
    **dict.fromkeys(("Aggregator", "Compressor", "Dataset", "Optimizer", "Rule"), Setting),
    "Path": str,
    "Scalar": SCALAR,
}


@dataclasses.dataclass(frozen=True)
class Description:
    """What the source says of a function or class."""

    name: str
    doc: str
    parameters: tuple[Parameter, ...]
    help: Mapping[str, str]
    """What the docstring says of a parameter."""
    returns: str = ""
    """The return annotation of a function, as written."""
    bases: tuple[str, ...] = ()
    """The bases of a class, and theirs."""


def setting(source: str | Callable, given: tuple[str, ...] = ()) -> type[Setting]:
    """The settings class of a function or class, the same one at every call.

    Args:
        source: `"module:name"`, which is read and not imported, or the function itself. The module
            may be a package that lists the name in its stub.
        given: parameters that are no settings, but known to whoever builds. What follows them in
            the signature is given by name.

    Raises:
        LookupError: the module has no such function or class.
    """
    if isinstance(source, str):
        module, node = locate(*source.split(":"))
        source = f"{module}:{node.name}"
    return _setting(source, tuple(given))


@functools.cache
def _setting(source, given):
    described = describe(source)
    parameters, by_name = [], False
    for parameter in described.parameters:
        by_name |= parameter.name in given
        if by_name and parameter.kind is Parameter.POSITIONAL_OR_KEYWORD:
            parameter = parameter.replace(kind=Parameter.KEYWORD_ONLY)
        if parameter.name not in given and parameter.kind is not Parameter.VAR_KEYWORD:
            parameters.append(parameter)
    help_of = lambda name: dataclasses.field(metadata={"help": described.help.get(name, "")})
    return dataclasses.make_dataclass(
        described.name,
        [(p.name, _field_type(p), help_of(p.name)) for p in parameters],
        bases=(Setting,),
        namespace={
            "__doc__": described.doc,
            "__module__": __package__,
            "__signature__": inspect.Signature(parameters),
            "source": source,
            "given": given,
            "__reduce__": _reduced,  # a class made here has no name that pickle could look up
        },
        init=False,
        repr=False,
        frozen=True,
    )


def _reduced(value):
    return _restored, (value.source, value.given, set_fields(value))


def _restored(source, given, fields):
    return setting(source, given)(**fields)


def _field_type(parameter):
    kind: Any = parameter.annotation
    return tuple[kind, ...] if parameter.kind is Parameter.VAR_POSITIONAL else kind


def describe(source: str | Callable) -> Description:
    """What the source says of a function or class; of `"module:name"` without importing it."""
    if isinstance(source, str):
        module, node = locate(*source.split(":"))
        return _of_class(module, node) if isinstance(node, ast.ClassDef) else _of_function(node)
    doc = inspect.getdoc(source) or ""
    parameters = tuple(
        p.replace(annotation=_type(p.annotation), default=_plain(p.default))
        for p in inspect.signature(source).parameters.values()
    )
    return Description(source.__name__, doc, parameters, _help(doc))


def is_plain(description: Description, given: tuple[str, ...] = ()) -> bool:
    """Whether all required parameters can be plain values or other settings."""
    required = [
        p
        for p in description.parameters
        if p.name not in given and p.default is p.empty and p.kind is not p.VAR_KEYWORD
    ]
    return all(_is_plain(p.annotation) for p in required)


def _is_plain(kind):
    parts = [part for part in typing.get_args(kind) if part is not ...]
    if kind == SCALAR or typing.get_origin(kind) is typing.Literal:
        return True
    if typing.get_origin(kind) is typing.Union:
        return any(map(_is_plain, parts))
    return all(map(_is_plain, parts)) if parts else kind in PLAIN


# Reading sources.


def locate(module: str, name: str) -> tuple[str, ast.FunctionDef | ast.ClassDef]:
    """The module that defines a name, and its definition; imports and stubs are followed.

    Raises:
        LookupError: there is no function or class of that name.
    """
    for node in tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return locate(origin(module, node), alias.name)
    raise LookupError(f"{module} has no function or class {name}.")


def listed(module: str) -> tuple[str, ...]:
    """The names that a package's stub exports, or the functions a module defines."""
    names: list[str] = []
    for node in tree(module).body:
        if isinstance(node, ast.ImportFrom) and _path(module).suffix == ".pyi":
            names += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            names.append(node.name)
    return tuple(names)


def origin(module: str, node: ast.ImportFrom) -> str:
    """The module that an import in `module` names."""
    package = module if _path(module).stem == "__init__" else module.rpartition(".")[0]
    return importlib.util.resolve_name("." * node.level + (node.module or ""), package)


@functools.cache
def tree(module: str) -> ast.Module:
    """The parsed source of a module; of a package its stub, where it has one."""
    return ast.parse(_path(module).read_text())


@functools.cache
def _path(module):
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise LookupError(f"there is no module {module} with a source to read.")
    path = Path(spec.origin)
    return path.with_suffix(".pyi") if path.with_suffix(".pyi").is_file() else path


def _of_function(node):
    doc = ast.get_docstring(node) or ""
    parameters = [
        _parameter(argument, default, Parameter.POSITIONAL_OR_KEYWORD)
        for argument, default in _positional(node)
    ]
    if node.args.vararg:
        parameters.append(_parameter(node.args.vararg, None, Parameter.VAR_POSITIONAL))
    for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults):
        parameters.append(_parameter(argument, default, Parameter.KEYWORD_ONLY))
    returns = ast.unparse(node.returns) if node.returns else ""
    return Description(node.name, doc, tuple(parameters), _help(doc), returns)


def _positional(node):
    arguments, defaults = node.args.posonlyargs + node.args.args, node.args.defaults
    return zip(arguments, [None] * (len(arguments) - len(defaults)) + defaults)


def _parameter(argument, default, kind):
    annotation = Any if argument.annotation is None else _type(ast.unparse(argument.annotation))
    value = Parameter.empty if default is None else _literal(default)
    return Parameter(argument.arg, kind, default=value, annotation=annotation)


def _of_class(module, node):
    """A dataclass, as Flax's modules are: its annotated fields and those of its bases."""
    parameters: dict[str, Parameter] = {}
    words: dict[str, str] = {}
    bases = [ast.unparse(base) for base in node.bases]
    for base in list(bases):
        described = _of_base(module, base)
        if described is not None:
            parameters |= {p.name: p for p in described.parameters}
            words |= described.help
            bases += described.bases
    for field, following in zip(node.body, [*node.body[1:], None]):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            annotation = ast.unparse(field.annotation)
            if not annotation.startswith("ClassVar"):
                name = field.target.id
                default = Parameter.empty if field.value is None else _literal(field.value)
                parameters[name] = Parameter(
                    name,
                    Parameter.POSITIONAL_OR_KEYWORD,
                    default=default,
                    annotation=_type(annotation),
                )
                words[name] = _text(following)
    doc = ast.get_docstring(node) or ""
    return Description(node.name, doc, tuple(parameters.values()), words, bases=tuple(bases))


def _of_base(module, name):
    try:
        return _of_class(*locate(module, name))
    except LookupError:  # of another library
        return None


def _text(node):
    """A docstring of a field: what stands by itself behind it."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return " ".join(str(node.value.value).split())
    return ""


def _type(annotation):
    if annotation is Parameter.empty:
        return Any
    if not isinstance(annotation, str):
        return annotation
    return _evaluated(ast.parse(annotation, mode="eval").body)


def _evaluated(node):
    if isinstance(node, ast.BinOp):
        return typing.Union[_evaluated(node.left), _evaluated(node.right)]  # noqa: UP007
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Callable":
        return typing.Callable
    try:
        return eval(ast.unparse(node), dict(_KNOWN))
    except (NameError, AttributeError, TypeError):
        return Any


def _literal(node):
    try:
        return ast.literal_eval(node)
    except ValueError:
        return UNSET


def _plain(default):
    return default if default is Parameter.empty or isinstance(default, (*PLAIN, tuple)) else UNSET


def _help(doc):
    """`{parameter: its description}` from the `Args:` of a docstring."""
    _, _, section = inspect.cleandoc(doc).partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", section)[0]
    entries: dict[str, str] = {}
    for line in section.splitlines():
        start = re.match(r" {2,4}(\w+): (.*)", line)
        if start:
            name = start[1]
            entries[name] = start[2]
        elif entries:
            entries[name] += f" {line.strip()}"
    return {name: words.strip() for name, words in entries.items()}

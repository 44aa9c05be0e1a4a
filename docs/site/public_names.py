"""The public names of the package: those that its stubs `__init__.pyi` list."""

import functools
import importlib
import inspect
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_ENTRY = re.compile(r"^from \.[\w.]* import (\w+) as \w+$", re.MULTILINE)


@functools.cache
def public_names():
    """`{module: its public names}`."""
    modules = {}
    for stub in sorted((ROOT / "coherence").rglob("__init__.pyi")):
        module = ".".join(stub.parent.relative_to(ROOT).parts)
        modules[module] = _ENTRY.findall(stub.read_text())
    return modules


@functools.cache
def public_objects():
    """`{(module, name): object}` of every public name."""
    return {
        (module, name): getattr(importlib.import_module(module), name)
        for module, names in public_names().items()
        for name in names
    }


def home(module, name):
    """The dotted name under which the reference describes what `module.name` is.

    A name that several modules list is described by the one nearest to its definition.
    """
    thing = public_objects()[module, name]
    if inspect.ismodule(thing):
        return thing.__name__
    defined = f"{getattr(thing, '__module__', module)}."
    modules = [
        other
        for (other, same), found in public_objects().items()
        if same == name and found is thing and defined.startswith(f"{other}.")
    ]
    return f"{max(modules, key=len, default=module)}.{name}"


def single_modules():
    """Public modules that are one file, so have no stub: all that they define is public."""
    modules = {thing.__name__ for thing in public_objects().values() if inspect.ismodule(thing)}
    return sorted(modules - public_names().keys())

"""One way to say a setting: aggregators, networks, data sets, ... by their own names.

>>> from coherence.lab.settings import MLP, parse, winsorize, Aggregators
>>> winsorize(c=2)
winsorize(c=2.0)
>>> parse("winsorize(c=2)", Aggregators) == winsorize(c=2)
True

`winsorize(c=2).build()` is `optim.winsorize(c=2)`. Such a class is made from the function's
signature when it is asked for, and importing it imports neither the function nor JAX. `Aggregators`
and the other names of `rooms.ROOMS` are the types of fields that hold one of many.
"""

from typing import Any

_OWN = {
    "Probing": "probing",
    "Setting": "values",
    "apply_flags": "flags",
    "check": "values",
    "explain": "flags",
    "parse": "text",
    "plain": "values",
    "scalars": "values",
    "setting": "signatures",
    "variant": "values",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name in _OWN:
        return getattr(importlib.import_module(f"{__name__}.{_OWN[name]}"), name)
    if name.startswith("_"):
        raise AttributeError(name)
    from .rooms import ROOMS, everything, union

    if name in ROOMS:
        return union(name)
    try:
        return everything()[name]
    except KeyError:
        raise AttributeError(
            f"there is no setting {name!r}: it is the name of a function or class listed in the "
            f"stub of {', '.join(room.module for room in ROOMS.values())}."
        ) from None

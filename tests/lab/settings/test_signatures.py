"""Settings are read from signatures: names, types, defaults, descriptions; and checked by them."""

import dataclasses
import inspect
import sys
from typing import Any, Literal

import numpy as np
import pytest

from coherence.lab.settings import Setting, rooms, setting
from coherence.lab.settings.signatures import describe

METHODS = '''
"""Methods."""
import jax  # never imported


def shrink(
    by: float,
    *,
    times: int = 3,
    mode: Literal["hard", "soft"] = "soft",
    key: jax.Array | None = None,
) -> Aggregator:
    """Shrink the mean.

    More about it.

    Args:
        by: how much, in
            percent.
        times: how often.

    Returns:
        by: not this one.
    """
    if by > 100:
        raise ValueError("too much")


def both(*rules: Rule, weight: float | None = None) -> Aggregator: ...
def combine(function: Callable) -> Aggregator: ...
def helper(by: float) -> float: ...
'''
CLASSES = '''
from .methods import shrink
from elsewhere import Module


class Base(Module):
    width: int = 8
    """How wide."""


class Net(Base):
    """A net."""

    outputs: int = 10
    shape: tuple[int, ...] | None = None
    ratio: float = 1 / 3

    def __call__(self): ...
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "methods_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "__init__.pyi").write_text(
        "from . import methods as methods\nfrom .methods import shrink as shrink\n"
        "from .methods import both as both\nfrom .methods import combine as combine\n"
        "from .methods import helper as helper\nfrom .classes import Net as Net\n"
    )
    (folder / "methods.py").write_text(METHODS)
    (folder / "classes.py").write_text(CLASSES)
    monkeypatch.syspath_prepend(tmp_path)
    yield "methods_package"
    for name in [name for name in sys.modules if name.startswith("methods_package")]:
        del sys.modules[name]


def test_a_function_becomes_a_class_of_its_name(package):
    shrink = setting(f"{package}:shrink")
    assert shrink is setting(f"{package}.methods:shrink")
    assert shrink.__name__ == "shrink"
    assert shrink.__doc__.startswith("Shrink the mean.")
    fields = {field.name: field for field in dataclasses.fields(shrink)}
    assert list(fields) == ["by", "times", "mode", "key"]
    assert [field.type for field in fields.values()][:3] == [float, int, Literal["hard", "soft"]]
    assert fields["by"].metadata["help"] == "how much, in percent."
    assert fields["times"].metadata["help"] == "how often."
    assert repr(shrink(7)) == "shrink(by=7.0, times=3, mode='soft')"
    assert shrink(7) == shrink(by=7.0) != shrink(8)
    assert f"{package}.methods" not in sys.modules
    with pytest.raises(dataclasses.FrozenInstanceError):
        shrink(7).by = 8


def test_what_cannot_be_said_plainly_is_no_choice(package, monkeypatch):
    """Adding an optimizer is its file and its line in the stub.

    It is then in the union, by its return annotation.
    """
    monkeypatch.setitem(rooms.ROOMS, "Temporary", rooms.Room(package, ("Aggregator",)))
    assert list(rooms.members("Temporary")) == ["shrink", "both"]


def test_several_of_one_kind_are_given_one_after_the_other(package):
    both, shrink = setting(f"{package}:both"), setting(f"{package}:shrink")
    one = both(shrink(1), shrink(2), weight=3)
    assert one.rules == (shrink(1), shrink(2))
    assert repr(one).startswith("both(shrink(by=1.0, ")
    assert repr(one).endswith("mode='soft'), weight=3.0)")
    assert dataclasses.replace(one, weight=4) == both(shrink(1), shrink(2), weight=4)


def test_a_class_becomes_one_of_its_fields_and_its_bases(package):
    net = setting(f"{package}:Net", given=("outputs",))
    assert str(inspect.signature(net)) == (
        "(width: int = 8, *, shape: Optional[tuple[int, ...]] = None, ratio: float = UNSET)"
    )
    assert [field.metadata["help"] for field in dataclasses.fields(net)] == ["How wide.", "", ""]
    assert repr(net(3, shape=[2, 2])) == "Net(width=3, shape=(2, 2))"
    assert describe(f"{package}:Net").bases == ("Base", "Module")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, r"^shrink\(by, times, mode, key\): missing a required argument: 'by'"),
        ({"by": 1, "size": 3}, "got an unexpected keyword argument 'size'"),
        ({"by": "much"}, r"^shrink\(by\): a number, got 'much'"),
        ({"by": True}, r"^shrink\(by\): a number, got True"),
        ({"by": 1, "times": 2.5}, r"^shrink\(times\): a whole number, got 2\.5"),
        ({"by": 1, "mode": "loud"}, r"^shrink\(mode\): 'hard' or 'soft', got 'loud'"),
    ],
)
def test_names_and_types_are_checked_when_it_is_made(package, arguments, said):
    with pytest.raises(TypeError, match=said):
        setting(f"{package}:shrink")(**arguments)


def test_numbers_of_numpy_become_pythons(package):
    shrink = setting(f"{package}:shrink")
    one = shrink(np.float32(0.5), times=np.int64(4))
    assert (type(one.by), type(one.times)) == (float, int)
    assert one == shrink(0.5, times=4)


def test_there_is_no_such_function(package):
    with pytest.raises(LookupError, match=r"methods_package has no function or class grow"):
        setting(f"{package}:grow")
    with pytest.raises(LookupError, match="there is no module methods_package.nowhere"):
        setting(f"{package}.nowhere:grow")


def scaled(values: Any, by: float = 2.0, names: tuple[str, str] = ("a", "b"), how=len) -> Any:
    return values, by, names, how


def test_a_live_function_is_one_too():
    cls = setting(scaled, given=("values",))
    one = cls(by=3)
    assert repr(one) == "scaled(by=3.0, names=('a', 'b'))"
    assert one.build([1]) == ([1], 3.0, ("a", "b"), len)
    assert issubclass(cls, Setting)
    assert setting(scaled, given=("values",)) is cls
    with pytest.raises(TypeError, match=r"scaled\(names\): "):
        cls(names=("a",))


def test_nested_settings_are_built_first():
    outer = setting(scaled)
    inner = setting(lambda x=1: x + 1)
    assert outer(inner(4)).build()[0] == 5
    assert outer((inner(4), 3)).build()[0] == (5, 3)


def test_a_parameter_that_is_given_is_no_field():
    cls = setting(scaled, given=("by",))
    assert [field.name for field in dataclasses.fields(cls)] == ["values", "names", "how"]
    assert cls(1).build(7.0)[1] == 7.0
    assert cls(1).build()[1] == 2.0  # the function's own default
    with pytest.raises(ValueError, match="argument 2 is longer"):
        cls(1).build(7.0, 8.0)

"""`run.py` takes a Python that has everything, and no other."""

import importlib.metadata
import sys

import pytest

import run


@pytest.mark.parametrize("extra", ["lab", "test"])
def test_this_python_has_what_the_tests_need(extra):
    assert run.has_everything(sys.executable, extra)


@pytest.mark.parametrize(
    ("package", "version"), [("jax", "0.9.9"), ("optax", "0.1"), ("matplotlib", "3.8.4")]
)
def test_a_python_with_an_older_package_is_passed_over(package, version, monkeypatch):
    installed = importlib.metadata.version
    older = lambda name: version if name == package else installed(name)
    monkeypatch.setattr(importlib.metadata, "version", older)
    monkeypatch.setattr(sys, "argv", ["run.py", "lab"])
    monkeypatch.chdir(run.HERE)
    with pytest.raises(AssertionError, match=f"{package} is {version}, older than"):
        exec(run.CHECK, {})


def test_a_python_without_a_package_is_passed_over(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    monkeypatch.setattr(sys, "argv", ["run.py", "lab"])
    monkeypatch.chdir(run.HERE)
    with pytest.raises(importlib.metadata.PackageNotFoundError, match="jax"):
        exec(run.CHECK, {})

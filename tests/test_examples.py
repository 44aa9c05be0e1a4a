"""Examples in docstrings run, and every public name has one, or one in a document or notebook."""

import ast
import doctest
import importlib
import inspect
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import coherence as co

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted(path for path in (ROOT / "coherence").rglob("*.py") if ">>> " in path.read_text())
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
NAMES = {"co": co, "jax": jax, "jnp": jnp, "np": np, "optax": optax}
COMPILED = {"coherence.checks.aggregators", "coherence.gradients.coupled", "coherence.scores"}
"""Modules whose examples take seconds to compile."""
DOWNLOADED = {"sms"}  # examples of these modules read a file that may not be here


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def with_mark(path):
    name = module_name(path)
    return pytest.param(path, id=name, marks=[pytest.mark.slow] * (name in COMPILED))


@pytest.mark.parametrize("path", [*map(with_mark, EXAMPLES)])
def test_examples_of_docstrings_say_what_is_printed(path, monkeypatch, tmp_path):
    monkeypatch.setenv("COHERENCE_RUNS", str(tmp_path))
    module = importlib.import_module(module_name(path))
    if path.stem in DOWNLOADED:
        try:
            module.sms_messages()
        except (OSError, ValueError):
            pytest.skip("the file is neither here nor to be had")
    failed, tried = doctest.testmod(module, extraglobs=NAMES, optionflags=FLAGS, report=False)
    assert tried
    assert not failed


def identifiers(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.alias):
            yield node.name.rpartition(".")[2]


def test_every_public_name_has_an_example(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "site")
    names = importlib.import_module("public_names")
    sys.modules.pop("public_names")
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    block = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    code = [text for page in pages for text in block.findall(page.read_text())]
    code += [path.read_text() for path in (ROOT / "notebooks").glob("*.py")]
    parser = doctest.DocTestParser()
    for path in EXAMPLES:
        for docstring in re.findall(r'"""(.*?)"""', path.read_text(), re.DOTALL):
            code += [example.source for example in parser.get_examples(inspect.cleandoc(docstring))]
    shown = {name for text in code for name in identifiers(text)}
    lacking = {
        f"{module}.{name}"
        for (module, name), thing in names.public_objects().items()
        if not inspect.ismodule(thing) and name not in shown and ">>> " not in (thing.__doc__ or "")
    }
    assert lacking == set(), "add an example that runs: in the docstring, a page or a notebook"

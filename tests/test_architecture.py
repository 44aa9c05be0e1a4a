"""The parts of the package import each other as designed.

Imports point down, nothing on the way to the command imports JAX, every name is listed once.
"""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import coherence
from benchmarks import architecture
from tests.lab.report import recorded

ROOT = Path(__file__).resolve().parent.parent
HOMES = {"coherence": ("coherence",), "coherence.lab": ("coherence", "lab")}


def drawn():
    """`{package: {room: the rooms it may import}}` of the picture in docs/design.md."""
    (block,) = re.findall(
        r"```mermaid\n(.*?)```", (ROOT / "docs" / "design.md").read_text(), re.DOTALL
    )
    graphs = {}
    for name, body in re.findall(r"subgraph (\S+)\n(.*?)\n  end", block, re.DOTALL):
        rows = [line.strip().partition(" --> ") for line in body.splitlines()]
        graphs[name] = {room: set(others.split(" & ")) - {""} for room, _, others in rows}
    return graphs


@pytest.mark.parametrize("package", HOMES)
def test_the_picture_of_the_design_page_shows_every_import_between_rooms(package):
    assert drawn()[package] == architecture.arrows(ROOT, HOMES[package]), (
        "draw the imports again: python benchmarks/architecture.py --picture"
    )


@pytest.mark.parametrize("package", HOMES)
def test_imports_point_down(package):
    graphlib.TopologicalSorter(drawn()[package]).prepare()  # raises CycleError, with the cycle


def test_the_core_never_imports_the_lab():
    assert not [room for room, others in drawn()["coherence"].items() if "lab" in others]


def modules():
    """`{module: the modules of the package it imports}` of every file."""
    files = {path: name_of(path) for path in (ROOT / "coherence").rglob("*.py")}
    known = set(files.values())
    return {
        files[path]: {
            target
            for name in architecture.imports(path, ROOT)
            for target in (".".join(name), ".".join(name[:-1]))
            if target in known and target != files[path]
        }
        for path in files
    }


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_no_two_modules_import_each_other():
    graphlib.TopologicalSorter(modules()).prepare()


def test_the_core_works_without_the_packages_of_the_lab():
    code = """
import sys
for name in ("flax", "sklearn", "matplotlib", "tyro", "shtab", "platformdirs", "PIL"):
    sys.modules[name] = None
import jax.numpy as jnp, optax
import coherence as co
for room in (co, co.checks, co.gradients, co.metrics, co.optim, co.probes, co.scores):
    for name in room.__all__:
        getattr(room, name)
loss = lambda params, x: (params["w"] @ x) ** 2
losses, grads = co.per_example_value_and_grad(loss)({"w": jnp.ones(3)}, jnp.eye(3))
assert co.alpha(grads) > 0.3 and co.optim.winsorize(2).update(grads, None)[0]["w"].shape == (3,)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("folder", ["experiments", "paper_figures"])
def test_experiments_and_figures_have_no_siblings(folder):
    stems = {path.stem for path in (ROOT / folder).glob("*.py")} - {"style"}
    for path in (ROOT / folder).glob("*.py"):
        tree = ast.parse(path.read_text())
        names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert not names & stems
        if folder == "paper_figures":
            without_jax = ("coherence.lab.claims", "coherence.lab.report")
            assert not any(
                name.startswith(("jax", "coherence")) and not name.startswith(without_jax)
                for name in names
            )


def test_every_listed_name_exists_and_has_a_docstring():
    core = [coherence.checks, coherence.gradients, coherence.metrics, coherence.optim]
    for room in (coherence, *core, coherence.probes, coherence.scores):
        for name in room.__all__:
            assert getattr(room, name).__doc__, f"{room.__name__}.{name} has no docstring"


def test_no_module_bears_the_name_of_a_function_it_exports():
    for path in (ROOT / "coherence").rglob("*.py"):
        functions = {
            n.name
            for n in ast.parse(path.read_text()).body
            if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")
        }
        if (
            "rules" not in path.parts and "optim" not in path.parts
        ):  # one rule or method a file: there the file is the function
            assert path.stem not in functions


def test_looking_never_imports_jax(tmp_path):
    recorded.run(tmp_path / "run")
    path = str(tmp_path / "run")
    commands = [
        ["--help"],
        ["list"],
        ["claims"],
        ["figures"],
        ["completion", "bash"],
        ["run", "toy", "--help"],
        ["status", "toy"],
        ["show", path],
        ["compare", path, path],
        ["report", path, "--output", f"{path}.html"],
        ["watch", path, "--file", f"{path}.html"],
    ]
    code = f"""
import sys
from coherence.lab.cli import main
for command in {commands!r}:
    try:
        main(command)
    except SystemExit as stop:
        assert not stop.code, (command, stop.code)
    assert "jax" not in sys.modules, command
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_importing_the_package_imports_nothing_heavy():
    heavy = {"jax", "numpy", "matplotlib", "flax"}
    code = f"import coherence, sys; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_list_of_thorough_tests_names_tests_that_exist():
    for line in (ROOT / "tests" / "thorough.txt").read_text().splitlines():
        if not line.startswith("#"):
            path, _, name = line.partition("[")[0].partition("::")
            assert f"\ndef {name}(" in (ROOT / path).read_text(), line

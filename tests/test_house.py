"""The house keeps its order.

Imports point down, nothing on the way to the command imports JAX, every name is listed once.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import coherence
from tests.lab.report import recorded

ROOT = Path(__file__).resolve().parent.parent
CORE = [
    {"trees", "jax_internals"},
    {"gradients"},
    {"metrics"},
    {"optim", "checks", "probes"},
    {"lab"},
]
LAB = [
    {"runs", "claims", "settings"},
    {"data", "models", "optimizers"},
    {"tasks"},
    {"training", "experiment", "report"},
    {"analysis"},
    {"running", "estimators"},
    {"cli"},
    {"__main__"},
]


def imported(path, home):
    """The rooms of a package that a file imports, wherever in the file it does."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) + 1 - node.level]] if node.level else []
            base += node.module.split(".") if node.module else []
            modules = [[*base, alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            modules = [alias.name.split(".") for alias in node.names]
        else:
            continue
        for module in modules:
            if tuple(module[: len(home)]) == home and len(module) > len(home):
                yield module[len(home)]


def files(folder):
    return sorted(path for path in (ROOT / folder).rglob("*.py"))


def name(path):
    return str(path.relative_to(ROOT))


def check_floors(path, home, floors):
    room, *_ = path.relative_to(ROOT.joinpath(*home)).with_suffix("").parts
    if room == "__init__":
        return
    floor = {room: level for level, rooms in enumerate(floors) for room in rooms}
    above = {r for r in imported(path, home) if floor.get(r, -1) > floor[room]}
    assert not above, f"{name(path)} is on floor {floor[room]} and imports {above} from above"


@pytest.mark.parametrize("path", files("coherence"), ids=name)
def test_imports_point_down_and_the_core_never_imports_the_lab(path):
    check_floors(path, ("coherence",), CORE)


@pytest.mark.parametrize("path", files("coherence/lab"), ids=name)
def test_imports_within_the_lab_point_down(path):
    check_floors(path, ("coherence", "lab"), LAB)


def test_the_core_works_without_the_packages_of_the_lab():
    code = """
import sys
for name in ("flax", "sklearn", "matplotlib", "tyro", "shtab", "pooch", "PIL"):
    sys.modules[name] = None
import jax.numpy as jnp, optax
import coherence as co
for name in co.__all__:
    getattr(co, name)
loss = lambda params, x: (params["w"] @ x) ** 2
losses, grads = co.per_example_value_and_grad(loss)({"w": jnp.ones(3)}, jnp.eye(3))
assert co.alpha(grads) > 0.3 and co.winsorize(2).update(grads, None)[0]["w"].shape == (3,)
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
    for name in coherence.__all__:
        assert getattr(coherence, name).__doc__, f"{name} has no docstring"


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


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["list"],
        ["claims"],
        ["figures"],
        ["completion", "bash"],
        ["run", "toy", "--help"],
        ["show", "RUN"],
        ["compare", "RUN", "RUN"],
        ["report", "RUN", "--output", "RUN.html"],
    ],
)
def test_looking_never_imports_jax(command, tmp_path):
    recorded.run(tmp_path / "run")
    code = f"""
import sys
from coherence.lab.cli import main
try:
    main({[word.replace("RUN", str(tmp_path / "run")) for word in command]!r})
except SystemExit as stop:
    assert not stop.code, stop.code
assert "jax" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_importing_the_package_imports_nothing_heavy():
    heavy = {"jax", "numpy", "matplotlib", "flax"}
    code = f"import coherence, sys; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)

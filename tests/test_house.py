"""The house keeps its order: imports point down, nothing on the way to the command imports JAX, every name is listed once."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import coherence
from tests.report import recorded

ROOT = Path(__file__).resolve().parent.parent
FLOORS = [
    {"runs", "claims", "trees"},
    {"data", "models"},
    {"tasks"},
    {"gradients"},
    {"metrics"},
    {"optim", "checks", "probes"},
    {"training", "experiment", "report"},
    {"running", "fields", "gallery", "findings", "estimators"},
    {"cli", "__main__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def imported(path):
    """The rooms of the package that a file imports, wherever in the file it does."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) + 1 - node.level], *(node.module or "").split(".")] if node.level else node.module.split(".")
            base = [part for part in base if part]
            if base[0] == "coherence":
                yield from [base[1]] if len(base) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("coherence."))


@pytest.mark.parametrize("path", sorted((ROOT / "coherence").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    parts = path.relative_to(ROOT / "coherence").with_suffix("").parts
    if parts == ("__init__",):
        return
    above = {room for room in imported(path) if FLOOR[room] > FLOOR[parts[0]]}
    assert not above, f"{path.name} is on floor {FLOOR[parts[0]]} and imports {above} from above"


@pytest.mark.parametrize("folder", ["experiments", "paper_figures"])
def test_experiments_and_figures_have_no_siblings(folder):
    stems = {path.stem for path in (ROOT / folder).glob("*.py")} - {"style"}
    for path in (ROOT / folder).glob("*.py"):
        tree = ast.parse(path.read_text())
        names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert not names & stems
        if folder == "paper_figures":
            without_jax = ("coherence.claims", "coherence.report")
            assert not any(name.startswith(("jax", "coherence")) and not name.startswith(without_jax) for name in names)


def test_every_listed_name_exists_and_has_a_docstring():
    for name in coherence.__all__:
        assert getattr(coherence, name).__doc__, f"{name} has no docstring"


def test_no_module_bears_the_name_of_a_function_it_exports():
    for path in (ROOT / "coherence").rglob("*.py"):
        functions = {n.name for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")}
        if "rules" not in path.parts and "optim" not in path.parts:  # one rule or method a file: there the file is the function
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
from coherence.cli import main
try:
    main({[word.replace("RUN", str(tmp_path / "run")) for word in command]!r})
except SystemExit as stop:
    assert not stop.code, stop.code
assert "jax" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_importing_the_package_imports_nothing_heavy():
    code = "import coherence, sys; assert not {'jax', 'numpy', 'matplotlib', 'flax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)

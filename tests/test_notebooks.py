"""Notebooks are scripts with cells.

Each runs as it stands, in a process of its own, and no warning goes unseen.
"""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


@notebook
def test_runs_from_top_to_bottom(notebook, tmp_path):
    environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
    warnings = ["-W", "error", "-W", "ignore:FigureCanvasAgg is non-interactive"]
    done = subprocess.run(
        [sys.executable, *warnings, notebook],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "nan" not in done.stdout


@notebook
def test_is_made_of_cells_that_begin_with_words(notebook):
    text = notebook.read_text()
    assert text.startswith("# %% [markdown]\n# # ")
    cells = re.split(r"^# %%", text, flags=re.MULTILINE)[1:]
    for cell in cells:
        if cell.startswith(" [markdown]"):
            assert all(line.startswith("#") or not line for line in cell.splitlines()[1:])
        else:
            ast.parse(cell.split("\n", 1)[1])


@notebook
def test_every_axis_is_labelled(notebook):
    text = notebook.read_text()
    assert "xlabel=" in text
    assert "ylabel=" in text

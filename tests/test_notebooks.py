"""Notebooks are scripts with cells.

Each runs from top to bottom, and no warning goes unseen.
"""

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
@notebook
def test_runs_from_top_to_bottom_with_two_seeds(notebook, tmp_path, monkeypatch, capsys):
    """In this process, which has imported what it needs: that takes longer than its training."""
    plt.switch_backend("Agg")
    monkeypatch.chdir(tmp_path)
    text = notebook.read_text()
    text, changed = re.subn(r"(?m)^(\w+, SEEDS, .* = \d+), 4,", r"\1, 2,", text)
    assert changed == ("SEEDS" in text)
    precision = jax.config.jax_enable_x64
    try:
        exec(compile(text, notebook, "exec"), {"__name__": "__main__"})
    finally:  # a notebook may choose another precision
        jax.config.update("jax_enable_x64", precision)
        plt.close("all")
    assert "nan" not in capsys.readouterr().out


@pytest.mark.slow
@notebook
def test_runs_as_it_stands_in_a_process_of_its_own(notebook, tmp_path):
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


@notebook
def test_the_notebook_with_outputs_is_made_from_this_script(notebook):
    made = json.loads(notebook.with_suffix(".ipynb").read_text())
    digest = hashlib.sha256(notebook.read_bytes()).hexdigest()
    stale = "stale: python docs/site/make_notebooks.py"
    assert made["metadata"]["coherence"] == {"source": notebook.name, "sha256": digest}, stale
    code = [cell for cell in made["cells"] if cell["cell_type"] == "code"]
    assert "%pip install" in "".join(code[0]["source"])
    assert any("image/png" in out.get("data", {}) for cell in code for out in cell["outputs"])
    for output in (output for cell in code for output in cell["outputs"]):
        assert output.get("name", "stdout") == "stdout"
        assert output["output_type"] != "error"
        assert len("".join(output.get("text", ""))) <= 4000
    assert notebook.with_suffix(".ipynb").stat().st_size <= 400_000

"""Makes `notebooks/NAME.ipynb`, with outputs, from the scripts `notebooks/NAME.py`.

    python docs/site/make_notebooks.py [NAME ...]

The script is the source. Its notebook keeps the digest of it, so one whose script did not change is
left alone, and a test says which are stale. Needs the extra `notebooks`.
"""

import hashlib
import os
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"
INSTALL = """\
# In Colab, or wherever coherence is missing: install it. (It is not on PyPI yet: until then upload
# its wheel and write the name of that file here.)
try:
    import coherence
except ImportError:
    %pip install -q "gradient-coherence[lab]" equinox"""


def main(names):
    for script in sorted(FOLDER.glob("*.py")):
        if names and script.stem not in names:
            continue
        target = script.with_suffix(".ipynb")
        digest = hashlib.sha256(script.read_bytes()).hexdigest()
        if target.is_file() and recorded_digest(target) == digest:
            print(f"{target.name}: up to date")
            continue
        notebook = jupytext.reads(script.read_text(), fmt="py:percent")
        run(notebook)
        notebook.metadata["coherence"] = {"source": script.name, "sha256": digest}
        nbformat.validate(notebook)
        nbformat.write(notebook, target)
        print(f"{target.name}: made, {target.stat().st_size / 1e3:.0f} kB", flush=True)


def recorded_digest(notebook):
    metadata = nbformat.read(notebook, as_version=4).metadata
    return metadata.get("coherence", {}).get("sha256")


def run(notebook):
    """Execute the cells, behind one that installs; what changes with every run is taken out."""
    notebook.cells.insert(1, nbformat.v4.new_code_cell(INSTALL))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        options = {"kernel_name": "python3", "timeout": 1800, "record_timing": False}
        NotebookClient(notebook, resources={"metadata": {"path": folder}}, **options).execute()
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                raise SystemExit(f"cell {number} wrote to stderr:\n{output.text}")


if __name__ == "__main__":
    main(sys.argv[1:])

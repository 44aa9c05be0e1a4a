"""Builds the documentation site with Sphinx: every warning is an error.

    python docs/site/build.py

The pages of the repository stay where they are and read well on GitHub. They are copied with their
folders into `build/site/source/`, so that links between them lead to the same places; pages that
only the site has (the reference, tables of benchmarks) are written beside them. The site is in
`build/site/html/`; `coherence docs` opens it. Needs the extra `docs`; trains and downloads nothing.
"""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from public_names import home, public_names, public_objects, single_modules

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "build" / "site"
SOURCE = SITE / "source"
GUIDES = {  # the order of the sidebar
    "Measure": (
        *("per_example_gradients", "measuring", "metrics", "scores", "notation"),
        *("looking", "watching", "for_a_paper", "losses", "batch_norm", "prices"),
    ),
    "Train": (
        "optimizers",
        "clipping",
        "optax",
        "adding_an_optimizer",
        "early_stopping",
        "models",
        "settings",
    ),
    "Models and classifiers": ("autoencoders", "generative", "estimators"),
    "Experiments": ("foundations", "experiments", "scaling", "design"),
}
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")


def main():
    shutil.rmtree(SITE, ignore_errors=True)
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("benchmarks/**/*.md")]
    pages += [ROOT / "paper_figures" / "README.md"]
    for page in pages:
        add_page(page)
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        write(notebook.relative_to(ROOT), notebook.read_text())
    for module, names in public_names().items():
        write(f"reference/{module}.rst", reference(module, names))
    for name in single_modules():
        write(f"reference/{name}.rst", reference_of_module(name))
    write("benchmarks/recorded.md", recorded_benchmarks())
    write("index.md", index())
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html"]
    command += ["-j", str(os.cpu_count() or 1), "-c", Path(__file__).parent]
    command += ["-d", SITE / "doctrees", SOURCE, SITE / "html"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    print(f"0 warnings: {SITE / 'html' / 'index.html'}")


def write(path, text):
    target = SOURCE / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def add_page(page):
    """Copy a page, and what it shows or links to; a link to a folder becomes its name."""

    def follow(match):
        picture, text, target = match.groups()
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve()
        if "://" in target or target.startswith("mailto:") or not path:
            return match[0]
        if linked == ROOT / "README.md":
            path = os.path.relpath(ROOT / "index.md", page.parent)
        elif linked.is_dir():
            return text
        elif linked.suffix != ".md":
            copy = SOURCE / linked.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(linked, copy)
        notebook = linked.with_suffix(".ipynb")
        if linked.suffix == ".py" and notebook.is_file():
            path = os.path.relpath(notebook, page.parent)
        return f"{picture}[{text}]({path}{'#' * bool(anchor)}{anchor})"

    name = page.relative_to(ROOT)
    if page.name != "README.md" or page.parent != ROOT:
        write(name, LINK.sub(follow, page.read_text()))
    else:
        write("index.md", LINK.sub(follow, page.read_text()))


def reference(module, names):
    """The page of a module: a table of its names, then each with its docstring."""
    things = {name: public_objects()[module, name] for name in names}
    own = [name for name in names if home(module, name) == f"{module}.{name}"]
    own = [name for name in own if not inspect.ismodule(things[name])]
    lines = [module, "=" * len(module), "", f".. automodule:: {module}", "   :no-members:", ""]
    for name in (name for name in names if name not in own):
        kind = "mod" if inspect.ismodule(things[name]) else "obj"
        lines += [f"* :py:{kind}:`{module}.{name} <{home(module, name)}>`"]
    lines += ["", f".. currentmodule:: {module}", ""]
    if described := [name for name in own if callable(things[name])]:
        lines += [
            ".. autosummary::",
            "   :nosignatures:",
            "",
            *(f"   {name}" for name in described),
            "",
        ]
    for name in own:
        lines += [*description(name, things[name]), ""]
    return "\n".join(lines)


def description(name, thing):
    if not callable(thing):
        return [f".. py:data:: {name}", "", "   ::", "", f"      {thing!r}"]
    if not isinstance(thing, type):
        return [f".. autofunction:: {name}"]
    if issubclass(thing, Exception):
        return [f".. autoexception:: {name}"]
    return [f".. autoclass:: {name}", "   :members:", "   :show-inheritance:"]


def reference_of_module(name):
    """The page of a public module that is a single file."""
    return f"{name}\n{'=' * len(name)}\n\n.. automodule:: {name}\n   :members:\n"


def recorded_benchmarks():
    """Tables of every recorded JSON of benchmarks: `{row: {column: numbers}}`."""
    lines = ["# Benchmarks, from the recorded numbers", ""]
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        rows = json.loads(path.read_text())
        lines += [f"## {path.stem}", "", f"Every measurement in `{path.relative_to(ROOT)}`.", ""]
        cells = [
            (row, column, cell) for row, columns in rows.items() for column, cell in columns.items()
        ]
        fields = list(dict.fromkeys(field for *_, cell in cells for field in cell))
        lines += [table_row(["", "", *fields]), table_row(["---"] * (len(fields) + 2))]
        for row, column, cell in cells:
            lines += [table_row([row, column, *(number(cell.get(field)) for field in fields)])]
        lines += [""]
    return "\n".join(lines)


def table_row(cells):
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def number(value):
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def index():
    """README is the first page; the sidebar lists the others."""
    trees = {
        **{title: [f"docs/{name}" for name in names] for title, names in GUIDES.items()},
        "Findings": ["docs/reproducing", "paper_figures/README"],
        "Notebooks": [f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")],
        "Reference": [
            f"reference/{module}" for module in sorted([*public_names(), *single_modules()])
        ],
        "Benchmarks": [
            *(
                "benchmarks/results/" + path.stem
                for path in (ROOT / "benchmarks/results").glob("*.md")
            ),
            *("benchmarks/recorded", "benchmarks/peers/README"),
        ],
        "Project": ["CHANGELOG", "CONTRIBUTING", "SECURITY"],
    }
    lines = [(SOURCE / "index.md").read_text()]
    for title, pages in trees.items():
        depth = [":glob:", ":maxdepth: 1"]
        known = pages if title in GUIDES else sorted(pages) if title == "Notebooks" else pages
        lines += ["```{toctree}", ":hidden:", f":caption: {title}", *depth, "", *known, "```", ""]
    lines += ["```{toctree}", ":hidden:", ":glob:", "", "docs/reproducing/*", "```", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()

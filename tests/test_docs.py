"""The documents keep their word.

Every Python block runs, every link leads somewhere, every command and message exists.
"""

import ast
import builtins
import csv
import re
import shlex
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import coherence
from coherence.gradients.rules import RULES
from coherence.lab import cli, running, runs
from coherence.lab.experiment import collect, load

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)


def blocks(path, language):
    """`(first line, text)` of every fenced block of a language."""
    text = path.read_text()
    for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield text[: match.start(1)].count("\n"), match[1]


def table(path, heading):
    """The first column of the table under a heading, without backticks."""
    section = path.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("|")]
    return rows[2:]


@page
def test_python_blocks_run_in_order_without_a_warning(page, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "paper_figures")  # as when the command loads a figure
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    # Named like the file `coherence run` loads: the blocks define dataclasses, which look their
    # module up.
    namespace = {"__name__": "__main__"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for line, text in blocks(page, "python"):
            exec(compile("\n" * line + text, page, "exec"), namespace)


@pytest.mark.parametrize(
    ("page", "step"),
    [("docs/measuring.md", "updates, state = tx.update(")],
)
def test_loops_take_as_many_steps_as_they_announce(page, step):
    (loop,) = (text for _, text in blocks(ROOT / page, "python") if "probe.due(" in text)
    loop = loop.partition("print(co.measure(")[0]  # what comes behind it
    assert loop.count(step) == 1
    (total,) = set(re.findall(r"probe\.due\(\w+, (\d+)\)", loop))
    loss = lambda params, example: (params @ example[0] - example[1]) ** 2
    namespace = {"loss": loss, "params": jnp.ones(3), "jax": jax, "jnp": jnp, "co": coherence}
    namespace |= {"x": jnp.ones((20, 3)), "y": jnp.arange(20), "done": []}
    exec(loop.replace(step, f"done.append(0); {step.partition('  #')[0]}"), namespace)
    assert len(namespace["done"]) == int(total)
    assert namespace["probe"].due(int(total), int(total))


@pytest.mark.parametrize(
    "first",
    ['"""Wider networks are more coherent', "import numpy as np\nfrom coherence.lab.report"],
)
def test_files_of_the_guide_to_experiments_import_what_they_need(first):
    page = ROOT / "docs" / "experiments.md"
    (text,) = (text for _, text in blocks(page, "python") if text.startswith(first))
    text = text.replace("\ndraw(recorded)\n", "")  # which tries it out
    nodes = list(ast.walk(ast.parse(text)))
    made = {alias.asname or alias.name for n in nodes for alias in getattr(n, "names", [])}
    made |= {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    made |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    made |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    used = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    assert used - made - set(dir(builtins)) == set()


def test_as_many_labels_of_mnist_are_wrong_as_the_list_has():
    text = (ROOT / "docs" / "scores.md").read_text()
    with open(ROOT / "docs" / "mnist_test_labels.csv", newline="") as file:
        judged = [row["judged"] for row in csv.DictReader(file)]
    told = {word: int(count) for count, word in re.findall(r"\*\*(\d+) (\w+)\*\*", text)}
    assert told == {word: judged.count(word) for word in ("wrong", "ambiguous", "right")}


@page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target


def test_the_figure_is_shown_with_the_scale_it_was_recorded_at():
    text = re.sub(r"\s+", " ", (ROOT / "README.md").read_text())
    recorded = runs.load_arrays(ROOT / "paper_figures" / "recorded" / "real_vs_random.npz")
    for part in re.findall(r"[\d,]+ examples|MLP [\d-]+|\d+ seeds", str(recorded["scale"])):
        assert part.replace(" examples", " training examples") in text, part


@page
def test_named_files_exist(page):
    for name in re.findall(
        r"`((?:coherence|experiments|paper_figures|benchmarks|notebooks|docs|tests)/[\w/.]*)`",
        page.read_text(),
    ):
        assert (ROOT / name).exists() or "mine" in name, name


@page
def test_console_commands_exist(page):
    parser, _ = cli._parser()
    experiments = {path.stem for path in (ROOT / "experiments").glob("*.py")}
    for _, text in blocks(page, "console"):
        for line in text.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] != ["coherence"]:
                continue
            if words[1] not in cli.FREE:
                assert not parser.parse_known_args(words[1:])[1], line
            else:
                name, *flags = words[2:]
                assert name in experiments, line
                experiment = collect(load(ROOT / "experiments" / f"{name}.py"))
                cpu = experiment.presets["cpu"]
                accepted = {
                    *("--preset", "--record", "--share", "--workers", "--devices", "--hosts"),
                    *("--divide-above", "--submit", "--shares", "--option"),
                    *("--help", "--json"),
                    *("--arm", "--seed", "--of", "--by", "--output"),
                    *(f"--{field.replace('_', '-')}" for field in vars(cpu)),
                }
                for flag in (word for word in flags if word.startswith("--")):
                    assert flag in accepted or running.qualified(cpu, [flag]) != [flag], line


def test_every_public_name_is_in_a_document():
    text = "".join(path.read_text() for path in PAGES)
    names = {*coherence.__all__, *coherence.metrics.__all__, *coherence.optim.__all__}
    assert {name for name in names if not re.search(rf"\b{name}\b", text)} == set()


def test_the_guide_lists_the_rules_that_exist():
    named = table(ROOT / "docs" / "per_example_gradients.md", "Rules, and what `Recomputed` means")
    assert set(re.findall(r"`(\w+)`", " ".join(named))) == set(RULES)


def test_the_guide_quotes_messages_that_can_be_said():
    said = "\n".join(_messages(path) for path in (ROOT / "coherence").rglob("*.py"))
    for row in table(ROOT / "docs" / "per_example_gradients.md", "Errors and their meaning"):
        assert row.strip("`").strip() in said, row


def test_the_design_lists_what_a_run_folder_holds():
    named = table(ROOT / "docs" / "design.md", "How data flows")
    assert {"config.json", "manifest.json", "metrics.jsonl", "DONE"} <= set(
        re.findall(r"`([^`]+)`", " ".join(named))
    )
    assert all(
        name in runs.__doc__ for name in ("config.json", "manifest.json", "metrics.jsonl", "DONE")
    )


@pytest.mark.parametrize(
    "page",
    PAGES,
    ids=lambda path: path.stem,
)
def test_pages_stay_short(page):
    prose = re.sub(r"^```mermaid\n.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = prose.splitlines()
    assert len(lines) <= (110 if page.name == "README.md" else 160)
    assert max(len(line) for line in lines if not line.startswith(("|", "![", "$$"))) <= 140


def _messages(path):
    """Every string of a file, those of f-strings with a gap where a value goes."""
    texts = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            texts.append(
                "".join(
                    part.value if isinstance(part, ast.Constant) else "\0" for part in node.values
                )
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append(node.value)
    return "\n".join(texts)

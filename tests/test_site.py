"""The parts of the documentation site; `.ci/run` builds it, where every warning is an error."""

import importlib
import re
import sys
from pathlib import Path

import pytest

from coherence.lab import cli

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def site():
    """The modules of `docs/site` that need no Sphinx."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs" / "site")
        yield importlib.import_module("build"), importlib.import_module("public_names")
        for name in ("build", "public_names"):
            sys.modules.pop(name)


def test_the_reference_has_every_name_that_a_module_exports(site):
    _, names = site
    for module, listed in names.public_names().items():
        assert sorted(listed) == sorted(importlib.import_module(module).__all__)


def test_a_name_in_two_modules_is_described_where_it_is_defined(site):
    _, names = site
    assert names.home("coherence", "alpha") == "coherence.metrics.alpha"
    assert names.home("coherence.metrics", "alpha") == "coherence.metrics.alpha"
    assert names.home("coherence", "optim") == "coherence.optim"


def test_every_page_is_in_the_sidebar(site):
    build, _ = site
    listed = {f"{name}.md" for names in build.GUIDES.values() for name in names}
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert listed | {"reproducing.md"} == pages, "list it in GUIDES of docs/site/build.py"


def test_links_of_a_copied_page_lead_to_what_was_copied(site, tmp_path, monkeypatch):
    build, _ = site
    monkeypatch.setattr(build, "SOURCE", tmp_path)
    build.add_page(ROOT / "docs" / "measuring.md")
    copied = (tmp_path / "docs" / "measuring.md").read_text()
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", copied)]
    files = [t for t in targets if t and "://" not in t and not t.endswith((".md", ".ipynb"))]
    assert all((tmp_path / "docs" / target).exists() for target in files)


def test_recorded_benchmarks_become_tables(site):
    build, _ = site
    text = build.recorded_benchmarks()
    assert text.count("## ") == len(list((ROOT / "benchmarks" / "results").glob("*.json"))) > 0
    assert "| MLP 784-2048-10, m=100 | coherence |" in text


def test_the_command_opens_the_site_or_says_how_to_build_it(tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    for folder in ("experiments", "paper_figures"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        cli.main(["docs"])
    assert "then python docs/site/build.py" in capsys.readouterr().err
    assert not opened
    page = tmp_path / "build" / "site" / "html" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text("")
    cli.main(["docs"])
    assert opened == [page.as_uri()]

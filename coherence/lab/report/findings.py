"""Recordings of a checkout with their verdicts, and the page of figures.

Never imports JAX.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from coherence.lab import claims, runs
from coherence.lab.experiment import Experiment, collect, load

from . import gallery

FIGURES_PAGE = Path("paper_figures") / "README.md"

_FIGURES = """\
# Figures

Written by `coherence figures` from the arrays in `recorded/`: no training, no JAX. Each is in \
`drawn/` as PNG, PDF and CSV (what
was drawn, with its intervals). Bands and bars are 95 % intervals over seeds; what has none is a \
mean or a single run. Labels:
true ones blue, random ones orange; pristine examples green, corrupt ones vermilion. All claims, \
with effects and sources:
[docs/reproducing.md](../docs/reproducing.md)."""


@dataclass(frozen=True)
class Recording:
    """Recorded arrays of an experiment, judged."""

    name: str
    """Of its figure: the experiment's, and the preset's where that is not the usual one."""
    experiment: Experiment
    judgements: list[claims.Judgement]


def experiments(home: Path) -> dict[str, Experiment]:
    """The experiments of a checkout, by name.

    Raises:
        ValueError: a file that lacks a part of an experiment, by name.
    """
    return {name: collect(load(path)) for name, path in files(home).items()}


def files(home: Path) -> dict[str, Path]:
    """The files of a checkout's experiments, by name."""
    return {path.stem: path for path in sorted((home / "experiments").glob("*.py"))}


def recordings(
    home: Path,
    known: dict[str, Experiment] | None = None,
    failed: dict[str, ValueError] | None = None,
) -> list[Recording]:
    """The recordings of a checkout, judged, in the order of their names.

    Args:
        home: the checkout.
        known: its `experiments`, where they are at hand.
        failed: if given, what is wrong with each recording that cannot be judged is put here.

    Raises:
        ValueError: a recording cannot be judged, and there is no `failed`.
    """
    known = experiments(home) if known is None else known
    judged = []
    for name in gallery.names(home):
        try:
            judged.append(_judged(home, name, known))
        except ValueError as error:
            if failed is None:
                raise
            failed[name] = error
    return judged


def _judged(home: Path, name: str, known: dict[str, Experiment]) -> Recording:
    path, stem = gallery.recording(home, name), gallery.stem(name)
    if stem not in known:
        raise ValueError(f"{path} belongs to no experiment: there is no experiments/{stem}.py.")
    try:
        arrays = runs.load_arrays(path)
        before = _before_digests(home).get(name)
        judgements = known[stem].judgements(arrays, run_id(path, name), before)
    except OSError:  # which says nothing about the file
        raise
    except Exception as error:  # a whole file may lack arrays, or have others
        what = f"{type(error).__name__}: {error}"
        preset = gallery.preset(name, "")
        command = f"coherence run {stem} {f'--preset {preset} ' * bool(preset)}--record"
        raise ValueError(
            f"{path} is not what experiments/{stem}.py judges ({what}). "
            f"Delete it and run it again: {command}"
        ) from error
    return Recording(name, known[stem], judgements)


def _before_digests(home: Path) -> dict[str, dict[str, str]]:
    """Of recordings made before arrays had their claims' digests: {recording: {claim: digest}}."""
    path = home / "paper_figures" / "recorded" / "claims.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def all_judgements(recordings: Sequence[Recording]) -> list[claims.Judgement]:
    """The judgements of some recordings, in order."""
    return [judgement for recording in recordings for judgement in recording.judgements]


def counts(judgements: Sequence[claims.Judgement]) -> str:
    """Numbers of verdicts, each kind of claim by itself, of those that there are.

    Such as `the papers' claims: 6 reproduced, 1 not reproduced; exact checks: 2 reproduced`.
    """
    kinds = []
    for group, words in claims.GROUPS.items():
        verdicts = [j.verdict for j in judgements if j.claim.group == group]
        numbers = [(verdicts.count(verdict), verdict) for verdict in claims.VERDICTS]
        if counts := ", ".join(f"{number} {verdict}" for number, verdict in numbers if number):
            kinds.append(f"{words}: {counts}")
    return "; ".join(kinds)


def run_id(path: str | Path, name: str) -> str:
    """A recording's name and a digest of all its arrays: other numbers, another id."""
    return f"{name}@{hashlib.sha256(Path(path).read_bytes()).hexdigest()[:8]}"


def figures_page(home: Path, recordings: Sequence[Recording]) -> str:
    """The page of figures in Markdown: each with its caption and the verdicts that belong to it."""
    sections = [part for recording in recordings for part in _figure_section(home, recording)]
    return "\n\n".join([_FIGURES, *sections]) + "\n"


def _figure_section(home: Path, recording: Recording) -> Iterator[str]:
    name, stem = recording.name, gallery.stem(recording.name)
    title, caption = caption_of(home, stem)
    if stem != name:
        caption = (
            f"Panels that both have are described under [{stem}](#{stem}), by their titles, and so "
            "is what this preset adds."
        )
    yield f"## {name}"
    yield f"![{title}](drawn/{name}.png)"
    if "2.png" in gallery.formats(home, name):
        yield f"![{title}, second page](drawn/{name}.2.png)"
    if "gif" in gallery.formats(home, name):
        yield f"![{title}, moving](drawn/{name}.gif)"
    yield f"**{title}** {caption}".strip()
    verdicts = []
    for verdict in claims.VERDICTS:
        names = [j.claim.name for j in recording.judgements if j.verdict == verdict]
        if names:
            verdicts.append(f"*{verdict.capitalize()}*: {', '.join(names)}")
    yield f"{recording.judgements[0].scale}. {'. '.join(verdicts)}."


def caption_of(home: Path, stem: str) -> tuple[str, str]:
    """Title and caption of a figure: its file's docstring, which is read without running it."""
    path = home / "paper_figures" / f"{stem}.py"
    title, _, caption = (ast.get_docstring(ast.parse(path.read_text())) or stem).partition("\n\n")
    return " ".join(title.split()), caption.strip()

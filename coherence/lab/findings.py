"""What has been recorded, judged: the claims table, the page of the claims and the page of the figures. Never imports JAX."""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass
from pathlib import Path

from . import claims, gallery, runs
from .experiment import Experiment, collect, load
from .report.tables import markdown

REPRODUCING = Path("docs") / "reproducing.md"
GALLERY = Path("paper_figures") / "README.md"


def experiments(home):
    """`{name: Experiment}` of the checkout.

    Raises:
        ValueError: a file that lacks a part of an experiment, by name.
    """
    return {path.stem: collect(load(path)) for path in sorted((home / "experiments").glob("*.py"))}


@dataclass(frozen=True)
class Finding:
    """A recording and what it says."""

    name: str
    """Of its figure: the experiment's, and the preset's where that is not the usual one."""
    experiment: Experiment
    judgements: list[claims.Judgement]


def judged(home):
    """Every recording of the checkout, judged, in the order of the experiments' names."""
    known, found = experiments(home), []
    for name in gallery.names(home):
        experiment = known[gallery.stem(name)]
        path = gallery.recording(home, name)
        found.append(
            Finding(
                name,
                experiment,
                experiment.judgements(runs.load_arrays(path), run_id(path, name)),
            )
        )
    return found


def counts(judgements):
    """How many claims have which verdict: `6 reproduced, 1 not reproduced, 2 inconclusive`."""
    verdicts = [judgement.verdict for judgement in judgements]
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in claims.VERDICTS)


def run_id(path, name):
    """A recording's name and a digest of all its arrays: other numbers, another id."""
    return f"{name}@{hashlib.sha256(Path(path).read_bytes()).hexdigest()[:8]}"


def reproducing(found, date):
    """The page of the claims, in Markdown: every recording with its scale, every claim with its verdict, effect and source."""
    judgements = [judgement for finding in found for judgement in finding.judgements]
    parts = [
        "# What reproduces, and what does not",
        f"As of {date}. Written by `coherence claims --write` from the recorded arrays in `paper_figures/recorded/`; a test says when it is"
        f"\nstale. {len(judgements)} verdicts on claims, at the scales below: {counts(judgements)}.",
        "A verdict rests on Student's t interval over seeds, 95 %. A reproduced claim that does not survive Holm's adjustment over its"
        "\ntable (5 %) becomes inconclusive; *not reproduced* rests on the interval alone. *Values* are one a seed, or, of claims of exact"
        "\nvalues, which have no interval, as many as were compared. *Known* is how firmly we know that the source says so: read there,"
        "\nsecond-hand, remembered, or derived by us. The sentence below a heading is what is asked or claimed; verdicts are in the table."
        "\nPictures with captions: [paper_figures](../paper_figures/README.md).",
    ]
    return "\n\n".join(parts + [_section(finding) for finding in found]) + "\n"


def _section(finding):
    one = finding.judgements[0]
    scale = f"{one.scale}; {'the' if one.at_source_scale else 'not the'} source's scale. Run `{one.run}`."
    header = ("claim", "source (known)", "verdict", "effect [95 % interval]", "values")
    rows = [
        (
            f"**{j.claim.name}**: {claims.stated(j.claim)}",
            f"{j.claim.source} ({j.claim.known})",
            _verdict(j),
            claims.effect(j),
            str(j.n),
        )
        for j in finding.judgements
    ]
    return "\n\n".join(
        [f"## {finding.name}", finding.experiment.summary, scale, markdown(header, rows)]
    )


def _verdict(judgement):
    return f"*{judgement.verdict}*" + (f" ({judgement.reason})" if judgement.reason else "")


def gallery_page(home, found):
    """The page of the figures, in Markdown: each with a caption of what to see and the verdicts that belong to it."""
    parts = [
        "# Figures",
        "Written by `coherence figures` from the arrays in `recorded/`: no training, no JAX. Each is in `drawn/` as PNG, PDF and CSV (what"
        "\nwas drawn, with its intervals). Bands and bars are 95 % intervals over seeds; what has none is a mean or a single run. Labels:"
        "\ntrue ones blue, random ones orange; pristine examples green, corrupt ones vermilion. All claims, with effects and sources:"
        "\n[docs/reproducing.md](../docs/reproducing.md).",
    ]
    for finding in found:
        stem = gallery.stem(finding.name)
        title, _, caption = _docstring(home / "paper_figures" / f"{stem}.py").partition("\n")
        if stem != finding.name:
            caption = f"Panels as under [{stem}](#{stem}), which also says what this preset adds."
        by_verdict = {
            verdict: [j.claim.name for j in finding.judgements if j.verdict == verdict]
            for verdict in claims.VERDICTS
        }
        verdicts = ". ".join(
            f"*{verdict.capitalize()}*: {', '.join(names)}"
            for verdict, names in by_verdict.items()
            if names
        )
        parts += [
            f"## {finding.name}",
            f"![{title}](drawn/{finding.name}.png)",
            *(
                [f"![{title}, moving](drawn/{finding.name}.gif)"]
                if "gif" in gallery.formats(home, finding.name)
                else []
            ),
            f"**{title}** {caption.strip()}".strip(),
            f"{finding.judgements[0].scale}. {verdicts}.",
        ]
    return "\n\n".join(parts) + "\n"


def _docstring(path):
    """Of a figure's file, without running it."""
    return ast.get_docstring(ast.parse(path.read_text())) or path.stem

"""What reproduces, on one page: some rows in the papers' order, and all verdicts behind them.

The rows, their words and the reasons why a claim is not reproduced are data: the checkout's
`experiments/reproducing.toml`, written after the runs. Numbers come from the recordings. Never
imports JAX.
"""

from __future__ import annotations

import json
import math
import textwrap
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coherence.lab.claims import GROUPS, VERDICTS, Interval, Judgement, effect, format_p

from . import gallery
from .findings import Recording, all_judgements, counts
from .tables import aligned, csv_text, latex_cell, markdown

PAGE = Path("docs") / "reproducing.md"
PAGES = Path("docs") / "reproducing"
"""Of all verdicts: one page an experiment, and the picture of the short table."""
ROWS = Path("experiments") / "reproducing.toml"
SYMBOLS = {"reproduced": "✓", "not reproduced": "✗", "inconclusive": "○"}
HEADER = ("finding", "exact", "small scale", "source's scale", "why")
COLUMNS = (
    *("recording", "claim", "group", "text", "measured", "source", "known", "says", "verdict"),
    *("effect", "low", "high", "unit", "direction", "threshold", "values", "p", "p_adjusted"),
    *("part", "parts", "reason", "why", "note", "changed", "scale", "at_source_scale", "run"),
)
BEGIN, END = "<!-- coherence claims --write -->", "<!-- end -->"
"""Around the README's summary."""

_RULES = """\
**Symbols**: ✓ reproduced, ✗ not reproduced, ○ inconclusive, which is a result. Effects are means
over seeds, or data sets, with 95 % intervals. Units: a *doubling* is a factor of 2, a *decade* one
of 10. *Unbiased alpha* is alpha without the floor of 1/m that any sample of m has.

**Rules.** A claim stands in a file before its run (`experiments/claims/`); the recording keeps
its digest, and a claim whose words, statistic or threshold changed later says *changed after
the recording*, here with a †. How its source is known: *read* in the paper; *second-hand*, from
an account of it; *remembered*; *derived*, by us. *The source's scale* is the network, data,
batch and step size of one of the source's experiments, for 60 % of its steps or more
(`real_vs_random` on true labels, 99.7 % of which are fitted by then, for 12 %); what it says of
ImageNet is tested on its MNIST network there, and its m-coherence of 50,000 examples on 10,000.
A verdict rests on Student's t interval over seeds, of ratios on Fieller's. A claim about
several parts (networks, shares of noise, losses) is tested in each by itself: reproduced if it
holds in all, refuted if one part fails at 5 % over the number of parts; the row shows the part
that decided. *Reproduced* and *not reproduced* must both survive Holm's adjustment over all
tests of their recording (5 %). Values without spread are compared, not tested. One seed decides
nothing. Exact checks have a tolerance in place of an interval. Where a scale does not say
*drawn by seed*, all seeds share one sample of the data, and a verdict may be that sample's.

All verdicts, one page an experiment: {pages}.
In the terminal: `coherence claims`, `--all`; for machines and papers `--csv`, `--json`, `--latex`.
A test recomputes every verdict with scipy. Figures: [paper_figures](../paper_figures/README.md)."""


@dataclass(frozen=True)
class Row:
    """One line of the short table: a finding, with the judgements that say how it stands."""

    group: str
    title: str
    exact: list[Judgement]
    small: Judgement | None
    source: Judgement | None
    why: str

    def cells(self) -> tuple[str, ...]:
        """As `HEADER` has them."""
        return self.title, _checks(self.exact), _cell(self.small), _cell(self.source), self.why


@dataclass(frozen=True)
class Summary:
    """The recordings of a checkout with the words that were written about them."""

    recordings: list[Recording]
    sentences: list[str]
    rows: list[Row]
    why: dict[str, dict[str, str]]
    """Why a claim is not reproduced: {recording: {claim: reason}}."""
    pending: dict[str, str]
    """Experiments, or presets by `NAME-PRESET`, that are not recorded yet, and what it takes."""


def read(home: Path, recordings: Sequence[Recording]) -> Summary:
    """The summary of a checkout; without rows if it has no file of them.

    Raises:
        ValueError: a row or a reason is about a claim that was not judged, or an experiment that is
            said to be pending was recorded.
    """
    path = home / ROWS
    words = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    judged = {f"{r.name}: {j.claim.name}": j for r in recordings for j in r.judgements}

    def find(name: str) -> Judgement:
        if name not in judged:
            raise ValueError(f"{path}: no claim {name!r} was judged.")
        return judged[name]

    rows = [
        Row(
            row["group"],
            row["title"],
            [find(name) for name in row.get("exact", [])],
            find(row["small"]) if "small" in row else None,
            find(row["source"]) if "source" in row else None,
            " ".join(row.get("why", "").split()),
        )
        for row in words.get("rows", [])
    ]
    why = words.get("why", {})
    for recording, claims in why.items():
        for claim in claims:
            find(f"{recording}: {claim}")
    pending = words.get("pending", {})
    if recorded := pending.keys() & {r.name for r in recordings}:
        raise ValueError(f"{path}: pending, but recorded: {', '.join(sorted(recorded))}.")
    numbers = _numbers(all_judgements(recordings))
    sentences = [" ".join(text.split()).format(**numbers) for text in words.get("sentences", [])]
    return Summary(list(recordings), sentences, rows, why, pending)


_SCALES = {"": (False, True), "_smaller": (False,), "_at_source_scale": (True,)}
"""Endings of the names of counts, and whether the scale is the source's of what they count."""


def _numbers(judgements: Sequence[Judgement]) -> dict[str, int]:
    """Counts by group, verdict and scale, as sentences name them.

    `{papers_not_reproduced}`, of these `{papers_not_reproduced_smaller}` than at the source's
    scale and `{papers_not_reproduced_at_source_scale}`.
    """
    return {
        f"{group}_{verdict.replace(' ', '_')}{ending}": sum(
            (j.claim.group, j.verdict) == (group, verdict) and j.at_source_scale in scales
            for j in judgements
        )
        for group in GROUPS
        for verdict in VERDICTS
        for ending, scales in _SCALES.items()
    }


def why(summary: Summary, recording: str, judgement: Judgement) -> str:
    """Why a claim is not reproduced, as far as that was written; empty for one that is."""
    reason = summary.why.get(recording, {}).get(judgement.claim.name, "")
    if reason or judgement.verdict == "reproduced":
        return reason
    return "seeds: one" if judgement.n == 1 and math.isnan(judgement.p) else ""


def _checks(judgements: Sequence[Judgement]) -> str:
    if not judgements:
        return ""
    held = sum(judgement.verdict == "reproduced" for judgement in judgements)
    number = f"{held} of {len(judgements)} checks"
    return f"{SYMBOLS['reproduced' if held == len(judgements) else 'not reproduced']} {number}"


def _cell(judgement: Judgement | None) -> str:
    if judgement is None:
        return ""
    unit = "data set" if "one value a data set" in judgement.claim.statistic else "seed"
    values = f"{judgement.n} {unit}{'s' * (judgement.n != 1)}"
    late = " †" * judgement.changed
    note = f" ({judgement.note})" if judgement.note else ""
    return f"{SYMBOLS[judgement.verdict]} {effect(judgement)}{note}, {values}{late}"


def groups(summary: Summary) -> Iterator[tuple[str, list[Row]]]:
    """The rows of each group that has some, in words."""
    for group, words in GROUPS.items():
        if rows := [row for row in summary.rows if row.group == group]:
            yield words, rows


def text(summary: Summary) -> str:
    """The short table as text, why below each row; then the counts."""
    lines = []
    for words, rows in groups(summary):
        cells = [row.cells() for row in rows]
        first, *table = aligned(HEADER[:-1], [each[:-1] for each in cells]).splitlines()
        lines += [words.capitalize(), first]
        for line, (*_, reason) in zip(table, cells):
            lines += [line, *([f"    {reason}"] if reason else [])]
        lines.append("")
    return "\n".join([*lines, counts(all_judgements(summary.recordings))])


def page(summary: Summary, date: str) -> str:
    """The one page in Markdown."""
    judgements = all_judgements(summary.recordings)
    parts = [
        "# What reproduces, and what does not",
        *map(_wrapped, summary.sentences),
        f"As of {date}; written by `coherence claims --write` from `paper_figures/recorded/`, with "
        f"the words in\n`{ROWS.as_posix()}`. Verdicts, each kind of claim by itself:",
        _tally(judgements),
    ]
    for words, rows in groups(summary):
        parts.append(markdown((words, *HEADER[1:]), [row.cells() for row in rows]))
    if summary.rows:
        one_seed = any(one for row in summary.rows for _, one in standard_effects(row))
        hollow = "; hollow: one seed, in standard\ndeviations of the small scale" * one_seed
        parts.append(
            "![Effects of the rows in standard deviations over seeds](reproducing/forest.png)\n\n"
            "*Distance of each row's effect from its threshold in standard deviations over seeds, "
            "to the right as claimed,\nwith 95 % intervals (noncentral t, before Holm's "
            "adjustment), linear up to 1, logarithmic beyond; the\nlower of two is at the source's "
            "scale"
            f"{hollow}.*"
        )
    if summary.pending:
        parts.append("**Claims that are fixed, but not recorded yet**, and what it takes:")
        parts.append("\n".join(f"- {name}: {what}." for name, what in summary.pending.items()))
    names = list(dict.fromkeys(gallery.stem(r.name) for r in summary.recordings))
    pages = ",\n".join(f"[{name}](reproducing/{name}.md)" for name in names)
    return "\n\n".join([*parts, _RULES.format(pages=pages)]) + "\n"


def _wrapped(sentence: str) -> str:
    return textwrap.fill(sentence, 138, break_long_words=False, break_on_hyphens=False)


def _tally(judgements: Sequence[Judgement]) -> str:
    """A table of the numbers of verdicts by kind of claim; the papers' by scale."""
    numbers = _numbers(judgements)
    kinds = {}
    for group, words in GROUPS.items():
        if group == "papers":
            kinds[f"{words}, at a smaller scale than the source's"] = f"{group}_{{}}_smaller"
            kinds[f"{words}, at the source's scale"] = f"{group}_{{}}_at_source_scale"
        else:
            kinds[words] = f"{group}_{{}}"
    names = [verdict.replace(" ", "_") for verdict in VERDICTS]
    rows = [(words, *(numbers[key.format(name)] for name in names)) for words, key in kinds.items()]
    return markdown(("", *VERDICTS), rows)


def pages(summary: Summary) -> dict[Path, str]:
    """The pages of all verdicts, one an experiment: {path in the checkout: Markdown}."""
    by_experiment: dict[str, list[Recording]] = {}
    for recording in summary.recordings:
        by_experiment.setdefault(gallery.stem(recording.name), []).append(recording)
    return {
        PAGES / f"{name}.md": _experiment_page(name, summary, recordings)
        for name, recordings in by_experiment.items()
    }


def _experiment_page(name: str, summary: Summary, recordings: Sequence[Recording]) -> str:
    parts = [
        f"# {name}",
        f"{recordings[0].experiment.summary}\n\nAll verdicts, written by `coherence claims "
        "--write`; the rules and the short table: [reproducing](../reproducing.md).",
    ]
    for recording in recordings:
        first = recording.judgements[0]
        the = "the" if first.at_source_scale else "not the"
        header = ("claim", "source (known)", "verdict", "effect [95 % interval]", "values", "p")
        rows = [
            (
                f"**{j.claim.name}**: {j.claim.statement}",
                _source(j),
                _verdict(summary, recording.name, j),
                effect(j),
                j.n,
                format_p(j.p if math.isnan(j.p_adjusted) else j.p_adjusted),
            )
            for j in recording.judgements
        ]
        about = f"{first.scale}; {the} source's scale. Run `{first.run}`."
        tally = counts(recording.judgements)
        parts += [f"## {recording.name}", f"{about}\n{tally}.", markdown(header, rows)]
    return "\n\n".join(parts) + "\n"


def _source(judgement: Judgement) -> str:
    source = judgement.claim.source
    says = f": {source.says}" if source.says else ""
    return f"{source.reference} ({source.known}){says}"


def _verdict(summary: Summary, recording: str, judgement: Judgement) -> str:
    reason = why(summary, recording, judgement)
    remarks = "; ".join(filter(None, (judgement.remarks, reason and f"why: {reason}")))
    return f"*{judgement.verdict}*" + (f" ({remarks})" if remarks else "")


def records(summary: Summary) -> list[dict[str, Any]]:
    """All verdicts as plain values, with the names of `COLUMNS`; None for what is no number."""
    return [
        dict(zip(COLUMNS, _record(summary, recording.name, judgement)))
        for recording in summary.recordings
        for judgement in recording.judgements
    ]


def _record(summary: Summary, recording: str, j: Judgement) -> tuple[Any, ...]:
    claim, source = j.claim, j.claim.source
    number = lambda x: float(x) if math.isfinite(x) else None
    claimed = (claim.text, claim.statistic, source.reference, source.known, source.says)
    expected = (claim.unit, claim.direction, float(claim.threshold))
    tested = (j.n, number(j.p), number(j.p_adjusted), j.part, j.parts, j.reason)
    return (
        *(recording, claim.name, claim.group, *claimed, j.verdict, *map(number, j.effect)),
        *(*expected, *tested, why(summary, recording, j), j.note, j.changed),
        *(j.scale, j.at_source_scale, j.run),
    )


def as_json(summary: Summary) -> str:
    """All verdicts, and the rows of the short table by their titles."""
    rows = [dict(zip(("group", *HEADER), (row.group, *row.cells()))) for row in summary.rows]
    return json.dumps({"rows": rows, "verdicts": records(summary)}, indent=1, ensure_ascii=False)


def as_csv(summary: Summary) -> str:
    """All verdicts, one a line."""
    return csv_text(COLUMNS, [list(record.values()) for record in records(summary)]).rstrip()


def as_latex(summary: Summary) -> str:
    """The short table for a paper, without its last column; needs the package booktabs."""
    lines = [r"\begin{tabular}{lp{.12\linewidth}p{.24\linewidth}p{.24\linewidth}}", r"\toprule"]
    lines.append(" & ".join(map(latex_cell, HEADER[:-1])) + r" \\")
    for words, rows in groups(summary):
        lines += [r"\midrule", rf"\multicolumn{{4}}{{l}}{{\emph{{{latex_cell(words)}}}}} \\"]
        lines += [" & ".join(map(latex_cell, row.cells()[:-1])) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def with_summary(readme: str, summary: Summary) -> str:
    """The README with the page's sentences between its marks; unchanged if it has none."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        return readme
    link = "[What reproduces, and what does not](docs/reproducing.md)"
    inside = _wrapped(" ".join([f"**{link}.**", *summary.sentences]))
    return f"{before}{begin}\n{inside}\n{end}{after}"


def standard_effects(row: Row) -> Iterator[tuple[Interval, bool]]:
    """Of a row at each scale: effect in standard deviations over seeds, and whether of one seed.

    What one seed has is in standard deviations of the small scale; nan where these are not known.
    """
    for judgement in (row.small, row.source):
        if judgement is None:
            continue
        if judgement.n > 1:
            yield judgement.standard, False
        else:
            unit = math.nan if row.small is None else _deviation(row.small)
            sign = -1 if judgement.claim.direction == "less" else 1
            size = sign * (judgement.effect.mean - judgement.claim.threshold)
            yield Interval(size / unit if unit else math.nan, math.nan, math.nan), True


def _deviation(judgement: Judgement) -> float:
    """Standard deviation over seeds in the effect's unit; nan where its interval has no end."""
    distance = judgement.effect.mean - judgement.claim.threshold
    size = judgement.standard.mean
    return abs(distance / size) if size else math.nan

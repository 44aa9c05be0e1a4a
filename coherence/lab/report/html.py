"""The report as one HTML file: what was run, how it went, what was coherent.

It needs nothing else: nothing is fetched, nothing runs, and it prints.
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from coherence.lab.runs.files import write_text

from . import curves, drawing, examples, grids, labels, maps
from .gallery import COLUMNS
from .grouping import ABSENT, Arm, arms, device, differences, duration, flat, state
from .records import PREFERRED, diverged, printable, split
from .tables import cell, csv_text, markdown

_MOST_COLUMNS = 5  # arms in a table
_MOST_PANELS, _MOST_ARMS = 8, 8  # of one figure: what fits on a printed page
_MOST_CURVES = 24  # settings whose curves look different; more are shown as a grid
_MOST_QUANTITIES, _MOST_GRID_PANELS, _MOST_ROWS = 6, 36, 500  # of a grid
_BAND = (
    "Mean over seeds with its 95 % interval, on logarithmic axes the geometric mean; "
    "an interval far wider than the data is cut at the panel's edge."
)
_GRID = "mean over seeds with its 95 % interval."
_RUN_COLUMNS = ("", "seed", "state", "last step", "took", "device")
_LOST = (
    "Where a seed was not measured or has no number there is no mean: "
    "the thin lines are the seeds that have one."
)
_M_COHERENCE = (
    "m-coherence: how many examples of the sample an average example's gradient helps; "
    "1 if they are orthogonal, m if equal."
)
_ENDS = (
    "By their part of the squared norm of the mean gradient, in average examples. "
    "1x: as much as the average one; far more: one of those that drive the step; "
    "0: orthogonal to it; negative: the step is made against it."
)


def write(
    paths: Iterable[str | Path],
    output: str | Path = "report.html",
    where: Sequence[str] = (),
) -> Path:
    """Draw runs into one HTML file and return its path.

    Runs of the same settings are one arm, with 95 % bands over its seeds; arms share panels and are
    told apart by colour and dashes. What a run did not record has no section. More than 24 settings
    are shown as a grid: last values over the settings that differ, and no curves. The same runs
    give the same bytes.

    Args:
        paths: folders of runs.
        output: the file to write.
        where: conditions on settings, of runs to choose: `("noise=0.5", "seed=0")`.

    Raises:
        FileNotFoundError: one of `paths` holds no run, or there is no folder for the output.
        ValueError: a condition is none, or holds for no run.
    """
    output = Path(output)
    if not output.parent.is_dir():
        raise FileNotFoundError(
            f"there is no folder {output.parent} to write {output.name} to. "
            "Make it, or name another with --output."
        )
    members = arms(paths, where)
    with drawing.in_house_style():
        text = document(f"coherence: {_title(members)}", _body(members))
    write_text(output, text)
    return output


def _title(arms: Sequence[Arm]) -> str:
    shared = Path(os.path.commonpath([run.path.resolve() for arm in arms for run in arm.runs]))
    return "/".join(shared.parts[1:][-3:])


def _body(arms: Sequence[Arm]) -> Iterator[str]:
    runs = sum(len(arm.runs) for arm in arms)
    yield f"<h1>{escape(_title(arms))}</h1>"
    yield paragraph(f"{runs} run{'s' * (runs > 1)} of {len(arms)} setting{'s' * (len(arms) > 1)}.")
    if len(arms) > _MOST_CURVES:
        yield from _grid(arms)
        return
    yield _table(
        _RUN_COLUMNS,
        [_run(arm, i) for arm in arms for i in range(len(arm.runs))],
    )
    yield from _settings(arms)
    yield from _last_values(arms)
    yield from _training(arms)
    yield from _layers_and_groups(arms)
    yield from _example_ends(arms)


# Sections


def _grid(arms: Sequence[Arm]) -> Iterator[str]:
    """What so many settings have in common, where each quantity ended, and runs to look after."""
    grid = grids.Grid(arms)
    settings = [flat(arm.config) for arm in grid.arms]
    differ = differences(settings)
    names = sorted(_names(arms, "scalar"), key=_first_looked_for)
    shown = names[:_MOST_QUANTITIES]
    count = len(set(grid.titles))
    yield paragraph(
        f"Of so many settings no curves are drawn, but where each ended: {', '.join(shown)}. "
        "Curves of some of them: coherence report RUNS --where "
        f"{differ[0]}={settings[0].get(differ[0], ABSENT)}."
    )
    for name in shown:
        yield heading(f"At the end: {labels.heading(name)}")
        left = f" The first {_MOST_GRID_PANELS} of {count} panels." * (count > _MOST_GRID_PANELS)
        for figure in grid.figures(name, _MOST_GRID_PANELS):
            yield _picture(figure, f"The last record of each run; {_GRID}{left}")
    header = [*differ, "seeds", *shown]
    rows = [
        [
            *(values.get(name, ABSENT) for name in differ),
            str(len(arm.runs)),
            *(cell([*arm.finals(name).values()]) for name in shown),
        ]
        for arm, values in zip(grid.arms, settings)
    ]
    yield heading("All settings")
    if len(rows) > _MOST_ROWS:
        yield paragraph(f"The first {_MOST_ROWS} of {len(rows):,}; all of them are in the CSV.")
    yield _table(header, rows[:_MOST_ROWS])
    yield _folded("this table as CSV", csv_text(header, rows))
    odd = [
        _run(arm, i)
        for arm in grid.arms
        for i, run in enumerate(arm.runs)
        if not run.done or diverged(arm.histories[i]) is not None
    ]
    if odd:
        yield heading(f"Unfinished or diverged: {len(odd):,}")
        yield _table(_RUN_COLUMNS, odd[:_MOST_ROWS])
    yield heading("In common")
    common = [[name, value] for name, value in settings[0].items() if name not in differ]
    yield _table(["setting", "value"], common)


def _first_looked_for(name: str) -> tuple[bool, int]:
    quantity = split(name)[1]
    known = quantity in PREFERRED
    return not known, PREFERRED.index(quantity) if known else 0


def _run(arm: Arm, i: int) -> list[str]:
    run, records = arm.runs[i], arm.histories[i]
    step = str(records[-1]["step"]) if records else "nothing recorded"
    took = duration(run) or "-"
    return [arm.name, str(run.seed), state(run, records), step, took, device(run)]


def _settings(arms: Sequence[Arm]) -> Iterator[str]:
    yield heading("Settings")
    settings = [flat(arm.config) for arm in arms]
    differ = differences(settings)
    names = [*differ, *(name for name in settings[0] if name not in differ)]
    rows = [[name, *(values.get(name, ABSENT) for values in settings)] for name in names]
    if len(arms) > 1:
        yield paragraph("Those that differ come first, marked and in bold.")
    header = ["setting", *(arm.name for arm in arms)]
    yield from _tables(header, rows, [name in differ for name in names])


def _last_values(arms: Sequence[Arm]) -> Iterator[str]:
    """The last value of every scalar, to read and to copy."""
    names = _names(arms, "scalar")
    if not names:
        return
    yield heading("At the end")
    yield paragraph(
        "The last record of each run, however far it came: "
        "mean ± half of the 95 % interval over seeds."
    )
    header = ["quantity", *(arm.name for arm in arms)]
    rows = [[name, *(cell([*arm.finals(name).values()]) for arm in arms)] for name in names]
    yield from _tables(header, rows)
    yield _folded("this table as Markdown", markdown(header, rows))
    values = [
        (arm.name, seed, name, value)
        for arm in arms
        for name in names
        for seed, value in arm.finals(name).items()
    ]
    columns = ("arm", "seed", "quantity", "value")
    yield _folded("each seed's value as CSV", csv_text(columns, values))


def _training(arms: Sequence[Arm]) -> Iterator[str]:
    """Curves of the scalars: first those of the whole run, then a figure per probe."""
    scalars = _names(arms, "scalar")
    for probe in dict.fromkeys(split(name)[0] for name in scalars):
        names = [name for name in scalars if split(name)[0] == probe]
        yield heading(f"Probe {probe}" if probe else "Over training")
        for start in range(0, len(names), _MOST_PANELS):
            panels = names[start : start + _MOST_PANELS]
            for first in range(0, len(arms), _MOST_ARMS):
                some = arms[first : first + _MOST_ARMS]
                yield _picture(curves.over_training(some, panels, arms), _caption(some, panels))


def _caption(arms: Sequence[Arm], drawn: Sequence[str]) -> str:
    """What curves mean: of the seeds, and of m-coherence."""
    several = any(len(arm.runs) > 1 for arm in arms)
    sentences = [_BAND if several else "One seed: no band."]
    if several and any(map(_lost_a_seed, arms)):
        sentences.append(_LOST)
    if any(split(name)[1].startswith("m_coherence") for name in drawn):
        sentences.append(_M_COHERENCE)
    return " ".join(sentences)


def _lost_a_seed(arm: Arm) -> bool:
    lengths = {len(history) for history in arm.histories}
    return len(lengths) > 1 or any(diverged(history) is not None for history in arm.histories)


def _layers_and_groups(arms: Sequence[Arm]) -> Iterator[str]:
    """A heat map, curves or matrices for every quantity that has parts."""
    seeds = "Mean over seeds. " if any(len(arm.runs) > 1 for arm in arms) else ""
    for kind, where, draw in (
        ("layers", "Over layers", maps.by_layer),
        ("groups", "Over training", curves.by_group),
        ("matrix", "As a matrix", maps.between_groups),
    ):
        for name in _names(arms, kind):
            captions = {
                "layers": f"{seeds}The first layer is on top. Grey: no number.",
                "groups": _caption(arms, [name]),
                "matrix": f"At the last step that has it. {seeds}Grey: no number.",
            }
            having = [arm for arm in arms if name in arm.quantities(kind)]
            yield heading(f"{where}: {labels.heading(name)}")
            for start in range(0, len(having), _MOST_ARMS):
                some = having[start : start + _MOST_ARMS]
                yield _picture(draw(some, name, having), captions[kind])


def _names(arms: Sequence[Arm], *kinds: str) -> list[str]:
    """What any of the arms recorded, of some kinds."""
    return list(dict.fromkeys(name for arm in arms for name in arm.quantities(*kinds)))


def _example_ends(arms: Sequence[Arm]) -> Iterator[str]:
    """Pictures of the extremes of one seed per arm, or their numbers where there are none."""
    blocks = [
        block
        for arm in arms
        for probe in examples.probes(arm.quantities("examples"))
        for block in _probe_examples(arm, probe)
    ]
    if blocks:
        yield heading("Most and least coherent examples")
        yield paragraph(_ENDS)
        yield from blocks


def _probe_examples(arm: Arm, probe: str) -> Iterator[str]:
    """Of the first seed that ranked them."""
    for run, records in zip(arm.runs, arm.histories):
        if rankings := examples.rankings(records, probe):
            sample = examples.sample(run, probe)
            for ranking in examples.early_and_last(rankings):
                place = f"{f'probe {probe}, ' if probe else ''}step {ranking.step}"
                count = len(ranking.contributions)
                caption = f"{arm.name}, seed {run.seed}, {place}, of {count} examples"
                yield _ranked(ranking, sample, caption)
            return


def _ranked(ranking: examples.Ranking, sample: examples.Sample, caption: str) -> str:
    drawn = maps.example_ends(ranking, sample)
    if drawn is not None:
        count = len(ranking.contributions)
        if any(examples.is_corrupt(sample, i) for i in range(count)):
            caption += "; corrupt examples have a thick frame"
        return _picture(drawn, f"{caption}.")
    rows = [
        [
            title,
            str(examples.place(sample, i)),
            examples.caption(sample, i) or "-",
            ranking.times(i),
        ]
        for title, indices in zip(("most coherent", "least coherent"), ranking.ends(maps.SHOWN))
        for i in indices.tolist()
    ]
    header = ["", "example", "what it is", "part of the step"]
    return paragraph(f"{caption}.") + _table(header, rows)


# Elements


def escape(text: str) -> str:
    """Text as HTML shows it, without what a terminal would obey."""
    return html.escape(printable(text))


def document(title: str, body: Iterable[str]) -> str:
    """A whole page of these elements."""
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def heading(text: str) -> str:
    """A section's heading."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    """A paragraph."""
    return f"<p>{escape(text)}</p>"


def _tables(header: list[str], rows: list[list[str]], marked: Sequence[bool] = ()) -> Iterator[str]:
    """A table of arms side by side, in several where it would be too wide for paper."""
    for start in range(1, len(header), _MOST_COLUMNS):
        some = slice(start, start + _MOST_COLUMNS)
        pieces = [[row[0], *row[some]] for row in rows]
        yield _table([header[0], *header[some]], pieces, marked)


def _table(
    header: Sequence[str], rows: Sequence[Sequence[str]], marked: Sequence[bool] = ()
) -> str:
    """A table whose first column are headings; rows that are `marked` stand out."""
    head = "".join(f'<th scope="col">{escape(str(text))}</th>' for text in header)
    lines = []
    for i, (first, *others) in enumerate(rows):
        row = '<tr class="differs">' if i < len(marked) and marked[i] else "<tr>"
        cells = "".join(f"<td>{escape(str(text))}</td>" for text in others)
        lines.append(f'{row}<th scope="row">{escape(str(first))}</th>{cells}</tr>')
    body = "\n".join(lines)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _picture(figure: Figure, caption: str) -> str:
    """A figure with its caption, and its numbers folded below."""
    numbers = _folded("numbers of this figure (CSV)", csv_text(COLUMNS, figure.drawn))  # type: ignore
    text, width = escape(caption), round(96 * figure.get_figwidth() * 1.25)
    source = f"data:image/svg+xml;base64,{base64.b64encode(_svg(figure)).decode()}"
    image = f'<img width="{width}" alt="{text}" src="{source}">'
    return f"<figure>{image}<figcaption>{text}</figcaption>{numbers}</figure>"


def _folded(summary: str, text: str) -> str:
    """Text to copy, behind a line that opens it; it is not printed."""
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>"


def _svg(figure: Figure) -> bytes:
    """A figure as SVG: no date and no random names, so the same figure is the same bytes."""
    file = io.BytesIO()
    drawing.freeze_layout(figure)
    with matplotlib.rc_context({"svg.hashsalt": "coherence"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()

"""A run, or a folder of them, in the terminal: what it is and how it went."""

from __future__ import annotations

import math
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from coherence.lab.runs import Run
from coherence.lab.runs.files import to_json

from . import examples
from .grouping import ABSENT, device, differences, duration, find, flat, setting_text, state
from .records import PREFERRED, axis, diverged, last, parts, quantities, series, split
from .tables import Format, blocks, check_format, join, json_text, number

ROWS = 8
"""Steps in a table: enough to see how it went, few enough to read."""
_MOST_TABLES, _MOST_PARTS, _MOST_EXAMPLES, _MOST_RUNS = 3, 40, 10, 200


def describe(
    path: str | Path,
    format: Format = "text",
    width: int | None = None,
    where: Sequence[str] = (),
) -> str:
    """What `coherence show` prints: of one run everything, of several a line each.

    Of one run: settings, seed, device, whether it is done; scalars at a few steps, a table per
    probe; by layer and by group at the last step; the most and least coherent examples. Of several
    also what they have in common. Nothing is printed for what was not measured, and `nan` for what
    was and is none. Of very many runs the records of the first are read, and the rest counted.

    Args:
        path: a run's folder, or one that holds several.
        format: of the tables.
        width: what tables should fit into; the terminal's by default.
        where: conditions on settings, of runs to choose: `("noise=0.5", "seed=0")`.

    Runs that cannot be read are named at the end.

    Raises:
        FileNotFoundError: the folder holds no run.
        ValueError: a condition is none, or holds for no run.
        OSError, ValueError: none of its runs can be read.
    """
    check_format("describe", format)
    page = _Page(format, width or shutil.get_terminal_size().columns)
    failed: list[Exception] = []
    found = find([path], failed, where)
    read = _read(found[:_MOST_RUNS], failed)
    if failed and not read:
        raise failed[0]
    every = [*(run for run, _ in read), *found[_MOST_RUNS:]]
    blocks = [*(page.one(*read[0]) if len(every) == 1 else page.several(read, every, Path(path)))]
    if failed:
        blocks.append("\n".join(["could not be read:", *(f"  {error}" for error in failed)]))
    return join(blocks, format)


def _read(runs: list[Run], failed: list[Exception]) -> list[tuple[Run, list[dict]]]:
    """The runs whose records can be read, with them; errors of others are put with the failed."""
    read = []
    for run in runs:
        try:
            read.append((run, run.records()))
        except (OSError, ValueError) as error:
            failed.append(error)
    return read


def describe_json(path: str | Path, where: Sequence[str] = ()) -> str:
    """What `coherence show --json` prints: each run with its settings and last numbers.

    nan and infinity are null; a quantity that was not measured is absent. Runs that cannot be read
    are under `failed`.

    Raises:
        FileNotFoundError: the folder holds no run.
        ValueError: a condition is none, or holds for no run.

    >>> import json, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Run.open(f"{folder}/seed=0", {"rate": 0.1}, seed=0).close()
    ...     len(json.loads(describe_json(folder))["runs"])
    1
    """
    failed: list[Exception] = []
    read = _read(find([path], failed, where), failed)
    return json_text(
        {
            "runs": [_facts(run, records) for run, records in read],
            "failed": [str(error) for error in failed],
        }
    )


def _facts(run: Run, records: list[dict]) -> dict[str, Any]:
    names = dict.fromkeys(name for record in records for name in record if name != "step")
    ends = {name: last(records, name) for name in names}
    return {
        "path": str(run.path),
        "seed": run.seed,
        "done": run.done,
        "diverged": diverged(records),
        "settings": run.config,
        "summary": run.summary,
        "device": device(run),
        "created": run.manifest.get("created"),
        "finished": run.finished_at,
        "records": len(records),
        "last": {name: {"step": end[0], "value": end[1]} for name, end in ends.items() if end},
    }


class _Page:
    """What is printed, block by block, with tables of one format and width."""

    def __init__(self, format: Format, width: int):
        self.format, self.width = format, width

    def one(self, run: Run, records: list[dict]) -> Iterator[str]:
        yield f"{run.path}: seed {run.seed}, {state(run, records)}, {len(records)} records"
        summary = [f"{key} {setting_text(value)}" for key, value in (run.summary or {}).items()]
        facts = [
            ("device", device(run)),
            ("took", duration(run)),
            ("ended with", ", ".join(summary)),
            *((key, setting_text(value)) for key, value in run.config.items()),
        ]
        yield "\n".join(f"  {name:<18}{value}" for name, value in facts if value)
        for probe, names in _by_probe(quantities(records, run.axes, "scalar")).items():
            yield from self.over_steps(records, probe, names)
        yield from self.by_part(run, records)
        for probe in examples.probes(quantities(records, run.axes, "examples")):
            yield from _ranked(run, records, probe)

    def over_steps(self, records: list[dict], probe: str, names: Sequence[str]) -> Iterator[str]:
        """The scalars of one probe at a few of the steps at which most of them were recorded."""
        empty = [name for name in names if not _has_number(records, name)]
        names = [name for name in names if name not in empty]
        having = [sum(name in record for name in names) for record in records]
        full = [record for record, count in zip(records, having) if count == max(having)]
        places = sorted({round(k * (len(full) - 1) / (ROWS - 1)) for k in range(ROWS)})
        values = [dict(series(records, name)) for name in names]
        rows = [
            [str(step), *(number(of_name.get(step)) for of_name in values)]
            for step in (full[place]["step"] for place in places)
        ]
        title = f"probe {probe}" if probe else "over training"
        if len(full) > len(rows):
            title += f", {len(rows)} of {len(full)} steps"
        if names:
            yield from self.table(title, ["step", *(split(name)[1] for name in names)], rows)
        if empty:
            yield f"nan throughout: {', '.join(empty)}"

    def by_part(self, run: Run, records: list[dict]) -> Iterator[str]:
        """Quantities by layer and by group, a table per probe, where they last were numbers."""
        tables: dict[tuple[str, str], dict[str, tuple[int, Any]]] = {}
        for name in quantities(records, run.axes, "layers", "groups"):
            step, value = _last_with_numbers(records, name)
            place = (split(name)[0], axis(name, value, run.axes))
            tables.setdefault(place, {})[name] = (step, value)
        for (probe, what), latest in tables.items():
            yield from self.parts(run, probe, what, latest)

    def parts(
        self, run: Run, probe: str, what: str, latest: Mapping[str, tuple[int, Any]]
    ) -> Iterator[str]:
        steps = sorted({step for step, _ in latest.values()})
        values = [dict(parts(value)) for _, value in latest.values()]
        keys = list(dict.fromkeys(key for value in values for key in value))
        titles = examples.part_names(run, next(iter(latest)), keys)
        rows = [
            [title, *(number(value.get(key)) for value in values)]
            for title, key in list(zip(titles, keys))[:_MOST_PARTS]
        ]
        title = f"{_prefix(probe)}by {what} at step {', '.join(map(str, steps))}"
        if len(keys) > _MOST_PARTS:
            title += f", the first {_MOST_PARTS} of {len(keys)}"
        header = [what, *(split(name)[1].removesuffix(f"_by_{what}") for name in latest)]
        yield from self.table(title, header, rows)

    def several(
        self, read: list[tuple[Run, list[dict]]], every: list[Run], path: Path
    ) -> Iterator[str]:
        """A line per run: what sets it apart, how far it came, and what one looks for first."""
        runs, histories = zip(*read)
        settings = [flat(run.config) for run in runs]
        distinct = {to_json(run.config): run.config for run in every}
        differing = differences([flat(config) for config in distinct.values()])
        yield f"{path}: {len(every)} runs, {sum(run.done for run in every)} done"
        common = [f"{key}={x}" for key, x in settings[0].items() if key not in differing]
        yield textwrap.fill(f"in common: {', '.join(common)}", self.width, subsequent_indent="  ")
        recorded = quantities([record for history in histories for record in history], {}, "scalar")
        names = sorted(
            (name for name in recorded if split(name)[1] in PREFERRED),
            key=lambda name: PREFERRED.index(split(name)[1]),
        )
        rows = []
        for run, history, values in zip(runs, histories, settings):
            ends = [last(history, name) for name in names]
            done = "done" if run.done else "unfinished"
            rows.append(
                [
                    str(run.path.relative_to(path)),
                    str(history[-1]["step"]) if history else "-",
                    done if diverged(history) is None else f"{done}, diverged",
                    *(values.get(key, ABSENT) for key in differing),
                    *(number(end[1] if end else None) for end in ends),
                ]
            )
        header = ["run", "step", "state", *differing, *names]
        yield from self.table("at the last record of each", header, rows)
        if len(every) > _MOST_RUNS:
            yield (
                f"These are the first {_MOST_RUNS} of {len(every):,} runs. Others: --where "
                f"{differing[0] if differing else 'seed'}=VALUE, or a folder below {path}."
            )
        yield (
            f"One of them in full: coherence show {runs[0].path}\n"
            f"All of them drawn:   coherence report {path}"
        )

    def table(self, title: str, header: list[str], rows: list[list[str]]) -> Iterator[str]:
        """A table as at most a few tables that fit; the columns beyond are named."""
        yield from blocks(title, header, rows, self.format, self.width, _MOST_TABLES)


def _by_probe(names: Iterable[str]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name in names:
        grouped.setdefault(split(name)[0], []).append(name)
    return grouped


def _has_number(records: list[dict], name: str) -> bool:
    return any(math.isfinite(value) for _, value in series(records, name))


def _last_with_numbers(records: list[dict], name: str) -> tuple[int, Any]:
    """The last step and value that are not all nan: a diverged run says more a moment before."""
    values = series(records, name)
    for step, value in reversed(values):
        if any(math.isfinite(number) for _, number in parts(value)):
            return step, value
    return values[-1]


def _prefix(probe: str) -> str:
    return f"probe {probe}, " if probe else ""


def _ranked(run: Run, records: list[dict], probe: str) -> Iterator[str]:
    """The examples at both ends of a probe's last ranking."""
    rankings = examples.rankings(records, probe)
    if not rankings:
        return
    latest, sample = rankings[-1], examples.sample(run, probe)
    count = len(latest.contributions)
    lines = [
        f"{_prefix(probe)}{count} examples by their part of step {latest.step}, 1x the average"
    ]
    for title, indices in zip(("most coherent", "least coherent"), latest.ends(_MOST_EXAMPLES)):
        shown = ", ".join(_example(sample, latest, index) for index in indices.tolist())
        lines.append(f"  {title}: {shown}")
    yield "\n".join(lines)


def _example(sample: examples.Sample, ranking: examples.Ranking, index: int) -> str:
    words = [examples.caption(sample, index), ranking.times(index)]
    return f"{examples.place(sample, index)} ({', '.join(filter(None, words))})"

"""What the subcommands of `coherence` do, each with the arguments that were parsed.

What a subcommand needs is imported when it runs; only `run` and `audit` import JAX.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .suggestions import suggestion

if TYPE_CHECKING:
    from .experiment import Experiment
    from .report.summary import Summary

Parsed = argparse.Namespace


def _print(text: str) -> None:
    """Print what was recorded: the terminal must not obey it."""
    from .report.records import printable

    print(printable(text))


def _experiment(name: str) -> Experiment:
    from .experiment import collect, load
    from .report import findings, gallery

    files = findings.files(gallery.checkout())
    if name not in files:
        close = suggestion(name, files)
        raise ValueError(f"no experiment {name!r}: there is {', '.join(files)}.{close}")
    return collect(load(files[name]))


def list_experiments(parsed: Parsed) -> None:
    """Print the experiments, their presets, how long these take and what was judged."""
    from .report import findings, gallery
    from .report.tables import json_text
    from .running import DEFAULT_PRESET, stored

    home = gallery.checkout()
    known, estimates = findings.experiments(home), stored(home)
    failed: dict[str, ValueError] = {}
    counts: dict[str, dict[str, str]] = {name: {} for name in known}
    for recording in findings.recordings(home, known, failed):
        preset = gallery.preset(recording.name, DEFAULT_PRESET)
        counts[recording.experiment.name][preset] = findings.counts(recording.judgements)
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "summary": experiment.summary,
            "presets": [
                {"name": preset, "verdicts": counts[name].get(preset)}
                | (estimates[name][preset]._asdict() if preset in estimates.get(name, {}) else {})
                for preset in experiment.presets
            ],
        }
        for name, experiment in known.items()
    ]
    if parsed.format == "json":
        print(json_text(rows))
    else:
        _print_list(rows)
    _report_failed(failed)


def _print_list(rows: list[dict[str, Any]]) -> None:
    from .progress import duration

    machines = set()
    for row in rows:
        presets = []
        for preset in row["presets"]:
            words = [preset["name"]]
            if "seconds" in preset:
                words.append(f"({duration(preset['seconds'])})")
                machines.add(preset["machine"])
            presets.append(" ".join(words))
        print(f"{row['name']}\n    {row['summary']}\n    presets: {', '.join(presets)}")
        for preset in row["presets"]:
            if preset["verdicts"]:
                print(f"    {preset['name']}: {preset['verdicts']}")
    if machines:
        print(f"\ntimes as measured on {' or '.join(sorted(machines))}")


def run(words: list[str]) -> None:
    """Train what is missing of an experiment's runs, judge and draw them."""
    from .running import main

    main(*_named("run", "[--workers N | --share K/N | --submit WHERE] [--record] ", words))


def status(words: list[str]) -> None:
    """Print the state of an experiment's runs."""
    from .running import show_status

    show_status(*_named("status", "[--json] ", words))


def audit(words: list[str]) -> None:
    """Write a page and a table of the suspicious labels of a run."""
    from .running import show_audit

    show_audit(*_named("audit", "[--arm ARM] [--seed K] [--of test] [--by SCORE] ", words))


def _named(command: str, options: str, words: list[str]) -> tuple[Experiment, list[str]]:
    from .report import findings, gallery

    if not words or words[0].startswith("-"):
        names = ", ".join(findings.files(gallery.checkout()))
        print(f"usage: coherence {command} NAME [--preset PRESET] {options}[--FIELD VALUE ...]")
        print(f"`coherence run NAME --help` lists an experiment's fields. There is {names}.")
        raise SystemExit(0 if {"-h", "--help"} & set(words) else 2)
    name, *arguments = words
    return _experiment(name), arguments


def init(parsed: Parsed) -> None:
    """Write a working folder."""
    from .report import gallery

    print(f"{gallery.init(parsed.folder)}: go there, then `coherence list`")


def figures(parsed: Parsed) -> None:
    """Draw the figures that are out of date, and write their page."""
    from .report import findings, gallery
    from .running import DEFAULT_PRESET, main
    from .runs.files import write_text

    home = gallery.checkout(write=True)
    recorded = gallery.names(home)
    drawable = {path.stem for path in (home / "experiments").glob("*.py")} | set(recorded)
    missing = []
    for name in parsed.names or sorted(drawable):
        if name not in drawable:
            close = suggestion(name, drawable)
            raise ValueError(f"no figure {name!r}: there is {', '.join(sorted(drawable))}.{close}")
        if name not in recorded and not parsed.train:
            missing.append(name)
            continue
        if name not in recorded:
            print(f"{name}: nothing recorded, so it is run with its preset {DEFAULT_PRESET}")
            main(_experiment(name), ["--record"])
        reason = gallery.stale(home, name)
        if reason is not None:
            gallery.draw(home, name)
        print(f"{name}: up to date" if reason is None else f"{name}: redrawn, {reason}")
    page = findings.figures_page(home, findings.recordings(home))
    write_text(home / findings.FIGURES_PAGE, page)
    for name in missing:
        print(f"{name}: nothing recorded; `coherence run {name} --record`", file=sys.stderr)
    if set(missing) & set(parsed.names):
        raise ValueError(
            f"figures {' '.join(missing)}: no recorded arrays to draw, and nothing is trained "
            f"unasked. Run the above, or: coherence figures {' '.join(missing)} --train."
        )


def claims(parsed: Parsed) -> None:
    """Print or write the verdicts of what was recorded."""
    from .report import findings, gallery, summary
    from .report.tables import verdict_table

    home = gallery.checkout(write=parsed.format == "write")
    known = findings.experiments(home)
    failed: dict[str, ValueError] = {}
    recordings = findings.recordings(home, known, failed)
    recorded = {gallery.stem(name) for name in gallery.names(home)}
    for name in sorted(known.keys() - recorded):
        print(f"{name}: nothing recorded; `coherence run {name} --record`", file=sys.stderr)
    if parsed.format in ("all", None) and failed:  # rows may be about what failed
        print(verdict_table(findings.all_judgements(recordings)))
    _report_failed(failed)
    if parsed.format == "all":
        print(verdict_table(findings.all_judgements(recordings)))
        return
    judged = summary.read(home, recordings)
    if parsed.format == "write":
        _write_claims(home, judged)
    else:
        shown = {"json": summary.as_json, "csv": summary.as_csv, "latex": summary.as_latex}
        print(shown.get(parsed.format, summary.text)(judged))


def _write_claims(home: Path, judged: Summary) -> None:
    import datetime

    from .report import forest, summary
    from .runs.files import write_text

    (home / summary.PAGES).mkdir(parents=True, exist_ok=True)
    pages = summary.pages(judged)
    for path in (home / summary.PAGES).glob("*.md"):
        if path.relative_to(home) not in pages:
            path.unlink()
    pages[summary.PAGE] = summary.page(judged, datetime.date.today().isoformat())
    readme = home / "README.md"
    if readme.is_file():
        pages[Path("README.md")] = summary.with_summary(readme.read_text(), judged)
    for path, text in pages.items():
        write_text(home / path, text)
    if judged.rows:
        forest.write(judged, home / summary.PAGES)
    print(home / summary.PAGE)


def _report_failed(failed: dict[str, ValueError]) -> None:
    """Say what is wrong with recordings that could not be judged, after all that could."""
    if failed:
        raise ValueError("\n".join(map(str, failed.values())))


def show(parsed: Parsed) -> None:
    """Print what a run, or several, recorded."""
    from .report import describe, describe_json
    from .report.grouping import find
    from .report.tables import LONG, long

    if parsed.format == "json":
        print(describe_json(parsed.run, parsed.where))
    else:
        _print(describe(parsed.run, parsed.format, where=parsed.where))
    _write_tables(parsed, LONG, lambda: long(find([parsed.run], where=parsed.where)))


def _write_tables(parsed: Parsed, columns: Sequence[str], rows: Callable[[], Any]) -> None:
    from .report.tables import write_csv, write_parquet

    if parsed.csv:
        write_csv(parsed.csv, columns, rows())
    if parsed.parquet:
        write_parquet(parsed.parquet, columns, rows())


def compare(parsed: Parsed) -> None:
    """Print two runs or arms side by side."""
    from .report import compare as compared
    from .report.comparing import COLUMNS

    comparison = compared(parsed.a, parsed.b)
    if parsed.format == "json":
        print(comparison.json())
    else:
        _print(comparison.text(parsed.format))
    _write_tables(parsed, COLUMNS, comparison.rows)


def report(parsed: Parsed) -> None:
    """Write runs on one page, or draw one figure of them."""
    from .report import plot, style, write

    if parsed.figure is None:
        if parsed.quantity or parsed.width is not None or parsed.matplotlibrc is not None:
            raise ValueError(
                "--quantity, --width and --matplotlibrc are of one figure: name its file, such as "
                "--figure curves.pdf. The page shows all quantities."
            )
        print(f"report: {write(parsed.runs, parsed.output, parsed.where)}")
        return
    if not parsed.quantity:
        raise ValueError("--figure draws what --quantity NAME says, such as --quantity train_loss.")
    width = parsed.width or 7.2
    with style("paper", width=width, height=2.2, matplotlibrc=parsed.matplotlibrc):
        plot(parsed.runs, parsed.quantity, where=parsed.where).savefig(parsed.figure)
    print(f"figure: {parsed.figure}")


def watch(parsed: Parsed) -> None:
    """Serve or write a page that follows runs."""
    from .watching import Watcher, serve, write_page

    watcher = Watcher(parsed.runs, parsed.where)
    try:
        if parsed.file is not None:
            print(f"writing {parsed.file} until all runs are done (Ctrl-C ends it)", flush=True)
            print(f"all are done: {write_page(watcher, parsed.file)}")
            return
        with serve(watcher, parsed.port) as server:
            address = f"http://127.0.0.1:{server.server_address[1]}/"
            print(f"watching on {address} (Ctrl-C ends it)", flush=True)
            server.serve_forever()
    except KeyboardInterrupt:
        print()


def export(parsed: Parsed) -> None:
    """Write runs as TensorBoard's event files."""
    from .report import export as exported

    folder = parsed.tensorboard
    count = len(exported(parsed.runs, folder))
    print(f"{count} run{'s' * (count > 1)} in {folder}: tensorboard --logdir {folder}")


def docs(parsed: Parsed) -> None:
    """Open the documentation site."""
    import webbrowser

    from .report.gallery import checkout

    page = checkout() / "build" / "site" / "html" / "index.html"
    if not page.is_file():
        raise FileNotFoundError(
            "the site is not built here. In the project's repository: "
            "pip install -e '.[docs]', then python docs/site/build.py."
        )
    print(page)
    webbrowser.open(page.as_uri())


def data(parsed: Parsed) -> None:
    """Fetch a data set into the cache."""
    from .data import fetch

    print(fetch(parsed.name))

"""The command `coherence`, with its subcommands.

Only `run` and `audit` import JAX; what a subcommand needs is imported when it runs, so help comes
at once.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .completion import KINDS, SHELLS, complete_by, names, script
from .running.flags import add_audit_flags, add_flags
from .suggestions import suggestion

if TYPE_CHECKING:
    from .experiment import Experiment
    from .report.summary import Summary

Parsed = argparse.Namespace


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse and act; errors a user can mend end in one line and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # terminals that have no ± or ·
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = words[0] if words else ""
    try:
        if command in FREE:
            FREE[command](words[1:])
        else:
            parser, commands = _parser()
            if command and not command.startswith("-") and command not in commands:
                close = suggestion(command, commands)
                raise ValueError(f"no command {command!r}.{close} `coherence --help` lists them.")
            parsed = parser.parse_args(words)
            parsed.act(parsed)
        if sys.stdout is not None:  # as it is where the caller closed it
            sys.stdout.flush()
    except BrokenPipeError:  # the reader has enough, as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except (ValueError, FileNotFoundError, RuntimeError, OSError) as error:
        print(f"coherence: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        # Another Ctrl-C while Python ends is a plain end, not a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        on = "; the same command goes on from the last checkpoint" * (command == "run")
        print(f"\ncoherence: interrupted{on}.", file=sys.stderr)
        raise SystemExit(130) from None


def _parser() -> tuple[argparse.ArgumentParser, Sequence[str]]:
    """The parser, and the names of the commands."""
    parser = argparse.ArgumentParser(
        "coherence",
        description="Measure coherence of gradients: run experiments, test claims, draw figures.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(
        name: str, act: Callable[[Parsed], None] | None, help: str, **options: Any
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help, description=help, **options)
        added.set_defaults(act=act)
        return added

    listing = command(
        "list",
        _list,
        "list the experiments: topic, presets, how long they take, results",
    )
    _json(listing)
    for name, help in (
        (
            "run",
            "run an experiment: train the missing runs, print table and verdicts, draw the figure",
        ),
        (
            "status",
            "the state of an experiment's runs on all machines: done, running, failed",
        ),
        (
            "audit",
            "which labels of a finished run's examples are suspicious: a page and a CSV file",
        ),
    ):  # for the list of commands and for completion: these read their words themselves
        described = command(name, None, help)
        complete_by(described.add_argument("name", metavar="NAME"), "experiments")
        complete_by(add_flags(described), "presets")
        if name == "status":
            _json(described)
        if name == "audit":
            add_audit_flags(described)
    init = command(
        "init",
        _init,
        "write a working folder: experiments, claims, figures and recorded arrays, to run and edit",
    )
    init.add_argument("folder", metavar="FOLDER", type=Path, help="a new folder")
    figures = command(
        "figures",
        _figures,
        "redraw out-of-date figures from recorded arrays, and their page; no training",
    )
    complete_by(figures.add_argument("names", nargs="*", metavar="NAME"), "figures")
    figures.add_argument(
        "--train",
        action="store_true",
        help="first run experiments that were never recorded; this may take long",
    )
    claims = command(
        "claims", _claims, "which claims reproduce, from recorded arrays: a short table"
    )
    formats = claims.add_mutually_exclusive_group()
    for name, help in (
        ("all", "every verdict, with effect, scale and source"),
        ("json", "every verdict and the short table as JSON"),
        ("csv", "every verdict as CSV"),
        ("latex", "the short table for a paper (booktabs)"),
        ("write", "write docs/reproducing.md, its pages, and README's summary instead"),
    ):
        formats.add_argument(
            f"--{name}", dest="format", action="store_const", const=name, help=help
        )
    show = command("show", _show, "show a recorded run: settings, state, numbers")
    _path(show, "run", "RUN", "a run's folder, or one that holds several")
    _where(show)
    _table_options(show, "every number of every record, one per row")
    compare = command(
        "compare",
        _compare,
        "compare two runs or arms: different settings, differences paired by seed",
    )
    _path(compare, "a", "A", "a run's folder, or one that holds the seeds of one arm")
    _path(compare, "b", "B", "the same")
    _table_options(compare, "means and differences with their intervals")
    report = command(
        "report",
        _report,
        "runs on one page: curves, layers, groups, the most and least coherent examples; "
        "one HTML file",
    )
    _path(report, "runs", "RUN", "a run's folder, or one that holds several", nargs="+")
    _where(report)
    report.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        default=Path("report.html"),
        help="the file to write (report.html)",
    )
    report.add_argument(
        "--figure",
        metavar="FILE",
        type=Path,
        help="instead of the page draw one figure for a paper (.pdf, .svg, .png); with --quantity",
    )
    report.add_argument("--quantity", metavar="NAME", action="append", default=[])
    report.add_argument("--width", metavar="INCHES", type=float, help="of that figure (7.2)")
    report.add_argument(
        "--matplotlibrc", metavar="FILE", type=Path, help="a file with settings of matplotlib"
    )
    watch = command(
        "watch",
        _watch,
        "runs on one page that follows them while they train: curves, layers, histograms, speed",
    )
    _path(watch, "runs", "RUN", "a run's folder, or one that holds several", nargs="+")
    _where(watch)
    target = watch.add_mutually_exclusive_group()
    target.add_argument(
        "--port",
        metavar="N",
        type=int,
        default=8765,
        help="on localhost (8765); 0: one that is free",
    )
    target.add_argument(
        "--file",
        metavar="FILE",
        type=Path,
        help="write the page to a file, until all runs are done",
    )
    export = command("export", _export, "runs for other programs to look at")
    _path(export, "runs", "RUN", "a run's folder, or one that holds several", nargs="+")
    export.add_argument(
        "--tensorboard",
        metavar="DIR",
        type=Path,
        required=True,
        help="write TensorBoard event files into DIR",
    )
    command("docs", _docs, "open the documentation site where it was built, or say how to build it")
    data = command("data", _data, "fetch a data set into the cache")
    data.add_argument("verb", choices=["fetch"])
    data.add_argument("name", metavar="NAME")
    completion = command("completion", _completion, "print a shell's completion script")
    completion.add_argument("shell", choices=SHELLS)
    complete = commands.add_parser("complete")  # without help: the script calls it
    complete.add_argument("kind", choices=KINDS)
    complete.add_argument("words", nargs="*")
    complete.set_defaults(act=_complete)
    return parser, [*commands.choices]


def _path(
    command: argparse.ArgumentParser, name: str, metavar: str, help: str, **options: Any
) -> None:
    complete_by(
        command.add_argument(name, metavar=metavar, type=Path, help=help, **options), "runs"
    )


def _json(command: Any) -> None:
    command.add_argument(
        "--json",
        dest="format",
        action="store_const",
        const="json",
        default="text",
        help="for programs; nan is null",
    )


def _where(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--where",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="only runs with this setting, as noise=0.5, or seed=0; all of several must hold",
    )


def _print(text: str) -> None:
    """Print what was recorded: the terminal must not obey it."""
    from .report.records import printable

    print(printable(text))


def _table_options(command: argparse.ArgumentParser, rows: str) -> None:
    command.add_argument("--csv", metavar="FILE", type=Path, help=f"also write a CSV file: {rows}")
    command.add_argument(
        "--parquet", metavar="FILE", type=Path, help="the same as a Parquet file (polars or pandas)"
    )
    formats = command.add_mutually_exclusive_group()
    _json(formats)
    formats.add_argument(
        "--markdown",
        dest="format",
        action="store_const",
        const="markdown",
        default="text",
        help="tables in Markdown",
    )
    command.add_argument(
        "--latex",
        dest="format",
        action="store_const",
        const="latex",
        help="tables for a paper (booktabs)",
    )


def _experiment(name: str) -> Experiment:
    from .experiment import collect, load
    from .report import findings, gallery

    files = findings.files(gallery.checkout())
    if name not in files:
        close = suggestion(name, files)
        raise ValueError(f"no experiment {name!r}: there is {', '.join(files)}.{close}")
    return collect(load(files[name]))


def _list(parsed: Parsed) -> None:
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


def _run(words: list[str]) -> None:
    from .running import main

    main(*_named("run", "[--workers N | --share K/N | --submit WHERE] [--record] ", words))


def _status(words: list[str]) -> None:
    from .running import show_status

    show_status(*_named("status", "[--json] ", words))


def _audit(words: list[str]) -> None:
    from .running import show_audit

    show_audit(*_named("audit", "[--arm ARM] [--seed K] [--of test] [--by SCORE] ", words))


FREE = {"run": _run, "status": _status, "audit": _audit}
"""Commands whose arguments are an experiment's name and its fields."""


def _named(command: str, options: str, words: list[str]) -> tuple[Experiment, list[str]]:
    from .report import findings, gallery

    if not words or words[0].startswith("-"):
        names = ", ".join(findings.files(gallery.checkout()))
        print(f"usage: coherence {command} NAME [--preset PRESET] {options}[--FIELD VALUE ...]")
        print(f"`coherence run NAME --help` lists an experiment's fields. There is {names}.")
        raise SystemExit(0 if {"-h", "--help"} & set(words) else 2)
    name, *arguments = words
    return _experiment(name), arguments


def _init(parsed: Parsed) -> None:
    from .report import gallery

    print(f"{gallery.init(parsed.folder)}: go there, then `coherence list`")


def _figures(parsed: Parsed) -> None:
    from .report import findings, gallery
    from .running import DEFAULT_PRESET
    from .running import main as run
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
            run(_experiment(name), ["--record"])
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


def _claims(parsed: Parsed) -> None:
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


def _show(parsed: Parsed) -> None:
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


def _compare(parsed: Parsed) -> None:
    from .report import compare
    from .report.comparing import COLUMNS

    comparison = compare(parsed.a, parsed.b)
    if parsed.format == "json":
        print(comparison.json())
    else:
        _print(comparison.text(parsed.format))
    _write_tables(parsed, COLUMNS, comparison.rows)


def _report(parsed: Parsed) -> None:
    from .report import plot, style, write

    if parsed.figure is None:
        print(f"report: {write(parsed.runs, parsed.output, parsed.where)}")
        return
    if not parsed.quantity:
        raise ValueError("--figure draws what --quantity NAME says, such as --quantity train_loss.")
    width = parsed.width or 7.2
    with style("paper", width=width, height=2.2, matplotlibrc=parsed.matplotlibrc):
        plot(parsed.runs, parsed.quantity, where=parsed.where).savefig(parsed.figure)
    print(f"figure: {parsed.figure}")


def _watch(parsed: Parsed) -> None:
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


def _export(parsed: Parsed) -> None:
    from .report import export

    folder = parsed.tensorboard
    count = len(export(parsed.runs, folder))
    print(f"{count} run{'s' * (count > 1)} in {folder}: tensorboard --logdir {folder}")


def _docs(parsed: Parsed) -> None:
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


def _data(parsed: Parsed) -> None:
    from .data import fetch

    print(fetch(parsed.name))


def _completion(parsed: Parsed) -> None:
    print(script(_parser()[0], parsed.shell))


def _complete(parsed: Parsed) -> None:
    print("\n".join(names(parsed.kind, parsed.words)))

"""The command `coherence`, with its subcommands.

The words are parsed here, and help is printed at once: what a subcommand does is in `commands`.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import commands
from .commands import Parsed
from .completion import KINDS, SHELLS, complete_by, names, script
from .running.flags import add_audit_flags, add_flags
from .suggestions import suggestion


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
            parser, known = _parser()
            if command and not command.startswith("-") and command not in known:
                close = suggestion(command, known)
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
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(
        name: str, act: Callable[[Parsed], None] | None, help: str, **options: Any
    ) -> argparse.ArgumentParser:
        added = subparsers.add_parser(name, help=help, description=help, **options)
        added.set_defaults(act=act)
        return added

    _add_experiments(command)
    _add_runs(command)
    command(
        "docs",
        commands.docs,
        "open the documentation site where it was built, or say how to build it",
    )
    data = command("data", commands.data, "fetch a data set into the cache")
    data.add_argument("verb", choices=["fetch"])
    data.add_argument("name", metavar="NAME")
    completion = command("completion", _completion, "print a shell's completion script")
    completion.add_argument("shell", choices=SHELLS)
    complete = subparsers.add_parser("complete")  # without help: the script calls it
    complete.add_argument("kind", choices=KINDS)
    complete.add_argument("words", nargs="*")
    complete.set_defaults(act=_complete)
    return parser, [*subparsers.choices]


def _add_experiments(command: Callable[..., argparse.ArgumentParser]) -> None:
    """The commands about experiments, their figures and claims."""
    listing = command(
        "list",
        commands.list_experiments,
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
            "which labels of a run's examples are suspicious: a page and a CSV file",
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
        commands.init,
        "write a working folder: experiments, claims, figures and recorded arrays, to run and edit",
    )
    init.add_argument("folder", metavar="FOLDER", type=Path, help="a new folder")
    figures = command(
        "figures",
        commands.figures,
        "redraw out-of-date figures from recorded arrays, and their page; no training",
    )
    complete_by(figures.add_argument("names", nargs="*", metavar="NAME"), "figures")
    figures.add_argument(
        "--train",
        action="store_true",
        help="first run experiments that were never recorded; this may take long",
    )
    claims = command(
        "claims", commands.claims, "which claims reproduce, from recorded arrays: a short table"
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


def _add_runs(command: Callable[..., argparse.ArgumentParser]) -> None:
    """The commands that look at what runs recorded."""
    show = command("show", commands.show, "show a recorded run: settings, state, numbers")
    _path(show, "run", "RUN", "a run's folder, or one that holds several")
    _where(show)
    _table_options(show, "every number of every record, one per row")
    compare = command(
        "compare",
        commands.compare,
        "compare two runs or arms: different settings, differences paired by seed",
    )
    _path(compare, "a", "A", "a run's folder, or one that holds the seeds of one arm")
    _path(compare, "b", "B", "the same")
    _table_options(compare, "means and differences with their intervals")
    report = command(
        "report",
        commands.report,
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
        commands.watch,
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
    export = command("export", commands.export, "runs for other programs to look at")
    _path(export, "runs", "RUN", "a run's folder, or one that holds several", nargs="+")
    export.add_argument(
        "--tensorboard",
        metavar="DIR",
        type=Path,
        required=True,
        help="write TensorBoard event files into DIR",
    )


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
    formats.add_argument(
        "--latex",
        dest="format",
        action="store_const",
        const="latex",
        help="tables for a paper (booktabs)",
    )


FREE = {"run": commands.run, "status": commands.status, "audit": commands.audit}
"""Commands whose arguments are an experiment's name and its fields."""


def _completion(parsed: Parsed) -> None:
    print(script(_parser()[0], parsed.shell))


def _complete(parsed: Parsed) -> None:
    print("\n".join(names(parsed.kind, parsed.words)))

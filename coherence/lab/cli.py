"""The command `coherence`: list, run, figures, claims, show, compare, report, export, data. Only `run` imports JAX."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(arguments=None):
    """Parse and act; errors a user can mend end in one line and exit status 2."""
    parser = _parser()
    known, rest = parser.parse_known_args(arguments)
    if rest and known.command != "run":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        known.act(known, rest)
    except (ValueError, FileNotFoundError, RuntimeError, OSError) as error:
        print(f"coherence: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(
            "\ncoherence: interrupted; the same command goes on from the last checkpoint.",
            file=sys.stderr,
        )
        raise SystemExit(130) from None


def _parser():
    parser = argparse.ArgumentParser(
        "coherence",
        description="Why do networks that could memorize generalize? Measure, train, judge, draw.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, act, help, **kwargs):
        one = commands.add_parser(name, help=help, description=help, **kwargs)
        one.set_defaults(act=act)
        return one

    command(
        "list", _list, "the experiments, what each one is about, their presets, and what was found"
    )
    command(
        "run",
        _run,
        "run an experiment: train what is missing, print the table and verdicts, draw the figure",
        add_help=False,
    )
    figures = command(
        "figures",
        _figures,
        "redraw stale figures from recorded arrays, and their page; train only what was never recorded",
    )
    figures.add_argument("names", nargs="*", metavar="NAME")
    claims = command("claims", _claims, "the verdict of every claim, from recorded arrays")
    claims.add_argument("--format", choices=["text", "markdown"], default="text")
    claims.add_argument(
        "--write", action="store_true", help="write the page docs/reproducing.md instead"
    )
    show = command("show", _show, "what a recorded run is and how it went")
    show.add_argument(
        "run", metavar="RUN", type=Path, help="a run's folder, or one that holds several"
    )
    _table_options(show, "every number of every record, one a row")
    compare = command(
        "compare",
        _compare,
        "two runs or arms side by side: settings that differ, differences paired by seed",
    )
    compare.add_argument(
        "a", metavar="A", type=Path, help="a run's folder, or one that holds the seeds of one arm"
    )
    compare.add_argument("b", metavar="B", type=Path, help="the same")
    _table_options(compare, "means and differences with their intervals")
    report = command(
        "report",
        _report,
        "runs on one page: curves, layers, groups, the most and least coherent examples; one HTML file",
    )
    report.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        type=Path,
        help="a run's folder, or one that holds several",
    )
    report.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        default=Path("report.html"),
        help="the file to write (report.html)",
    )
    export = command("export", _export, "runs for other programs to look at")
    export.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        type=Path,
        help="a run's folder, or one that holds several",
    )
    export.add_argument(
        "--tensorboard",
        metavar="DIR",
        type=Path,
        required=True,
        help="write TensorBoard event files into DIR",
    )
    data = command("data", _data, "fetch a data set into the cache")
    data.add_argument("verb", choices=["fetch"])
    data.add_argument("name", metavar="NAME")
    completion = command(
        "completion",
        lambda known, _: _complete(parser, known.shell),
        "print a shell's completion script",
    )
    completion.add_argument("shell", choices=["bash", "zsh", "tcsh"])
    return parser


def _experiments():
    from . import findings, gallery

    return findings.experiments(gallery.checkout())


def _experiment(name):
    found = _experiments()
    if name not in found:
        raise ValueError(f"no experiment {name!r}: there is {', '.join(found)}.")
    return found[name]


def _list(known, rest):
    from . import findings, gallery
    from .running import DEFAULT_PRESET

    found = findings.judged(gallery.checkout())
    for name, experiment in _experiments().items():
        print(f"{name}\n    {experiment.summary}\n    presets: {', '.join(experiment.presets)}")
        for finding in found:
            if finding.experiment.name == name:
                print(
                    f"    {gallery.preset(finding.name, DEFAULT_PRESET)}: {findings.counts(finding.judgements)}"
                )


def _run(known, rest):
    from .running import main as run

    if not rest or rest[0].startswith("-"):
        print("usage: coherence run NAME [--preset PRESET] [--record] [--FIELD VALUE ...]")
        print(
            f"`coherence run NAME --help` lists an experiment's fields. There is {', '.join(_experiments())}."
        )
        raise SystemExit(0 if {"-h", "--help"} & set(rest) else 2)
    name, *arguments = rest
    run(_experiment(name), arguments)


def _figures(known, rest):
    from . import findings, gallery
    from .running import DEFAULT_PRESET
    from .running import main as run

    home = gallery.checkout()
    there = gallery.names(home)
    drawable = {path.stem for path in (home / "experiments").glob("*.py")} | set(there)
    for name in known.names or sorted(drawable):
        if name not in drawable:
            raise ValueError(f"no figure {name!r}: there is {', '.join(sorted(drawable))}.")
        if name not in there:
            print(f"{name}: nothing recorded, so it is run with its preset {DEFAULT_PRESET}")
            run(_experiment(name), ["--record"])
        reason = gallery.stale(home, name)
        if reason is not None:
            gallery.draw(home, name)
        print(f"{name}: up to date" if reason is None else f"{name}: redrawn, {reason}")
    (home / findings.GALLERY).write_text(findings.gallery_page(home, findings.judged(home)))


def _claims(known, rest):
    import datetime

    from . import findings, gallery
    from .claims import table

    home = gallery.checkout()
    found = findings.judged(home)
    for name in sorted(_experiments().keys() - {gallery.stem(finding.name) for finding in found}):
        print(f"{name}: nothing recorded; `coherence run {name} --record`", file=sys.stderr)
    if known.write:
        (home / findings.REPRODUCING).write_text(
            findings.reproducing(found, datetime.date.today().isoformat())
        )
        print(home / findings.REPRODUCING)
    else:
        print(
            table(
                [judgement for finding in found for judgement in finding.judgements], known.format
            )
        )


def _table_options(command, rows):
    command.add_argument("--csv", metavar="FILE", type=Path, help=f"also write a CSV file: {rows}")
    command.add_argument(
        "--markdown",
        dest="format",
        action="store_const",
        const="markdown",
        default="text",
        help="tables in Markdown",
    )


def _show(known, rest):
    from .report import describe
    from .report.grouping import found
    from .report.tables import LONG, long, write_csv

    print(describe(known.run, known.format))
    if known.csv:
        write_csv(known.csv, LONG, long(found([known.run])))


def _compare(known, rest):
    from .report import compare
    from .report.comparing import COLUMNS
    from .report.tables import write_csv

    comparison = compare(known.a, known.b)
    print(comparison.text(known.format))
    if known.csv:
        write_csv(known.csv, COLUMNS, comparison.rows())


def _report(known, rest):
    from .report import write

    print(f"report: {write(known.runs, known.output)}")


def _export(known, rest):
    from .report import export

    folders = export(known.runs, known.tensorboard)
    print(
        f"{len(folders)} run{'s' * (len(folders) > 1)} in {known.tensorboard}: tensorboard --logdir {known.tensorboard}"
    )


def _data(known, rest):
    from .data import fetch

    print(fetch(known.name))


def _complete(parser, shell):
    import shtab

    print(shtab.complete(parser, shell))

"""The command `coherence`: list, run, figures, claims, show, data. Only `run` imports JAX."""

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
        print("\ncoherence: interrupted; the same command goes on from the last checkpoint.", file=sys.stderr)
        raise SystemExit(130) from None


def _parser():
    parser = argparse.ArgumentParser(
        "coherence", description="Why do networks that could memorize generalize? Measure, train, judge, draw."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, act, help, **kwargs):
        one = commands.add_parser(name, help=help, description=help, **kwargs)
        one.set_defaults(act=act)
        return one

    command("list", _list, "the experiments, what each one shows, and their presets")
    command("run", _run, "run an experiment: train what is missing, print the table and verdicts, draw the figure", add_help=False)
    figures = command("figures", _figures, "redraw the stale figures from recorded arrays; no training")
    figures.add_argument("names", nargs="*", metavar="NAME")
    claims = command("claims", _claims, "the verdict of every claim, from recorded arrays")
    claims.add_argument("--format", choices=["text", "markdown"], default="text")
    show = command("show", _show, "what a recorded run is and how it went")
    show.add_argument("run", metavar="RUN", type=Path, help="a run's folder, or one that holds several")
    data = command("data", _data, "fetch a data set into the cache")
    data.add_argument("verb", choices=["fetch"])
    data.add_argument("name", metavar="NAME")
    completion = command("completion", lambda known, _: _complete(parser, known.shell), "print a shell's completion script")
    completion.add_argument("shell", choices=["bash", "zsh", "tcsh"])
    return parser


def experiments():
    """`{name: Experiment}` of the checkout, and their one-line findings."""
    from . import gallery
    from .experiment import load

    found = {}
    for path in sorted((gallery.checkout() / "experiments").glob("*.py")):
        module = load(path)
        found[path.stem] = (module.EXPERIMENT, module.__doc__)
    return found


def _experiment(name):
    found = experiments()
    if name not in found:
        raise ValueError(f"no experiment {name!r}: there is {', '.join(found)}.")
    return found[name][0]


def _list(known, rest):
    for name, (experiment, doc) in experiments().items():
        first, _, _ = doc.strip().partition("\n")
        print(f"{name}\n    {first}\n    presets: {', '.join(experiment.presets)}; {len(experiment.claims)} claims")


def _run(known, rest):
    from .running import main as run

    if not rest or rest[0].startswith("-"):
        print("usage: coherence run NAME [--preset PRESET] [--record] [--FIELD VALUE ...]")
        print(f"`coherence run NAME --help` lists an experiment's fields. There is {', '.join(experiments())}.")
        raise SystemExit(0 if {"-h", "--help"} & set(rest) else 2)
    name, *arguments = rest
    run(_experiment(name), arguments)


def _figures(known, rest):
    from . import gallery

    home = gallery.checkout()
    there = gallery.names(home)
    for name in known.names or there:
        if name not in there:
            raise ValueError(f"no recorded arrays for {name!r}: there are {', '.join(there)}. `coherence run {name} --record` makes them.")
        reason = gallery.stale(home, name)
        if reason is None:
            print(f"{name}: up to date")
            continue
        gallery.draw(home, name)
        print(f"{name}: redrawn, {reason}")


def _claims(known, rest):
    from . import gallery, runs
    from .claims import table

    home, judgements = gallery.checkout(), []
    for name, (experiment, _) in experiments().items():
        recorded = home / "paper_figures" / "recorded" / f"{name}.npz"
        if recorded.exists():
            judgements += experiment.judgements(runs.load_arrays(recorded))
        else:
            print(f"{name}: nothing recorded; `coherence run {name} --record`", file=sys.stderr)
    print(table(judgements, known.format))


def _show(known, rest):
    from . import runs

    found = runs.find(known.run) if known.run.is_dir() else []
    if not found:
        raise FileNotFoundError(f"{known.run} holds no run. Runs go to {runs.root()}/EXPERIMENT/PRESET/ARM/seed=K.")
    for run in found:
        _show_one(run)


def _show_one(run):
    records = run.records()
    state = "done" if run.done else f"unfinished, checkpoints at {', '.join(map(str, run.checkpoints())) or 'no step'}"
    print(f"{run.path}: seed {run.seed}, {state}, {len(records)} records")
    if records:
        names = [name for name, value in records[-1].items() if isinstance(value, int | float)]
        picked = [records[i] for i in sorted({round(k * (len(records) - 1) / 7) for k in range(8)})]
        print("  " + "  ".join(f"{name:>16.16}" for name in names))
        for record in picked:
            print("  " + "  ".join(f"{record[name]:>16.6g}" for name in names))


def _data(known, rest):
    from .data import fetch

    print(fetch(known.name))


def _complete(parser, shell):
    import shtab

    print(shtab.complete(parser, shell))

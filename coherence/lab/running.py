"""Run one experiment from the command line: fields, training, table, verdicts, figure. What a script in `experiments/` calls."""

from __future__ import annotations

import sys

from . import claims, fields, gallery, runs
from .experiment import perform, variant
from .findings import run_id

DEFAULT_PRESET = "cpu"
COMMIT_LIMIT = 100_000  # bytes of recorded arrays a repository should carry for one figure


def main(experiment, arguments=None):
    """`[--preset PRESET] [--record] [--FIELD VALUE ...]`: train what is missing, print table and verdicts, draw the figure.

    With `--record` the recorded arrays become those of the committed figure and of `coherence
    claims`.

    Raises:
        ValueError: an unknown preset, or a run folder that holds other settings.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    record = "--record" in arguments
    arguments = [word for word in arguments if word != "--record"]
    preset, arguments = _preset(arguments)
    if preset not in experiment.presets:
        raise ValueError(
            f"{experiment.name} has no preset {preset!r}: there is {', '.join(experiment.presets)}."
        )
    default = experiment.presets[preset]
    if {"-h", "--help"} & set(arguments):
        print(
            f"presets: {', '.join(experiment.presets)} (--preset, {DEFAULT_PRESET} if not given); below, the values of {preset}.\n"
        )
    settings = fields.parse(default, arguments, f"{experiment.name} --preset {preset}")
    folder = runs.root() / experiment.name / variant(preset, settings, default)
    print(f"{experiment.name} -> {folder}", flush=True)
    recorded = perform(experiment, settings, folder)
    judgements = experiment.judgements(
        recorded, run_id(folder / "recorded.npz", f"{experiment.name}/{folder.name}")
    )
    print(f"\n{experiment.table(recorded)}\n\n{claims.table(judgements)}\n")
    home = gallery.checkout()
    if record:
        _keep(
            gallery.recording(home, gallery.name(experiment.name, preset, DEFAULT_PRESET)),
            folder / "recorded.npz",
        )
    png, *_ = gallery.draw(home, experiment.name, folder / "recorded.npz", folder)
    print(f"figure: {png} (also .pdf, and .csv with its data)")


def _preset(arguments):
    for i, word in enumerate(arguments):
        if word == "--preset" and i + 1 < len(arguments):
            return arguments[i + 1], arguments[:i] + arguments[i + 2 :]
        if word.startswith("--preset="):
            return word.removeprefix("--preset="), arguments[:i] + arguments[i + 1 :]
    return DEFAULT_PRESET, arguments


def _keep(target, recorded):
    size = recorded.stat().st_size
    if size > COMMIT_LIMIT:
        print(
            f"warning: {recorded} has {size:,} bytes, more than the {COMMIT_LIMIT:,} a repository should carry.",
            file=sys.stderr,
        )
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(recorded.read_bytes())
    print(f"kept as {target}")

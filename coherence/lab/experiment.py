"""What a file in `experiments/` is: a claim, settings with presets, a grid of runs, what they add up to, and a judge.

Nothing here imports JAX: a run's own settings do, when they build. Data flows one way: settings ->
arms -> runs -> recorded arrays -> verdicts, table and figure.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import claims, runs


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One finding.

    Args:
        name: the file's stem.
        claims: what the sources say, fixed before any run.
        presets: `{name: settings}`: frozen dataclasses of plain values with a field `seeds`;
        `smoke` takes seconds.
        arms: settings -> `{arm: run settings}`. Run settings have `describe()`. Those that train
            have `build(seed) -> Problem`, `schedule()`, `steps` and `batch_size`. Others, such as a
            library's fit, have `compute(seed) -> {name: array}`: `run.load("computed")`; single
            numbers are the record of step 0, too.
        record: `(settings, {arm: [Run, ...]}) -> {name: array}`: the small arrays that verdicts,
        table and figure are made from.
        judge: recorded arrays -> `{claim name: (differences by seed, precondition or None)}`; a
            claim that these settings do not test is left out.
        table: recorded arrays -> text.
        at_source_scale: settings -> whether they are the source's own.
        scale: arms -> what verdicts are said to be about: the first arm's description, or those of
            `all_arms`.
    """

    name: str
    claims: tuple[claims.Claim, ...]
    presets: dict[str, Any]
    arms: Callable
    record: Callable
    judge: Callable
    table: Callable
    at_source_scale: Callable = lambda settings: False
    scale: Callable = lambda arms: next(iter(arms.values())).describe()

    def judgements(self, recorded, run=""):
        """The verdict of every claim that was tested, Holm-adjusted over the experiment; `run` names the recording."""
        found = self.judge(recorded)
        if unknown := found.keys() - {claim.name for claim in self.claims}:
            raise ValueError(
                f"{self.name} judges {', '.join(sorted(unknown))}, which it does not claim. Every verdict needs its Claim."
            )
        scale, at_source_scale = str(recorded["scale"]), bool(recorded["at_source_scale"])
        return claims.holm(
            [
                claims.judge(
                    claim,
                    differences,
                    scale=scale,
                    at_source_scale=at_source_scale,
                    precondition=precondition,
                    run=run,
                )
                for claim in self.claims
                if claim.name in found
                for differences, precondition in [found[claim.name]]
            ]
        )


def all_arms(arms):
    """What all arms are, each said once: `circles (1,000 examples): AE 784-32-1, VAE 784-32-1; mnist (500 examples): AE 784-32-8`."""
    by_data: dict[str, list[str]] = {}
    for said in dict.fromkeys(one.describe() for one in arms.values()):
        data, _, model = said.partition("), ")
        by_data.setdefault(f"{data})" if model else data, []).append(model)
    return "; ".join(
        f"{data}: {', '.join(models)}" if models[0] else data for data, models in by_data.items()
    )


def plain(settings):
    """Settings as JSON-able values; every dataclass names itself, so that a choice between several can be told apart."""
    if dataclasses.is_dataclass(settings):
        values = {f.name: plain(getattr(settings, f.name)) for f in dataclasses.fields(settings)}
        return {"kind": type(settings).__name__, **values}
    if isinstance(settings, tuple | list):
        return [plain(x) for x in settings]
    return settings


def variant(preset, settings, default):
    """A folder's name for a preset with changed fields: `cpu`, `cpu,steps=100`."""
    changes = []

    def compare(a, b, path):
        if dataclasses.is_dataclass(a) and type(a) is type(b):
            for f in dataclasses.fields(a):
                if not (path == () and f.name == "seeds"):
                    compare(getattr(a, f.name), getattr(b, f.name), (*path, f.name))
        elif a != b:
            changes.append(f"{path[-1]}={_slug(a)}")

    compare(settings, default, ())
    return ",".join([preset, *changes])


def _slug(value):
    if dataclasses.is_dataclass(value):
        inner = "-".join(_slug(getattr(value, f.name)) for f in dataclasses.fields(value))
        return f"{type(value).__name__.lower()}{'-' + inner if inner else ''}"
    if isinstance(value, tuple | list):
        return "+".join(_slug(x) for x in value)
    return "".join(c if c.isalnum() or c in "._+" else "-" for c in str(value))


def perform(experiment, settings, folder):
    """Train or compute what is missing, in `folder/ARM/seed=K`, and return the recorded arrays (also written to `folder/recorded.npz`).

    Killed at any moment, the same call goes on where it stopped and ends at the same arrays.
    """
    from tqdm import tqdm

    arms = experiment.arms(settings)
    finished, said = {}, set()
    total = sum(_steps(one) for one in arms.values()) * settings.seeds
    with (
        contextlib.ExitStack() as open_runs,
        tqdm(total=total, unit="step", unit_scale=True, mininterval=0.5, dynamic_ncols=True) as bar,
    ):

        def say(line):
            if line not in said:  # most arms' probes cost the same
                bar.write(line, file=sys.stderr)
            said.add(line)

        for arm, one in arms.items():
            bar.set_description(f"{experiment.name} · {arm}")
            opened = [
                open_runs.enter_context(_open(folder / arm / f"seed={seed}", one, seed))
                for seed in range(settings.seeds)
            ]
            bar.update(sum(run.done for run in opened) * _steps(one))
            if not all(run.done for run in opened):
                (_compute if _computed(one) else _train)(one, opened, bar.update, say)
            finished[arm] = opened
    recorded = {
        **experiment.record(settings, finished),
        "scale": f"{experiment.scale(arms)}, {settings.seeds} seed{'s' * (settings.seeds > 1)}",
        "at_source_scale": experiment.at_source_scale(settings),
        "settings": json.dumps(plain(settings)),
    }
    runs.save_arrays(folder / "recorded.npz", **recorded)
    return runs.load_arrays(folder / "recorded.npz")


def _computed(one):
    return hasattr(one, "compute")


def _steps(one):
    return 1 if _computed(one) else one.steps


def _train(one, runs, progress, say):
    from .training.loop import train

    problems = [None if run.done else one.build(run.seed) for run in runs]
    train(
        problems,
        runs,
        steps=one.steps,
        batch_size=one.batch_size,
        schedule=one.schedule(),
        progress=progress,
        say=say,
    )


def _compute(one, runs, progress, say):
    for run in runs:
        if not run.done:
            arrays = one.compute(run.seed)
            run.save("computed", **arrays)
            run.truncate(-1)  # what a killed process left
            run.append(
                {
                    "step": 0,
                    **{name: float(value) for name, value in arrays.items() if np.ndim(value) == 0},
                }
            )
            run.finish()
            progress(1)


def _open(path, settings, seed):
    return runs.Run.open(path, plain(settings), seed=seed)


def load(path):
    """The module of a file in `experiments/` or `paper_figures/`, imported by path.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}.")
    name = f"_coherence_{path.parent.name}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))  # figures import their shared style
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module

"""Experiments: a claim, settings with presets, a grid of runs, what they add up to, and a judge.

A file in `experiments/` is one, with its claims in `experiments/claims/`; `collect` reads it off
the module. Nothing here imports JAX: a run's own settings do, when they build. Data flows one way:
settings -> arms -> runs -> recorded arrays -> verdicts, table and figure.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from . import runs
from .claims import Claim, Judgement, digest, holm, judge, read
from .grid import ONE_DEVICE, Bar, Devices, Grid
from .runs.files import Damaged, check_writable, read_json, write_json, write_text
from .runs.identity import RunMismatch, code_digest, differences, package_versions
from .runs.locks import Lock
from .settings import plain

REQUIRED = ("PRESETS", "arms", "record", "judge", "table")
"""Names that a module needs to be an experiment, besides a docstring that begins with the claim and
a file of claims."""
OPTIONAL = ("SOURCE_PRESETS", "scale")


def first_description(arms: Mapping[str, Any]) -> str:
    """The description of the first arm."""
    return next(iter(arms.values())).describe()


def all_arms(arms: Mapping[str, Any]) -> str:
    """The descriptions of all arms, each once, by data set.

    Such as `circles (9 examples): AE 784-32-1, VAE 784-32-1; mnist (5 examples): AE 784-32-8`.
    """
    by_data: dict[str, list[str]] = {}
    for description in dict.fromkeys(arm.describe() for arm in arms.values()):
        data, _, model = description.partition("), ")
        by_data.setdefault(f"{data})" if model else data, []).append(model)
    return "; ".join(
        f"{data}: {', '.join(models)}" if models[0] else data for data, models in by_data.items()
    )


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One file in `experiments/`, as collected from its module.

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
        judge: recorded arrays -> `{claim name: differences}`, as `claims.judge` takes them: one
            number a seed, a `Ratio`, or `{part: one of these}`; or `(differences, what is missing
            or None)` where a claim has a precondition. A claim that these settings do not test is
            left out, or has no parts.
        table: recorded arrays -> text.
        source_presets: those at the source's own scale; ("any",) if the claims have no scale.
        scale: arms -> what verdicts are said to be about.
        doc: the module's docstring.
        path: the module's file, if it has one.
    """

    name: str
    claims: tuple[Claim, ...]
    presets: Mapping[str, Any]
    arms: Callable[[Any], dict[str, Any]]
    record: Callable[[Any, dict[str, list[runs.Run]]], dict[str, Any]]
    judge: Callable[[dict[str, Any]], dict[str, Any]]
    table: Callable[[dict[str, Any]], str]
    source_presets: tuple[str, ...] = ()
    scale: Callable[[Mapping[str, Any]], str] = first_description
    doc: str = ""
    path: Path | None = None

    def grid(self, settings: Any) -> dict[str, Any]:
        """The settings of every arm's runs, `{arm: run settings}`, before anything is made.

        Raises:
            ValueError: settings of which there are no runs, or that name the same runs twice.
        """
        if settings.seeds < 1:
            raise ValueError(f"{self.name} seeds: at least 1, got {settings.seeds}.")
        _check_grid(self, settings)
        try:
            arms = self.arms(settings)
        except (ValueError, KeyError, IndexError, ZeroDivisionError) as error:
            raise ValueError(
                f"{self.name}: of these settings there are no runs ({error}). Values that go "
                "together, as a rate for each width, are as many; --help shows those of a preset."
            ) from error
        for name, arm in arms.items():
            for length in ("steps", "batch_size"):
                if getattr(arm, length, 1) < 1:
                    raise ValueError(
                        f"{self.name} {length}: at least 1, got {getattr(arm, length)} "
                        f"(arm {name})."
                    )
        return arms

    @property
    def summary(self) -> str:
        """The docstring's first paragraph: what is asked or claimed."""
        return " ".join(self.doc.partition("\n\n")[0].split())

    def at_source_scale(self, settings: Any) -> bool:
        """Whether settings are at the source's own scale, with any number of seeds."""
        if self.source_presets == ("any",):
            return True
        sources = (self.presets[name] for name in self.source_presets)
        return any(
            dataclasses.replace(settings, seeds=source.seeds) == source for source in sources
        )

    def digests(self) -> dict[str, str]:
        """What the claims say, as a recording keeps it: `{claim name: digest}`."""
        return {claim.name: digest(claim) for claim in self.claims}

    def judgements(
        self, recorded: dict[str, Any], run: str = "", before: Mapping[str, str] | None = None
    ) -> list[Judgement]:
        """The verdict of every claim that was tested, Holm-adjusted over the recording.

        Args:
            recorded: the recorded arrays.
            run: the recording's name.
            before: the digests of the claims before the run, where the arrays do not have them.

        Raises:
            ValueError: `judge` names something that is not claimed.
        """
        tested = self.judge(recorded)
        if unknown := tested.keys() - {claim.name for claim in self.claims}:
            raise ValueError(
                f"{self.name} judges {', '.join(sorted(unknown))}, which it does not claim. "
                "Every verdict needs its Claim."
            )
        if "claims" in recorded:
            before = json.loads(str(recorded["claims"]))
        judgements = []
        for claim in self.claims:
            if claim.name in tested:
                result = tested[claim.name]
                has_precondition = type(result) is tuple
                values, missing = result if has_precondition else (result, None)
                if isinstance(values, Mapping) and not values:
                    continue
                judgements.append(
                    judge(
                        claim,
                        values if isinstance(values, (Mapping, tuple)) else np.atleast_1d(values),
                        scale=str(recorded["scale"]),
                        at_source_scale=bool(recorded["at_source_scale"]),
                        precondition=missing,
                        run=run,
                        changed=before is not None and before.get(claim.name) != digest(claim),
                    )
                )
        return holm(judgements)


def _check_grid(experiment: Experiment, settings: Any) -> None:
    """Refuse empty lists of values, and values that are listed twice: each makes runs of its own.

    Lists of one length may belong together, as a rate for each width: then a row is a value.
    """
    rows: dict[int, list[str]] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if not isinstance(value, tuple):
            continue
        presets = experiment.presets.values()
        if not value and all(getattr(preset, field.name, None) for preset in presets):
            raise ValueError(f"{experiment.name} {field.name}: at least one value, got none.")
        rows.setdefault(len(value), []).append(field.name)
    for names in rows.values():
        values = list(zip(*(getattr(settings, name) for name in names)))
        twice = [row for i, row in enumerate(values) if row in values[:i]]
        if twice:
            raise ValueError(
                f"{experiment.name} {', '.join(names)}: {', '.join(map(str, twice[0]))} is listed "
                "twice, and would be the same runs. Name each once."
            )


def load(path: str | Path) -> ModuleType:
    """The module of a file in `experiments/` or `paper_figures/`, imported by path.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}.")
    name = f"_coherence_{path.parent.name}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))  # figures import their shared style
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def collect(module: ModuleType) -> Experiment:
    """The experiment that a module's names make up: those of `REQUIRED`, any of `OPTIONAL`.

    Its claims are in `claims/NAME.toml` beside it.

    Raises:
        ValueError: the module lacks names, or has no docstring; its claims are no claims.
        FileNotFoundError: it has no file of claims.
    """
    path = Path(str(module.__file__))
    lacking = [name for name in REQUIRED if not hasattr(module, name)]
    doc = ast.get_docstring(ast.parse(path.read_text()))  # python -OO leaves none in the module
    if lacking or not doc:
        missing = ", ".join(lacking if doc else ["a docstring", *lacking])
        raise ValueError(
            f"{path.parent.name}/{path.name} is no experiment, it lacks {missing}: "
            "docs/experiments.md shows one. Helpers of your own go elsewhere."
        )
    names = [name for name in (*REQUIRED, *OPTIONAL) if hasattr(module, name)]
    parts = {name.lower(): getattr(module, name) for name in names}
    claims = read(path.parent / "claims" / f"{path.stem}.toml")
    return Experiment(path.stem, claims, doc=doc, path=path, **parts)


def prepare(
    experiment: Experiment, settings: Any, folder: Path, devices: Devices = ONE_DEVICE
) -> Grid:
    """The grid of the settings, in a folder that says what it was begun with.

    What is claimed is written down before the first run, as digests in `folder/claims.json`; the
    settings and the code that begin the folder are in `folder/begun.json`.

    Raises:
        ValueError: settings of which there are no runs.
        OSError: the folder cannot be written to.
    """
    grid = Grid(experiment.grid(settings), settings.seeds, folder, devices)
    check_writable(folder)
    claims, begun = folder / "claims.json", folder / "begun.json"
    if not begun.exists():
        with Lock(folder, wait=True):  # shares start together
            if not claims.exists() and not any(folder.glob("*/seed=*")):
                write_text(claims, json.dumps(experiment.digests()))
            if not begun.exists():
                write_json(begun, _beginning(experiment, settings))
    return grid


def check_begun(experiment: Experiment, settings: Any, folder: Path) -> None:
    """Refuse a folder that was begun with other settings or other code, naming what differs.

    Seeds do not count: more of them join those that are there.

    Raises:
        RunMismatch: it was.
    """
    begun = folder / "begun.json"
    try:
        before, now = read_json(begun), _beginning(experiment, settings)
    except Damaged:
        raise RunMismatch(f"{begun} is damaged. Delete it to go on with this code.") from None
    if different := differences(before, now):
        raise RunMismatch(
            f"{folder} was begun with other code or settings ({'; '.join(different)}). Shares of "
            "one folder need the same: bring this checkout and its packages to that state, or give "
            "COHERENCE_RUNS another folder. `coherence run` without --share goes on with this "
            f"code; to share with it, delete {begun}."
        )


def _beginning(experiment: Experiment, settings: Any) -> dict[str, Any]:
    package = Path(__file__).parents[1]
    sources = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    if experiment.path is not None:
        sources[f"experiments/{experiment.path.name}"] = experiment.path
    counted = {name: value for name, value in plain(settings).items() if name != "seeds"}
    return {"settings": counted, "code": {"sources": code_digest(sources), **package_versions()}}


def perform(
    experiment: Experiment, settings: Any, folder: Path, devices: Devices = ONE_DEVICE
) -> dict[str, Any]:
    """Train or compute what is missing, in `folder/ARM/seed=K`, and return the recorded arrays.

    They are also written to `folder/recorded.npz`, with the digests of the claims (`prepare`).
    Killed at any moment, the same call goes on where it stopped and ends at the same arrays.

    Args:
        devices: what each run is computed on.

    Raises:
        ValueError: settings of which there are no runs; a folder that holds another run.
        RunBusy: another process writes to one of the runs.
    """
    grid = prepare(experiment, settings, folder, devices)
    with Bar(experiment.name, sum(map(grid.steps, grid.units()))) as bar:
        finished = {unit.arm: bar.train(grid, unit) for unit in grid.units()}
    recorded = {
        **experiment.record(settings, finished),
        "scale": f"{experiment.scale(grid.arms)}, {grid.seeds} seed{'s' * (grid.seeds > 1)}",
        "at_source_scale": experiment.at_source_scale(settings),
        "settings": json.dumps(plain(settings)),
    }
    fixed = folder / "claims.json"
    if fixed.exists():
        recorded["claims"] = fixed.read_text()
    runs.save_arrays(folder / "recorded.npz", **recorded)
    return runs.load_arrays(folder / "recorded.npz")

"""Other programs that get a copy of what is recorded. Each is imported when it is first used."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from coherence.lab.report.grouping import flat
from coherence.lab.runs import Run

LONGEST = 64
"""Numbers in a list that is passed on; values for each example stay in the run."""


class Sink(Protocol):
    """What gets a copy of a run's numbers while it is recorded."""

    def begin(self, run: Run) -> None:
        """Called once, before the first record."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Called with each record: `{"train_loss": 0.3, "m_coherence_by_layer/output": 8.0}`."""

    def end(self, done: bool) -> None:
        """Called once, at the end; `done` is false where the run was not finished."""


def numbers(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """`(name, number)` of what is a number, by layer or in a short list; names joined by `/`.

    >>> dict(numbers({"step": 3, "loss": 0.5, "norms": {"dense": 2.0}, "classes": [1, 2]}))
    {'loss': 0.5, 'norms/dense': 2.0, 'classes/0': 1.0, 'classes/1': 2.0}
    """
    for name, value in record.items():
        if isinstance(value, int | float) and name != "step":
            yield name, float(value)
        elif isinstance(value, Mapping | list) and len(value) <= LONGEST:
            inner = value.items() if isinstance(value, Mapping) else enumerate(value)
            for part, number in inner:
                if isinstance(number, int | float):
                    yield f"{name}/{part}", float(number)


def title(run: Run) -> str:
    """A run's name: the last parts of its folder, as `learnable-mean/seed=0`."""
    return "/".join(run.path.parts[-2:])


class WandB:
    """Weights & Biases (`pip install wandb`); without a network with `WANDB_MODE=offline`.

    Args:
        project: of which the run is.
        options: for `wandb.init`, such as `entity`, `group`, `tags`, `mode`.
    """

    def __init__(self, project: str = "coherence", **options: Any):
        self._options = {"project": project, **options}
        self._run: Any = None

    def begin(self, run: Run) -> None:
        wandb = _imported("wandb", "wandb")
        config = {**flat(run.config), "seed": run.seed}
        self._run = wandb.init(name=title(run), config=config, reinit="create_new", **self._options)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def end(self, done: bool) -> None:
        self._run.finish(exit_code=0 if done else 1)


class Trackio:
    """Trackio (`pip install trackio`), which keeps everything on this machine.

    Args:
        project: of which the run is.
        options: for `trackio.init`, such as `group`, `space_id`.
    """

    def __init__(self, project: str = "coherence", **options: Any):
        self._options = {"project": project, **options}
        self._run: Any = None

    def begin(self, run: Run) -> None:
        trackio = _imported("trackio", "trackio")
        config = {**flat(run.config), "seed": run.seed}
        self._run = trackio.init(name=title(run), config=config, **self._options)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def end(self, done: bool) -> None:
        self._run.finish()


class MLflow:
    """MLflow (`pip install mlflow-skinny`, or mlflow).

    Args:
        experiment: of which the run is.
        uri: where it is tracked, such as `sqlite:///mlflow.db` or a server's address; MLflow's own
            default (`MLFLOW_TRACKING_URI`) if `None`.
    """

    def __init__(self, experiment: str = "coherence", uri: str | None = None):
        self._experiment, self._uri = experiment, uri
        self._client: Any = None
        self._id = ""
        self._metric: Any = None

    def begin(self, run: Run) -> None:
        mlflow = _imported("mlflow", "mlflow-skinny")
        self._client, self._metric = mlflow.MlflowClient(self._uri), mlflow.entities.Metric
        known = self._client.get_experiment_by_name(self._experiment)
        number = known.experiment_id if known else self._client.create_experiment(self._experiment)
        self._id = self._client.create_run(number, run_name=title(run)).info.run_id
        for name, value in {**flat(run.config), "seed": str(run.seed)}.items():
            self._client.log_param(self._id, name, value)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        now = round(1000 * time.time())
        finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
        metrics = [self._metric(name, value, now, step) for name, value in finite.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def end(self, done: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if done else "KILLED")


class TensorBoard:
    """TensorBoard's event files (the extra `tensorboard`, which brings tensorboardX).

    Args:
        folder: in which the run gets a folder of its own: `tensorboard --logdir FOLDER`.
    """

    def __init__(self, folder: str | Path):
        self._folder = Path(folder)
        self._writer: Any = None

    def begin(self, run: Run) -> None:
        tensorboard = _imported("tensorboardX", "tensorboardX")
        self._writer = tensorboard.SummaryWriter(str(self._folder / title(run)))

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def end(self, done: bool) -> None:
        self._writer.close()


def _imported(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:  # it is there, and lacks something of its own
            raise
        raise RuntimeError(f"{module} is not installed: pip install {package}.") from None

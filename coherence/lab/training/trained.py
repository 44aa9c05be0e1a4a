"""Networks as runs left them."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coherence.lab.runs import Run
from coherence.lab.runs.identity import RunMismatch, check_same
from coherence.lab.settings import Autoencoders, plain

from .classification import Classification
from .diffusion import Diffusion
from .run_settings import load


class Classifier(NamedTuple):
    """What a run left: functions of one example, parameters, data, names of classes.

    params: `{step: parameters}`, in order; of a finished run those it ended with, else its newest
        checkpoints.
    data: as the run had them, `{"train": (x, y), "test": (x, y), ...}`.
    """

    loss: Callable
    logits: Callable
    params: dict[int, Any]
    data: dict[str, Any]
    classes: tuple[str, ...]


def classifier(settings: Any, run: Run) -> Classifier:
    """The network of a run of these settings, and the data it is trained on.

    Raises:
        ValueError: no run of `Classification`, or one without a checkpoint.
        RunMismatch: the run was of other settings, or had other labels.
    """
    from coherence.lab.tasks.chunks import predictor

    if not isinstance(settings, Classification):
        raise ValueError(
            f"{run.path}: runs of {type(settings).__name__} have no labels to look at; those of "
            "Classification do."
        )
    check_same(run.path, run.config, plain(settings))
    if not run.done and not run.checkpoints():
        raise ValueError(
            f"{run.path} is not finished and has no checkpoint; `coherence run` goes on with it."
        )
    problem = settings.build(run.seed)
    if not np.array_equal(run.load("drawn")["labels"], problem.data["train"][1]):
        raise RunMismatch(
            f"{run.path} was trained on other labels than these settings make now: data or code "
            "have changed. Delete the run's folder and run again."
        )
    classes = load(settings.data).classes
    logits = predictor(settings.model.build(len(classes)))
    params = _parameters(problem.params, run)
    return Classifier(problem.loss, logits, params, problem.data, classes)


def _parameters(like: Any, run: Run) -> dict[int, Any]:
    """`{step: parameters}` of a finished run's end, or of an unfinished one's checkpoints."""
    from .checkpoints import from_arrays

    if run.done:
        return {(run.summary or {})["step"]: from_arrays(like, run.load("params"))}
    prefix, params = "params/", {}
    for step in sorted(run.checkpoints()):
        state = run.restore(step)
        own = {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}
        params[step] = from_arrays(like, own)
    return params


def autoencoders(settings: Autoencoders, runs: Iterable) -> Iterator[tuple[Callable, Callable]]:
    """`(encode, decode)` of each run: images [m, ...] to z [m, latents] and back, numpy arrays.

    Where z is drawn it is its mean.

    Programs are compiled once for all runs, anew for each m.
    """
    import jax

    from .checkpoints import from_arrays

    model = settings.build()
    like = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, *settings.shape), np.float32))
    encoder = jax.jit(lambda params, x: jax.tree.leaves(model.apply(params, x, method="encode"))[0])
    decoder = jax.jit(lambda params, z: model.apply(params, z, method="decode"))
    for run in runs:
        params = from_arrays(like, run.load("params"))
        yield _of(encoder, params), _of(decoder, params)


def _of(function, params):
    return lambda x: np.asarray(function(params, np.asarray(x, np.float32)))


@contextlib.contextmanager
def temporary_run(settings: Any, seed: int) -> Iterator[Run]:
    """A finished run, trained here in a folder that is deleted afterwards: a context.

    For the first stage of two: what the second one is trained on is made of it.
    """
    from .loop import train

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "run"
        with Run.open(place, plain(settings), seed=seed) as run:
            train(
                [settings.build(seed)],
                [run],
                steps=settings.steps,
                batch_size=settings.batch_size,
                schedule=settings.schedule(),
            )
        yield Run.read(place)


def samplers(
    settings: Diffusion, runs: Iterable, *, steps: int = 50, guidance: float = 0.0
) -> Iterator[Callable]:
    """`draw(many, seed)` or `draw(labels, seed)` of each run: examples [m, *shape], numpy arrays.

    In the units of the data. Networks with classes are asked for labels [m], or draw from all
    classes where they are given a number.

    Args:
        steps, guidance: of `coherence.lab.tasks.diffusion.sampler`.

    Raises:
        ValueError: guidance of a network that was never without a label in training.
    """
    import jax

    from coherence.lab.tasks.diffusion import sampler

    from .checkpoints import from_arrays

    if guidance and not settings.label_dropout:
        raise ValueError(
            "samplers(guidance): guidance compares with the network when it is told no label, and "
            "this one was always told: train with label_dropout=0.1."
        )
    model = settings.model.build()
    example = np.zeros((1, *model.shape), np.float32), np.zeros(1, np.int32)
    like = jax.eval_shape(model.init, jax.random.key(0), *example)
    sample = sampler(model, settings.noise_schedule.build(), steps=steps, guidance=guidance)
    for run in runs:
        params, drawn = from_arrays(like, run.load("params")), run.load("drawn")
        yield _drawing(sample, params, model.shape, drawn["centre"], drawn["scale"])


def _drawing(sample, params, shape, centre, scale):
    def draw(labels, seed):
        told = () if np.ndim(labels) == 0 else (labels,)
        m = len(labels) if told else labels
        noise = np.random.default_rng(seed).normal(size=(m, *shape)).astype(np.float32)
        return centre + scale * np.asarray(sample(params, noise, *told))

    return draw

"""What the classifiers share that are trained by the one loop: scikit-learn's interface in front of a `Problem`."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from coherence.lab.settings import Aggregators, Optimizers, Setting, adam, average, parse
from coherence.lab.training.programs import PROGRAMS
from coherence.lab.training.run_settings import initial_parameters, transformation
from coherence.lab.training.samples import stream

_PARAMS, _SAMPLE, _NOISE, _KEYS = (
    0,
    2,
    3,
    4,
)  # a seed's separate random streams; those of a `Classification` are the same
_AT_ONCE = 1000  # examples, when predicting


@dataclass(frozen=True)
class Parts:
    """What a family of networks brings to the loop, made once for equal settings: its programs are shared."""

    model: Any  # a Flax module
    loss: Callable
    """`(params, example) -> scalar`; an example is `(x, y)`, with a key behind where the loss draws."""
    scores: Callable
    """Compiled: `(params, x [m, features], ...) -> [m, classes]`, the logarithms of p(y | x) but for a constant."""
    draws: bool = False
    """Whether the loss takes a key."""


@dataclass(eq=False, repr=False, kw_only=True)
class Trained(ClassifierMixin, BaseEstimator):
    """A classifier trained step by step, from per-example gradients if its aggregator wants them. Not for use by itself."""

    aggregator: Aggregators = average()
    """What a batch's gradients become: `coherence.winsorize(2)`, its setting, or `"winsorize(c=2)"`."""
    optimizer: Optimizers = adam()
    """What follows the aggregator: `optax.sgd(0.1)`, the setting `sgd(0.1)`, or `"sgd(0.1)"`."""
    batch_size: int = 100
    """Examples a step; all of a smaller training set."""
    steps: int = 1000
    measure_coherence: int = 0
    """On how many fixed training examples to measure m-coherence while training (all of a smaller training set); 0: not at all."""
    random_state: int = 0
    """Seed of the initial parameters, the order of the batches and what is measured."""

    def fit(self, X, y, corrupt=None):
        """Train on `X` [n, features] and any labels.

        Args:
            corrupt: bool [n], which labels are known to be wrong; used only to measure the
                coherence of the two groups apart.
        """
        self._check()
        X, y = validate_data(self, X, y, dtype=np.float32, accept_sparse=self._accepts())
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if corrupt is not None and np.shape(corrupt) != (len(labels),):
            raise ValueError(
                f"fit(corrupt): one truth value an example, [{len(labels)}], got shape {list(np.shape(corrupt))}."
            )
        self._learn(
            _dense(X),
            labels.astype(np.int32),
            None if corrupt is None else np.asarray(corrupt, bool),
        )
        return self

    def predict(self, X):
        """The most probable label of each example."""
        most = self._scores(X).argmax(1)
        return self.classes_[most]

    def predict_proba(self, X):
        """The probabilities of `classes_`, [m, classes]."""
        return softmax(self._scores(X).astype(np.float64), axis=1)

    def _settings(self):
        """The network's settings, for `n_features_in_` features and `classes_`."""
        raise NotImplementedError

    def _parts(self) -> Parts:
        return PROGRAMS.get(network, self._settings(), len(self.classes_))

    def _accepts(self):
        """Which sparse matrices `fit` and `predict` take."""
        return False

    def _check(self):
        who = type(self).__name__
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError(
                f"{who}: steps and batch_size are at least 1, got steps={self.steps}, batch_size={self.batch_size}."
            )
        if self.measure_coherence < 0 or self.measure_coherence == 1:
            raise ValueError(
                f"{who}(measure_coherence): 0, or 2 examples at least, got {self.measure_coherence}."
            )

    def _choice(self, name, kind, made, example):
        """The setting of this name, or what is made already."""
        given = getattr(self, name)
        try:
            choice = parse(given, kind) if isinstance(given, str) else given
        except ValueError as error:
            raise ValueError(f"{type(self).__name__}({name}): {error}") from None
        if not isinstance(choice, Setting | made):
            raise TypeError(
                f"{type(self).__name__}({name}): what coherence or optax makes, its setting, or "
                f'the text "{example}"; got {given!r}.'
            )
        return choice

    def _check_folding(self, shape):
        who, held = type(self).__name__, math.prod(shape)
        if held != self.n_features_in_:
            raise ValueError(
                f"{who}(shape): {tuple(shape)} holds {held} numbers and an example has {self.n_features_in_} features."
            )

    def _seed(self):
        rng = check_random_state(self.random_state)
        return (
            int(self.random_state)
            if isinstance(self.random_state, Integral)
            else int(rng.randint(2**31 - 1))
        )

    def _learn(self, X, labels, corrupt):
        import jax
        import optax

        from coherence.lab.training import compilation_cache
        from coherence.lab.training.problem import Problem
        from coherence.optim.aggregation import Aggregator

        optimizer = PROGRAMS.get(
            transformation,
            self._choice("aggregator", Aggregators, Aggregator, "winsorize(c=2)"),
            self._choice("optimizer", Optimizers, optax.GradientTransformation, "sgd(0.1)"),
        )
        compilation_cache.switch_on()
        parts, seed = self._parts(), self._seed()
        start = (X[:1], labels[:1]) if parts.draws else (X[:1],)
        probe = self._probe(parts, X, labels, corrupt, seed)
        problem = Problem(
            loss=parts.loss,
            params=initial_parameters(parts.model, jax.random.key(stream(seed, _PARAMS)), *start),
            data={"train": (X, labels)},
            optimizer=optimizer,
            per_example=not optimizer.takes_batch_gradient,
            probes=() if probe is None else (probe,),
            noise=jax.random.key(stream(seed, _NOISE)) if parts.draws else None,
        )
        self.params_, records = _train(problem, seed, self.steps, min(self.batch_size, len(labels)))
        self.n_iter_ = self.steps
        if probe is not None:
            self.coherence_ = _curves(records, corrupt is not None)

    def _probe(self, parts, X, labels, corrupt, seed):
        """That of `measure_coherence` training examples, with a fixed key each where the loss draws; `None` where nothing is measured."""
        import jax

        from coherence.probes.presets import STANDARD
        from coherence.probes.probe import Probe

        if not self.measure_coherence:
            return None
        index = np.sort(
            np.random.default_rng(stream(seed, _SAMPLE)).permutation(len(labels))[
                : self.measure_coherence
            ]
        )
        keys = (
            (jax.random.split(jax.random.key(stream(seed, _KEYS)), len(index)),)
            if parts.draws
            else ()
        )
        quantities = tuple(
            one for one in STANDARD if one.name in ("loss", "m_coherence", "m_coherence_by_group")
        )
        groups = None if corrupt is None else corrupt[index]
        return Probe(
            parts.loss,
            (X[index], labels[index], *keys),
            quantities=quantities,
            groups=groups,
            few=2,
        )

    def _scores(self, X, *more):
        """The logarithms of p(y | x) but for a constant, [m, classes]."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, accept_sparse=self._accepts(), reset=False)
        scores = self._parts().scores
        return np.concatenate(
            [
                scores(self.params_, _dense(X[i : i + _AT_ONCE]), *more)
                for i in range(0, X.shape[0], _AT_ONCE)
            ]
        )


def network(settings, outputs) -> Parts:
    """A network whose outputs are logits."""
    import jax

    from coherence.lab.tasks.classification import cross_entropy

    model = settings.build(outputs)
    return Parts(model, cross_entropy(model), jax.jit(model.apply))


def _train(problem, seed, steps, batch_size):
    """The loop's parameters, as numpy arrays, and its records; the run's folder is gone afterwards."""
    import jax

    from coherence.lab.runs import Run
    from coherence.lab.training.checkpoints import from_arrays
    from coherence.lab.training.loop import train

    with (
        tempfile.TemporaryDirectory(prefix="coherence-fit-") as folder,
        Run.open(Path(folder) / "run", {}, seed=seed) as run,
    ):
        train([problem], [run], steps=steps, batch_size=batch_size, schedule=())
        return jax.tree.map(
            np.asarray, from_arrays(problem.params, run.load("params"))
        ), run.records()


def _curves(records, groups):
    """`{name: [measurements]}` of what the probe read."""
    found = {"step": np.array([record["step"] for record in records])}
    for name in ("loss", "m_coherence"):
        found[name] = np.array([record[f"train/{name}"] for record in records])
    if groups:
        by_group = np.array([record["train/m_coherence_by_group"] for record in records])
        found |= {"pristine_m_coherence": by_group[:, 0], "corrupt_m_coherence": by_group[:, 1]}
    return found


def _dense(X):
    return X.toarray() if hasattr(X, "toarray") else X

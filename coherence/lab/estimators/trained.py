"""What classifiers share that the training loop trains: scikit-learn's interface to a `Problem`."""

from __future__ import annotations

import math
import shutil
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

from coherence.lab.settings import Aggregators, Optimizers, Setting, parse
from coherence.lab.training.programs import PROGRAMS
from coherence.lab.training.run_settings import initial_parameters, transformation
from coherence.lab.training.samples import stream, stream_key

# A seed's separate random streams; those of a `Classification` are the same.
_PARAMS, _SAMPLE, _NOISE, _KEYS = 0, 2, 3, 4
_BLOCK = 64  # examples scored at a time: always as many, so that no score depends on its neighbours


@dataclass(frozen=True)
class Parts:
    """What a family of networks brings to the loop, made once for equal settings."""

    model: Any  # a Flax module
    loss: Callable
    """`(params, example) -> scalar` of `(x, y)`, or of `(x, y, key)` where it draws."""
    scores: Callable
    """Compiled: `(params, x [m, features], ...) -> [m, classes]`, log p(y | x) up to a constant, or
    scores of another kind where the classifier states no probabilities."""
    draws: bool = False
    """Whether the loss takes a key."""


@dataclass(eq=False, repr=False, kw_only=True)
class Trained(ClassifierMixin, BaseEstimator):
    """A classifier trained step by step. Not for use by itself.

    Aggregator and optimizer are given as they are made, `coherence.optim.winsorize(2)` and
    `optax.sgd(0.1)`, as settings, or as text, `"winsorize(c=2)"` and `"sgd(0.1)"`.
    """

    aggregator: Any = "average()"
    """What makes one gradient of a batch's; per-example gradients are formed if it wants them."""
    optimizer: Any = "adam(learning_rate=0.003)"
    """What follows the aggregator."""
    batch_size: int = 100
    """Examples a step; all of a smaller training set."""
    steps: int = 1000
    measure_coherence: int = 0
    """On how many fixed training examples to measure m-coherence while training (all of a smaller
    training set); 0: not at all."""
    random_state: int = 0
    """Seed of the initial parameters, the order of the batches and what is measured."""

    def fit(self, X, y, corrupt=None):
        """Train on `X` [n, features] and any labels.

        Args:
            corrupt: bool [n], which labels are known to be wrong; used only to measure the
                coherence of the two groups apart.

        Raises:
            ValueError: settings that cannot be, or parameters that did not stay finite.
        """
        self._check()
        X, y = validate_data(self, X, y, dtype=np.float32, accept_sparse=self._accepts())
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if corrupt is not None and np.shape(corrupt) != (len(labels),):
            raise ValueError(
                f"fit(corrupt): one truth value an example, [{len(labels)}], "
                f"got shape {list(np.shape(corrupt))}."
            )
        self._learn(
            self._inputs(_dense(X)),
            labels.astype(np.int32),
            None if corrupt is None else np.asarray(corrupt, bool),
        )
        return self

    def predict(self, X):
        """The label with the highest score, of each example."""
        most = self._scores(X).argmax(1)  # first, for it says where nothing is fitted yet
        return self.classes_[most]

    def _settings(self):
        """The network's settings, for `n_features_in_` features and `classes_`."""
        raise NotImplementedError

    def _parts(self) -> Parts:
        return PROGRAMS.get(network, self._settings(), len(self.classes_))

    def _inputs(self, X):
        """Examples as the network reads them."""
        return X

    def _accepts(self):
        """Which sparse matrices `fit` and `predict` take."""
        return False

    def _check(self):
        who = type(self).__name__
        sizes = self.steps, self.batch_size
        if not all(isinstance(size, Integral) and size >= 1 for size in sizes):
            raise ValueError(
                f"{who}: steps and batch_size are whole numbers, at least 1, "
                f"got steps={self.steps}, batch_size={self.batch_size}."
            )
        measured = self.measure_coherence
        if not isinstance(measured, Integral) or measured < 0 or measured == 1:
            raise ValueError(
                f"{who}(measure_coherence): 0, or 2 examples at least, got {measured}."
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
                f"{who}(shape): {tuple(shape)} holds {held} numbers and an example has "
                f"{self.n_features_in_} features."
            )

    def _seed(self):
        state = check_random_state(self.random_state)
        if isinstance(self.random_state, Integral):
            return int(self.random_state)
        return int(state.randint(2**31 - 1))

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
        self._fitted_seed = seed
        start = (X[:1], labels[:1]) if parts.draws else (X[:1],)
        probe = self._probe(parts, X, labels, corrupt, seed)
        problem = Problem(
            loss=parts.loss,
            params=initial_parameters(parts.model, stream_key(seed, _PARAMS), *start),
            data={"train": (X, labels)},
            optimizer=optimizer,
            per_example=not optimizer.takes_batch_gradient,
            probes=() if probe is None else (probe,),
            noise=stream_key(seed, _NOISE) if parts.draws else None,
        )
        self.params_, records = _train(problem, seed, self.steps, min(self.batch_size, len(labels)))
        self.n_iter_ = self.steps
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(self.params_)):
            raise ValueError(
                f"{type(self).__name__}: training diverged, parameters are not finite. Take a "
                "smaller learning rate, or scale the features."
            )
        if probe is not None:
            self.coherence_ = _curves(records, corrupt is not None)

    def _probe(self, parts, X, labels, corrupt, seed):
        """The probe of `measure_coherence` training examples, or `None`.

        Where the loss draws, each example has a fixed key.
        """
        import jax

        from coherence.probes.presets import STANDARD
        from coherence.probes.probe import Probe

        if not self.measure_coherence:
            return None
        order = np.random.default_rng(stream(seed, _SAMPLE)).permutation(len(labels))
        index = np.sort(order[: self.measure_coherence])
        sample: tuple = (X[index], labels[index])
        if parts.draws:
            key = stream_key(seed, _KEYS)
            sample = (*sample, jax.random.split(key, len(index)))
        names = ("loss", "m_coherence", "m_coherence_by_group")
        return Probe(
            parts.loss,
            sample,
            quantities=tuple(quantity for quantity in STANDARD if quantity.name in names),
            groups=None if corrupt is None else corrupt[index],
            few=2,
        )

    def _scores(self, X, *more):
        """[m, classes], highest for the label that is predicted."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, accept_sparse=self._accepts(), reset=False)
        program, m = self._parts().scores, X.shape[0]
        scores = []
        for start in range(0, m, _BLOCK):
            block = self._inputs(_dense(X[start : start + _BLOCK]))
            filled = np.zeros((_BLOCK, X.shape[1]), np.float32)
            filled[: len(block)] = block
            scores.append(program(self.params_, filled, *more))
        return np.concatenate(scores)[:m]


class Probabilistic(Trained):
    """One whose scores are log p(y | x), up to a constant. Not for use by itself."""

    def predict_proba(self, X):
        """The probabilities of `classes_`, [m, classes]."""
        return softmax(self._scores(X).astype(np.float64), axis=1)


def network(settings, outputs, compare=None) -> Parts:
    """A network whose outputs are compared with the label, as logits by default."""
    import jax

    from coherence.lab.tasks.classification import loss_of
    from coherence.lab.tasks.output_losses import softmax_cross_entropy

    model = settings.build(outputs)
    compare = softmax_cross_entropy() if compare is None else compare.build()
    return Parts(model, loss_of(model, compare), jax.jit(model.apply))


def _train(problem, seed, steps, batch_size):
    """The loop's parameters, as numpy arrays, and its records, of a run in a temporary folder."""
    import jax

    from coherence.lab.runs import Run
    from coherence.lab.runs.files import leftovers, this_process
    from coherence.lab.training.checkpoints import from_arrays
    from coherence.lab.training.loop import train

    for left in leftovers(Path(tempfile.gettempdir()), "coherence-fit-"):
        shutil.rmtree(left, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(prefix=f"coherence-fit-{this_process()}-") as folder,
        Run.open(Path(folder) / "run", {}, seed=seed) as run,
    ):
        train([problem], [run], steps=steps, batch_size=batch_size, schedule=())
        return jax.tree.map(
            np.asarray, from_arrays(problem.params, run.load("params"))
        ), run.records()


def _curves(records, groups):
    """`{name: [measurements]}` of what the probe read."""
    curves = {"step": np.array([record["step"] for record in records])}
    for name in ("loss", "m_coherence"):
        curves[name] = np.array([record[f"train/{name}"] for record in records])
    if groups:
        by_group = np.array([record["train/m_coherence_by_group"] for record in records])
        curves |= {"pristine_m_coherence": by_group[:, 0], "corrupt_m_coherence": by_group[:, 1]}
    return curves


def _dense(X):
    return X.toarray() if hasattr(X, "toarray") else X

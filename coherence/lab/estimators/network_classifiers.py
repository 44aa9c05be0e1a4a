"""Networks as classifiers: softmax regression, MLP with and without softmax, CNN and RNN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coherence.lab.settings import CNN, LSTM, MLP, RNN, hinge
from coherence.lab.training.programs import PROGRAMS

from .trained import Probabilistic, Trained, network


@dataclass(eq=False, repr=False, kw_only=True)
class SoftmaxRegression(Probabilistic):
    """Logits that are linear in x; with two classes logistic regression.

    No penalty: on separable data the weights grow as long as it is trained. Sparse matrices are
    made dense: n x features floats.

    >>> SoftmaxRegression(steps=100).get_params()["steps"]
    100
    """

    optimizer: Any = "adam(learning_rate=0.01)"

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _accepts(self):
        return "csr"

    def _settings(self):
        return MLP(depth=0)


@dataclass(eq=False, repr=False, kw_only=True)
class MLPClassifier(Probabilistic):
    """A network of hidden layers of one width with ReLU."""

    width: int = 128
    """Units in each hidden layer."""
    depth: int = 1
    """Number of hidden layers."""

    def _settings(self):
        return MLP(self.width, self.depth)


@dataclass(eq=False, repr=False, kw_only=True)
class HingeClassifier(Trained):
    """An MLP that decides and states no probabilities: trained until the label's output leads.

    The loss is zero where it leads the best other one by the margin; without hidden layers this is
    a linear support vector machine without penalty (Crammer & Singer, JMLR 2001).

    >>> HingeClassifier(margin=2.0).get_params()["margin"]
    2.0
    """

    width: int = 128
    """Units in each hidden layer."""
    depth: int = 1
    """Number of hidden layers."""
    margin: float = 1.0
    """By which the label's output is to lead."""

    def _parts(self):
        settings = MLP(self.width, self.depth)
        return PROGRAMS.get(network, settings, len(self.classes_), hinge(self.margin))


@dataclass(eq=False, repr=False, kw_only=True)
class CNNClassifier(Probabilistic):
    """A network of 3 x 3 convolutions with ReLU over flat images; each but the first halves them.

    >>> CNNClassifier(width=4).get_params()["width"]
    4
    """

    shape: tuple[int, int, int] | None = None
    """Height, width and channels of an image; None: one row of pixels."""
    width: int = 8
    """Channels of the first convolution; those that follow have twice as many."""
    depth: int = 2
    """Number of convolutions."""

    def _settings(self):
        shape = (1, self.n_features_in_, 1) if self.shape is None else self.shape
        self._check_folding(shape)
        return CNN(self.width, self.depth, shape=shape)


@dataclass(eq=False, repr=False, kw_only=True)
class RNNClassifier(Probabilistic):
    """A network of recurrent layers over the rows of a flat image; logits from the last state.

    >>> RNNClassifier(gated=True).get_params()["gated"]
    True
    """

    shape: tuple[int, int] | None = None
    """Positions and features at each, as the height of an image and the numbers in a row; None: a
    sequence of single numbers."""
    width: int = 64
    """Units in each layer."""
    depth: int = 1
    """Number of recurrent layers."""
    gated: bool = False
    """Long short-term memory; False: plain tanh units."""

    def _settings(self):
        shape = (self.n_features_in_, 1) if self.shape is None else self.shape
        self._check_folding(shape)
        network = LSTM if self.gated else RNN
        return network(self.width, self.depth, shape=shape)

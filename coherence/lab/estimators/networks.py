"""Networks as classifiers: from softmax regression to a recurrent one that reads an image row by row."""

from __future__ import annotations

from dataclasses import dataclass

from coherence.lab.settings import CNN, LSTM, MLP, RNN, Optimizers, adam

from .trained import Trained


@dataclass(eq=False, repr=False, kw_only=True)
class SoftmaxRegression(Trained):
    """Logits that are linear in x; with two classes logistic regression.

    No penalty: on separable data the weights grow as long as it is trained. Sparse matrices are
        made dense: n x features floats.
    """

    optimizer: Optimizers = adam(1e-2)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _accepts(self):
        return "csr"

    def _settings(self):
        return MLP(depth=0)


@dataclass(eq=False, repr=False, kw_only=True)
class MLPClassifier(Trained):
    """Hidden layers of one width with ReLU."""

    width: int = 128
    """Units in each hidden layer."""
    depth: int = 1
    """Number of hidden layers."""
    optimizer: Optimizers = adam(3e-3)

    def _settings(self):
        return MLP(self.width, self.depth)


@dataclass(eq=False, repr=False, kw_only=True)
class CNNClassifier(Trained):
    """3 x 3 convolutions with ReLU over flat images, each after the first halving them."""

    shape: tuple[int, int, int] = (8, 8, 1)
    """Height, width and channels of an image."""
    width: int = 8
    """Channels of the first convolution; those that follow have twice as many."""
    depth: int = 2
    """Number of convolutions."""
    optimizer: Optimizers = adam(3e-3)

    def _settings(self):
        self._check_folding(self.shape)
        return CNN(self.width, self.depth, shape=self.shape)


@dataclass(eq=False, repr=False, kw_only=True)
class RNNClassifier(Trained):
    """Recurrent layers over the rows of a flat image, then logits from the last state."""

    shape: tuple[int, int] = (8, 8)
    """Positions and features at each: the height of an image and the numbers in a row."""
    width: int = 64
    """Units in each layer."""
    depth: int = 1
    """Number of recurrent layers."""
    gated: bool = False
    """Long short-term memory; False: plain tanh units."""
    optimizer: Optimizers = adam(3e-3)

    def _settings(self):
        self._check_folding(self.shape)
        return (LSTM if self.gated else RNN)(self.width, self.depth, shape=self.shape)

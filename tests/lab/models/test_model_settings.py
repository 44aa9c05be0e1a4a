"""Networks as settings: what they build, what they say of it, what they refuse."""

import subprocess
import sys

import pytest

from coherence.lab.models import (
    CNN,
    LSTM,
    MLP,
    RNN,
    DeepLinear,
    DiagonalChain,
    Linear,
    ResNet,
    paper_init,
)
from coherence.lab.models.settings import (
    Convolutional,
    Diagonal,
    FullyConnected,
    LinearMap,
    LinearNetwork,
    Recurrent,
    Residual,
)
from coherence.lab.training import Classification


@pytest.mark.parametrize(
    ("settings", "built", "described"),
    [
        (FullyConnected(32, 2), MLP(32, 2, 10, paper_init), "MLP 64-32-32-10"),
        (FullyConnected(depth=0), MLP(256, 0, 10, paper_init), "MLP 64-10"),
        (Convolutional(), CNN(32, 3, 10), "CNN 32-64-64"),
        (Convolutional(8, 1, [8, 8, 1]), CNN(8, 1, 10, (8, 8, 1)), "CNN 8"),
        (Residual(), ResNet(64, 2, 10), "ResNet-18 of width 64"),
        (Residual(16, 1, 3, [8, 8, 1]), ResNet(16, 1, 10, 3, (8, 8, 1)), "ResNet-8 of width 16"),
        (LinearNetwork(32, 2), DeepLinear(32, 2, 10), "linear network 64-32-32-10"),
        (Diagonal(3, 0.1), DiagonalChain(3, 10, 0.1), "diagonal chain 64-10 of 3 factors"),
        (Recurrent(32, 2), LSTM(32, 2, 10), "LSTM 32-32"),
        (Recurrent(32, 1, False, [8, 8]), RNN(32, 1, 10, (8, 8)), "RNN 32"),
        (LinearMap(), Linear(10), "linear map 64-10"),
    ],
)
def test_settings_build_the_network_they_describe(settings, built, described):
    assert settings.build(10) == built
    assert settings.describe(64, 10) == described


@pytest.mark.parametrize(
    "model",
    [
        Convolutional(4, 1, (8, 8, 1)),
        Residual(4, 1, 1, (8, 8, 1)),
        LinearNetwork(4),
        Diagonal(2),
        Recurrent(4, shape=(8, 8)),
    ],
)
def test_a_classifier_takes_every_network(model):
    settings = Classification(model=model)
    assert settings.describe() == f"digits (1,437 examples), {model.describe(64, 10)}"
    problem = settings.build(0)
    x, y = problem.data["train"]
    assert problem.loss(problem.params, (x[0], y[0])).shape == ()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: FullyConnected(width=0),
            "FullyConnected: width is at least 1 and depth at least 0, got width=0, depth=1",
        ),
        (lambda: FullyConnected(depth=-1), "depth=-1"),
        (
            lambda: LinearNetwork(width=0),
            "LinearNetwork: width is at least 1 and depth at least 0, got width=0, depth=1",
        ),
        (
            lambda: Diagonal(depth=0),
            r"Diagonal: depth is at least 1 and initial above 0, got depth=0, initial=0\.01",
        ),
        (lambda: Diagonal(initial=0.0), r"initial above 0, got depth=2, initial=0\.0"),
        (
            lambda: Convolutional(width=0),
            "Convolutional: width and depth are at least 1, got width=0, depth=3",
        ),
        (
            lambda: Convolutional(shape=(28, 28)),
            r"Convolutional: shape is height, width and channels, as \(28, 28, 1\); got \(28, 28\)",
        ),
        (
            lambda: Residual(stages=0),
            "Residual: width and depth and stages are at least 1, got width=64, depth=2, stages=0",
        ),
        (
            lambda: Residual(shape=(28, 28)),
            r"Residual: shape is height, width and channels, as \(28, 28, 1\)",
        ),
        (
            lambda: Recurrent(depth=0),
            "Recurrent: width and depth are at least 1, got width=128, depth=0",
        ),
        (
            lambda: Recurrent(shape=(28, 28, 1)),
            r"Recurrent: shape is positions and features, as \(28, 28\); got \(28, 28, 1\)",
        ),
    ],
)
def test_impossible_sizes_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_settings_never_import_jax():
    program = "import sys; from coherence.lab.models import FullyConnected, Residual; FullyConnected(), Residual(); print('jax' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout
        == "False\n"
    )

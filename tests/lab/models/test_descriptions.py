"""What networks say of themselves, and what they refuse."""

import pytest

from coherence.lab import settings
from coherence.lab.models import (
    CNN,
    LSTM,
    MLP,
    RNN,
    DeepLinear,
    DiagonalChain,
    Linear,
    MuMLP,
    ResNet,
)
from coherence.lab.training import Classification


@pytest.mark.parametrize(
    ("model", "described"),
    [
        (MLP(32, 2), "MLP 64-32-32-10"),
        (MLP(depth=0), "MLP 64-10"),
        (MLP(128, 2, initializer="he"), "MLP 64-128-128-10 (standard)"),
        (
            MLP(32, 1, initializer="glorot", activation="tanh", residual=True),
            "MLP 64-32-10 (tanh, Glorot, residual)",
        ),
        (MuMLP(128, 2, base_width=16), "MLP 64-128-128-10 (mu, base width 16)"),
        (CNN(), "CNN 32-64-64"),
        (CNN(8, 1, shape=(8, 8, 1)), "CNN 8"),
        (ResNet(), "ResNet-18 of width 64"),
        (ResNet(16, 1, stages=3), "ResNet-8 of width 16"),
        (DeepLinear(32, 2), "linear network 64-32-32-10"),
        (DiagonalChain(3, 10), "diagonal chain 64-10 of 3 factors"),
        (LSTM(32, 2), "LSTM 32-32"),
        (RNN(32, 1, shape=(8, 8)), "RNN 32"),
        (Linear(10), "linear map 64-10"),
    ],
)
def test_a_network_describes_itself(model, described):
    assert model.describe(64) == described


@pytest.mark.parametrize(
    "model",
    [
        settings.CNN(4, 1, shape=(8, 8, 1)),
        settings.ResNet(4, 1, stages=1, shape=(8, 8, 1)),
        settings.DeepLinear(4),
        settings.DiagonalChain(2),
        settings.LSTM(4, shape=(8, 8)),
        settings.MuMLP(4),
    ],
)
def test_a_classifier_takes_every_network(model):
    run = Classification(model=model)
    assert run.describe() == f"digits (1,437 examples), {model.build(10).describe(64)}"
    problem = run.build(0)
    x, y = problem.data["train"]
    assert problem.loss(problem.params, (x[0], y[0])).shape == ()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: MLP(width=0),
            "MLP: width is at least 1, depth is at least 0; got width=0, depth=1",
        ),
        (lambda: MLP(depth=-1), "depth=-1"),
        (
            lambda: MLP(initializer="best"),
            "MLP: initializer is paper or he or glorot or a function, got 'best'",
        ),
        (
            lambda: MLP(activation="swish"),
            "MLP: activation is one of step, sigmoid, tanh, relu, leaky_relu, gelu, got 'swish'",
        ),
        (lambda: MuMLP(base_width=0), "MuMLP: .* base_width is at least 1; got .* base_width=0"),
        (lambda: DeepLinear(width=0), "DeepLinear: .* got width=0, depth=1"),
        (lambda: DiagonalChain(depth=0), "DiagonalChain: depth is at least 1; got depth=0"),
        (lambda: DiagonalChain(initial=0.0), r"DiagonalChain: initial is above 0, got 0\.0"),
        (lambda: CNN(width=0), "CNN: .* depth is at least 1; got width=0, depth=3"),
        (
            lambda: CNN(shape=(28, 28)),
            r"CNN: shape is height, width, channels, as \(28, 28, 1\); got \(28, 28\)",
        ),
        (lambda: ResNet(stages=0), "ResNet: .* got width=64, depth=2, stages=0"),
        (lambda: ResNet(shape=(28, 28)), "ResNet: shape is height, width, channels"),
        (lambda: LSTM(depth=0), "LSTM: .* got width=128, depth=0"),
        (
            lambda: RNN(shape=(28, 28, 1)),
            r"RNN: shape is positions, features, as \(28, 28\); got \(28, 28, 1\)",
        ),
    ],
)
def test_impossible_sizes_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()

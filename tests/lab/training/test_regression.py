"""Regression runs: gradient descent on half the squared error, in closed form."""

import numpy as np

from coherence.lab.analysis import stacked
from coherence.lab.runs import Run
from coherence.lab.settings import (
    DiagonalChain,
    Probing,
    l2_decay,
    learnable,
    median,
    memorizable,
    sgd,
)
from coherence.lab.training import Regression, train
from coherence.probes.schedules import Every


def weights(view):
    (kernel,) = view.params["params"]["output"].values()
    return kernel[:, 0]


def trained(folder, settings):
    with Run.open(folder, {}, seed=0) as run:
        schedule = settings.schedule()
        train([settings.build(0)], [run], steps=settings.steps, batch_size=4, schedule=schedule)
    return run


def descent(x, y, x_test, y_test, *, rate, decay, steps):
    """Gradient descent from zero on the mean of (w.x - y)^2 / 2 + decay |w|^2 / 2, by hand."""
    w, path = np.zeros(x.shape[1]), []
    for _ in range(steps + 1):
        losses = [np.mean((a @ w - b) ** 2) / 2 for a, b in ((x, y), (x_test, y_test))]
        path.append((w.copy(), *losses))
        w = w - rate * (x.T @ (x @ w - y) / len(y) + decay * w)
    return [np.array(each) for each in zip(*path)]


def test_a_linear_model_follows_gradient_descent(tmp_path):
    probe = Probing(m=4, quantities=(weights,), groups="none", when=Every(1))
    settings = Regression(
        data=memorizable(), optimizer=sgd(0.3), decay=l2_decay(0.1), steps=9, probes=(probe,)
    )
    data = memorizable().build()
    parts = (data.x_train, data.y_train, data.x_test, data.y_test)
    expected = descent(*map(np.float64, parts), rate=0.3, decay=0.1, steps=9)
    curves = stacked(
        [trained(tmp_path / "run", settings)], "train/weights", "train_loss", "test_loss"
    )
    for name, values in zip(("train/weights", "train_loss", "test_loss"), expected):
        np.testing.assert_allclose(curves[name][0], values, rtol=1e-5, atol=1e-7)


def test_it_takes_any_model_and_aggregator_and_says_so(tmp_path):
    settings = Regression(
        model=DiagonalChain(2), aggregator=median(), optimizer=sgd(0.1), steps=4, every=2
    )
    assert settings.describe() == "learnable (4 examples), diagonal chain 6-1 of 2 factors"
    run = trained(tmp_path / "run", settings)
    assert [record["step"] for record in run.records()] == [0, 2, 4]
    assert run.records()[0].keys() == {"step", "train_loss", "test_loss"}


def test_equal_models_share_their_loss_and_data():
    first, second = (Regression(optimizer=sgd(rate)).build(0) for rate in (0.1, 0.2))
    assert first.recipe == second.recipe
    assert first.data["train"][0] is second.data["train"][0]
    assert first.data["train"][0].shape == learnable().build().x_train.shape

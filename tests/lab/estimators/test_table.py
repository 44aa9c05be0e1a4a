"""The table of classifiers: every row fits, predicts, and can do what it says."""

import functools
import pickle
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.preprocessing import MinMaxScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks
from threadpoolctl import threadpool_limits

from coherence.lab.data import digits
from coherence.lab.estimators import BernoulliNB, MLPClassifier, ScaledPipeline, catalogue

DATA = digits()
X, Y, NEW, TRUE = DATA.x_train[:300], DATA.y_train[:300], DATA.x_test, DATA.y_test
NAMES = np.array(list("abcdefghij"))
ROWS = {row.name: row for row in catalogue((8, 8, 1))}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads that wait for each other take minutes on a busy machine."""
    with threadpool_limits(1):
        yield


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(
    [ScaledPipeline([("scaler", MinMaxScaler()), ("model", BernoulliNB(binarize=0.5))])],
    expected_failed_checks=lambda estimator: dict.fromkeys(
        ("check_dont_overwrite_parameters", "check_estimators_overwrite_params"),
        "scikit-learn's own Pipeline fits the steps it was given, and is let off these, too",
    ),
)
def test_a_pipeline_keeps_what_scikit_learn_asks_of_its_own(estimator, check):
    check(estimator)


each = pytest.mark.parametrize("name", ROWS)


@functools.cache
def fitted(name):
    model = ROWS[name].make(0)
    steps = 600 if name == "rbm" else 200  # whose steps are cheap
    trained = model.set_params(model__steps=steps) if ROWS[name].gradients else model
    return trained.fit(X, NAMES[Y])


@each
def test_it_learns_digits(name):
    model = fitted(name)
    assert model.classes_.tolist() == NAMES.tolist()
    assert model.score(NEW, NAMES[TRUE]) > 0.6  # chance is 0.1


@each
def test_it_can_be_copied_and_kept(name):
    model = fitted(name)
    assert str(clone(model)) == str(model)
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(model)).predict(NEW), model.predict(NEW)
    )


@each
def test_it_can_do_what_the_table_says(name):
    row, model = ROWS[name], fitted(name)
    assert row.models == {"generative": "p(x, y)", "discriminative, probabilistic": "p(y | x)"}.get(
        row.how, "x to y"
    )
    assert row.generates == hasattr(model, "sample") == (row.how == "generative")
    assert row.gradients == hasattr(
        model[-1] if isinstance(model, ScaledPipeline) else model, "params_"
    )
    if row.models != "x to y":
        assert hasattr(model, "predict_proba")
    if hasattr(model, "predict_proba"):
        probabilities = model.predict_proba(NEW)
        np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
        np.testing.assert_allclose(
            model.predict_proba(NEW[:3]), probabilities[:3], atol=1e-4
        )  # whoever stands beside them
        assert np.mean(model.classes_[probabilities.argmax(1)] == model.predict(NEW)) > 0.99


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.generates])
def test_what_it_draws_it_takes_for_what_was_asked(name):
    asked = np.repeat(NAMES, 20)
    drawn = fitted(name).sample(asked, random_state=0)
    assert drawn.shape == (200, 64)
    assert np.mean(fitted(name).predict(drawn) == asked) > 0.85
    np.testing.assert_array_equal(drawn, fitted(name).sample(asked, random_state=0))


def test_every_row_has_a_name_of_its_own_and_images_two_rows_more():
    assert len(ROWS) == len(catalogue((8, 8, 1))) == 21
    assert set(ROWS) - {row.name for row in catalogue()} == {"cnn", "rnn"}


@pytest.mark.parametrize("name", [row.name for row in catalogue()])
def test_without_images_every_row_tells_flowers_apart_whatever_their_units(name):
    x, y = load_iris(return_X_y=True)
    x = x * [1, 10, 100, 1000] - 50
    (model,) = (row.make(0) for row in catalogue() if row.name == name)
    model = model.set_params(model__steps=300) if ROWS[name].gradients else model
    assert (
        model.fit(x, y).score(x, y) > 0.65
    )  # chance is a third; naive Bayes of yes or no two thirds


def test_boosted_trees_beat_one_of_them():
    tree = DecisionTreeClassifier(max_depth=3, random_state=0).fit(X, NAMES[Y])
    assert fitted("adaboost")[0].get_depth() == 3
    assert fitted("adaboost").score(NEW, NAMES[TRUE]) > tree.score(NEW, NAMES[TRUE]) + 0.2


def test_without_the_extra_only_its_row_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "xgboost", None)
    (row,) = (row for row in catalogue() if row.name == "xgboost")
    with pytest.raises(
        ImportError,
        match=r"xgboost is not installed: pip install -e '.\[classical\]'",
    ):
        row.make(0)


def test_a_scaled_sample_is_in_the_units_of_the_data():
    x, y = 100 + 7 * X, Y
    model = ScaledPipeline([("scaler", MinMaxScaler()), ("model", BernoulliNB(binarize=0.5))]).fit(
        x, y
    )
    drawn, changing = model.sample(np.repeat(3, 50), 0), np.ptp(x, axis=0) > 0
    extremes = np.stack([x.min(0), x.max(0)])[:, changing]
    assert np.isclose(drawn[:, changing, None], extremes.T).any(-1).all()
    assert not hasattr(
        ScaledPipeline([("scaler", MinMaxScaler()), ("model", MLPClassifier())]), "sample"
    )


def test_settings_and_measurements_go_through_the_scaler():
    row, corrupt = ROWS["softmax_regression"], np.arange(300) < 100
    model = (
        row.make(0)
        .set_params(model__measure_coherence=100, model__steps=10)
        .fit(X, Y, model__corrupt=corrupt)
    )
    assert model.coherence_["corrupt_m_coherence"].shape == model.coherence_["step"].shape
    assert not hasattr(fitted("softmax_regression"), "coherence_")

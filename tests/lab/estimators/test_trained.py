"""The classifiers around the training loop.

Scikit-learn's interface, and no result but the loop's own.
"""

import functools
import os
import subprocess
import sys
import tempfile

import jax
import numpy as np
import optax
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

import coherence as co
from coherence.lab.data import digits
from coherence.lab.estimators import (
    CNNClassifier,
    ConditionalVAEClassifier,
    HingeClassifier,
    MLPClassifier,
    NumberedLabels,
    RBMClassifier,
    RNNClassifier,
    SoftmaxRegression,
    catalogue,
)
from coherence.lab.runs import Run
from coherence.lab.runs.files import this_process
from coherence.lab.settings import MLP, adam, sgd, winsorize
from coherence.lab.tasks import cross_entropy
from coherence.lab.tasks.autoencoding import elbo_terms
from coherence.lab.training import Classification, train
from coherence.lab.training.samples import stream
from tests import reference

DATA = digits()
X, Y = DATA.x_train[:200], DATA.y_train[:200]
SMALL = {"width": 16, "optimizer": sgd(0.1), "batch_size": 10, "steps": 20}

TINY = {"steps": 30, "optimizer": "adam(learning_rate=0.1)"}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([SoftmaxRegression(**TINY), NumberedLabels(LogisticRegression())])
def test_it_keeps_what_scikit_learn_asks_of_classifiers(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(
    [
        MLPClassifier(width=16, **TINY),
        HingeClassifier(width=16, **TINY),
        CNNClassifier(width=4, depth=1, **TINY),
        RNNClassifier(width=8, **TINY),
        ConditionalVAEClassifier(width=16, latents=2, draws=2, **TINY),
        RBMClassifier(hidden=16, sweeps=5, **TINY),
    ]
)
def test_networks_of_every_kind_keep_it(estimator, check):
    check(estimator)


def test_a_winsorized_classifier_ends_at_the_bits_of_the_loop(tmp_path):
    ours = MLPClassifier(aggregator=winsorize(c=10), random_state=3, **SMALL).fit(
        DATA.x_train, DATA.y_train
    )
    settings = Classification(
        model=MLP(16, 1),
        aggregator=winsorize(c=10),
        optimizer=sgd(0.1),
        batch_size=10,
        steps=20,
        probes=(),
        track_batches=False,
    )
    with Run.open(tmp_path / "run", {}, seed=3) as run:
        train([settings.build(3)], [run], steps=20, batch_size=10, schedule=())
        theirs = run.load("params")
    np.testing.assert_array_equal(
        ours.params_["params"]["hidden_0"]["kernel"], theirs["params/hidden_0/kernel"]
    )
    np.testing.assert_array_equal(
        ours.params_["params"]["output"]["bias"], theirs["params/output/bias"]
    )


def test_a_hinge_network_decides_by_a_margin_and_states_no_probabilities():
    model = HingeClassifier(depth=0, margin=0.1, steps=300, optimizer=sgd(0.1)).fit(X, Y)
    scores = np.sort(model._scores(X), 1)
    assert np.mean(scores[:, -1] - scores[:, -2] > 0.099) > 0.9
    assert model.score(X, Y) > 0.98
    assert not hasattr(model, "predict_proba")


def test_coherence_is_measured_on_the_way_and_changes_nothing():
    corrupt = np.arange(200) < 60
    measured = MLPClassifier(measure_coherence=1000, **SMALL).fit(X, Y, corrupt=corrupt)
    found = measured.coherence_
    assert found["step"].tolist()[:2] == [0, 1]
    assert found["step"][-1] == measured.n_iter_ == 20
    assert found["loss"][-1] < found["loss"][0]
    gradients = jax.jit(co.per_example_value_and_grad(cross_entropy(measured._parts().model)))(
        measured.params_, (X, Y)
    )[1]
    rows = reference.flat(co.gradients.materialize(gradients))
    for name, which in {
        "m_coherence": slice(None),
        "pristine_m_coherence": ~corrupt,
        "corrupt_m_coherence": corrupt,
    }.items():
        assert len(found[name]) == len(found["step"])
        assert found[name][-1] == pytest.approx(
            len(rows[which]) * reference.alpha(rows[which]), rel=1e-3
        ), name
    bare, other = (MLPClassifier(random_state=seed, **SMALL).fit(X, Y) for seed in (0, 1))
    assert not hasattr(bare, "coherence_")
    jax.tree.map(np.testing.assert_array_equal, bare.params_, measured.params_)
    assert not np.array_equal(bare.predict_proba(X), other.predict_proba(X))


def test_an_object_its_setting_and_its_text_are_the_same_choice():
    fits = []
    for aggregator, optimizer in [
        (winsorize(c=10), sgd(0.1)),
        (co.optim.winsorize(10), optax.sgd(0.1)),
        ("winsorize(c=10)", "SGD(learning_rate=0.1)"),
    ]:
        model = MLPClassifier(**{**SMALL, "optimizer": optimizer}, aggregator=aggregator)
        assert clone(model).get_params()["aggregator"] == aggregator
        fits.append(clone(model).fit(X, Y).params_)
    jax.tree.map(np.testing.assert_array_equal, fits[0], fits[1])
    jax.tree.map(np.testing.assert_array_equal, fits[0], fits[2])


def test_a_seed_is_a_number_or_drawn_from_a_state_as_scikit_learn_has_it():
    seed = lambda random_state: MLPClassifier(random_state=random_state)._seed()
    assert seed(np.int64(7)) == 7
    assert (
        seed(np.random.RandomState(0))
        == seed(np.random.RandomState(0))
        != seed(np.random.RandomState(1))
    )
    with pytest.raises(ValueError, match="Seed must be between 0"):
        seed(-1)


@functools.cache
def regression():
    return SoftmaxRegression(steps=20).fit(X, Y)


def test_sparse_words_are_regressed_like_dense_ones():
    words = sparse.csr_array(X)
    np.testing.assert_array_equal(
        SoftmaxRegression(steps=20).fit(words, Y).predict_proba(words),
        regression().predict_proba(X),
    )
    with pytest.raises(TypeError, match="Sparse data was passed"):
        MLPClassifier().fit(words, Y)


def test_predicting_many_is_predicting_them_all(monkeypatch):
    whole = regression().predict_proba(X)
    monkeypatch.setattr("coherence.lab.estimators.trained._BLOCK", 7)
    np.testing.assert_allclose(regression().predict_proba(X), whole, rtol=1e-5)


def test_what_is_predicted_of_an_example_does_not_depend_on_its_neighbours():
    whole = regression().predict_proba(X)
    np.testing.assert_array_equal(regression().predict_proba(X[70:73]), whole[70:73])
    drawing = ConditionalVAEClassifier(width=4, latents=1, draws=1, steps=2, random_state=None)
    drawing.fit(X, Y)  # with a seed of its own, which predicting keeps
    once = drawing.predict_proba(X)
    np.testing.assert_array_equal(drawing.predict_proba(X[3:5]), once[3:5])


def test_a_diverged_classifier_is_an_error_and_not_one_that_predicts_one_class():
    with pytest.raises(
        ValueError, match="SoftmaxRegression: training diverged, .* Take a smaller learning rate"
    ):
        SoftmaxRegression(optimizer="sgd(1e38)", steps=9).fit(X, Y)


def test_nothing_is_left_on_disk(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    process = this_process().replace(str(os.getpid()), str(ended.pid))
    for name in (f"coherence-fit-{process}-x", f"coherence-fit-{this_process()}-x"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "DONE").touch()
    SoftmaxRegression(steps=2).fit(X, Y)
    # What a killed one left is gone, what belongs to a running one is not.
    assert [path.name for path in tmp_path.iterdir()] == [f"coherence-fit-{this_process()}-x"]


CORNERS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])


@pytest.mark.parametrize(
    ("truth", "right"),
    [([0, 0, 0, 1], 4), ([0, 1, 1, 1], 4), ([0, 1, 1, 0], 3)],
    ids=["and", "or", "xor"],
)
def test_a_perceptron_learns_and_and_or_but_not_xor(truth, right):
    (perceptron,) = (row.make(0) for row in catalogue() if row.name == "perceptron")
    found = (perceptron.fit(CORNERS, truth).predict(CORNERS) == truth).sum()
    assert found == right if right == 4 else found <= right


def test_one_hidden_layer_learns_xor():
    assert (
        MLPClassifier(width=16, steps=300, optimizer=adam(0.03))
        .fit(CORNERS, [0, 1, 1, 0])
        .score(CORNERS, [0, 1, 1, 0])
        == 1
    )


def test_a_conditional_vae_classifies_by_the_evidence_bound():
    model = ConditionalVAEClassifier(shape=(8, 8, 1), steps=50, draws=5, variance=0.1).fit(X, Y)
    terms = elbo_terms(model._parts().model, factor=5.0)
    keys = jax.random.split(jax.random.key(stream(0, 5)), 5)
    total = jax.jit(lambda y, key: terms(model.params_, (X[7], y, key)).total)
    bounds = [-np.mean([total(y, key) for key in keys]) for y in range(10)]
    joint = np.array(bounds) + np.log(np.bincount(Y) / len(Y))
    expected = np.exp(joint - joint.max()) / np.exp(joint - joint.max()).sum()
    np.testing.assert_allclose(model.predict_proba(X[7:8])[0], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        (
            MLPClassifier(steps=0),
            ValueError,
            "MLPClassifier: steps and batch_size are whole numbers, at least 1, got steps=0, "
            "batch_size=100.",
        ),
        (
            MLPClassifier(batch_size=2.5),
            ValueError,
            "MLPClassifier: steps and batch_size are whole numbers, at least 1, got steps=1000, "
            "batch_size=2.5.",
        ),
        (
            MLPClassifier(measure_coherence=1),
            ValueError,
            "MLPClassifier(measure_coherence): 0, or 2 examples at least, got 1.",
        ),
        (
            MLPClassifier(measure_coherence=50.0),
            ValueError,
            "MLPClassifier(measure_coherence): 0, or 2 examples at least, got 50.0.",
        ),
        (
            SoftmaxRegression(aggregator=winsorize),
            TypeError,
            "SoftmaxRegression(aggregator): what coherence or optax makes, its setting, or the "
            "text "
            '"winsorize(c=2)"; got <class',
        ),
        (
            MLPClassifier(optimizer=0.1),
            TypeError,
            "MLPClassifier(optimizer): what coherence or optax makes, its setting, or the text "
            '"sgd(0.1)"; got 0.1.',
        ),
        (
            MLPClassifier(optimizer="addam"),
            ValueError,
            "MLPClassifier(optimizer): 'addam' is none of sgd(learning_rate, momentum), adam(",
        ),
        (
            CNNClassifier(shape=(28, 28, 1)),
            ValueError,
            "CNNClassifier(shape): (28, 28, 1) holds 784 numbers and an example has 64 features.",
        ),
        (
            RNNClassifier(shape=(8, 9)),
            ValueError,
            "RNNClassifier(shape): (8, 9) holds 72 numbers and an example has 64 features.",
        ),
        (
            ConditionalVAEClassifier(variance=0),
            ValueError,
            "ConditionalVAEClassifier: variance is above 0 and draws at least 1, got variance=0, "
            "draws=16.",
        ),
        (
            MLPClassifier(width=0),
            ValueError,
            "MLP: width is at least 1, depth is at least 0; got width=0, depth=1.",
        ),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_trained(model, kind, message):
    with pytest.raises(kind) as said:
        model.fit(X, Y)
    assert str(said.value).startswith(message)


def test_arguments_that_disagree_are_said():
    with pytest.raises(
        ValueError, match=r"fit\(corrupt\): one truth value an example, \[200\], got shape \[3\]"
    ):
        MLPClassifier().fit(X, Y, corrupt=[True, False, True])
    with pytest.raises(NotFittedError):
        MLPClassifier().predict(X)
    with pytest.raises(
        ValueError, match="X has 63 features, but SoftmaxRegression is expecting 64 features"
    ):
        regression().predict(X[:, 1:])

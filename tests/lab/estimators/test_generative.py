"""Classical classifiers that draw.

Their samples have the distribution they say, and normal Bayes is the textbook's.
"""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.utils.estimator_checks import parametrize_with_checks

from coherence.lab.data import digits
from coherence.lab.estimators import BernoulliNB, GaussianNB, MultinomialNB, NormalBayes

RNG = np.random.default_rng(0)
Y = np.repeat(["a", "b", "c"], [60, 30, 20])
X = (
    RNG.normal(size=(110, 4)) @ RNG.normal(size=(4, 4))
    + 2 * RNG.normal(size=(3, 4))[np.repeat(range(3), [60, 30, 20])]
)
COUNTS = (
    RNG.poisson([[5, 1, 0.1], [1, 4, 2], [9, 9, 9]], (40, 3, 3)).transpose(1, 0, 2).reshape(120, 3)
)
KINDS = np.repeat(["short", "middle", "long"], 40)
MANY = 20_000
SHRINKAGES = [0, 0.3, 1]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([NormalBayes(), NormalBayes(covariance="shared")])
def test_normal_bayes_keeps_what_scikit_learn_asks_of_classifiers(estimator, check):
    check(estimator)


@parametrize_with_checks([GaussianNB(), BernoulliNB(), MultinomialNB()], legacy=False)
def test_they_keep_what_scikit_learn_asks_of_classifiers(estimator, check):
    check(estimator)


@pytest.mark.parametrize("shrinkage", SHRINKAGES)
def test_a_covariance_a_class_is_quadratic_discriminant_analysis(shrinkage):
    model = NormalBayes(shrinkage=shrinkage).fit(X, Y)
    densities = []
    for k, name in enumerate("abc"):
        members = X[name == Y]
        covariance = np.cov(members.T, bias=True)
        covariance = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / 4 * np.eye(4)
        densities.append(
            multivariate_normal.logpdf(X, members.mean(0), covariance)
            + np.log([60, 30, 20][k] / 110)
        )
    joint = np.exp(np.stack(densities, 1))
    np.testing.assert_allclose(
        model.predict_proba(X), joint / joint.sum(1, keepdims=True), rtol=1e-6, atol=1e-12
    )
    np.testing.assert_array_equal(model.predict(X), np.array(list("abc"))[joint.argmax(1)])


def test_without_shrinkage_it_differs_from_scikit_learns_by_the_bias_of_the_covariance_alone():
    theirs = QuadraticDiscriminantAnalysis().fit(
        np.repeat(X, 50, axis=0), np.repeat(Y, 50)
    )  # so many that n - 1 is n
    ours = NormalBayes(shrinkage=0).fit(X, Y)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=2e-3)


@pytest.mark.parametrize("shrinkage", SHRINKAGES)
def test_a_shared_covariance_is_linear_discriminant_analysis(shrinkage):
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(X, Y)
    ours = NormalBayes(covariance="shared", shrinkage=shrinkage).fit(X, Y)
    np.testing.assert_allclose(
        ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-6, atol=1e-12
    )


@pytest.mark.parametrize("covariance", ["full", "shared"])
def test_normal_bayes_draws_from_its_normals(covariance):
    model = NormalBayes(covariance=covariance).fit(X, Y)
    drawn = model.sample(np.tile(["c", "a"], MANY), random_state=0)
    for rows, k in ((drawn[::2], 2), (drawn[1::2], 0)):
        spread = np.sqrt(np.diag(model.covariances_[k]))
        np.testing.assert_allclose(
            (rows.mean(0) - model.means_[k]) / spread, 0, atol=4 / np.sqrt(MANY)
        )
        np.testing.assert_allclose(
            np.cov(rows.T) / np.outer(spread, spread),
            model.covariances_[k] / np.outer(spread, spread),
            atol=0.05,
        )


def test_ledoit_and_wolf_may_choose_the_shrinkage():
    data = digits()
    model = NormalBayes(shrinkage="auto").fit(data.x_train, data.y_train)
    assert model.score(data.x_test, data.y_test) > 0.95


def test_a_singular_covariance_is_said_with_the_way_out():
    with pytest.raises(
        ValueError,
        match=r"the covariance of a class is singular\. Each class needs two different examples",
    ):
        NormalBayes(shrinkage=0).fit(np.c_[X, np.ones(110)], Y)
    with pytest.raises(
        ValueError, match=r"NormalBayes\(covariance\): full or shared, got 'diagonal'"
    ):
        NormalBayes(covariance="diagonal").fit(X, Y)
    for wrong in (-0.1, 2, "much"):
        with pytest.raises(
            ValueError,
            match=rf"NormalBayes\(shrinkage\): a share in \[0, 1\], or 'auto', got {wrong!r}",
        ):
            NormalBayes(shrinkage=wrong).fit(X, Y)


def test_gaussian_naive_bayes_draws_independent_normals():
    model = GaussianNB().fit(X, Y)
    drawn = model.sample(["b"] * MANY, random_state=0)
    spread = np.sqrt(model.var_[1])
    np.testing.assert_allclose(
        (drawn.mean(0) - model.theta_[1]) / spread, 0, atol=4 / np.sqrt(MANY)
    )
    np.testing.assert_allclose(np.cov(drawn.T) / np.outer(spread, spread), np.eye(4), atol=0.05)


def test_bernoulli_naive_bayes_draws_words_that_are_there_or_not():
    model = BernoulliNB().fit(COUNTS, KINDS)
    drawn = model.sample(["short"] * MANY, random_state=0)
    assert set(np.unique(drawn)) == {0, 1}
    place = model.classes_.tolist().index("short")
    np.testing.assert_allclose(drawn.mean(0), np.exp(model.feature_log_prob_[place]), atol=0.02)


def test_multinomial_naive_bayes_draws_messages_of_the_mean_length_or_the_one_given():
    model = MultinomialNB().fit(COUNTS, KINDS)
    means = {kind: round(COUNTS[kind == KINDS].sum(1).mean()) for kind in ("short", "long")}
    assert means["long"] > 2 * means["short"]
    np.testing.assert_array_equal(
        model.sample(["long", "short"], 0).sum(1), [means["long"], means["short"]]
    )
    np.testing.assert_array_equal(model.sample(["long", "short"], 0, total=[1, 7]).sum(1), [1, 7])
    (drawn,) = model.sample(["short"], 0, total=MANY)
    place = model.classes_.tolist().index("short")
    np.testing.assert_allclose(drawn / MANY, np.exp(model.feature_log_prob_[place]), atol=0.02)


def test_the_worked_example_of_four_messages():
    """Two spam, two not.

    Does it contain *free*, does it contain *win*: by hand the posterior of spam with both is 0.8.
    """
    model = BernoulliNB(alpha=1).fit(
        [[1, 0], [0, 1], [0, 0], [0, 0]], ["spam", "spam", "ham", "ham"]
    )
    np.testing.assert_allclose(np.exp(model.feature_log_prob_), [[0.25, 0.25], [0.5, 0.5]])
    np.testing.assert_allclose(
        model.predict_joint_log_proba([[1, 1]]), np.log([[0.5 * 0.25**2, 0.5**3]])
    )
    np.testing.assert_allclose(model.predict_proba([[1, 1]]), [[0.2, 0.8]])


@pytest.mark.parametrize(
    "model",
    [GaussianNB(), MultinomialNB(), BernoulliNB(), NormalBayes()],
    ids=lambda model: type(model).__name__,
)
def test_only_labels_that_were_seen_are_drawn(model):
    model.fit(COUNTS, KINDS)
    assert model.sample([], 0).shape == (0, 3)
    with pytest.raises(
        ValueError,
        match=r"sample\(y\): 'endless' is none of the labels it was fitted on, "
        r"\['long', 'middle', 'short'\]",
    ):
        model.sample(["short", "endless"])
    with pytest.raises(
        ValueError,
        match=r"sample\(y\): labels in one row, as \['spam', 'spam'\], got shape \[1, 1\]",
    ):
        model.sample([["short"]])

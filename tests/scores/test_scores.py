"""Scores of single examples against numpy loops over gradients taken one at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coherence as co
from coherence import scores
from coherence.scores import streaming
from tests import reference

M, INPUTS, HIDDEN, CLASSES = 14, 4, 5, 3


def logits(params, x):
    return jnp.tanh(x @ params["in"] + params["bias"]) @ params["out"]


def loss(params, example):
    x, y = example
    outputs = logits(params, x)
    return jax.nn.logsumexp(outputs) - outputs[y]


def parameters(seed):
    rng = np.random.default_rng(seed)
    sizes = {"in": (INPUTS, HIDDEN), "bias": (HIDDEN,), "out": (HIDDEN, CLASSES)}
    return {name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in sizes.items()}


def examples(m=M, seed=0):
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(CLASSES), rng.integers(0, CLASSES, m - CLASSES)])
    return rng.normal(size=(m, INPUTS)).astype(np.float32), y.astype(np.int32)


PARAMS, LATER, DATA = parameters(1), parameters(2), examples()
FEW = {"batch_size": 4}


def formed(params, data=DATA):
    return reference.flat(reference.gradients(loss, params, data))


def cosine(a, b):
    return a @ b / np.sqrt(a @ a) / np.sqrt(b @ b)


def naive(params, data=DATA):
    """Every score of `Scores`, as their docstrings write them."""
    x, y = data
    g = formed(params, data)
    theta = np.concatenate([np.ravel(v) for v in jax.tree.leaves(params)]).astype(float)
    outputs = np.array([np.asarray(logits(params, row), float) for row in x])
    rows = []
    for i in range(len(y)):
        p = np.exp(outputs[i]) / np.exp(outputs[i]).sum()
        others = [j for j in range(len(y)) if j != i]
        own = [j for j in others if y[j] == y[i]]
        rivals = [j for j in others if y[j] != y[i]]
        mean = lambda chosen, i=i: np.mean([cosine(g[i], g[j]) for j in chosen])
        rival = max(z for c, z in enumerate(outputs[i]) if c != y[i])
        rows.append(
            scores.Scores(
                loss=-np.log(p[y[i]]),
                margin=outputs[i][y[i]] - rival,
                confidence=p[y[i]],
                el2n=np.sqrt(sum((p[c] - (c == y[i])) ** 2 for c in range(CLASSES))),
                correct=float(p.argmax() == y[i]),
                grand=np.sqrt(g[i] @ g[i]),
                agreement=mean(others),
                own_class=mean(own),
                rivals=mean(rivals),
                contribution=g[i] @ g.mean(0) / (g.mean(0) @ g.mean(0)),
                alpha_without=reference.alpha(g[others]),
                pull=g[i] @ g[others].mean(0),
                weight_alignment=-cosine(g[i], theta),
            )
        )
    return scores.Scores(*np.array(rows).T)


def test_every_score_is_its_definition_whatever_the_batches():
    expected = naive(PARAMS)
    for size in (4, 100):
        result = scores.score(loss, PARAMS, DATA, logits=logits, batch_size=size)
        for name, values in expected._asdict().items():
            np.testing.assert_allclose(
                getattr(result, name), values, rtol=2e-4, atol=2e-5, err_msg=name
            )


@pytest.mark.parametrize(
    ("most", "counts", "size"),
    [
        (500, [819] * 10, 410),  # two batches a group either way, of 820 rows and not of 1,000
        (500, [20, 30], 30),
        (500, [500] * 3, 500),
        (4, [1, 9], 3),  # three batches of the nine, filled
        (1, [5, 3], 1),
    ],
)
def test_batches_have_the_size_that_leaves_little_to_fill_up(most, counts, size):
    assert streaming.fitting_size(most, np.array(counts)) == size


def test_single_scores_of_gradients_at_hand_are_those_of_the_stream():
    expected = naive(PARAMS)
    x, y = DATA
    _, g = co.per_example_value_and_grad(loss)(PARAMS, DATA)
    outputs = jax.vmap(logits, (None, 0))(PARAMS, x)
    by_class = scores.class_agreement(g, y, num_classes=CLASSES)
    for name, values in {
        "margin": scores.margin(outputs, y),
        "confidence": scores.confidence(outputs, y),
        "el2n": scores.el2n(outputs, y),
        "grand": scores.grand(g),
        "agreement": scores.agreement(g),
        "own_class": by_class.own,
        "rivals": by_class.rivals,
        "weight_alignment": scores.weight_alignment(g, PARAMS),
    }.items():
        np.testing.assert_allclose(
            values, getattr(expected, name), rtol=2e-4, atol=2e-5, err_msg=name
        )
    stiffness = co.metrics.cosine_stiffness(g)
    np.testing.assert_allclose(jnp.mean(scores.agreement(g)), stiffness, rtol=1e-4)


def test_a_loss_with_a_derivative_of_its_own_has_the_same_scores():
    @jax.custom_vjp
    def own(params, example):
        return loss(params, example)

    forward = lambda params, example: (loss(params, example), (params, example))
    backward = lambda kept, cotangent: (
        jax.tree.map(lambda g: cotangent * g, jax.grad(loss)(*kept)),
        None,
    )
    own.defvjp(forward, backward)
    plain = scores.score(loss, PARAMS, DATA, **FEW)
    result = scores.score(own, PARAMS, DATA, **FEW)
    for name in ("agreement", "own_class", "pull", "weight_alignment"):
        np.testing.assert_allclose(getattr(result, name), getattr(plain, name), atol=1e-5)


def test_a_sample_of_the_examples_stands_for_the_means_of_all():
    data = (np.repeat(DATA[0], 30, 0), np.repeat(DATA[1], 30))
    whole, sampled = (
        scores.score(loss, PARAMS, data, batch_size=64, reference=n) for n in (None, 200)
    )
    assert np.abs(whole.own_class - sampled.own_class).max() < 0.15
    np.testing.assert_allclose(whole.grand, sampled.grand, rtol=1e-5)
    assert np.abs(whole.own_class - sampled.own_class).max() > 0


def test_an_example_that_is_not_finite_spoils_no_other():
    x, y = DATA
    broken = x.copy()
    broken[5] = np.nan
    result = scores.score(loss, PARAMS, (broken, y), logits=logits, **FEW)
    rest = np.arange(M) != 5
    expected = scores.score(loss, PARAMS, (x[rest], y[rest]), logits=logits, **FEW)
    for name, values in result._asdict().items():
        assert np.isnan(values[5]), name
        np.testing.assert_allclose(values[rest], getattr(expected, name), rtol=1e-4, atol=1e-5)
    table = scores.audit(loss, PARAMS, (broken, y), logits=logits, examine=3, most=2)
    assert table.order[0] == 5
    assert table.spoiled == 1
    assert str(table).splitlines()[1].startswith("1 of them have no finite loss")


def test_a_loss_of_nothing_but_rounding_is_not_suspicious():
    """Its gradient of 1e-8 is there, but products with it are sums of terms near 1."""
    weights = jnp.array([[1.0, -1.0], [0.0, 0.5]])
    x, y = np.array([[10, 0], [0.5, 1], [0.4, 1], [-0.5, 1], [-0.3, 1]]), np.array([0, 0, 0, 1, 1])
    logits = lambda w, x: x @ w
    loss = lambda w, e: jax.nn.logsumexp(logits(w, e[0])) - logits(w, e[0])[e[1]]
    data = x.astype(np.float32), y
    read = scores.score(loss, weights, data)
    assert 0 < read.grand[0] < 1e-6
    assert np.isnan([read.own_class[0], read.agreement[0], read.rivals[0]]).all()
    assert not np.isnan(read.own_class[1:]).any()
    assert scores.audit(loss, weights, data).order[-1] == 0


def test_scores_over_a_run_are_counted_as_their_sources_say():
    trajectory = scores.Trajectory([PARAMS, LATER, PARAMS], rates=(0.5, 0.25, 0.1))
    result = scores.score_along(loss, trajectory, DATA, logits=logits, **FEW)
    each = [naive(params) for params in (PARAMS, LATER, PARAMS)]
    rates = np.array(trajectory.rates)[:, None]
    column = lambda name: np.array([getattr(at, name) for at in each])
    np.testing.assert_allclose(result.confidence, column("confidence").mean(0), rtol=1e-4)
    np.testing.assert_allclose(result.variability, column("confidence").std(0), atol=1e-5)
    np.testing.assert_allclose(result.aum, column("margin").mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result.pull, (rates * column("pull")).sum(0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(
        result.self_influence, (rates * column("grand") ** 2).sum(0), rtol=1e-4
    )
    for name in ("agreement", "own_class", "rivals"):
        np.testing.assert_allclose(getattr(result, name), column(name).mean(0), atol=1e-5)
    right = column("correct")
    for i in range(M):
        events = sum(right[k, i] == 1 and right[k + 1, i] == 0 for k in range(2))
        assert result.forgetting[i] == (events if right[:, i].any() else np.inf)


def test_tracin_and_gradcos_are_sums_and_means_over_checkpoints():
    test = examples(5, seed=3)
    trajectory = scores.Trajectory([PARAMS, LATER], rates=(0.5, 0.1))
    pairs = [(formed(params, test), formed(params)) for params in trajectory.params]
    expected = sum(rate * a @ b.T for rate, (a, b) in zip(trajectory.rates, pairs))
    result = scores.tracin(loss, trajectory, DATA, test, batch_size=4)
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-5)
    cosines = np.mean([[[cosine(u, v) for v in b] for u in a] for a, b in pairs], 0)
    result = scores.gradcos(loss, trajectory, DATA, test, batch_size=4)
    np.testing.assert_allclose(result, cosines, atol=1e-5)
    found = scores.extremes(loss, trajectory, DATA, test, most=2, batch_size=4)
    np.testing.assert_array_equal(found.helpers, np.argsort(-cosines)[:, :2])
    np.testing.assert_array_equal(found.opponents, np.argsort(cosines)[:, :2])


def test_damped_influence_solves_with_the_fisher_matrix():
    test, damping = examples(3, seed=4), 0.3
    g, of_test = formed(PARAMS), formed(PARAMS, test)
    fisher = g.T @ g / M + damping * np.eye(g.shape[1])
    expected = of_test @ np.linalg.solve(fisher, g.T)
    for chosen in (None, DATA):
        result = scores.damped_influence(
            loss, PARAMS, DATA, test, damping=damping, reference=chosen, batch_size=4
        )
        np.testing.assert_allclose(result, expected, rtol=2e-3, atol=1e-4)


def naive_kfac(g_test, g_train, g_reference, sides, damping):
    """K-FAC's influence as its docstring writes it: Kronecker products where there are sides."""
    r, start, total = len(g_reference), 0, 0.0
    for size, leaf in sides:
        of_test, of_train, of_reference = (
            g[:, start : start + size] for g in (g_test, g_train, g_reference)
        )
        if leaf is None:
            matrix = of_reference.T @ of_reference / r + damping * np.eye(size)
        else:
            a, d = (side.T @ side / r for side in leaf)
            pi = np.sqrt(np.trace(a) / len(a) / (np.trace(d) / len(d)))
            left, right = pi * np.sqrt(damping), np.sqrt(damping) / pi
            matrix = np.kron(a + left * np.eye(len(a)), d + right * np.eye(len(d)))
        total, start = total + of_test @ np.linalg.solve(matrix, of_train.T), start + size
    return total


def factors_by_hand(params, data):
    """Inputs and cotangents [m, K], [m, N] of `in`'s and `out`'s meetings, written out."""
    x, y = (np.asarray(part) for part in data)
    w = {name: np.asarray(leaf, float) for name, leaf in params.items()}
    hidden = np.tanh(x @ w["in"] + w["bias"])
    p = np.exp(hidden @ w["out"])
    of_outputs = p / p.sum(1, keepdims=True) - np.eye(CLASSES)[y]
    return (x, of_outputs @ w["out"].T * (1 - hidden**2)), (hidden, of_outputs)


@pytest.mark.parametrize("m", [M, 3])  # more and fewer examples than a side has numbers
def test_kfac_influence_divides_by_kronecker_products(m):
    test, chosen, damping = examples(3, seed=4), examples(m, seed=5), 0.3
    of_in, of_out = factors_by_hand(PARAMS, chosen)
    sides = [(HIDDEN, None), (INPUTS * HIDDEN, of_in), (HIDDEN * CLASSES, of_out)]
    g = [formed(PARAMS, data) for data in (test, DATA, chosen)]
    expected = naive_kfac(*g, sides, damping)
    result = scores.kfac_influence(
        loss, PARAMS, DATA, test, damping=damping, reference=chosen, batch_size=4
    )
    np.testing.assert_allclose(result, expected, rtol=2e-3, atol=1e-5)


def test_kfac_influence_of_a_leaf_without_sides_is_its_damped_influence():
    """A weight shared by positions has neither one input nor, being large, rows."""
    rng = np.random.default_rng(6)
    x, w = rng.normal(size=(6, 2, 40)).astype(np.float32), jnp.asarray(rng.normal(size=(40, 30)))
    shared = lambda w, x: jnp.sum(jnp.tanh(x @ w) ** 2)
    damped, kfac = (
        how(shared, w, x, x[:2], damping=5.0, batch_size=4)
        for how in (scores.damped_influence, scores.kfac_influence)
    )
    np.testing.assert_allclose(kfac, damped, rtol=1e-4)


def test_the_argued_label_is_that_whose_class_would_agree_most():
    x, y = DATA
    index = np.array([0, 4, 7])
    under = scores.label_agreement(loss, PARAMS, DATA, index, batch_size=4)
    g = formed(PARAMS)
    for row, i in enumerate(index):
        for label in range(CLASSES):
            relabelled = formed(PARAMS, (x[i : i + 1], np.array([label], np.int32)))[0]
            others = [j for j in range(M) if j != i and y[j] == label]
            expected = np.mean([cosine(relabelled, g[j]) for j in others])
            assert under[row, label] == pytest.approx(expected, abs=1e-5)
    table = scores.audit(loss, PARAMS, DATA, logits=logits, by="agreement", examine=M, most=3)
    assert list(table.order) == list(np.argsort(naive(PARAMS).agreement, kind="stable"))
    everyone = scores.label_agreement(loss, PARAMS, DATA, table.order)
    np.testing.assert_array_equal(table.argued, everyone.argmax(1))


def test_a_network_that_is_sure_argues_for_the_label_it_is_sure_of():
    sure = jax.tree.map(lambda leaf: 1e4 * leaf, PARAMS)
    outputs = np.array([logits(sure, x) for x in DATA[0]])
    assert (np.diff(np.sort(outputs, 1))[:, -1] > 100).all()  # nats: its gradients vanish
    under = scores.label_agreement(loss, sure, DATA, np.arange(M))
    np.testing.assert_array_equal(under[np.arange(M), outputs.argmax(1)], 1)
    np.testing.assert_array_equal(under.argmax(1), outputs.argmax(1))


def test_the_table_is_written_most_suspicious_first(tmp_path):
    pandas = pytest.importorskip("pandas")
    table = co.audit(loss, PARAMS, DATA, logits=logits, examine=4, most=2)
    frame = table.to_dataframe()
    assert len(frame) == M == len(table)
    assert (np.diff(frame["own_class"].dropna()) >= 0).all()
    assert str(frame["example"][0]) not in frame["helpers"][0].split()
    assert (frame["argued"][4:] == -1).all()
    table.to_csv(tmp_path / "audit.csv")
    again = pandas.read_csv(tmp_path / "audit.csv")
    assert list(again.columns) == list(frame.columns)
    np.testing.assert_allclose(again["own_class"], frame["own_class"])
    assert "examples by own_class, most suspicious first" in str(table)


def batch_loss(params, example):
    x, _ = example
    hidden = x @ params["in"]
    return jnp.mean((hidden - jax.lax.pmean(hidden, "batch")) ** 2)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: scores.score(loss, PARAMS, DATA[0]), r"data is \(x, y\)"),
        (lambda: scores.score(loss, PARAMS, iter([DATA])), "Of a generator make arrays first"),
        (
            lambda: scores.score(loss, PARAMS, (DATA[0], DATA[1] * 1.0)),
            "y must be one integer label an example",
        ),
        (lambda: scores.score(loss, PARAMS, (DATA[0], DATA[1] - 1)), "labels are below 0"),
        (lambda: scores.score(loss, PARAMS, DATA, reference=0), "reference: at least 1 example"),
        (lambda: scores.score(loss, PARAMS, DATA, batch_size=0), "batch_size must be at least 1"),
        (
            lambda: scores.score(loss, PARAMS, (DATA[0] * np.nan, DATA[1])),
            "no example has a finite gradient",
        ),
        (lambda: scores.score(batch_loss, PARAMS, DATA), "statistics of a batch|axis"),
        (lambda: co.audit(loss, PARAMS, (DATA[0], 0 * DATA[1])), "all 14 labels are 0"),
        (
            lambda: co.audit(loss, PARAMS, DATA, by="aum"),
            r"audit\(by\): one of agreement, own_class",
        ),
        (lambda: scores.Trajectory([]), "no checkpoint"),
        (lambda: scores.Trajectory([PARAMS], [1, 2]), "one a checkpoint, 1, got 2"),
        (lambda: scores.init(0), "at least 1 example"),
        (
            lambda: scores.update(scores.init(2), naive(PARAMS)),
            r"the course is of 2 examples, scores are of \[14\]",
        ),
        (lambda: scores.margin(jnp.zeros((2, 1)), [0, 0]), "at least two logits"),
        (lambda: scores.el2n(jnp.zeros((2, 3)), [0]), r"labels \[m\], got \[2, 3\] and \[1\]"),
        (
            lambda: scores.damped_influence(loss, PARAMS, DATA, DATA, damping=0),
            "a number above 0, got 0",
        ),
        (
            lambda: scores.kfac_influence(loss, PARAMS, DATA, DATA, damping=-1),
            r"kfac_influence\(damping\): a number above 0, got -1",
        ),
        (lambda: scores.extremes(loss, PARAMS, DATA, DATA, most=0), "at least 1, got 0"),
        (lambda: scores.agreement({"w": jnp.ones((1, 2))}), "at least 2 examples, got 1"),
    ],
)
def test_bad_input_says_what_was_wrong(act, message):
    with pytest.raises(ValueError, match=message):
        act()


@pytest.mark.slow
def test_a_million_examples_lose_none():
    def one_weight(params, example):
        x, y = example
        return params * x * (1 - 2 * y)

    m = 1_000_003
    data = (np.ones(m, np.float32), (np.arange(m) % 2).astype(np.int32))
    result = scores.score(one_weight, jnp.ones(()), data, batch_size=250_000, reference=None)
    np.testing.assert_allclose(result.own_class, 1)
    np.testing.assert_allclose(result.rivals, -1)


@pytest.mark.parametrize(
    ("gradient", "weight", "dtype"),
    [(1e-18, 1e-2, "float32"), (1e17, 1e3, "float32"), (1, 1, "float16"), (1e-4, 1e-4, "float16")],
)
def test_weight_alignment_is_a_cosine_at_any_length(gradient, weight, dtype):
    size = 100_000 if dtype == "float16" else 1
    loss = lambda w, example: -jnp.sum(w.astype(jnp.float32)) * example[0]
    params = jnp.full(size, weight, dtype)
    at_hand = jnp.full((1, size), -gradient, dtype)
    assert scores.weight_alignment(at_hand, params) == pytest.approx(1, rel=1e-3)
    data = jnp.full(2, gradient, jnp.float32), np.array([0, 1])
    streamed = scores.score(loss, params, data)
    np.testing.assert_allclose(streamed.weight_alignment, [1, 1], rtol=1e-3)


def test_a_label_of_no_class_has_no_score_and_half_precision_keeps_small_errors():
    logits = jnp.array([[6.5, 0.0, 0.0]] * 3)
    for score in (scores.margin, scores.confidence, scores.el2n):
        assert np.isnan(score(logits, jnp.array([0, -1, 7]))).tolist() == [False, True, True]
    many = jnp.zeros((2000, 3)).at[7, 2].set(jnp.nan)
    for score in (scores.margin, scores.confidence, scores.el2n):
        assert np.flatnonzero(np.isnan(score(many, jnp.zeros(2000, int)))).tolist() == [7]
    halved = scores.el2n(logits.astype(jnp.bfloat16), jnp.zeros(3, int))
    np.testing.assert_allclose(halved, scores.el2n(logits, jnp.zeros(3, int)))
    own = scores.class_agreement(jnp.eye(3) + 1, jnp.array([0, 0, -1]), num_classes=2).own
    assert np.isnan(own).tolist() == [False, False, True]

"""Networks side by side are those trained one at a time, each on its own examples."""

import jax
import numpy as np

from coherence.lab.training import small_networks as small

X = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
Y = np.arange(9) % 3
RATE, MOMENTUM = 0.1, 0.5


def network(params, k):
    return jax.tree.map(lambda leaf: np.array(leaf[k]), params)


def by_hand(params, batches):
    """SGD with momentum on one network, with the gradient of softmax regression after ReLUs."""
    (a, b), (c, d) = ((layer["kernel"], layer["bias"]) for layer in params)
    velocity = [np.zeros_like(leaf) for leaf in (a, b, c, d)]
    for batch in batches:
        x, y = X[batch], Y[batch]
        hidden = np.maximum(x @ a + b, 0)
        p = np.exp(hidden @ c + d)
        error = (p / p.sum(1, keepdims=True) - np.eye(3)[y]) / len(y)
        back = error @ c.T * (hidden > 0)
        gradient = [x.T @ back, back.sum(0), hidden.T @ error, error.sum(0)]
        velocity = [MOMENTUM * v - RATE * g for v, g in zip(velocity, gradient)]
        a, b, c, d = (leaf + v for leaf, v in zip((a, b, c, d), velocity))
    return a, b, c, d


def test_each_takes_the_steps_of_its_own_order():
    rng = np.random.default_rng(1)
    start = small.initial(2, (4, 5, 3), rng)
    order = rng.integers(0, 9, (2, 2, 3, 4))
    whole = small.train(start, X, Y, order, rate=RATE, momentum=MOMENTUM, along=True)
    for k in range(2):
        for stretch in range(2):
            batches = order[k, : stretch + 1].reshape(-1, 4)
            expected = by_hand(network(start, k), batches)
            trained = jax.tree.leaves(network(network(whole, k), stretch))  # bias before kernel
            for leaf, place in zip(trained, (1, 0, 3, 2)):
                np.testing.assert_allclose(leaf, expected[place], atol=1e-5)
    last = small.train(start, X, Y, order, rate=RATE, momentum=MOMENTUM)
    outputs = small.all_logits(last, X)
    assert outputs.shape == (2, 9, 3)
    one = network(last, 1)
    np.testing.assert_allclose(outputs[1, 4], small.logits(one, X[4]), atol=1e-5)
    p = np.exp(outputs[1, 4]) / np.exp(outputs[1, 4]).sum()
    np.testing.assert_allclose(small.loss(one, (X[4], Y[4])), -np.log(p[Y[4]]), atol=1e-5)


def test_a_network_sees_its_subset_in_turn(monkeypatch):
    seen = []
    monkeypatch.setattr(small, "train", lambda params, x, y, order, **_: seen.append(order))
    inside = np.array([[True, False] * 4 + [True], [False, True] * 4 + [False], [True] * 9])
    rng = np.random.default_rng(2)
    options = {"rate": RATE, "abreast": 2}
    list(small.on_subsets(inside, X, Y, (5,), 3, (2, 2, 3), rng, **options))
    assert [order.shape for order in seen] == [(2, 2, 2, 3), (1, 2, 2, 3)]
    for row, order in zip(inside, [*seen[0], *seen[1]]):
        numbers = np.flatnonzero(row)
        flat = order.ravel()
        for start in range(0, len(flat), len(numbers)):
            turn = flat[start : start + len(numbers)]
            assert set(turn) <= set(numbers)
            assert len(set(turn)) == len(turn)


def test_initial_kernels_have_variance_two_over_inputs():
    kernels = small.initial(200, (50, 8, 2), np.random.default_rng(3))
    for layer, inputs in zip(kernels, (50, 8)):
        np.testing.assert_allclose(layer["kernel"].var(), 2 / inputs, rtol=0.1)
        assert not layer["bias"].any()

"""What a generic check of the catalogue's rows does not say.

Many batch sizes, odd values, kernels, memory, training, mistakes.

Shapes, masks, factors, twins and properties of every row: `test_catalogue.py`.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from coherence.checks.properties import separable
from coherence.gradients import (
    Factored,
    Recomputed,
    Stacked,
    materialize,
    per_example_value_and_grad,
)
from coherence.gradients.factors import is_node
from coherence.optim import (
    Aggregator,
    average,
    chain,
    l1_decay,
    l2_decay,
    median,
    scale_by_per_example_rms,
    slow_gradients,
    soft_threshold,
    trimmed_mean,
    winsorize,
)
from tests.optim.catalogue import CATALOGUE, marked, winsorized


def rows(*stated):
    """The names of the catalogue's rows with these properties."""
    names = [name for name, row in CATALOGUE.items() if set(stated) <= set(row.properties)]
    return pytest.mark.parametrize("name", [*map(marked, names)])


def rows_of_sizes(stated, small, large, mark=marked):
    """Rows and numbers of examples; `large` for those that rank the examples by a method for m."""
    names = [name for name, row in CATALOGUE.items() if set(stated) <= set(row.properties)]
    ranks = lambda name: (
        name.startswith(("winsorize", "trimmed_mean", "median")) and "means" not in name
    )
    return pytest.mark.parametrize(
        ("name", "m"),
        [mark(name, m) for name in names for m in (*small, *(large if ranks(name) else ()))],
    )


def run(name, g, params=None):
    row = CATALOGUE[name]
    tx = row.make()
    if params is None:
        params = jax.tree.map(
            lambda x: np.ones(x.shape if is_node(x) else x.shape[1:], x.dtype), g, is_leaf=is_node
        )
    update, state = jax.jit(tx.update), tx.init(params)
    for _ in range(row.steps):
        updates, state = update(g, state, params)
    return updates


def twin(name, g):
    return CATALOGUE[name].twin(jax.tree.map(lambda x: np.asarray(x, np.float64), g))


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@rows_of_sizes((), (1, 6), (2, 131), pytest.param)  # the catalogue's checks have 20 and 21
def test_it_is_its_definition(name, m):
    g = {"w": random(m, 3, 5), "b": random(m, seed=1)}
    assert_close(run(name, g), twin(name, g), rtol=1e-5, atol=1e-6)


# The ranks of all m are those of `test_order_statistics.py`; these have all there are up to 33.
@pytest.mark.parametrize("m", [*range(1, 8), 11, 12, 20, 21, 26, 27, 33])
def test_small_batches_follow_the_rank_rule(m):
    g = random(m, 7)
    for c in (2, 10, 25, 50):
        tx = winsorize(c)
        expected = winsorized(g, c)
        with jax.disable_jit():  # every m compiled would take minutes
            np.testing.assert_allclose(
                tx.update(jnp.asarray(g), tx.init(None))[0], expected, rtol=1e-5, atol=1e-6
            )


@rows(separable)
def test_ties_infinities_and_signed_zeros_are_values_like_others(name):
    g = (
        np.random.default_rng(0)
        .choice([-np.inf, -2.0, -1.0, -0.0, 0.0, 1.0, 1.0, np.inf], size=(20, 400))
        .astype(np.float32)
    )
    np.testing.assert_allclose(run(name, g), twin(name, g), rtol=1e-6)


@rows_of_sizes((separable,), (9,), (131,))
def test_a_nan_spoils_its_own_coordinate_and_no_other(name, m):
    g = random(m, 6)
    g[2, 1], g[3, 4] = np.nan, -np.nan
    assert np.isnan(run(name, g)).tolist() == [False, True, False, False, True, False]


def test_one_example_moves_the_mean_anywhere():
    g = random(41, 9)
    g[0] = 1e30
    assert np.all(average().update(g, None)[0] > 1e28)


def test_at_zero_percent_it_is_the_mean_to_the_last_bit():
    g = random(20, 9)
    np.testing.assert_array_equal(run("winsorize(0)", g), run("average", g))


def test_at_fifty_percent_it_is_the_median_to_the_last_bit():
    for m in (20, 21):
        g = jnp.asarray(random(m, 9))
        np.testing.assert_array_equal(winsorize(50).update(g, None)[0], median().update(g, None)[0])


def test_the_median_of_huge_opposites_does_not_overflow():
    assert run("median", np.array([[3e38], [3.2e38]], np.float32))[0] == pytest.approx(3.1e38)


@rows(separable)
def test_bfloat16_is_compared_exactly_and_summed_in_float32(name):
    g = jnp.asarray(random(20, 50)).astype(jnp.bfloat16)
    result = run(name, g)
    assert result.dtype == jnp.bfloat16
    expected = jnp.asarray(twin(name, g), jnp.float32)
    # Those that go on from the mean gradient have it, as optax does, in the parameters' dtype.
    roundings = 2 if name in ("slow_gradients", "scale_by_per_example_rms") else 1
    rtol = roundings * 2**-8
    np.testing.assert_allclose(result.astype(jnp.float32), expected, rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("make", [scale_by_per_example_rms, slow_gradients])
def test_running_means_move_in_few_bits_as_in_many(make, dtype):
    """By a thousandth of a value a step, which eight bits do not hold."""
    tx = make(b1=0.9) if make is scale_by_per_example_rms else make(0.999)
    results = []
    for kind in (dtype, jnp.float32):
        state = tx.init(jnp.zeros(3, kind))
        for scale in (4, *[1] * 60):
            update, state = tx.update(jnp.full((5, 3), scale, kind), state)
        assert update.dtype == kind
        results.append(update.astype(jnp.float32))
    np.testing.assert_allclose(*results, rtol=2**-7)


@rows_of_sizes((separable,), (12,), (131,))
def test_float64_stays_float64(name, m):
    with jax.enable_x64(True):
        g = np.random.default_rng(0).normal(size=(m, 9))
        result = run(name, g)
        assert result.dtype == jnp.float64
        np.testing.assert_allclose(result, twin(name, g), rtol=1e-13, atol=1e-15)


# From here on: gradients of a network, as the engine makes them.


def loss(params, example):
    x, y = example
    hidden = jnp.tanh(x @ params["first"] + params["bias"])
    return jnp.sum((hidden @ params["second"] - y) ** 2)


def network(m, inputs=5, hidden=7):
    params = {
        "first": random(inputs, hidden),
        "bias": random(hidden, seed=1),
        "second": random(hidden, 2, seed=2),
    }
    return jax.tree.map(jnp.asarray, params), (random(m, inputs, seed=3), random(m, 2, seed=4))


def sequence_loss(params, example):
    """Four positions share the weights; `scale` is sorted, so it has no rule."""
    return jnp.sum(jnp.tanh(example @ params["shared"]) ** 2) * jnp.sum(
        jnp.sort(params["scale"]) ** 3
    )


@functools.cache
def network_gradients(m):
    """Parameters of `network`, and its gradients as the engine makes them and as plain arrays."""
    params, batch = network(m)
    factors = jax.jit(per_example_value_and_grad(loss))(params, batch)[1]
    return params, factors, jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(params, batch)


@functools.cache
def sequence_gradients(width):
    """As `network_gradients`, of `sequence_loss`; the ROWS of `tracked` are the caller's."""
    params = {"shared": jnp.asarray(random(9, 6)), "scale": jnp.asarray(random(width, seed=1))}
    batch = random(10, 4, 9, seed=2)
    factors = jax.jit(per_example_value_and_grad(sequence_loss))(params, batch)[1]
    assert {leaf: type(node) for leaf, node in factors.items()} == {
        "shared": Factored,
        "scale": Recomputed,
    }
    return params, factors, jax.jit(jax.vmap(jax.grad(sequence_loss), (None, 0)))(params, batch)


def assert_close(got, expected, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), got, expected)


@pytest.mark.parametrize("name", ["winsorize(2.5)", "winsorize(10)", "median"])
def test_large_batches_of_factors_give_the_step_of_plain_gradients(name):
    params, g, plain = network_gradients(130)
    assert {type(node) for node in g.values()} == {Factored, Stacked}
    assert_close(run(name, g, params), run(name, plain, params), rtol=1e-4, atol=1e-5)


@rows(separable)
@pytest.mark.filterwarnings("ignore::coherence.gradients.RecomputedWarning")
def test_sequences_in_small_slabs_and_recomputed_leaves_too(name, monkeypatch):
    monkeypatch.setattr(
        "coherence.optim.order_statistics.leaves._FORMED", 150
    )  # small slabs, nothing joined
    monkeypatch.setattr("coherence.gradients.tracked.ROWS", 0)  # nor formed because it is small
    params, g, plain = sequence_gradients(200)
    assert_close(run(name, g, params), run(name, plain, params), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::coherence.gradients.RecomputedWarning")
@pytest.mark.parametrize("width", [4, 7, 50])
def test_leaves_without_a_rule_are_differentiated_again_for_each_stretch(width, monkeypatch):
    monkeypatch.setattr("coherence.optim.order_statistics.leaves._JOINED", 0)
    monkeypatch.setattr("coherence.optim.order_statistics.leaves._RECOMPUTED", 10 * width)
    monkeypatch.setattr("coherence.gradients.tracked.ROWS", 0)
    params, g, plain = sequence_gradients(50)
    assert_close(
        run("median", g, params)["scale"],
        run("median", plain, params)["scale"],
        rtol=1e-5,
        atol=1e-6,
    )


def test_leaves_of_several_terms_are_made_again_for_each_stretch(monkeypatch):
    monkeypatch.setattr("coherence.optim.order_statistics.leaves._JOINED", 0)
    monkeypatch.setattr("coherence.optim.order_statistics.leaves._RECOMPUTED", 10 * 7)
    monkeypatch.setattr("coherence.gradients.tracked.ROWS", 0)
    tied = lambda w, x: jnp.sum(jnp.tanh(jnp.tanh(x @ w) @ w.T) ** 2)
    w, batch = jnp.asarray(random(5, 4)), random(10, 5, seed=1)
    _, g = jax.jit(per_example_value_and_grad(tied))(w, batch)
    plain = jax.jit(jax.vmap(jax.grad(tied), (None, 0)))(w, batch)
    assert_close(run("median", g), run("median", plain), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("m", [12, 140])
def test_nothing_is_joined_and_equal_shapes_are_stacked(monkeypatch, m):
    monkeypatch.setattr("coherence.optim.order_statistics.leaves._FORMED", 0)
    square = lambda params, x: jnp.sum(
        jnp.tanh(jnp.tanh(x @ params["a"]) @ params["b"]) @ params["c"]
    )
    params = {name: jnp.asarray(random(6, 6, seed=i)) for i, name in enumerate("abc")} | {
        "unused": jnp.ones(3)
    }
    batch = random(m, 6)
    _, g = jax.jit(per_example_value_and_grad(square))(params, batch)
    plain = jax.jit(jax.vmap(jax.grad(square), (None, 0)))(params, batch)
    assert_close(run("winsorize(10)", g), run("winsorize(10)", plain), rtol=1e-4, atol=1e-5)


@rows(separable)
def test_a_masked_nan_does_not_count(name):
    values, mask = random(5, 3), np.array([True, True, False, True, True])
    result = run(name, Stacked(jnp.asarray(values * mask[:, None]), jnp.asarray(mask)))
    np.testing.assert_allclose(result, twin(name, values[mask]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("joined", [True, False])
def test_an_overflowing_layer_spoils_the_coordinates_it_reaches(joined, monkeypatch):
    monkeypatch.setattr("coherence.optim.order_statistics.leaves._FORMED", 2**22 if joined else 0)
    params, (x, y) = {"w": jnp.ones((4, 3))}, (random(9, 4), random(9, 3, seed=1))
    linear = lambda params, example: jnp.dot(example[0] @ params["w"], example[1])
    x[2, 1], x[3, 0], y[3, 2], y[4, 0] = np.inf, 0.0, np.nan, -np.inf
    x[4, 3] = 0.0
    plain = jax.vmap(jax.grad(linear), (None, 0))(params, (x, y))
    _, g = per_example_value_and_grad(linear)(params, (x, y))
    expected = winsorized(plain["w"], 10)
    assert np.isnan(expected).sum() == 5  # column 2 and one 0 * inf
    np.testing.assert_allclose(run("winsorize(10)", g)["w"], expected, rtol=1e-5)


@pytest.mark.parametrize("tx", [winsorize(2), median()], ids=["winsorize", "median"])
def test_the_examples_x_parameters_array_is_never_formed(tx):
    params, batch = network(72, inputs=400, hidden=500)

    def step(params, batch):
        _, g = per_example_value_and_grad(loss)(params, batch)
        return tx.update(g, tx.init(params), params)[0]

    memory = jax.jit(step).lower(params, batch).compile().memory_analysis()
    everything = 4 * 72 * sum(p.size for p in params.values())
    assert memory.temp_size_in_bytes + memory.output_size_in_bytes < everything / 15


def test_large_batches_are_bisected_in_bounded_memory():
    g = jax.ShapeDtypeStruct((200, 100_000), jnp.float32)
    tx = median()
    memory = jax.jit(lambda g: tx.update(g, tx.init(None))[0]).lower(g).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * 200 * 100_000 / 4


# The socket: optax.


@pytest.mark.parametrize(
    "rest",
    [optax.sgd(0.1), optax.adam(1e-2), optax.sgd(optax.linear_schedule(0.1, 0.0, 5), momentum=0.9)],
)
def test_training_compiles_one_step_and_descends(rest):
    params, batch = network(10)
    tx = chain(winsorize(10), rest)
    traces = []

    @jax.jit
    def step(params, state):
        traces.append(1)
        losses, g = per_example_value_and_grad(loss)(params, batch)
        updates, state = tx.update(g, state, params)
        return optax.apply_updates(params, updates), state, losses.mean()

    state = tx.init(params)
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), params)
    params, state, before = step(params, state)
    for _ in range(5):
        params, state, after = step(params, state)
    assert after < before
    assert len(traces) == 1
    assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == shapes


def test_scanned_steps_are_steps():
    params, batch = network(10)
    tx = chain(median(), optax.sgd(0.1, momentum=0.9))

    def step(carry, _):
        params, state = carry
        _, g = per_example_value_and_grad(loss)(params, batch)
        updates, state = tx.update(g, state, params)
        return (optax.apply_updates(params, updates), state), None

    start = (params, tx.init(params))
    scanned, _ = jax.lax.scan(step, start, length=2)
    once = jax.jit(lambda carry: step(carry, None)[0])
    assert_close(scanned, once(once(start)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("formed", [0, 2**22])
def test_replicas_side_by_side_are_each_alone(formed, monkeypatch):
    monkeypatch.setattr("coherence.optim.order_statistics.leaves._FORMED", formed)
    params, batch = network(10)
    replicas = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), params)
    tx = winsorize(10)

    def update(params):
        _, g = per_example_value_and_grad(loss)(params, batch)
        return tx.update(g, tx.init(params), params)[0]

    both, one = jax.jit(jax.vmap(update))(replicas), jax.jit(update)
    for i in range(2):
        alone = one(jax.tree.map(lambda p: p[i], replicas))
        assert_close(jax.tree.map(lambda u: u[i], both), alone, rtol=1e-4, atol=1e-5)


def test_extra_arguments_reach_the_optimizers_that_take_them():
    seen = []

    def update(updates, state, params=None, *, value, **extra):
        seen.append(value)
        return updates, state

    spy = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    tx = chain(median(), spy, optax.sgd(0.1))
    tx.update(random(3, 2), tx.init(jnp.zeros(2)), jnp.zeros(2), value=7)
    assert seen == [7]


def test_the_average_of_a_batch_gradient_is_itself():
    params = {"w": jnp.ones((3, 2))}
    g = {"w": jnp.asarray(random(3, 2))}
    assert average().update(g, None, params)[0] is g


@pytest.mark.parametrize(
    ("tx", "name"), [(median(), r"median\(\)"), (winsorize(2), r"winsorize\(c=2\)")]
)
def test_robust_aggregators_refuse_a_batch_gradient(tx, name):
    params = {"w": jnp.ones((3, 2))}
    with pytest.raises(
        ValueError,
        match=rf"{name} needs per-example gradients, got a batch gradient .*value_and_grad\(loss\)",
    ):
        tx.update(params, None, params)


def test_updates_have_the_parameters_dtype():
    params = jnp.ones(4, jnp.bfloat16)
    assert median().update(random(5, 4), None, params)[0].dtype == jnp.bfloat16


@pytest.mark.parametrize("g", [random(3), random(4, 3), random(4, 2, 2, 2)])
def test_a_leaf_of_another_shape_is_named(g):
    with pytest.raises(
        ValueError,
        match=r"median\(\): leaf w has shape \[.*\], but its parameter \[2, 2\]. Per-example grad",
    ):
        median().update({"w": g}, None, {"w": jnp.ones((2, 2))})


def test_factors_of_other_parameters_are_named():
    params, g, _ = network_gradients(10)
    with pytest.raises(
        ValueError,
        match=r"median\(\): leaf first has shape one example's \[5, 7\], .* parameter \[1, 1\]",
    ):
        median().update(g, None, params | {"first": jnp.ones((1, 1))})


def test_another_structure_is_refused():
    with pytest.raises(
        ValueError, match=r"average\(\): gradients and params differ in structure: .*'w'.*'v'"
    ):
        average().update({"w": random(4, 2)}, None, {"v": jnp.ones(2)})


def test_a_mixture_of_batch_and_per_example_is_refused():
    with pytest.raises(
        ValueError,
        match=r"average\(\): leaf b has its parameter's shape, others have one more axis. Give",
    ):
        average().update(
            {"b": random(2), "w": random(4, 2)}, None, {"b": jnp.ones(2), "w": jnp.ones(2)}
        )


def test_no_examples_are_refused():
    with pytest.raises(
        ValueError, match="gradients are of 0 examples: there is nothing to reduce."
    ):
        median().update(random(0, 3), None)


@pytest.mark.parametrize("c", [60, -1, 50.5, math.nan])
@pytest.mark.parametrize("make", [winsorize, trimmed_mean])
def test_percents_beyond_fifty_are_refused(make, c):
    with pytest.raises(
        ValueError,
        match=rf"{make.__name__}\(c\): c is in percent of the examples, in \[0, 50\], got {c}\.",
    ):
        make(c)


@pytest.mark.parametrize("c", ["2", None, jnp.float32(2)])
def test_percents_are_plain_numbers(c):
    with pytest.raises(
        TypeError,
        match=r"winsorize\(c\): c is a plain number \(percent of the examples, in \[0, 50\]\), ",
    ):
        winsorize(c)


def test_a_chain_starts_with_an_aggregator():
    with pytest.raises(
        TypeError,
        match=r"chain\(aggregator, \*rest\) starts with an aggregator .*got an optax transf",
    ):
        chain(optax.scale(2.0), average())
    with pytest.raises(
        TypeError,
        match=r"starts with an aggregator such as average\(\), .* or median\(\), got float",
    ):
        chain(0.1)


@pytest.mark.parametrize("through", ["factors", "rows"])
def test_two_aggregators_by_layer_are_each_alone(through):
    params = {"a": jnp.ones((5, 3)), "b": {"w": jnp.ones((3, 2)), "c": jnp.ones(2)}}

    def loss(p, x):
        return jnp.sum(jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"]["w"] + p["b"]["c"]) ** 2)

    x = jax.random.normal(jax.random.key(0), (12, 5))
    gradients = per_example_value_and_grad(loss)(params, x)[1]
    if through == "rows":
        gradients = materialize(gradients)
    rules = {"first": winsorize(20), "rest": median()}
    labels, scaled = {"a": "first", "b": "rest"}, optax.scale(-2.0)
    for tx in (
        chain(Aggregator(*optax.partition(rules, labels), "by layer"), scaled),
        optax.partition({name: chain(rule, scaled) for name, rule in rules.items()}, labels),
    ):
        both = jax.jit(lambda g, tx=tx: tx.update(g, tx.init(params), params)[0])(gradients)
        for name, rule in zip("ab", rules.values()):
            alone = rule.update(gradients, None)[0]
            for ours, theirs in zip(*map(jax.tree.leaves, (both[name], alone[name]))):
                np.testing.assert_allclose(ours, -2 * theirs, rtol=1e-5, atol=1e-7)


def test_a_chain_has_one_aggregator():
    with pytest.raises(
        TypeError,
        match=r"chain: argument 3 is a second aggregator, .* one gradient .*Keep one\. For one a "
        "layer see docs/optimizers.md",
    ):
        chain(winsorize(2), optax.scale(1.0), median())


@pytest.mark.parametrize(
    "threshold",
    [soft_threshold(0.1), soft_threshold(0.1, mask={"w": True})],
    ids=["plain", "masked"],
)
def test_nothing_comes_behind_a_soft_threshold(threshold):
    with pytest.raises(
        TypeError,
        match=r"chain: argument 2 of 3 is a soft_threshold, .* exact zeros\. Put it at the end",
    ):
        chain(average(), threshold, optax.sgd(0.1))
    assert isinstance(chain(average(), optax.sgd(0.1), threshold), Aggregator)


FORCES = {
    "l1": l1_decay(0.1),
    "l2": l2_decay(0.1),
    "optax": optax.add_decayed_weights(0.1),
    "a mask": l2_decay(0.1, mask={"kernel": True, "bias": False}),
}


@pytest.mark.parametrize("force", FORCES.values(), ids=FORCES)
@pytest.mark.parametrize(
    "late",
    [
        lambda force: chain(average(), optax.sgd(0.1), force),
        lambda force: chain(average(), optax.adam(0.1), optax.clip(1.0), force),
        lambda force: chain(chain(average(), optax.sgd(0.1, momentum=0.9)), force),
        lambda force: chain(chain(median(), optax.sgd(0.1)), optax.scale(0.5), force),
        lambda force: chain(average(), optax.scale(-0.1), force),
        lambda force: chain(average(), optax.sgd(optax.linear_schedule(0.0, 0.1, 5)), force),
    ],
)
def test_weight_decay_behind_the_learning_rate_is_refused(force, late):
    with pytest.raises(ValueError, match=r"chain: weight decay behind the learning rate makes"):
        late(force)


def test_also_within_a_chain_of_optax():
    for inner in (l1_decay(0.1), l2_decay(0.1), optax.add_decayed_weights(0.1)):
        with pytest.raises(ValueError, match=r"behind the learning rate makes weights grow"):
            chain(average(), optax.chain(optax.chain(optax.sgd(0.1), inner)))


@pytest.mark.parametrize("force", FORCES.values(), ids=FORCES)
def test_weight_decay_in_front_of_the_learning_rate_is_welcome(force):
    for tx in (
        chain(average(), force, optax.adam(0.1)),
        chain(average(), optax.clip_by_global_norm(1.0), force, optax.sgd(0.1), soft_threshold(1)),
        chain(average(), optax.scale_by_adam(), force, optax.scale(-0.1)),  # decoupled
        chain(chain(average(), force), optax.sgd(0.1)),  # half of it may stand alone
        chain(average(), force),
        chain(average(), optax.adamw(0.1)),
        chain(average(), force, optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation()),
        chain(average(), optax.polyak_sgd(), soft_threshold(0.1)),  # needs a value: not tried
    ):
        assert isinstance(tx, Aggregator)
    inside = jax.jit(
        lambda w: chain(average(), l2_decay(1.0), optax.sgd(1.0)).update(
            jnp.zeros((2, 1)), (optax.EmptyState(),) * 2 + ((optax.EmptyState(),) * 2,), w
        )[0]
    )
    assert inside(jnp.ones(1)) == -1


def test_a_chain_can_start_a_chain():
    tx = chain(chain(median(), optax.scale(2.0)), optax.scale(3.0))
    assert isinstance(tx, Aggregator)
    np.testing.assert_allclose(tx.update(jnp.ones((3, 2)), tx.init(jnp.ones(2)))[0], [6.0, 6.0])


def test_steps_are_accumulated_behind_the_aggregator():
    tx = chain(median(), optax.MultiSteps(optax.sgd(1.0), 2).gradient_transformation())
    params = jnp.zeros(1)
    state = tx.init(params)
    first, state = tx.update(jnp.array([[1.0], [2.0], [9.0]]), state, params)
    second, _ = tx.update(jnp.array([[3.0], [4.0], [9.0]]), state, params)
    assert (first.item(), second.item()) == (0.0, -3.0)


def test_the_median_learns_what_is_shared_and_nothing_else():
    """Feature 6 is the label in one set and absent from the other; 1-4 are of one example each."""
    y = jnp.array([1.0, -1.0, -1.0, 1.0])
    square = lambda w, example: (example[0] @ w - example[1]) ** 2 / 2
    tx = chain(median(), optax.sgd(0.1))

    def train(shared):
        x = jnp.concatenate([jnp.diag(y), jnp.zeros((4, 1)), (shared * y)[:, None]], 1)
        w, state = jnp.zeros(6), tx.init(jnp.zeros(6))
        step = jax.jit(
            lambda w, state: tx.update(per_example_value_and_grad(square)(w, (x, y))[1], state, w)
        )
        for _ in range(20):
            updates, state = step(w, state)
            w = optax.apply_updates(w, updates)
        return w, jnp.mean((x @ w - y) ** 2) / 2

    w, final = train(shared=1.0)
    np.testing.assert_allclose(w, [0, 0, 0, 0, 0, 1 - 0.9**20], rtol=1e-5)
    assert final == pytest.approx(0.0074, abs=5e-5)
    w, final = train(shared=0.0)
    np.testing.assert_array_equal(w, np.zeros(6))
    assert final == 0.5

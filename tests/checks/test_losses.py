"""`check_loss` tells a user how every leaf is treated, and catches what is wrong with a loss or
a rule."""

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coherence as co
from coherence.gradients.rules import RULES
from tests import zoo


def leaves(check):
    return {leaf.name: leaf for leaf in check.leaves}


def test_a_good_model_is_ok_and_wholly_on_fast_rules():
    loss, params, batch = zoo.dense()
    check = co.check_loss(loss, params, batch)
    assert check.ok
    assert check.fast_share == 1
    assert (check.m, check.examples) == (6, 4)
    assert all(leaf.difference < 1e-5 for leaf in check.leaves)


def test_the_table_says_what_each_leaf_becomes_and_its_memory():
    params = {"w": zoo.normal(0, 50, 30), "b": zoo.normal(1, 30)}
    loss = lambda p, x: jnp.sum(jnp.tanh(x @ p["w"] + p["b"]))
    check = co.check_loss(loss, params, zoo.normal(2, 6, 50))
    w, b = leaves(check)["w"], leaves(check)["b"]
    assert (w.kind, w.how, w.memory, w.shape) == (
        "Factored",
        "Outer [6, 50] x [6, 30]",
        4 * 6 * (50 + 30),
        (50, 30),
    )
    assert (b.kind, b.how, b.memory, b.shape) == ("Stacked", "rows", 4 * 6 * 30, (30,))
    text = str(check).splitlines()
    assert text[0].split() == ["leaf", "shape", "gradients", "memory", "difference"]
    assert text[2].startswith("w     50x30  Outer [6, 50] x [6, 30]  1.92 kB")
    assert (
        text[-2] == "100.0% of 1,530 parameters on a fast rule; 2.64 kB for 6 examples; 4 of them "
        "compared with jax.grad"
    )
    assert text[-1] == "ok"
    assert repr(check) == str(check)


def test_a_recomputed_leaf_is_named_with_its_primitive_and_is_no_problem():
    params = {"w": zoo.normal(0, 3, 2), "odd": zoo.normal(1, 2)}
    loss = lambda p, x: jnp.sum(x @ p["w"] * jnp.cumsum(jnp.sort(p["odd"])))
    check = co.check_loss(loss, params, zoo.normal(2, 5, 3))
    assert check.ok
    odd = leaves(check)["odd"]
    if not odd.is_fast:
        assert (odd.kind, odd.how, odd.memory) == ("Recomputed", "recomputed (sort)", 0)
        assert check.fast_share == 6 / 8


@pytest.mark.parametrize(
    "model", [zoo.heads, zoo.tied, zoo.low_rank], ids=lambda model: model.__name__
)
def test_odd_models_agree_with_the_loop(model):
    check = co.check_loss(*model())
    assert [p for p in check.problems if "differs" in p] == []


def test_gradients_that_are_zero_for_every_example_are_a_problem():
    check = co.check_loss(*zoo.frozen())
    assert {leaf.name for leaf in check.leaves if leaf.zero} == {"w", "unused"}
    assert not check.ok
    (problem,) = check.problems
    assert problem.startswith(
        "gradients are exactly 0 for every example: unused, w. Unused, frozen, behind dead units"
    )
    assert "0!" in str(check)


def test_a_leaf_that_only_an_unchecked_example_reaches_is_not_zero():
    loss = lambda w, x: jnp.sum(jax.nn.relu(x @ w))
    x = -jnp.ones((9, 3))
    check = co.check_loss(loss, jnp.ones((3, 2)), x.at[4].set(1.0), examples=2)
    assert check.ok
    assert not co.check_loss(loss, jnp.ones((3, 2)), x, examples=2).ok


def test_the_batch_norm_trap_is_reported_and_not_raised():
    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.BatchNorm(use_running_average=False, name="norm")(
                linen.Dense(4, name="first")(x)
            )
            return linen.Dense(2, name="second")(x)

    net, x = Net(), zoo.normal(0, 5, 3)
    variables = jax.jit(net.init)(jax.random.key(0), x)

    def loss(p, e):
        out, stats = net.apply({**variables, "params": p}, e[None], mutable=["batch_stats"])
        return jnp.sum(jnp.tanh(out)), stats

    check = co.check_loss(loss, variables["params"], x, has_aux=True)
    assert not check.ok
    assert check.problems[0].startswith(
        "the loss of one example needs statistics of a batch: a mean over a batch of one example "
        "is subtracted from that example"
    )
    assert {leaf.name for leaf in check.leaves if leaf.zero} == {
        "first/bias",
        "first/kernel",
        "norm/scale",
        "second/kernel",
    }


@pytest.mark.parametrize("wrong", [2.0, -1.0, 1.01, jnp.nan])
def test_a_wrong_rule_is_caught(monkeypatch, wrong):
    loss, params, batch = zoo.dense()
    right = RULES["dot_general"]

    def rule(*args):
        *steps, factors = right(*args)
        return (*steps, lambda x, dy: factors(x, wrong * dy))

    monkeypatch.setitem(RULES, "dot_general", rule)
    check = co.check_loss(loss, params, batch)
    assert not check.ok
    (problem,) = check.problems
    assert problem.startswith("w differs from jax.grad by ")
    assert leaves(check)["b"].difference < 1e-5


def test_a_wrong_reduction_of_right_rows_is_caught(monkeypatch):
    from coherence.gradients import reductions

    right = reductions.leaf_squared_norms
    monkeypatch.setattr(
        reductions, "leaf_squared_norms", lambda g: [(path, 2 * norms) for path, norms in right(g)]
    )
    assert not co.check_loss(*zoo.dense()).ok


def test_gradients_that_vanish_up_to_rounding_are_no_mistake():
    """A bias in front of a norm layer.

    Its gradient is 0 in exact arithmetic, and noise in floats.
    """

    def loss(p, e):
        h = e @ p["w"] + p["shift"]
        return jnp.sum(jnp.tanh((h - h.mean()) / jnp.sqrt(h.var() + 1e-5)) * jnp.arange(4))

    check = co.check_loss(
        loss, {"w": zoo.normal(0, 3, 4), "shift": jnp.float32(0.1)}, zoo.normal(1, 5, 3)
    )
    assert check.ok, check


def test_half_precision_is_judged_by_its_own_rounding():
    def loss(p, e):
        half = lambda x: x.astype(jnp.bfloat16)
        return jnp.sum(jnp.tanh(half(e) @ half(p["w"])).astype(jnp.float32) ** 2)

    check = co.check_loss(loss, {"w": zoo.normal(0, 30, 20)}, zoo.normal(1, 5, 30))
    assert check.ok, check
    assert check.tolerance == pytest.approx(2**-3.5)


def test_half_precision_between_float32_layers_counts_too():
    """Neither a parameter nor a factor shows it."""
    half = lambda x: x.astype(jnp.bfloat16)
    loss = lambda p, e: jnp.sum(jnp.tanh(half(e @ p["w"])).astype(jnp.float32) ** 2)
    check = co.check_loss(loss, {"w": zoo.normal(0, 30, 20)}, zoo.normal(1, 5, 30))
    assert check.ok, check
    assert check.tolerance == pytest.approx(2**-3.5)


def test_keys_in_the_batch_and_few_examples_work():
    loss = lambda w, e: jnp.sum(jnp.tanh(e[0] * jax.random.bernoulli(e[1], 0.7, e[0].shape) @ w))
    check = co.check_loss(
        loss,
        zoo.normal(0, 3, 2),
        (zoo.normal(1, 2, 3), jax.random.split(jax.random.key(0), 2)),
        examples=10,
    )
    assert check.ok
    assert check.examples == 2


def test_mistakes_are_named():
    loss, params, batch = zoo.dense()
    with pytest.raises(
        ValueError, match=r"check_loss\(examples\): at least 1 to compare with jax.grad, got 0"
    ):
        co.check_loss(loss, params, batch, examples=0)
    with pytest.raises(ValueError, match="pass has_aux=True"):
        co.check_loss(lambda p, e: (loss(p, e), e), params, batch)


def test_nan_losses_are_not_ok():
    loss, params, batch = zoo.dense()
    assert not co.check_loss(loss, params, jax.tree.map(lambda x: x.at[0].set(np.nan), batch)).ok


def test_the_loss_of_a_step_is_compared_with_the_mean():
    loss, params, batch = zoo.dense()
    mean = lambda p, b: jax.vmap(loss, (None, 0))(p, b).mean()
    check = co.check_loss(loss, params, batch, batch_loss=mean)
    assert check.ok
    assert check.step.difference < 1e-6
    total = lambda p, b: jax.vmap(loss, (None, 0))(p, b).sum()
    (problem,) = co.check_loss(loss, params, batch, batch_loss=total).problems
    assert problem == (
        "batch_loss has 6 times the gradient of the mean loss of the examples, the sum over the "
        "6 examples"
    )
    twice = lambda p, b: 2 * mean(p, b)
    (problem,) = co.check_loss(loss, params, batch, batch_loss=twice).problems
    assert problem == "batch_loss has 2 times the gradient of the mean loss of the examples"
    decayed = lambda p, b: mean(p, b) + jnp.sum(p["w"] ** 2)
    (problem,) = co.check_loss(loss, params, batch, batch_loss=decayed).problems
    assert problem.startswith("batch_loss has another gradient than the mean loss of the examples")


def test_a_mean_over_an_examples_tokens_is_not_a_mean_over_a_batchs():
    """Padded sentences of different lengths."""
    table, words = zoo.normal(0, 10, 3), jnp.arange(15).reshape(3, 5) % 10
    lengths = jnp.array([5, 1, 2])
    token = lambda p, word: jnp.sum(jnp.tanh(p[word]) ** 2)

    def of_tokens(p, e):
        counts = jnp.arange(5) < e[1]
        return jnp.where(counts, jax.vmap(token, (None, 0))(p, e[0]), 0), counts

    def loss(p, e):
        losses, counts = of_tokens(p, e)
        return losses.sum() / counts.sum()

    def step(p, b):
        losses, counts = jax.vmap(of_tokens, (None, 0))(p, b)
        return losses.sum() / counts.sum()

    batch = words, lengths
    assert not co.check_loss(loss, table, batch, batch_loss=step).ok
    # The way out of the documentation: weigh examples by their share of the tokens.
    weigh = lambda p, e: loss(p, e[:2]) * e[2]
    weights = lengths * len(lengths) / lengths.sum()
    weighted = lambda p, b: step(p, b[:2])
    assert co.check_loss(weigh, table, (*batch, weights), batch_loss=weighted).ok


def test_gradients_that_jax_finds_nan_too_are_named_and_no_difference():
    loss, params, (x, y) = zoo.dense()
    check = co.check_loss(loss, params, (x.at[4].set(jnp.nan), y), examples=2)
    assert check.not_finite == (4,)  # looked for in the whole batch
    (problem,) = check.problems
    assert (
        problem
        == "gradients are nan or infinite, by jax.grad too, for these of the 3 examples compared: 4"
    )
    assert all(leaf.difference < 1e-5 for leaf in check.leaves)


def test_a_nan_that_only_ours_have_is_a_difference(monkeypatch):
    right = RULES["dot_general"]

    def rule(*args):
        steps, factors = right(*args)
        return steps, lambda x, dy: factors(x, jnp.where(x[0] > 50, jnp.nan, dy))

    monkeypatch.setitem(RULES, "dot_general", rule)
    loss, params, (x, y) = zoo.dense()
    check = co.check_loss(loss, params, (x.at[3, 0].set(100.0), y), examples=1)
    assert not check.ok
    assert check.not_finite == ()
    assert check.problems[0].startswith("w differs from jax.grad by nan")


@pytest.mark.parametrize("seed", range(3))
def test_what_is_zero_up_to_rounding_in_bfloat16_is_no_mistake(seed):
    """The bias of an attention's keys: adding one number to all scores of a row changes nothing."""
    model = linen.MultiHeadDotProductAttention(num_heads=2, dtype=jnp.bfloat16)
    x, y = zoo.normal(seed, 4, 12, 16), zoo.normal(9 + seed, 4, 12, 16)
    params = jax.jit(model.init)(jax.random.key(seed), x[0])["params"]
    loss = lambda p, e: ((model.apply({"params": p}, e[0]).astype(jnp.float32) - e[1]) ** 2).mean()
    assert co.check_loss(loss, params, (x, y)).ok

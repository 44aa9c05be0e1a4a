"""What `docs/adding_an_optimizer.md` shows: the table as printed, and optax's errors as optax's."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from coherence.gradients import materialize, per_example_value_and_grad
from coherence.optim import average, chain, median, soft_threshold

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "adding_an_optimizer.md").read_text()
PARAMS = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}
X = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)


def loss(params, x):
    return jnp.sum(jnp.tanh(x @ params["w"] + params["b"]) ** 2)


def gradients():
    return per_example_value_and_grad(loss)(PARAMS, X)[1]


def step(tx, g):
    updates, _ = tx.update(g, tx.init(PARAMS), PARAMS)
    return optax.apply_updates(PARAMS, updates)


def quoted(text):
    """The words, if the page has them."""
    assert f"`{text}`" in PAGE
    return re.escape(text)


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_table_is_what_the_page_prints(capsys):
    namespace = {"__name__": "__main__"}
    for block in blocks("python"):
        exec(block, namespace)
    without_numbers = lambda text: re.sub(r"\d\.\de[+-]\d\d", "#", text)
    assert without_numbers(capsys.readouterr().out) == without_numbers(blocks("text")[0])


def test_a_forgotten_aggregator_before_sgd():
    with pytest.raises(
        TypeError,
        match=quoted("unsupported operand type(s) for +: 'jaxlib._jax.ArrayImpl' and 'Stacked'"),
    ):
        step(optax.sgd(0.1), gradients())


@pytest.mark.parametrize(
    "tx",
    [
        optax.sgd(0.1, momentum=0.9),
        optax.adam(0.1),
        optax.MultiSteps(chain(average(), optax.sgd(0.1)), 4),
    ],
    ids=["momentum", "adam", "outer MultiSteps"],
)
def test_a_forgotten_aggregator_before_an_optimizer_with_a_memory(tx):
    with pytest.raises(
        ValueError, match=quoted("pytree structure error: different types at key path")
    ) as error:
        step(tx, gradients())
    assert "`coherence.gradients.factors`" in PAGE
    assert "coherence.gradients.factors" in str(error.value)


@pytest.mark.parametrize("plain", [False, True])
def test_a_chain_inside_multisteps_gets_the_running_mean(plain):
    g = materialize(gradients()) if plain else gradients()
    with pytest.raises(
        ValueError, match=quoted("median() needs per-example gradients, got a batch gradient")
    ):
        step(optax.MultiSteps(chain(median(), optax.sgd(0.1)), 4), g)


@pytest.mark.parametrize(
    "wrapper",
    [
        lambda tx: optax.apply_if_finite(tx, 3),
        lambda tx: optax.conditionally_transform(tx, lambda s: True),
    ],
)
def test_a_chain_inside_a_condition(wrapper):
    with pytest.raises(
        TypeError, match=quoted("cond branch outputs must have the same pytree structure")
    ):
        step(wrapper(chain(median(), optax.sgd(0.1))), gradients())


def test_plain_gradients_without_an_aggregator_raise_nothing_and_broadcast():
    assert "[3, 2] become\n  [m, 3, 2]" in PAGE
    assert step(optax.sgd(0.1), materialize(gradients()))["w"].shape == (5, 3, 2)


def test_clipping_in_front_raises_nothing_and_clips_factors():
    in_front = optax.chain(optax.clip_by_global_norm(1e-3), median())
    on_factors, on_plain = (
        in_front.update(g, in_front.init(PARAMS), PARAMS)[0]
        for g in (gradients(), materialize(gradients()))
    )
    assert np.max(np.abs(on_factors["w"])) < 0.1 * np.max(np.abs(on_plain["w"]))
    with pytest.raises(TypeError, match="starts with an aggregator"):
        chain(optax.clip_by_global_norm(1e-3), median())


def test_the_orders_the_page_shows_take_a_step():
    rest = (
        [optax.clip_by_global_norm(1.0), optax.adam(1e-3)],
        [optax.sgd(0.1), soft_threshold(1e-5)],
    )
    for behind in rest:
        new = step(chain(median(), *behind), gradients())
        assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, PARAMS)

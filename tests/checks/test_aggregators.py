"""`check_aggregator` passes what is right, and names what is broken.

One broken method for every check.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import coherence as co
from coherence.checks import example_gradients, leafwise, properties, requirements
from coherence.gradients import Factored, Recomputed, Stacked, materialize
from coherence.optim import Aggregator, aggregator

MEDIAN = leafwise(lambda g: np.median(g, 0))


def by_leaf(function, name="mine()"):
    """An aggregator from a function of the rows of one leaf."""
    return aggregator(lambda gradients: jax.tree.map(function, materialize(gradients)), name)


def by_hand(update, init=lambda params: optax.EmptyState()):
    return Aggregator(init, update, "by_hand()")


def mean_by_hand(gradients, state, params=None, **extra):
    return co.mean(gradients), state


def problem(requirement, tx):
    """What the one requirement says of the method."""
    with pytest.raises(requirements.Broken) as broken:
        requirement(requirements.Run(tx, 1))
    return str(broken.value)


def test_a_good_method_is_ok_and_its_table_has_a_line_for_each_check():
    check = co.checks.check_aggregator(
        co.optim.median(), properties=[properties.odd, properties.breakdown(0.5)], twin=MEDIAN
    )
    assert check.ok
    assert check.problems == ()
    lines = str(check).splitlines()
    assert lines[0].split() == ["check", "difference"]
    assert [line.split("  ")[0] for line in lines[1:11]] == [
        finding.name for finding in check.findings
    ]
    assert [finding.name for finding in check.findings][-3:] == [
        "its twin agrees",
        "property: odd",
        "property: breakdown(0.5)",
    ]
    assert lines[-2] == "differences of up to 3.5e-04 of what was expected count as rounding"
    assert lines[-1] == "ok"
    assert repr(check) == str(check)


def test_the_gradients_it_is_tried_on_are_of_every_kind():
    real = example_gradients.real()
    assert {name: type(node) for name, node in real.nodes.items()} == {
        "bias": Stacked,
        "dense": Factored,
        "sequence": Factored,
        "sorted": Recomputed,
    }
    assert real.nodes["dense"].rank_one is not None
    assert real.nodes["sequence"].rank_one is None
    assert all(
        np.all(np.any(rows, axis=0)) for rows in real.rows.values()
    )  # no coordinate agrees because it is zero
    assert len(real.present["bias"]) == 8


def test_updates_of_another_shape_are_named():
    tx = by_hand(
        lambda g, s, p=None, **extra: (jax.tree.map(lambda x: x.mean(0, keepdims=True), g), s)
    )
    said = problem(requirements.updates_are_like_the_parameters, tx)
    assert said == "update matrix is float32[1, 4, 5], but its parameter is float32[4, 5]"


def test_updates_of_another_dtype_are_named():
    tx = by_hand(
        lambda g, s, p=None, **extra: (jax.tree.map(lambda x: x.astype(jnp.float32), co.mean(g)), s)
    )
    said = problem(requirements.updates_are_like_the_parameters, tx)
    assert said == "update number is float32[], but its parameter is bfloat16[]"


def test_updates_of_another_structure_are_named():
    tx = by_hand(lambda g, s, p=None, **extra: (jax.tree.leaves(co.mean(g)), s))
    said = problem(requirements.updates_are_like_the_parameters, tx)
    assert said.startswith(
        "update is PyTreeDef([*, *, *]), but its parameter is PyTreeDef({'matrix'"
    )


def test_a_state_that_is_no_array_is_named():
    tx = by_hand(mean_by_hand, init=lambda params: {"count": 0})
    said = problem(requirements.state_is_arrays_that_keep_their_shape, tx)
    assert (
        said == "leaf count of init's state is of type int: make it an array, such as jnp.zeros(())"
    )


def test_a_state_that_changes_its_dtype_is_named_and_recompiles():
    step = lambda g, s, p=None, **extra: (co.mean(g), {"count": s["count"] + 1.0})
    tx = by_hand(step, init=lambda params: {"count": jnp.zeros((), int)})
    said = problem(requirements.state_is_arrays_that_keep_their_shape, tx)
    assert said == "after a step, state count is float32[], but before it was int32[]"
    said = problem(requirements.a_step_is_traced_once, tx)
    assert (
        said == "2 traces of steps whose gradients have the same shapes. What in the state changes "
        "its dtype or structure?"
    )


def test_a_state_that_forgets_it_was_a_python_number_recompiles():
    """Same shape and dtype, but weakly typed at first: JAX traces the step again."""
    step = lambda g, s, p=None, **extra: (co.mean(g), s * jnp.ones((), jnp.float32))
    tx = by_hand(step, init=lambda params: jnp.asarray(1.0))
    assert requirements.state_is_arrays_that_keep_their_shape(requirements.Run(tx, 1)) is None
    assert problem(requirements.a_step_is_traced_once, tx).startswith("2 traces of steps")


def test_lost_extra_arguments_are_named():
    said = problem(
        requirements.extra_arguments_are_let_through, by_hand(lambda g, s, p=None: (co.mean(g), s))
    )
    assert said.startswith("update(gradients, state, params, value=1.0) fails: ")
    assert said.endswith("unexpected keyword argument 'value'. Give update an argument **extra")


def test_a_method_whose_calls_share_something_is_named():
    """State outside of the state: a second user of the method gets other steps."""
    calls = []

    def update(gradients, state, params=None, **extra):
        calls.append(1)
        return jax.tree.map(lambda g: g * len(calls), co.mean(gradients)), state

    said = problem(requirements.chains_with_sgd_and_adam, by_hand(update))
    assert said.startswith(
        "SGD behind it makes other steps than -learning_rate times its updates: matrix by "
    )


def test_factors_mistaken_for_gradients_are_named():
    """Doubling every array in a tree doubles rows, and both sides of a product."""
    doubled = lambda x: 2 * x if jnp.issubdtype(x.dtype, jnp.floating) else x
    said = problem(
        requirements.factors_rows_and_plain_arrays_agree,
        by_hand(lambda g, s, p=None, **extra: (co.mean(jax.tree.map(doubled, g)), s)),
    )
    kinds = "bias is Stacked, dense is Factored, sequence is Factored, sorted is Recomputed"
    assert said.startswith(f"another update than of plain arrays ({kinds}): dense by ")
    assert "bias by" not in said


@pytest.mark.parametrize(
    ("kind", "leaves"),
    [(Stacked, ["bias"]), (Factored, ["dense", "sequence"]), (Recomputed, ["sorted"])],
)
def test_a_wrong_path_for_one_kind_of_leaf_is_named(kind, leaves):
    def update(gradients, state, params=None, **extra):
        return {
            name: u * (1.01 if isinstance(gradients[name], kind) else 1.0)
            for name, u in co.mean(gradients).items()
        }, state

    said = problem(requirements.factors_rows_and_plain_arrays_agree, by_hand(update))
    assert re.findall(r"(\w+) by 1\.0e-02", said) == leaves


def test_a_method_that_ignores_the_mask_is_named():
    said = problem(requirements.masked_examples_do_not_count, by_leaf(lambda rows: rows.mean(0)))
    assert said.startswith("another update than without them (12 examples, 8 left): bias by ")


def differs(expected):
    gradients = example_gradients.plain(20)
    with pytest.raises(requirements.Broken) as broken:
        requirements.agreed(co.mean(gradients), expected(gradients), gradients, "it differs")
    return str(broken.value), broken.value.difference


def test_a_difference_is_named_with_leaf_and_number():
    said, difference = differs(leafwise(lambda g: 1.01 * np.mean(g, 0)))
    assert (
        said
        == "it differs: matrix by 9.9e-03, number by 9.9e-03, vector by 9.9e-03 (allowed: 3.5e-04)"
    )
    assert difference == pytest.approx(0.01 / 1.01, rel=1e-3)


def test_a_result_of_another_shape_is_named():
    said, _ = differs(
        lambda tree: {name: np.mean(leaf, 0, keepdims=True) for name, leaf in tree.items()}
    )
    assert said == "result matrix is float32[4, 5], but expected is float32[1, 4, 5]"


def test_a_nan_is_no_agreement():
    said, difference = differs(leafwise(lambda g: np.full(g.shape[1:], np.nan)))
    assert said.startswith("it differs: matrix by nan")
    assert np.isnan(difference)


# The whole, on methods with one flaw.


def only_problem(check):
    (said,) = check.problems
    assert not check.ok
    return said


def test_what_chain_refuses_is_a_problem():
    tx = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), mean_by_hand)
    said = only_problem(co.checks.check_aggregator(tx))
    assert said.startswith(
        "chains with sgd and adam: TypeError: chain(aggregator, *rest) starts with an aggregator"
    )


def test_another_definition_than_the_twin_and_properties_that_fail_are_problems():
    def is_positive(aggregate, gradients):
        """Nothing is negative."""
        return max(float(jnp.max(-x)) for x in jax.tree.leaves(aggregate(gradients)))

    def crashes(aggregate, gradients):
        raise RuntimeError("no such thing")

    def undefined(aggregate, gradients):
        return np.nan

    mine = [
        functools.partial(is_positive),
        undefined,
        crashes,
        is_positive,
        properties.breakdown(0.1),
        properties.odd,
    ]
    check = co.checks.check_aggregator(co.optim.average(), twin=MEDIAN, properties=mine)
    twin, nameless, nan, crashed, negative, breaks = check.problems
    assert twin.startswith("its twin agrees: of 20 examples, it differs: matrix by ")
    assert nameless.startswith("property: functools.partial(")
    assert nan == "property: undefined: violated by nan (20 examples)."
    assert crashed == "property: crashes: RuntimeError: no such thing"
    assert re.fullmatch(
        r"property: is_positive: violated by \S+ \(20 examples\)\. Nothing is negative\.", negative
    )
    assert re.match(
        r"property: breakdown\(0\.1\): violated by \d\.\de\+1\d \(20 examples\)\. A share of "
        r"the examples, ",
        breaks,
    )
    assert [f.problem for f in check.findings][
        -1
    ] == ""  # those after a broken one are looked at, too
    assert check.findings[-2].difference > 1e10
    assert str(check).splitlines()[-6:] == [f"problem: {p}" for p in check.problems]


def first(rows):
    return rows[0]


def clipped(rows):
    return rows.clip(-0.5, 0.5).mean(0)


def upper(rows):
    return jnp.sort(rows, 0)[(len(rows)) // 2]


def normalized(rows):
    lengths = jnp.sqrt(jnp.sum(rows.reshape(len(rows), -1) ** 2, 1))
    return jnp.tensordot(1 / lengths, rows, 1) / len(rows)


mean_of = lambda rows: rows.mean(0)


@pytest.mark.parametrize(
    ("violation", "breaks", "keeps"),
    [
        (properties.permutes, first, mean_of),
        (properties.odd, upper, mean_of),
        (properties.scales, clipped, upper),
        (properties.shifts, clipped, upper),
        (properties.unanimous, clipped, first),
        (properties.separable, normalized, upper),
        (properties.is_the_mean, upper, mean_of),
        (properties.breakdown(0.1), mean_of, upper),
        (properties.breakdown(0.5), lambda rows: rows[-1], upper),
        (properties.bounded(0.1), mean_of, normalized),
    ],
    ids=lambda x: x.__name__,
)
def test_a_property_that_fails_is_named_and_one_that_holds_is_not(violation, breaks, keeps):
    size = lambda function: violation(
        jax.jit(lambda tree: jax.tree.map(function, tree)), example_gradients.plain(20)
    )
    assert size(breaks) > 1e-2
    assert size(keeps) < 1e-6


def test_numpys_nearest_ranks_are_not_odd():
    """Why this table exists.

    Exact halves are rounded to even, at c = 50 and an even number of examples.
    """

    def nearest(rows):
        k = round(0.5 * (len(rows) - 1))
        return jnp.sort(rows, 0)[k]

    aggregate = lambda tree: jax.tree.map(nearest, tree)
    assert properties.odd(aggregate, example_gradients.plain(20)) > 1e-2
    assert properties.odd(aggregate, example_gradients.plain(21)) == 0


def test_groups_by_position_fall_to_outliers_that_are_spread():
    medians = lambda rows: jnp.median(
        jnp.stack([part.mean(0) for part in jnp.array_split(rows, 3)]), 0
    )
    aggregate = jax.jit(lambda tree: jax.tree.map(medians, tree))
    assert (
        properties.breakdown(0.05)(aggregate, example_gradients.plain(21)) < 1
    )  # one example: one group of three
    assert properties.breakdown(0.1)(aggregate, example_gradients.plain(21)) > 1e3


def warming_up(window):
    """The mean of the last few means; zero until there are so many."""

    def init(params):
        return [jax.tree.map(jnp.zeros_like, params)] * (window - 1), jnp.zeros((), jnp.int32)

    def update(gradients, state, params=None, **extra):
        earlier, step = state
        last = [co.mean(gradients), *earlier]
        mean = jax.tree.map(
            lambda *x: jnp.where(step + 1 < window, 0, sum(x) / window).astype(x[0].dtype), *last
        )
        return mean, (last[:-1], step + 1)

    return by_hand(update, init)


def test_a_method_with_a_memory_is_judged_when_it_is_full():
    mean = leafwise(lambda g: g.mean(0))
    assert co.checks.check_aggregator(
        warming_up(3), properties=[properties.is_the_mean, properties.shifts], twin=mean, steps=3
    ).ok
    problems = co.checks.check_aggregator(
        warming_up(3), properties=[properties.is_the_mean], twin=mean, steps=2
    ).problems
    assert [p.split(":")[0] for p in problems] == ["its twin agrees", "property"]


@pytest.mark.parametrize("make", [properties.breakdown, properties.bounded])
def test_shares_that_say_nothing_are_refused(make):
    for share in (0, 0.6, float("nan")):
        with pytest.raises(
            ValueError,
            match=rf"{make.__name__}\(share\): share of the examples that go astray, in \(0, "
            rf"0\.5\], got {share}\.",
        ):
            make(share)
    with pytest.raises(
        ValueError,
        match=r"a share of 0\.02 is none of 20 examples, and says nothing\. Ask for it with "
        r"0\.026 or more\.",
    ):
        make(0.02)(first, example_gradients.plain(20))


def test_mistakes_are_named():
    with pytest.raises(
        TypeError,
        match=r"check_aggregator\(tx\): an optax transformation such as median\(\), got "
        r"function. Did you call it\?",
    ):
        co.checks.check_aggregator(co.optim.median)
    with pytest.raises(
        ValueError, match=r"check_aggregator\(steps\): the gradients are fed at least once, got 0\."
    ):
        co.checks.check_aggregator(co.optim.median(), steps=0)

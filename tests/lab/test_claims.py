"""A verdict says what the numbers say, at the scale they were measured at, and no more."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coherence.lab.claims import (
    Claim,
    Judgement,
    Source,
    above,
    below,
    effect,
    exactly,
    holm,
    interval,
    judge,
)
from coherence.lab.report.tables import verdict_table

GREATER = Claim(
    name="real above random",
    text="An example helps more others on true labels than on random ones.",
    source="arXiv:2203.10036, Section 6",
    known="second-hand",
    statistic="m-coherence at half the initial loss, true minus random labels",
    direction="greater",
    unit="examples",
)
LESS = dataclasses.replace(GREATER, name="less", direction="less")
EXACT = dataclasses.replace(
    GREATER, name="closed form", direction="within", tolerance=1e-6, known="derived"
)
SCALE = "digits, MLP 64-128-10"


def test_the_interval_is_the_textbooks():
    mean, low, high = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3
    assert high - mean == pytest.approx(
        2.7764451 * math.sqrt(2.5 / 5)
    )  # t of 4 degrees of freedom at 97.5 %
    assert mean - low == pytest.approx(high - mean)


def test_one_value_has_no_bounds():
    mean, low, high = interval([2.0])
    assert mean == 2
    assert math.isnan(low)
    assert math.isnan(high)


def test_equal_values_have_an_interval_of_no_length():
    assert interval([0.1] * 7) == (0.1, 0.1, 0.1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_failed_seed_is_not_left_out(bad):
    assert all(map(math.isnan, interval([1.0, bad, 2.0])))


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]]])
def test_an_interval_needs_numbers_on_one_axis(values):
    with pytest.raises(
        ValueError, match=r"interval\(values\): at least one number, on one axis, got shape"
    ):
        interval(values)


def test_a_confidence_in_percent_is_refused():
    with pytest.raises(ValueError, match=r"interval\(confidence\): between 0 and 1, got 95"):
        interval([1.0, 2.0], 95)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    samples = np.random.default_rng(0).normal(size=(2000, 5))
    covered = np.mean([low <= 0 <= high for _, low, high in map(interval, samples)])
    assert covered == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(
    ("claim", "differences", "verdict"),
    [
        (GREATER, [3.0, 4.0, 5.0], "reproduced"),
        (GREATER, [-3.0, -4.0, -5.0], "not reproduced"),
        (GREATER, [-3.0, 4.0, 5.0], "inconclusive"),
        (LESS, [-3.0, -4.0, -5.0], "reproduced"),
        (LESS, [3.0, 4.0, 5.0], "not reproduced"),
        (dataclasses.replace(GREATER, threshold=10.0), [3.0, 4.0, 5.0], "not reproduced"),
        (GREATER, [0.5, 0.5, 0.5], "reproduced"),
        (GREATER, [-0.5, -0.5], "not reproduced"),
        (GREATER, [0.0, 0.0], "inconclusive"),
        (GREATER, [5.0], "inconclusive"),
        (GREATER, [], "inconclusive"),
        (EXACT, [0.0, 5e-7, -5e-7], "reproduced"),
        (EXACT, [0.0, 2e-6], "not reproduced"),
        (EXACT, [0.0], "reproduced"),
        (dataclasses.replace(EXACT, threshold=0.2), [0.2], "reproduced"),
    ],
)
def test_the_verdict_is_the_side_on_which_the_whole_interval_lies(claim, differences, verdict):
    assert judge(claim, differences, scale=SCALE).verdict == verdict


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=10))
def test_the_p_value_and_the_interval_say_the_same(differences):
    judgement = judge(GREATER, differences, scale=SCALE)
    if abs(judgement.p - 0.05) > 1e-9:
        assert (judgement.p < 0.05) == (judgement.verdict != "inconclusive")


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=10))
def test_a_claim_and_its_mirror_image_are_judged_alike(differences):
    assert (
        judge(GREATER, differences, scale=SCALE).verdict
        == judge(LESS, [-d for d in differences], scale=SCALE).verdict
    )


def test_a_nan_makes_it_inconclusive_and_says_so():
    judgement = judge(GREATER, [1.0, math.nan, 3.0], scale=SCALE)
    assert (judgement.verdict, judgement.reason) == (
        "inconclusive",
        "1 of 3 values are nan or infinite",
    )
    assert judge(EXACT, [math.nan], scale=SCALE).verdict == "inconclusive"


def test_a_failed_precondition_makes_it_inconclusive_and_says_so():
    missing = "SGD did not memorize: train accuracy 0.71 < 0.99"
    judgement = judge(GREATER, [3.0, 4.0, 5.0], scale=SCALE, precondition=missing)
    assert (judgement.verdict, judgement.reason) == ("inconclusive", missing)
    assert judgement.effect.mean == 4


def test_the_scale_is_part_of_the_verdict():
    here = judge(GREATER, [3.0, 4.0, 5.0], scale=SCALE)
    assert here.where == "holds on digits, MLP 64-128-10; not tested at the source's scale"
    there = judge(GREATER, [-3.0, -4.0, -5.0], scale="MNIST, FC-2048", at_source_scale=True)
    assert there.where == "does not hold on MNIST, FC-2048"


def test_one_number_a_seed():
    with pytest.raises(
        ValueError,
        match=r"judge\(differences\): one number per seed, so one axis, got shape \(1, 2\)",
    ):
        judge(GREATER, [[1.0, 2.0]], scale=SCALE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"known": "guessed"},
            "known is one of read, second-hand, remembered, derived, got 'guessed'",
        ),
        ({"direction": "above"}, "direction is one of greater, less, within, got 'above'"),
        ({"direction": "within"}, 'tolerance goes with direction "within" and only with it'),
        ({"tolerance": 0.1}, 'tolerance goes with direction "within" and only with it'),
    ],
)
def test_a_claim_is_checked_when_it_is_made(change, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(GREATER, **change)


def with_p(p: float, verdict: str) -> Judgement:
    return Judgement(GREATER, verdict, SCALE, False, interval([1.0, 2.0]), 2, p=p)


def test_holm_is_the_textbooks_and_knows_no_order():
    ps = [0.01, 0.04, 0.03, 0.005]
    adjusted = holm([with_p(p, "reproduced") for p in ps])
    assert [j.p_adjusted for j in adjusted] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [j.verdict for j in adjusted] == [
        "reproduced",
        "inconclusive",
        "inconclusive",
        "reproduced",
    ]
    assert adjusted[1].reason == "does not survive Holm's adjustment over 4 tests: p 0.060"
    assert [j.p_adjusted for j in holm([with_p(p, "reproduced") for p in ps[::-1]])] == [
        j.p_adjusted for j in adjusted[::-1]
    ]


def test_holm_leaves_failures_and_exact_values_as_they_are():
    exact = judge(EXACT, [0.0], scale=SCALE)
    failed = with_p(0.04, "not reproduced")
    adjusted = holm([exact, failed, with_p(0.9, "inconclusive")])
    assert adjusted[0] == exact
    assert adjusted[1].verdict == "not reproduced"
    assert adjusted[1].p_adjusted == 0.08
    assert holm([]) == []


def test_the_table_says_what_how_sure_and_where():
    judgements = holm(
        [
            judge(GREATER, [3.0, 4.0, 5.0], scale=SCALE),
            judge(EXACT, [0.0], scale="the toy", at_source_scale=True, run="toy@1234"),
        ]
    )
    text = verdict_table(judgements)
    for part in (
        "real above random",
        "reproduced",
        "+4 [+1.52, +6.48] examples",
        "0.020",
        "not tested at the source's scale",
        GREATER.text,
        "toy@1234",
    ):
        assert part in text
    rows = verdict_table(judgements, "markdown").splitlines()
    assert len(rows) == 4
    assert {row.replace("\\|", "").count("|") for row in rows} == {9}
    assert "arXiv:2203.10036, Section 6 (second-hand)" in rows[2]


def test_an_effect_below_its_threshold_is_not_left_to_look_like_a_success():
    above = dataclasses.replace(GREATER, threshold=5.0)
    assert (
        effect(judge(above, [3.0, 4.0], scale=SCALE))
        == "+3.5 [-2.85, +9.85] examples (claimed: > 5)"
    )
    assert effect(judge(GREATER, [3.0], scale=SCALE)) == "+3 examples"
    assert (
        effect(judge(EXACT, [1e-7, 3e-7], scale=SCALE)) == "+2e-07 examples"
    )  # compared one by one: an interval says nothing
    for format in ("text", "markdown"):
        assert above.statistic in verdict_table([judge(above, [3.0, 4.0], scale=SCALE)], format)


def test_an_unknown_table_format_is_refused():
    with pytest.raises(
        ValueError, match=r'verdict_table\(format\): "text" or "markdown", got \'html\''
    ):
        verdict_table([], "html")


def test_a_source_makes_claims_from_their_words():
    source = Source("arXiv:2203.10036, Section 6", "second-hand")
    words = """
        An example helps more others on true labels than on random ones. Measured: m-coherence at
        half the initial loss, true minus random labels.
    """
    assert source.claim("real above random", above(0, "examples"))(words) == GREATER
    assert source.claim("less", below(0, "examples"))(words) == LESS
    exact = source._replace(known="derived").claim("closed form", exactly(0, 1e-6, "examples"))
    assert exact(words) == EXACT


@pytest.mark.parametrize("words", ["It holds.", "It holds. Measured: a difference"])
def test_words_that_do_not_say_what_is_measured_are_refused(words):
    with pytest.raises(ValueError, match="claim mine: its words end with what is measured, 'Meas"):
        Source("here", "read").claim("mine", above(0, "nats"))(words)

"""A verdict says what the numbers say, at the scale they were measured at, and no more."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from coherence.lab.claims import (
    Claim,
    Judgement,
    Ratio,
    Source,
    digest,
    effect,
    holm,
    interval,
    judge,
    ratio_interval,
    read,
)
from coherence.lab.claims.intervals import noncentrality
from coherence.lab.report.tables import verdict_table

PAPER = Source("arXiv:2203.10036, Section 6", "second-hand", "papers", "About 20 against 5.")
GREATER = Claim(
    name="real above random",
    text="An example helps more others on true labels than on random ones.",
    source=PAPER,
    statistic="m-coherence at half the initial loss, true minus random labels",
    direction="greater",
    unit="examples",
)
LESS = dataclasses.replace(GREATER, name="less", direction="less")
EXACT = dataclasses.replace(GREATER, name="closed form", direction="within", tolerance=1e-6)
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
    if abs(judgement.p - 0.05) > 1e-9 and len(set(differences)) > 1:
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
    verdicts = ["reproduced", "inconclusive", "inconclusive", "reproduced"]
    assert [j.verdict for j in adjusted] == verdicts
    assert adjusted[1].reason == "p 0.040, but 0.060 by Holm over the 4 tests of the recording"
    assert [j.p_adjusted for j in holm([with_p(p, "reproduced") for p in ps[::-1]])] == [
        j.p_adjusted for j in adjusted[::-1]
    ]


def test_holm_holds_refutations_to_the_same_and_leaves_exact_values_as_they_are():
    exact = judge(EXACT, [0.0], scale=SCALE)
    failed, refuted = with_p(0.04, "not reproduced"), with_p(0.01, "not reproduced")
    adjusted = holm([exact, failed, with_p(0.9, "inconclusive"), refuted])
    assert adjusted[0] is exact
    assert [j.verdict for j in adjusted[1:]] == ["inconclusive", "inconclusive", "not reproduced"]
    assert [j.p_adjusted for j in adjusted[1:]] == pytest.approx([0.08, 0.9, 0.03])
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
    assert effect(judge(GREATER, [math.nan, 1.0], scale=SCALE)) == "-"
    assert (
        effect(judge(EXACT, [1e-7, 3e-7], scale=SCALE)) == "+2e-07 examples"
    )  # compared one by one: an interval says nothing
    for format in ("text", "markdown"):
        assert above.statistic in verdict_table([judge(above, [3.0, 4.0], scale=SCALE)], format)


def test_an_unknown_table_format_is_refused():
    with pytest.raises(
        ValueError, match=r'verdict_table\(format\): "text", "markdown" or "latex", got \'html\''
    ):
        verdict_table([], "html")


FILE = """
[sources.paper]
reference = "arXiv:2203.10036, Section 6"
known = "second-hand"
group = "papers"
says = "About 20 against 5."

[[claims]]
name = "real above random"
source = "paper"
text = '''
An example helps more others on true labels
than on random ones.
'''
measured = "m-coherence at half the initial loss, true minus random labels"
above = 0
unit = "examples"
"""


def test_claims_are_read_from_a_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(FILE)
    assert read(path) == (GREATER,)
    path.write_text(FILE.replace("above = 0", "below = 0").replace("real above random", "less"))
    assert read(path) == (LESS,)
    path.write_text(FILE.replace("above = 0", "equals = 0\nwithin = 1e-6"))
    assert read(path) == (dataclasses.replace(EXACT, name="real above random"),)


@pytest.mark.parametrize(
    ("text", "change", "said"),
    [
        ("above = 0", "", r"claim real above random: one of above, below, equals is needed, got"),
        ("above = 0", "above = 0\nbelow = 1", r"one of above, below, equals is needed, got \['abo"),
        ("above = 0", "above = 0\nwithin = 1", 'tolerance goes with direction "within"'),
        ("above = 0", "equals = 0", 'tolerance goes with direction "within"'),
        ('source = "paper"', 'source = "other"', "there is no 'other'"),
        ("text =", "words =", "words"),
        ("[[claims]]", "[[claim]]", "there is no 'claims'"),
        ("[[claims]]", "[[claims", "is no file of claims"),
        ("[[claims]]", "[claims]", r"a claim one \[\[claims\]\], not 'name'"),
        ("above = 0", 'above = "0"', "claim real above random: above is a finite number, got '0'"),
        ("above = 0", "equals = 0\nwithin = nan", "within is a finite number, got nan"),
        ('"second-hand"', '"guessed"', "known is one of read, second-hand, remembered, derived, g"),
        ('"papers"', '"theirs"', "group is one of papers, ours, tutorials, got 'theirs'"),
        (
            '"papers"',
            '"ours"',
            'the reference of group "ours", and of no other, begins with "ours"',
        ),
        ('"second-hand"', '"remembered"', "What is only remembered or derived is ours"),
        ('says = "About 20 against 5."', "", "What is only remembered or derived is ours"),
    ],
)
def test_a_file_that_is_none_is_named_with_what_is_wrong(tmp_path, text, change, said):
    path = tmp_path / "mine.toml"
    path.write_text(FILE.replace(text, change))
    with pytest.raises(ValueError, match=said) as error:
        read(path)
    assert str(path) in str(error.value)


def test_no_claim_stands_twice_in_a_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(FILE + FILE[FILE.index("[[claims]]") :])
    with pytest.raises(ValueError, match="claims twice: real above random"):
        read(path)


def test_the_digest_is_of_what_decides_and_of_nothing_else():
    other = dataclasses.replace(PAPER, reference="arXiv:2008.01217")
    same = dataclasses.replace(GREATER, source=other, name="another", threshold=0, unit="")
    assert digest(GREATER) == digest(same)
    changes = {"text": "It does.", "statistic": "x", "direction": "less", "threshold": 0.1}
    changed = [dataclasses.replace(GREATER, **{name: new}) for name, new in changes.items()]
    assert len({digest(GREATER), *map(digest, changed), digest(EXACT)}) == 6


def test_a_claim_about_parts_holds_only_if_it_holds_in_each():
    few, many = [1.0, 2.0, 3.0, 4.0], [11.0, 12.0, 13.0, 14.0]
    both = judge(GREATER, {"few": few, "many": many}, scale=SCALE)
    alone = judge(GREATER, few, scale=SCALE)
    assert (both.verdict, both.part, both.parts) == ("reproduced", "few", 2)
    assert (both.effect, both.p, both.standard) == (alone.effect, alone.p, alone.standard)
    assert (alone.part, alone.parts) == ("", 1)
    assert "decided by few, of 2" in both.remarks
    with pytest.raises(ValueError, match="claim real above random has no parts"):
        judge(GREATER, {}, scale=SCALE)


def test_a_part_refutes_only_at_the_level_of_all_parts():
    against, others = [-1.0, -2.0, -3.0], {f"part {k}": [4.0, 5.0, 6.0] for k in range(5)}
    alone = judge(LESS, [-x for x in against], scale=SCALE)
    assert judge(GREATER, against, scale=SCALE).p == alone.p == pytest.approx(0.0741799)
    wide = [-4.0, -5.0, -6.0]
    few = judge(GREATER, {"wide": wide, "other": [4.0, 5.0, 6.0]}, scale=SCALE)
    assert (few.verdict, few.part) == ("not reproduced", "wide")
    assert few.p == pytest.approx(2 * judge(GREATER, wide, scale=SCALE).p)
    many = judge(GREATER, {"wide": wide, **others}, scale=SCALE)
    assert (many.verdict, many.part) == ("inconclusive", "wide")
    assert many.reason == f"p {6 * few.p / 2:.3f} over 6 parts"


def test_a_part_at_the_threshold_or_of_one_seed_hides_no_other():
    against, level = [-4.0, -5.0, -6.0, -5.5], [0.0] * 4
    assert judge(GREATER, level, scale=SCALE).verdict == "inconclusive"
    for other in (level, [-9.0]):
        judgement = judge(GREATER, {"other": other, "against": against}, scale=SCALE)
        assert (judgement.verdict, judgement.part) == ("not reproduced", "against")
    judgement = judge(GREATER, {"a": [9.0], "b": [8.0], "c": [1.0, 2.0, 3.0]}, scale=SCALE)
    assert (judgement.verdict, judgement.part) == ("inconclusive", "b")
    assert judgement.reason == "one seed has no interval"
    assert judge(GREATER, {"a": [-1.0], "b": [-2.0]}, scale=SCALE).part == "b"


def test_a_ratio_is_no_exact_value():
    with pytest.raises(ValueError, match="claim .* is about exact values, and a Ratio is tested"):
        judge(EXACT, Ratio([2.0, 4.0], [1.0, 2.0]), scale=SCALE)


def test_one_part_without_numbers_leaves_the_claim_open():
    judgement = judge(GREATER, {"a": [1.0, 2.0, 3.0], "b": [math.nan, 1.0, 2.0]}, scale=SCALE)
    assert (judgement.verdict, judgement.part) == ("inconclusive", "b")
    assert judgement.reason == "1 of 3 values are nan or infinite"


def test_exact_values_are_compared_in_every_part():
    judgement = judge(EXACT, {"a": [0.0], "b": [2e-6, 0.0]}, scale=SCALE)
    assert (judgement.verdict, judgement.part) == ("not reproduced", "b")
    assert judgement.reason == "farthest from 0: 2e-06 > 1e-06"


def test_values_without_spread_have_no_p_and_say_so():
    judgement = judge(GREATER, [0.5] * 8, scale=SCALE)
    assert (judgement.verdict, math.isnan(judgement.p)) == ("reproduced", True)
    assert judgement.reason == "all 8 values are 0.5: compared, not tested"
    assert judge(GREATER, [0.0] * 8, scale=SCALE).p == 1
    parts = {"equal": [0.5] * 4, "spread": [1.0, 2.0, 3.0, 4.0]}
    assert judge(GREATER, parts, scale=SCALE).part == "spread"
    parts["equal"] = [-0.5] * 4
    assert judge(GREATER, parts, scale=SCALE).verdict == "not reproduced"
    assert math.isnan(holm([judgement])[0].p_adjusted)


def test_the_effect_in_standard_deviations_points_to_the_claimed_side():
    up = judge(GREATER, [1.0, 2.0, 3.0], scale=SCALE).standard
    down = judge(LESS, [1.0, 2.0, 3.0], scale=SCALE).standard
    assert up.mean == pytest.approx(2)
    ends = [scipy.stats.nct.cdf(2 * math.sqrt(3), 2, end * math.sqrt(3)) for end in up[1:]]
    assert ends == pytest.approx([0.975, 0.025], rel=1e-4)
    for t in (299.9, -299.9):  # there another formula begins, which no t can keep waiting
        for p in (0.025, 0.975):
            below, above = noncentrality(t, p, 7), noncentrality(1.001 * t, p, 7)
            assert above == pytest.approx(1.001 * below, rel=1e-4)
    assert judge(GREATER, [1, 1 + 1e-12, 1 - 1e-12], scale=SCALE).standard.low > 1e10
    assert tuple(down) == pytest.approx((-up.mean, -up.high, -up.low))


RATIO = dataclasses.replace(GREATER, unit="doublings")


@given(st.integers(0, 2**32 - 1), st.floats(-2, 2))
def test_a_ratio_of_means_is_judged_as_its_interval_says(seed, level):
    top, bottom = np.random.default_rng(seed).normal([[4.0], [2.0]], 1, (2, 8))
    claim = dataclasses.replace(RATIO, threshold=level)
    judgement = judge(claim, Ratio(top, bottom, "1.5x at m = 100"), scale=SCALE)
    _, low, high = judgement.effect
    if min(abs(low - level), abs(high - level)) > 1e-6:
        expected = "reproduced" if low > level else "not reproduced" if high < level else None
        assert judgement.verdict == (expected or "inconclusive")
    assert judgement.note == "1.5x at m = 100"
    assert judgement.effect.mean == pytest.approx(math.log2(top.mean() / bottom.mean()))


def test_the_interval_of_a_ratio_is_fiellers():
    rng = np.random.default_rng(0)
    top, bottom = rng.normal(3, 0.5, 8), rng.normal(2, 0.4, 8)
    _, low, high = ratio_interval(top, bottom)
    for end in (low, high):  # where the t test of the difference just rejects
        t = interval(top - 2**end * bottom)
        assert min(abs(t.low), abs(t.high)) == pytest.approx(0, abs=1e-9)
    assert ratio_interval(top, np.zeros(8) + [1, -1] * 4).high == math.inf
    assert ratio_interval([1.0, -1.0, 0.5], [0.1, -0.2, 0.2])[1:] == (-math.inf, math.inf)
    assert ratio_interval([2.0], [1.0]).mean == 1


def test_the_ratios_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    pairs = rng.normal([[[3.0], [1.0]]], [[[1.0], [0.5]]], (2000, 2, 8))
    ends = [ratio_interval(*pair) for pair in pairs]
    covered = np.mean([low <= math.log2(3) <= high for _, low, high in ends])
    assert covered == pytest.approx(0.95, abs=0.015)


def tables(rng, means, seeds, count=1000):
    """Verdicts on one claim about as many parts as there are means, in units of their noise."""
    draws = rng.normal(np.reshape(means, (-1, 1)), 1, (count, len(means), seeds))
    parts = [{str(k): values for k, values in enumerate(table)} for table in draws]
    return np.array([judge(GREATER, each, scale=SCALE).verdict for each in parts])


@pytest.mark.parametrize("parts", [1, 3, 5])
def test_simulated_verdicts_are_seldom_wrong_and_more_seeds_decide_more(parts):
    """The mean over seeds of the worst part was refuted in 68 % at 8 seeds and 100 % at 32."""
    rng, power, refuted = np.random.default_rng(parts), [], []
    for seeds in (8, 32):
        true = tables(rng, [0.5] * parts, seeds)
        null = tables(rng, [0.0] * parts, seeds)
        false = tables(rng, [-0.5] + [0.5] * (parts - 1), seeds)
        assert np.mean(true == "not reproduced") <= 0.05
        assert np.mean(false == "reproduced") <= 0.05
        assert np.mean(null == "reproduced") <= 0.05
        assert np.mean(null == "not reproduced") <= 0.05
        power.append(np.mean(true == "reproduced"))
        refuted.append(np.mean(false == "not reproduced"))
    assert power[1] > power[0] + 0.1
    assert refuted[1] > refuted[0] + 0.1


def test_a_table_of_true_and_false_claims_is_right_as_a_whole():
    """Holm over ten claims, half of them at their threshold: any wrong verdict in 5 % of tables."""
    rng = np.random.default_rng(0)
    means = np.repeat([0.0, 1.0], 5)[:, None]
    wrong = 0
    for _ in range(1000):
        table = holm([judge(GREATER, row, scale=SCALE) for row in rng.normal(means, 1, (10, 8))])
        wrong += any(j.verdict != "inconclusive" for j in table[:5])
    assert wrong <= 65  # 5 % and two standard errors

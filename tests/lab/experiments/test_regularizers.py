"""Stopping rules on paths whose best step is known.

Closed forms and the judge on arrays whose verdict is known.
"""

from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery
from coherence.optim.stopping import below, patience

ROOT = Path(__file__).resolve().parents[3]
regularizers = load(ROOT / "experiments" / "regularizers.py")
EXPERIMENT = collect(regularizers)
SEEDS = 4
JITTER = 0.01 * np.arange(SEEDS)
STEP = np.arange(0, 420, 20)
RATES = np.array([0.1, 0.3])
L1_RATES = np.array([1e-4, 1e-3, 1e-2, 1e-1])
TAKEOVER, BUDGET, NEVER = regularizers.TAKEOVER, regularizers.BUDGET, regularizers.NEVER


def verdicts(recorded):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(recorded)}


def toy(*, off=0.0, ratio=1.0, leaks=0.0):
    """Weights [step, penalty, rate, 6] that end where algebra says, but for an offset.

    A wrong ratio, or a private weight that leaks.
    """
    found = {"toy_rates": RATES, "toy_step": np.array([0, 400])}
    for name in ("learnable", "memorizable"):
        weights = np.zeros((2, 2, len(RATES), 6))
        for i, penalty in enumerate(("l1", "l2")):
            private, shared = regularizers.closed_form(penalty, name == "learnable", RATES)
            weights[1, i, :, :4], weights[1, i, :, 5] = (
                private[:, None] * (ratio if penalty == "l2" else 1),
                shared + off,
            )
        weights[1, 0, 1, 0] += leaks
        found |= {f"{name}/weights": weights, f"{name}/test_loss": np.stack([RATES**2 / 2, RATES])}
    return found


def path(*, best=100, takeover=100, kept=None, clean_loss=0.0, memorized=1.0):
    """Recorded arrays of 4 seeds.

    Test accuracy under noise peaks at step `best`, pristine and corrupt examples are fitted in
    turn.
    """
    x = STEP / 400
    peak = 0.8 - 0.4 * np.abs(STEP - best) / 400
    clean = 0.5 + 0.4 * x
    rows = lambda one: np.stack([one + 0.02 * j for j in JITTER])
    kept = {
        "patience, loss": best,
        TAKEOVER: takeover,
        "evidence": best,
        "coherence": best,
        **(kept or {}),
    }
    rules = [*regularizers.RULES, TAKEOVER, BUDGET, NEVER]
    at = lambda when: int(np.searchsorted(STEP, when))
    noisy = np.array([[at(kept.get(rule, STEP[-1]))] * SEEDS for rule in rules])
    quiet = np.array([[at(STEP[-1] - 1000 * clean_loss)] * SEEDS for _ in rules])
    return {
        "noise": np.array([0.0, 0.5]),
        "step": STEP,
        "share": np.array([[0.0] * SEEDS, [0.45] * SEEDS]),
        "test_accuracy": np.stack([rows(clean), rows(peak)]),
        "pristine_accuracy": np.stack([rows(np.minimum(1, 3 * x))] * 2),
        "corrupt_accuracy": np.stack([rows(memorized * x)] * 2),
        "rules": np.array(rules),
        "best": np.array([[len(STEP) - 1] * SEEDS, [at(best)] * SEEDS]),
        "kept": np.stack([quiet, noisy], 1),
        "stopped": np.where(
            np.array(rules)[:, None, None] == NEVER, np.nan, STEP[np.stack([quiet, noisy], 1)]
        ),
    }


def penalized(*, pristine=(1.0, 0.95, 0.6, 0.1), corrupt=(0.9, 0.05, 0.02, 0.0), test=0.9):
    """The same for both penalties: what is fitted at four rates a decade apart."""
    found = {}
    for penalty in ("l1", "l2"):
        rows = lambda values: np.array(values)[:, None] + 0.001 * JITTER
        ends = {
            "pristine_accuracy": pristine,
            "corrupt_accuracy": corrupt,
            "validation_loss": (2.0, 1.0, 1.5, 2.3),
        }
        found |= {f"{penalty}/{name}": rows(values) for name, values in ends.items()}
        found |= {f"{penalty}/rates": L1_RATES, f"{penalty}/zeros": rows((0, 0.1, 0.5, 0.9))}
        found[f"{penalty}/test_accuracy"] = rows((0.1, test, 0.1, 0.1))
    return found


def measured(*, of_toy=None, of_path=None, of_penalties=None):
    scale = {"scale": "nowhere", "at_source_scale": False}
    return {
        **toy(**(of_toy or {})),
        **path(**(of_path or {})),
        **penalized(**(of_penalties or {})),
        **scale,
    }


def test_numbers_as_claimed_reproduce_every_claim():
    assert set(verdicts(measured()).values()) == {"reproduced"}


BOTH = ("L1", "L2")


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        (
            {"of_toy": {"off": 1e-3}},
            {"L1 keeps what is shared", "L1 memorizes what outweighs it", "L2 keeps the ratio"},
        ),
        ({"of_toy": {"leaks": 1e-7}}, {"weaker than the pull is zero"}),
        ({"of_toy": {"ratio": 1.01}}, {"L2 keeps the ratio", "L2 memorizes at every rate"}),
        (
            {"of_penalties": {"pristine": (1.0, 0.2, 0.1, 0.1), "corrupt": (0.9, 0.9, 0.9, 0.3)}},
            {f"{p} gives up the corrupt first" for p in BOTH},
        ),
        (
            {"of_penalties": {"corrupt": (0.99, 0.95, 0.9, 0.0)}},
            {f"{p} fits fewer corrupt at equal fit" for p in BOTH},
        ),
        ({"of_penalties": {"test": 0.7}}, {f"{p} beats early stopping" for p in BOTH}),
        ({"of_path": {"takeover": 20}}, {"best where the corrupt take over"}),
        ({"of_path": {"takeover": 300}}, {"best where the corrupt take over"}),
        (
            {"of_path": {"best": 300, "kept": {"patience, loss": 20}}},
            {"patience beats never stopping"},
        ),
        ({"of_path": {"best": 300, "takeover": 20}}, {"takeover beats never stopping"}),
        (
            {"of_path": {"best": 300, "kept": {"evidence": 20, "coherence": 40}}},
            {f"{r} beats never stopping" for r in ("evidence", "coherence")},
        ),
        ({"of_path": {"clean_loss": 0.1}}, {"patience costs little without noise"}),
    ],
)
def test_a_claim_that_the_numbers_contradict_is_not_reproduced(change, failing):
    found = verdicts(measured(**change))
    assert {name for name in failing if found[name] == "not reproduced"} == failing


def test_each_claim_is_contradicted_by_some_row_above():
    marks = test_a_claim_that_the_numbers_contradict_is_not_reproduced.pytestmark[0].args[1]
    assert set().union(*(failing for _, failing in marks)) >= {
        claim.name for claim in EXPERIMENT.claims
    }


def test_nothing_is_said_about_memorizing_where_sgd_did_not():
    reasons = {
        j.claim.name: j.reason for j in EXPERIMENT.judgements(measured(of_path={"memorized": 0.8}))
    }
    missing = {
        name
        for name, reason in reasons.items()
        if reason == "SGD did not memorize: corrupt accuracy 0.80 < 0.95"
    }
    exact_or_clean = {c.name for c in EXPERIMENT.claims if c.direction == "within"} | {
        "patience costs little without noise"
    }
    assert missing == {claim.name for claim in EXPERIMENT.claims} - exact_or_clean


def test_a_takeover_that_never_comes_is_no_step():
    recorded = measured()
    recorded["stopped"][list(recorded["rules"]).index(TAKEOVER)] = np.nan
    assert verdicts(recorded)["best where the corrupt take over"] == "inconclusive"


@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("shared", [True, False])
def test_the_closed_forms_are_where_descent_on_the_penalized_loss_ends(penalty, shared):
    x = np.column_stack([np.eye(4), np.zeros(4), np.full(4, float(shared))])
    rates, eta = np.array([0.05, 0.2, 0.3]), 0.5
    ends = []
    for rate in rates:
        w = np.zeros(6)
        for _ in range(2000):
            gradient = x.T @ (x @ w - 1) / 4
            if penalty == "l2":
                w -= eta * (gradient + rate * w)
            else:
                w -= eta * gradient
                w = np.sign(w) * np.maximum(np.abs(w) - eta * rate, 0)
        ends.append(w)
    private, common = regularizers.closed_form(penalty, shared, rates)
    assert np.array(ends)[:, :4] == pytest.approx(np.repeat(private[:, None], 4, 1), abs=1e-9)
    assert np.array(ends)[:, 5] == pytest.approx(common, abs=1e-9)


def test_a_rule_keeps_what_it_would_have_kept_in_the_loop():
    losses = np.array([[3.0, 2.0, 1.0, 1.5, 1.6, 0.1, 0.1, 0.1], [8.0, 7, 6, 5, 4, 3, 2, 1]])
    kept, stopped = regularizers.outcome(patience(2), losses, STEP)
    assert kept.tolist() == [2, 7]
    assert stopped[0] == STEP[4]
    assert np.isnan(stopped[1])
    kept, stopped = regularizers.outcome(below(2.5, "train_loss", checks=2), losses, STEP)
    assert kept.tolist() == [1, 6]
    assert stopped.tolist() == [STEP[2], STEP[7]]


def test_every_rule_is_followed_on_every_path_and_a_budget_comes_from_another_seed():
    rng = np.random.default_rng(0)
    names = ("test_accuracy", *regularizers.WATCHED, "corrupt_share")
    noisy = {name: rng.random((2, 3, len(STEP))) for name in names}
    found = regularizers.stops({"step": STEP, "share": np.full((2, 3), 0.5), **noisy})
    assert found["kept"].shape == found["stopped"].shape == (len(found["rules"]), 2, 3)
    rules = list(found["rules"])
    assert (found["kept"][rules.index(NEVER)] == len(STEP) - 1).all()
    assert (found["kept"][rules.index(BUDGET)] == found["best"][:, [2, 0, 1]]).all()


def test_regret_is_what_the_kept_parameters_lack_of_the_best_on_the_path():
    recorded = {"test_accuracy": np.array([[[0.2, 0.9, 0.5]]]), "kept": np.array([[[1]], [[2]]])}
    assert regularizers.regret(recorded)[:, 0, 0] == pytest.approx([0.0, 0.4])


def test_the_rate_is_chosen_by_validation_loss_alone():
    found = penalized(test=0.33)
    assert regularizers.chosen(found, "l1") == pytest.approx(0.33 + 0.001 * JITTER)


@pytest.mark.slow
def test_the_smoke_preset_trains_follows_the_rules_and_draws(tmp_path):
    settings = EXPERIMENT.presets["smoke"]
    recorded = perform(EXPERIMENT, settings, tmp_path)
    found = verdicts(recorded)
    assert list(found) == [claim.name for claim in EXPERIMENT.claims]
    assert all(
        found[claim.name] == "reproduced"
        for claim in EXPERIMENT.claims
        if claim.direction == "within"
    )
    assert "takeover by the corrupt" in EXPERIMENT.table(recorded)
    with np.load(tmp_path / "noise=0.5" / "seed=0" / "drawn.npz") as drawn:
        assert len(drawn["validation"]) == settings.run.validation
        assert len(drawn["corrupt"]) + settings.run.validation == len(drawn["labels"])
    png, *_ = gallery.draw(ROOT, "regularizers", tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000

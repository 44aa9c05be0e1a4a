"""Experiments end to end at their smallest, and judges on arrays whose verdict is known."""

import dataclasses
import json
import types
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from coherence.lab import runs
from coherence.lab.experiment import Experiment, all_arms, collect, load, perform
from coherence.lab.report import describe, gallery
from coherence.lab.running import qualified
from coherence.lab.settings import apply_flags, plain, variant

ROOT = Path(__file__).resolve().parents[3]


def experiment(name):
    return collect(load(ROOT / "experiments" / f"{name}.py"))


def test_the_source_s_scale_is_that_of_the_presets_named_with_any_number_of_seeds():
    at_scale = {
        (one.name, preset)
        for one in map(experiment, ("real_vs_random", "winsorization", "toy", "width"))
        for preset, settings in one.presets.items()
        if one.at_source_scale(dataclasses.replace(settings, seeds=3))
    }
    assert at_scale == {
        ("real_vs_random", "paper"),
        *(
            ("winsorization", preset)
            for preset in (
                "column",
                "half",
                "clean",
                "quarter",
                "three_quarters",
                "random",
                "paper",
            )
        ),
        *(("toy", preset) for preset in experiment("toy").presets),
    }


@pytest.mark.parametrize(
    "name", ["real_vs_random", pytest.param("winsorization", marks=pytest.mark.slow)]
)
def test_the_smoke_preset_trains_judges_resumes_and_draws(name, tmp_path):
    one = experiment(name)
    settings = one.presets["smoke"]
    recorded = perform(one, settings, tmp_path)
    judgements = one.judgements(recorded)
    assert {j.claim.name for j in judgements} <= {claim.name for claim in one.claims}
    assert json.loads(str(recorded["settings"]))["seeds"] == settings.seeds
    assert "not tested at the source's scale" in judgements[0].where
    assert one.table(recorded)
    assert len(runs.find(tmp_path, done=True)) == settings.seeds * len(one.arms(settings))
    before = (tmp_path / "recorded.npz").read_bytes()
    perform(one, settings, tmp_path)
    assert (tmp_path / "recorded.npz").read_bytes() == before
    png, *_ = gallery.draw(ROOT, name, tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000


@dataclasses.dataclass(frozen=True)
class _Fit:
    """What a library fits in one go."""

    times: float

    def describe(self):
        return "drawn numbers"

    def compute(self, seed):
        if self.times < 0:
            raise ArithmeticError("no fit")
        return {"accuracy": np.float32(seed * self.times), "curve": np.arange(3) * self.times}


@dataclasses.dataclass(frozen=True)
class _Fits:
    times: tuple[float, ...] = (1.0, 2.0)
    seeds: int = 2


def _fits(settings):
    return {f"times={times:g}": _Fit(times) for times in settings.times}


def _collect(settings, runs):
    return {
        arm: np.array([run.load("computed")["curve"] for run in seeds])
        for arm, seeds in runs.items()
    }


def test_what_is_not_trained_is_computed_once_for_each_seed_kept_and_shown(tmp_path, monkeypatch):
    one = Experiment(
        "fits", (), {"smoke": _Fits()}, _fits, _collect, lambda recorded: {}, lambda recorded: ""
    )
    recorded = perform(one, _Fits(), tmp_path)
    assert recorded["times=2"].tolist() == [[0, 2, 4], [0, 2, 4]]
    assert str(recorded["scale"]) == "drawn numbers, 2 seeds"
    assert [run.records() for run in runs.find(tmp_path / "times=2")] == [
        [{"step": 0, "accuracy": 0.0}],
        [{"step": 0, "accuracy": 2.0}],
    ]
    assert "accuracy" in describe(tmp_path / "times=2" / "seed=1")
    monkeypatch.setattr(_Fit, "compute", None)  # a second call computes nothing
    again = perform(one, _Fits(), tmp_path)
    assert again["times=1"].tolist() == recorded["times=1"].tolist()


def test_where_networks_differ_verdicts_name_all_of_them():
    said = lambda text: types.SimpleNamespace(describe=lambda: text)
    arms = [
        "circles (9 examples), AE 4-2-1",
        "circles (9 examples), VAE 4-2-1",
        "a library's",
        "circles (9 examples), AE 4-2-1",
    ]
    assert (
        all_arms({str(i): said(text) for i, text in enumerate(arms)})
        == "circles (9 examples): AE 4-2-1, VAE 4-2-1; a library's"
    )


def test_a_computation_that_failed_leaves_the_finished_ones_and_is_made_again(
    tmp_path, monkeypatch
):
    one, settings = (
        Experiment("fits", (), {}, _fits, _collect, lambda recorded: {}, lambda recorded: ""),
        _Fits((1.0, -1.0)),
    )
    with pytest.raises(ArithmeticError):
        perform(one, settings, tmp_path)
    assert [len(runs.find(tmp_path / arm, done=True)) for arm in ("times=1", "times=-1")] == [2, 0]
    monkeypatch.setattr(_Fit, "compute", lambda self, seed: {"curve": np.full(3, self.times)})
    assert perform(one, settings, tmp_path)["times=-1"].tolist() == [[-1, -1, -1]] * 2


def test_presets_are_complete_and_seeds_do_not_name_a_run():
    for path in (ROOT / "experiments").glob("*.py"):
        judged = experiment(path.stem)
        presets = judged.presets
        papers = any(claim.group == "papers" for claim in judged.claims)
        assert {"smoke", "cpu", *(["paper"] if papers else [])} <= set(presets)
        assert all(preset.seeds >= 1 for preset in presets.values())


@pytest.mark.parametrize("name", [path.stem for path in (ROOT / "experiments").glob("*.py")])
def test_presets_are_flags_and_json_and_name_the_run_that_differs(name):
    cpu = experiment(name).presets["cpu"]
    assert apply_flags(cpu, [], name) == cpu
    assert json.loads(json.dumps(plain(cpu)))["seeds"] == cpu.seeds
    if hasattr(cpu, "run"):
        length = "steps" if hasattr(cpu.run, "steps") else "epochs"
        flags = qualified(cpu, [f"--run.{length}", "7"])
        changed = apply_flags(cpu, flags, name)
        assert getattr(changed.run, length) == 7
        assert variant("cpu", changed, cpu) == f"cpu,run.{length}=7"


def _real_vs_random(real, random, fitted=1.0, swing=3.0):
    """Recorded arrays of 5 seeds, as if measured."""
    noise = np.linspace(-0.01, 0.01, 5)
    arrays = {
        "levels": np.array([0.75, 0.5, 0.25]),
        "m": 100,
        "sample": 500,
        "c": 2.0,
        "scale": "nowhere",
        "at_source_scale": False,
    }
    arrays["learning_rates"] = np.array([0.1, 0.02])
    accuracies = {"real,": (1, 0.95), "random,": (fitted, 0.1)}
    ends = {
        f"{label}rate={rate}": ends
        for label, ends in accuracies.items()
        for rate in ("0.1", "0.02")
    }
    ends |= {"real,winsorized": (0.99, 0.95), "random,winsorized": (0.3, 0.1)}
    for arm, (train, test) in ends.items():
        arrays[f"{arm}/train_accuracy"] = (train + noise * (train < 1))[:, None]
        arrays[f"{arm}/test_accuracy"] = (test + noise)[:, None]
        arrays[f"{arm}/train_loss"] = np.tile([2.0, 0.1], (5, 1))
        arrays[f"{arm}/at_levels"] = (
            np.full((5, 3), real if "real" in arm else random) + noise[:, None]
        )
        arrays[f"{arm}/at_grid"] = np.ones((5, 21), np.float32)
        arrays[f"{arm}/swing"] = (swing if arm.endswith("rate=0.1") else 1.0) + noise**2
    return arrays


def verdicts(name, recorded):
    return {j.claim.name: j.verdict for j in experiment(name).judgements(recorded)}


def test_the_judge_follows_the_numbers():
    as_claimed = verdicts("real_vs_random", _real_vs_random(5.0, 2.0))
    claims = {claim.name for claim in experiment("real_vs_random").claims}
    assert as_claimed.keys() == {name for name in claims if "helps" not in name}
    assert set(as_claimed.values()) == {"reproduced"}
    reversed_order = verdicts("real_vs_random", _real_vs_random(2.0, 5.0))
    assert [v for k, v in reversed_order.items() if k.startswith("real above random")] == [
        "not reproduced"
    ] * 6
    assert (
        verdicts("real_vs_random", _real_vs_random(5.0, 0.5))["out of nothing"] == "not reproduced"
    )
    assert (
        verdicts("real_vs_random", _real_vs_random(5.0, 2.0, swing=0.5))["large steps swing"]
        == "not reproduced"
    )


def test_what_was_not_run_is_not_judged():
    recorded = _real_vs_random(5.0, 2.0) | {"c": np.nan, "learning_rates": np.array([0.1])}
    names = verdicts("real_vs_random", recorded).keys()
    assert not [
        name for name in names if "winsorizing" in name or "small step" in name or "swing" in name
    ]
    assert len(names) == 5


def test_a_loss_passed_within_the_first_window_is_not_read():
    recorded = _real_vs_random(5.0, 2.0)
    recorded["real,rate=0.1/at_levels"][:2, 0] = 1.0  # as the window of the whole initial loss
    found = {j.claim.name: j for j in experiment("real_vs_random").judgements(recorded)}
    above = found["real above random at 75%"]
    assert above.reason == "2 of 5 seeds pass that loss within the first 50 steps"
    assert above.verdict == "inconclusive"
    assert found["real above random at 50%"].verdict == "reproduced"


def test_a_verdict_without_a_claim_is_refused():
    one = dataclasses.replace(
        experiment("toy"), judge=lambda recorded: {"mine": (np.zeros(2), None)}
    )
    with pytest.raises(
        ValueError,
        match=r"toy judges mine, which it does not claim\. Every verdict needs its Claim\.",
    ):
        one.judgements({"scale": "nowhere", "at_source_scale": False})


def test_a_network_that_did_not_fit_makes_the_claims_inconclusive():
    found = verdicts("real_vs_random", _real_vs_random(5.0, 2.0, fitted=0.5))
    assert found["winsorizing prevents memorization"] == "inconclusive"
    assert found["winsorizing keeps generalization"] == "reproduced"
    diverged = _real_vs_random(5.0, 2.0)
    diverged["real,rate=0.1/train_accuracy"] = diverged["real,rate=0.1/train_accuracy"] * 0.1
    assert (
        verdicts("real_vs_random", diverged)["winsorizing keeps generalization"] == "inconclusive"
    )


def test_what_is_compared_at_equal_loss_needs_that_loss_and_no_fit_at_the_end():
    recorded = _real_vs_random(5.0, 2.0, fitted=0.5)
    assert verdicts("real_vs_random", recorded)["real above random at 25%"] == "reproduced"
    assert verdicts("real_vs_random", recorded)["out of nothing"] == "reproduced"
    assert verdicts("real_vs_random", recorded)["memorized without generalizing"] == "inconclusive"
    recorded["random,rate=0.1/train_loss"][1, 1] = 0.6
    found = {j.claim.name: j for j in experiment("real_vs_random").judgements(recorded)}
    for name in ("real above random at 50%", "out of nothing"):
        assert found[name].verdict == "inconclusive"
        assert found[name].reason == "1 of 5 seeds stay above 25% on random labels"


def test_true_labels_may_take_fewer_steps():
    experiments = experiment("real_vs_random")
    steps = lambda preset: {
        arm: run.steps for arm, run in experiments.arms(experiments.presets[preset]).items()
    }
    assert steps("paper") == {
        "real,rate=0.1": 12_000,
        "50% random,rate=0.1": 60_000,
        "random,rate=0.1": 60_000,
    }
    assert steps("small_step") == {"real,rate=0.02": 30_000, "random,rate=0.02": 200_000}
    with pytest.raises(ValueError, match="true_steps: none, or one number for each"):
        dataclasses.replace(experiments.presets["cpu"], true_steps=(1000,))


def test_step_sizes_and_their_numbers_of_steps_go_together():
    with pytest.raises(
        ValueError,
        match=r"steps: one number for each of the learning_rates \(0\.1,\), got \(1, 2\)\.",
    ):
        load(ROOT / "experiments" / "real_vs_random.py").Settings(
            learning_rates=(0.1,), steps=(1, 2)
        )


class _Tracked:
    """A run of 400 steps whose loss falls evenly; single steps swing between two coherences."""

    config = {"batch_size": 100}  # noqa: RUF012

    def __init__(self, high):
        above = np.where(np.arange(400) % 2, high, 0.02)
        self.batches = {
            "loss": np.linspace(1, 0, 400),
            "squared_norm_of_mean": above,
            "mean_squared_norm": np.ones(400),
        }

    def load(self, name):
        return self.batches

    def records(self):
        return [{"train_loss": 1.0}]


def test_the_swing_is_that_of_single_steps_over_what_they_have_together():
    single_steps = load(ROOT / "experiments" / "real_vs_random.py").single_steps
    calm, excerpt = single_steps(_Tracked(0.02))
    assert calm == pytest.approx(0)
    np.testing.assert_allclose(excerpt[:100], 2)
    swing, excerpt = single_steps(_Tracked(0.1))
    assert swing == pytest.approx(np.log2(0.1 / 0.06), abs=0.01)
    assert set(np.round(excerpt[:100], 6)) == {2, 10}


def _winsorization(**changes):
    """Recorded arrays of 4 seeds over steps 0 to 3.

    Winsorized at 2 % and 8 % less memorized at the same fit; changed as asked.
    """
    wiggle = np.linspace(-0.01, 0.01, 4)[:, None]
    curve = lambda *values: np.array(values) + wiggle
    corrupt = [curve(0.1, 0.3, 0.6, 0.95), curve(0.1, 0.1, 0.15, 0.2), curve(0.1, 0.1, 0.1, 0.1)]
    pristine = [curve(0.1, 0.8, 0.9, 0.98), curve(0.1, 0.7, 0.8, 0.9), curve(0.1, 0.3, 0.5, 0.6)]
    under_noise = {
        "corrupt_accuracy": corrupt,
        "pristine_accuracy": pristine,
        "train_accuracy": [(a + b) / 2 for a, b in zip(pristine, corrupt)],
        "test_accuracy": [
            curve(0.1, 0.8, 0.7, 0.6),
            curve(0.1, 0.7, 0.8, 0.8),
            curve(0.1, 0.3, 0.5, 0.6),
        ],
    }
    clean = {name: [curve(0.1, 0.9, 0.99, 1.0 - 0.1 * k) for k in range(3)] for name in under_noise}
    arrays = {name: np.array([clean[name], under_noise[name]]) for name in under_noise}
    slower = {
        "slower/pristine_accuracy": np.array([[0.85] * 4]),
        "slower/corrupt_accuracy": np.array([[0.4] * 4]),
    }
    fixed = {
        "noise": np.array([0.0, 0.5]),
        "c": np.array([0.0, 2.0, 8.0]),
        "slower": np.array([0.1]),
        "step": np.arange(4),
    }
    return {**fixed, **arrays, **slower, "scale": "nowhere", "at_source_scale": False} | changes


def test_winsorizing_that_keeps_what_it_fits_and_memorizes_less_reproduces_every_claim():
    found = verdicts("winsorization", _winsorization())
    others = {f"only true labels fitted, {share}% random" for share in (25, 75, 100)}
    assert found.keys() == {claim.name for claim in experiment("winsorization").claims} - others
    assert set(found.values()) == {"reproduced"}


def test_training_accuracy_is_judged_against_that_of_true_labels_at_every_share_of_random_ones():
    made, shares = _winsorization(slower=np.array([])), (0.25, 0.75, 1.0)
    wiggle = np.linspace(-0.01, 0.01, 4)
    for name in [name for name in made if name.endswith("_accuracy") and "/" not in name]:
        made[name] = np.array([made[name][1]] * len(shares))
    for i, accuracy in enumerate((0.775, 0.325, 0.13)):  # the last one above chance
        made["train_accuracy"][i, 1, :, -1] = accuracy + wiggle / 10
    found = verdicts("winsorization", made | {"noise": np.array(shares)})
    name = "only true labels fitted, {}% random".format
    assert found == {
        name(25): "reproduced",
        name(75): "reproduced",
        name(100): "not reproduced",
    }


@pytest.mark.parametrize(
    ("shares", "panels"),
    [((0,), 2), ((1,), 2), ((0, 1), 4), ((0.5,), 6), ((0, 0.25), 7), ((0, 0.5), 8), ((0.25, 1), 8)],
)
def test_only_where_some_labels_are_true_and_some_random_are_corrupt_examples_drawn(shares, panels):
    made = _winsorization(slower=np.array([]), noise=np.array(shares, float), judged_noise=0.5)
    for name in [name for name in made if name.endswith("_accuracy") and "/" not in name]:
        made[name] = np.array([made[name][1]] * len(shares))
    figure = load(ROOT / "paper_figures" / "winsorization.py").draw(made)
    drawn = [panel for panel in figure.axes if panel.get_visible()]
    assert len(drawn) == panels
    corrupt = any("corrupt" in panel.get_ylabel() for panel in drawn)
    assert corrupt == any(0 < share < 1 for share in shares)
    plt.close(figure)


def test_winsorizing_that_only_goes_the_same_way_more_slowly_does_not_suppress_at_equal_fit():
    made = _winsorization()
    made["corrupt_accuracy"][1, 1] += (
        0.5  # memorized more than SGD had at that pristine accuracy, less than SGD in the end
    )
    found = verdicts("winsorization", made)
    assert found["memorization suppressed"] == "reproduced"
    assert (
        found["suppressed at equal fit"]
        == found["suppressed at equal fit, slower SGD"]
        == "not reproduced"
    )


def test_a_fit_below_that_of_the_smallest_steps_has_no_equal_among_them():
    made = _winsorization()
    fit = made["pristine_accuracy"][1, 1, :, -1]
    made["slower/pristine_accuracy"] = np.maximum(made["slower/pristine_accuracy"], fit + 0.001)
    found = verdicts("winsorization", made)
    assert found["suppressed at equal fit, slower SGD"] == "inconclusive"
    assert found["suppressed at equal fit"] == "reproduced"


def test_sgd_that_never_memorized_proves_nothing():
    made = _winsorization()
    made["corrupt_accuracy"][1, 0] *= 0.5
    found = verdicts("winsorization", made)
    assert {name for name, verdict in found.items() if verdict != "inconclusive"} == {
        "large c hurts fitting"
    }


def test_a_grid_without_clean_labels_or_controls_judges_what_it_has():
    made = _winsorization(slower=np.array([]), noise=np.array([0.5]), c=np.array([0.0, 2.0]))
    made |= {
        name: made[name][1:, :2] for name in made if name.endswith("_accuracy") and "/" not in name
    }
    assert verdicts("winsorization", made).keys() == {
        "memorization suppressed",
        "overfit falls with c",
        "only true labels fitted, 50% random",
        "suppressed at equal fit",
        "test accuracy kept",
    }

"""What the judges of `alpha_properties` and `depth` say about arrays whose verdict is known.

And both end to end at their smallest.
"""

import types
from pathlib import Path

import numpy as np
import pytest

from coherence.lab import runs
from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
PROPERTIES = load(ROOT / "experiments" / "alpha_properties.py")
DEPTH = load(ROOT / "experiments" / "depth.py")


def verdicts(module, recorded):
    found = collect(module).judgements({"scale": "nowhere", "at_source_scale": False, **recorded})
    return {j.claim.name: j.verdict for j in found}


def properties():
    """Recorded arrays of 4 seeds, one network and one set of vectors.

    That have every property exactly.
    """
    sizes = PROPERTIES._sizes(1024)
    arrays = {f"sizes/{name}": np.array(each) for name, each in sizes.items()}
    arrays |= {
        "alphas": np.array([0.2]),
        "sample": 1024,
        "copies": np.tile(PROPERTIES.COPIES, (4, 1)).astype(float),
    }
    for arm, alpha in (("network", 0.05), ("alpha=0.2", 0.2)):
        m, k = np.array(sizes["samples"]), np.array(sizes["batches"])
        unbiased = (1024 * alpha - 1) / 1023
        noise = np.linspace(-0.001, 0.001, 4)[:, None, None]
        shape = lambda values: np.broadcast_to(values, (4, 1, *np.shape(values))).copy()
        arrays |= {
            f"{arm}/{name}": shape(values)
            for name, values in {
                "alpha": alpha,
                "unbiased": unbiased,
                "rescaled": np.full(3, alpha),
                "equal": 1.0,
                "cancelling": 0.0,
                "diluted": np.array(PROPERTIES.KEPT),
                "mixed": np.full(7, 0.5 * alpha),
                "mixed_bound": np.full(7, alpha),
                "difference": 0.9,
                "difference_bound": 1.0,
                "layer_alpha": np.array([0.0, 2 * alpha]),
                "layer_share": np.array([0.5, 0.5]),
                "batches": PROPERTIES.amplified(alpha, k),
                "inverted": np.full(len(sizes["inverted"]), 1.1 * alpha),
                "inverted_finite": np.full(len(sizes["inverted"]), alpha),
                "samples_pooled": PROPERTIES.with_floor(unbiased, m),
                "samples": PROPERTIES.with_floor(unbiased, m),
                "samples_unbiased": np.full(len(m), unbiased),
            }.items()
        }
        arrays[f"{arm}/samples"] += noise
    return arrays


def test_gradients_with_every_property_reproduce_every_claim():
    assert set(verdicts(PROPERTIES, properties()).values()) == {"reproduced"}


@pytest.mark.parametrize(
    ("name", "factor", "claim"),
    [
        ("rescaled", 1.001, "bounded"),
        ("equal", 1.001, "bounded"),
        ("batches", 0.9, "mini-batches amplify"),
        ("inverted", 1.1, "batches invert"),
        ("inverted_finite", 1.1, "batches invert, finite sample"),
        ("diluted", 1.001, "fitted examples dilute"),
        ("mixed", 2.01, "mixtures are bounded"),
        ("difference", 1.2, "differences are bounded"),
        ("layer_share", 1.01, "layers add up"),
        ("samples_pooled", 1.1, "the floor of small samples"),
    ],
)
def test_a_property_that_fails_for_one_source_fails_its_claim_and_no_other(name, factor, claim):
    recorded = properties()
    recorded[f"alpha=0.2/{name}"] *= factor
    found = verdicts(PROPERTIES, recorded)
    assert {one for one, verdict in found.items() if verdict != "reproduced"} == {claim}


def test_cancelling_gradients_that_do_not_cancel_and_copies_that_do_not_help_are_noticed():
    recorded = properties()
    recorded["network/cancelling"] += 0.01
    recorded["copies"][0, 0] = 1.5
    found = verdicts(PROPERTIES, recorded)
    assert {one for one, verdict in found.items() if verdict != "reproduced"} == {
        "bounded",
        "orthogonal limit and copies",
    }


def test_a_correction_that_is_farther_off_than_the_floor_is_not_reproduced():
    recorded = properties()
    recorded["network/samples_unbiased"] -= 1.0
    assert verdicts(PROPERTIES, recorded)["the floor can be taken away"] == "not reproduced"


def chains(initial=0.01):
    """Weights of chains along their closed forms, from the start to the limit."""
    arrays = {"depths/chain": np.array([1, 2, 3]), "initial": initial}
    for depth in arrays["depths/chain"]:
        shared = np.geomspace(initial, DEPTH.final(depth, initial)[0], 50)
        own = DEPTH.private(shared, depth, initial)
        arrays |= {
            f"chain-{depth}/shared": shared,
            f"chain-{depth}/private": own,
            f"chain-{depth}/train_loss": np.full(50, 0.1),
        }
        arrays[f"chain-{depth}/alpha"] = DEPTH.chain_alpha(shared, own, depth)
        arrays[f"chain-{depth}/test_loss"] = 0.5 * (1 - shared - initial) ** 2
    return arrays


def networks(deep=4.0, share=0.3, memorized=0.1):
    """Recorded arrays of 6 seeds.

    The shallowest have m-coherence 2, main share 0.1 and memorize 0.2; the deepest as given.
    """
    arrays, noise = {"m": 100}, np.linspace(-0.01, 0.01, 6)[:, None]
    for kind in DEPTH.NAMES:
        arrays[f"depths/{kind}"] = np.array([1, 2])
        for depth, values in ((1, (2.0, 0.1, 0.2)), (2, (deep, share, memorized))):
            for end in ("", "-large"):
                for name, value in zip(("m_coherence", "main_share", "corrupt_accuracy"), values):
                    arrays[f"{kind}-{depth}{end}/{name}"] = value + noise * depth * np.ones(
                        len(DEPTH.LEVELS)
                    )
    return arrays


def test_closed_forms_and_deeper_networks_that_are_more_coherent_reproduce_every_claim():
    assert set(verdicts(DEPTH, chains() | networks()).values()) == {"reproduced"}


def test_deeper_networks_that_are_less_coherent_and_memorize_more_are_not_reproduced():
    found = verdicts(DEPTH, chains() | networks(deep=1.5, share=0.05, memorized=0.4))
    assert {
        verdict for name, verdict in found.items() if "deeper" in name and "chains" not in name
    } == {"not reproduced"}


def test_a_level_that_a_seed_never_reaches_is_inconclusive():
    recorded = chains() | networks()
    recorded["mlp-1/m_coherence"][0, DEPTH.LEVELS.index(DEPTH.MIDDLE)] = np.nan
    assert verdicts(DEPTH, recorded)["deeper MLPs are more coherent at 1.2"] == "inconclusive"


@pytest.mark.parametrize(
    ("name", "claims"),
    [
        (
            "chain-2/private",
            {"private follows shared", "alpha of a chain", "deeper chains share more"},
        ),
        ("chain-3/alpha", {"alpha of a chain"}),
        ("chain-1/alpha", {"alpha of a chain", "one factor does not amplify"}),
        ("chain-2/test_loss", {"deeper chains generalize better"}),
    ],
)
def test_a_chain_that_leaves_its_closed_form_is_noticed(name, claims):
    recorded = chains() | networks()
    recorded[name] = recorded[name] * 1.06
    found = verdicts(DEPTH, recorded)
    assert {one for one, verdict in found.items() if verdict != "reproduced"} == claims


def test_a_chain_whose_alpha_falls_does_not_amplify():
    recorded = chains() | networks()
    recorded["chain-2/alpha"][20] -= 0.05
    assert verdicts(DEPTH, recorded)["two or more do"] == "not reproduced"


def test_alpha_of_a_fitted_chain_is_not_looked_at():
    recorded = chains() | networks()
    recorded["chain-3/alpha"][-1], recorded["chain-3/train_loss"][-1] = 0.1, 1e-12
    assert verdicts(DEPTH, recorded)["alpha of a chain"] == "reproduced"


@pytest.mark.parametrize(
    ("depth", "ratio"), [(1, 3.85), (2, 30.8), (3, 50.9), (4, 59.1), (6, 65.5)]
)
def test_the_limit_of_a_chain_is_where_its_simulation_ends(depth, ratio):
    shared, own = DEPTH.final(depth, 0.01)
    assert shared + own == pytest.approx(1)
    assert shared / own == pytest.approx(ratio, rel=0.005)


def test_the_main_share_is_one_for_equal_gradients_and_that_of_the_longest_for_orthogonal_ones():
    view = lambda rows: types.SimpleNamespace(few={"w": np.float32(rows)})
    assert DEPTH.main_share(view(np.ones((4, 4)))) == pytest.approx(1, abs=1e-5)
    lengths = np.sqrt([1.0, 2.0, 5.0])
    assert DEPTH.main_share(view(np.diag(lengths))) == pytest.approx(5 / 8, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("module", [PROPERTIES, DEPTH], ids=["alpha_properties", "depth"])
def test_the_smoke_preset_runs_judges_and_draws(module, tmp_path):
    one = collect(module)
    recorded = perform(one, one.presets["smoke"], tmp_path)
    judgements = {j.claim.name: j for j in one.judgements(recorded)}
    assert list(judgements) == [claim.name for claim in one.claims]
    exact = [
        j
        for j in judgements.values()
        if j.claim.tolerance is not None and j.claim.tolerance <= 1e-3
    ]
    assert {j.verdict for j in exact} == {"reproduced"}
    assert one.table(recorded)
    png, *_ = gallery.draw(ROOT, one.name, tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000
    assert len(runs.find(tmp_path, done=True)) == one.presets["smoke"].seeds * len(
        one.arms(one.presets["smoke"])
    )

"""Rates, steps and flows against closed forms, and two judges on made-up arrays."""

from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
DESCENT = load(ROOT / "experiments" / "descent.py")
IMPLICIT = load(ROOT / "experiments" / "implicit_regularization.py")
EXACT = {
    "rates": "linear rates on quadratics",
    "bounds": "bounds hold",
    "powers": "momentum takes the root of the condition number",
    "divergence": "divergence at 2 / L",
    "saddle": "saddles are left in log(1 / epsilon) steps",
    "stopping": "stops at a small gradient or at the last step",
    "optimal_step": "the optimal step on a quadratic",
}
NOISE = np.linspace(-0.001, 0.001, 4)


def descent(**changes):
    """Recorded arrays of 4 seeds in which every claim holds, changed as asked."""
    arrays = {f"theory/{name}": np.zeros(4) for name in EXACT}
    arrays |= {
        "at": np.array([0, 20]),
        "network/after": np.ones((4, 2)) + NOISE[:, None],
        "network/losses": np.full((4, 2, 5), 0.98),
        "theory/floor": np.ones((4, 5, 2)),
        "batches/variance": np.ones((4, 8)),
        "batches/theory": np.ones((4, 8)),
    }
    return arrays | {"scale": "nowhere", "at_source_scale": False} | changes


def implicit(orders=(1.0, 2.0), identity=0.0, correlation=-0.6, large=0.5):
    ones = np.ones((4, 3))
    return {
        "flow/slopes": np.array(orders) + NOISE[:, None],
        "flow/identity": np.full(4, identity),
        "flow/momentum": np.zeros(4),
        "flow/large/loss": ones * [1, 0.5, 0.1],
        "flow/small/loss": ones * [1, 0.6, 0.2],
        "flow/large/square": ones * [1, large, 0.1 * large] * np.exp(NOISE)[:, None],
        "flow/small/square": ones * [1, 1, 0.4],
        "signs/correlation": correlation + NOISE,
        "scale": "nowhere",
        "at_source_scale": False,
    }


def verdicts(module, arrays):
    return {j.claim.name: j.verdict for j in collect(module).judgements(arrays)}


@pytest.mark.parametrize(("module", "arrays"), [(DESCENT, descent()), (IMPLICIT, implicit())])
def test_what_is_as_claimed_reproduces_every_claim(module, arrays):
    found = verdicts(module, arrays)
    assert found.keys() == {claim.name for claim in collect(module).claims}
    assert set(found.values()) == {"reproduced"}


@pytest.mark.parametrize(("name", "claim"), EXACT.items())
def test_one_seed_refutes_an_exact_statement(name, claim):
    deviation = np.array([0, 0, 0.2, 0])
    found = verdicts(DESCENT, descent(**{f"theory/{name}": deviation}))
    assert {name for name, verdict in found.items() if verdict != "reproduced"} == {claim}


@pytest.mark.parametrize(
    ("module", "arrays", "claim"),
    [
        (DESCENT, descent(**{"theory/floor": np.full((4, 5, 2), 1.1)}), "SGD has a floor"),
        (DESCENT, descent(**{"batches/theory": np.full((4, 8), 0.9)}), "variance falls as 1 / b"),
        (
            DESCENT,
            descent(**{"network/losses": np.full((4, 2, 5), 0.5)}),
            "the optimal step of a network",
        ),
        (IMPLICIT, implicit((1.2, 2.0)), "descent follows the flow to first order"),
        (IMPLICIT, implicit((1.0, 1.0)), "and a modified flow to second order"),
        (IMPLICIT, implicit(identity=1e-5), "what is penalized is alpha"),
        (IMPLICIT, implicit(correlation=0.1), "momentum damps coordinates that alternate"),
        (IMPLICIT, implicit(large=4.0), "large steps end where gradients are small"),
    ],
)
def test_a_claim_that_numbers_contradict_is_not_reproduced(module, arrays, claim):
    found = verdicts(module, arrays)
    assert {name for name, verdict in found.items() if verdict == "not reproduced"} == {claim}


def test_descent_on_a_quadratic_is_a_power_of_its_matrix():
    values, x = np.array([1.0, 3.0]), np.array([2.0, -1.0])
    path = DESCENT.descend(lambda x: values * x, x, 0.3, 5)
    np.testing.assert_allclose(path[-1], (1 - 0.3 * values) ** 5 * x)
    path = DESCENT.descend(lambda x: values * x, x, 0.3, 2, momentum=0.5)
    first = (1 - 0.3 * values) * x
    np.testing.assert_allclose(path[-1], (1 - 0.3 * values) * first + 0.5 * (first - x))


def test_exact_parts_are_exact_at_another_size_than_recorded():
    rng = np.random.default_rng(5)
    parts = DESCENT.rates(rng, 7, 300) | DESCENT.bounds(rng, 7, 50) | DESCENT.divergence(300)
    parts |= DESCENT.saddle() | DESCENT.line_search(rng, 4) | DESCENT.momentum()
    assert max(parts[name] for name in EXACT if name in parts and name != "powers") < 1e-6
    assert parts["powers"] < 0.1


def test_momentum_has_its_factors():
    assert IMPLICIT.momentum() < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("module", [DESCENT, IMPLICIT], ids=["descent", "implicit"])
def test_the_smoke_preset_runs_judges_and_draws(module, tmp_path):
    experiment = collect(module)
    arrays = perform(experiment, experiment.presets["smoke"], tmp_path)
    exact = {j.claim.name: j for j in experiment.judgements(arrays) if j.claim.tolerance}
    assert {j.verdict for j in exact.values() if j.claim.tolerance < 1e-3} == {"reproduced"}
    assert experiment.table(arrays)
    png, *_ = gallery.draw(ROOT, experiment.name, tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000

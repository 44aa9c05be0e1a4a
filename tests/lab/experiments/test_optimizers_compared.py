"""Paths of optimizers on a problem that is solved by hand; the judge on made-up arrays."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery
from coherence.lab.settings import average, clipped, sgd, warm_up

ROOT = Path(__file__).resolve().parents[3]
compared = load(ROOT / "experiments" / "optimizers_compared.py")
EXPERIMENT = collect(compared)
JITTER = 1 + 0.002 * np.arange(5)


def test_gradient_descents_path_is_that_of_the_quadratic():
    """Two examples along an axis each: each weight's error shrinks by 1 - rate x^2 / 2."""
    x, y = jnp.array([[2.0, 0.0], [0.0, 1.0]]), jnp.array([2.0, 3.0])
    problem = compared.Problem(compared._squared, jnp.zeros(2), (x, y), 20, 0)
    path = compared.followed(problem, average(), sgd(0.4))
    shrunk = (1 - 0.4 * np.array([2.0, 0.5])) ** np.arange(21)[:, None]
    expected = np.sum(np.array([2.0, 3.0]) ** 2 * shrunk**2, 1) / 4
    np.testing.assert_allclose(path.losses, expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(path.snapshots[:, 1], 3 - 3 * shrunk[::10, 1], rtol=1e-5)


def test_a_rate_is_found_within_its_schedule_and_left_out_of_the_program():
    optimizer = warm_up(clipped(sgd(0.3), 2.0), steps=7)
    assert compared._rate(optimizer) == pytest.approx(0.3)
    assert compared._form(optimizer) == warm_up(clipped(sgd(0.0), 2.0), steps=7)


def test_the_quadratic_can_be_fitted_and_has_its_condition_number():
    problem = compared.least_squares(3, 10)
    x = np.asarray(problem.examples[0], np.float64)
    curvatures = np.linalg.eigvalsh(x.T @ x / len(x))
    np.testing.assert_allclose(curvatures[[0, -1]], [0.01, 1], rtol=1e-3)


def made(
    *,
    momentum=50,
    second=20,
    adaptive=100,
    floor=0.1,
    plain=10.0,
    slow=8.0,
    adam=8.0,
    natural=0.6,
    kronecker=0.6,
    coherent=10.0,
):
    """Recorded arrays of 5 seeds, as if measured: curves that fall to their level at a step."""
    names, steps = compared.NAMES, np.arange(101)

    def falling(step, every, first, level):
        curve = first * (level / first) ** (steps * every / step)
        return np.multiply.outer(JITTER, np.ones(101)) ** 0.1 * curve

    speeds = {
        "quadratic": {"momentum": momentum, "Nesterov": momentum},
        "regression": dict.fromkeys(("L-BFGS", "natural gradient", "K-FAC"), second),
        "network": dict.fromkeys(("AdaGrad", "RMSProp", "Adam"), adaptive),
    }
    recorded = {"every": 10, "examples": 150, "scale": "nowhere", "at_source_scale": False}
    for place, every, level in (
        ("quadratic", 6, 9e-4),
        ("regression", 4, 0.5),
        ("network", 10, 0.2),
    ):
        recorded[f"{place}/loss"] = np.stack(
            [falling(speeds[place].get(name, 200), every, 1.0, level) for name in names], 1
        )
        recorded[f"{place}/seconds"] = np.ones((5, len(names)))
    memory = {"natural gradient": natural, "K-FAC": kronecker}
    for name in names:
        corrupt = memory.get(name, 0.3)
        m_coherence = coherent if name == "gradient descent" else 5.0
        rows = [[2.0, 0.1, 0.1, 0.1, m_coherence], [1.0, 1.0, corrupt, 0.7, m_coherence]]
        values = np.repeat(np.array(rows)[None], 5, 0)
        values[..., 2:] *= JITTER[:, None, None]
        recorded[f"{name}/measured"] = values
        recorded[f"{name}/sharpness"] = np.multiply.outer(
            JITTER, [adam, 1] if name == "Adam" else [4, 1]
        )
    recorded["rate=0.1/sharpness"] = np.multiply.outer(JITTER, [slow, 1])
    recorded["rate=0.5/sharpness"] = np.multiply.outer(np.ones(5), [4.0, 1])
    recorded["too large"] = np.multiply.outer(JITTER, [plain, 1.0])
    for name in compared.SCHEDULED:
        end = 0.2 if name == "constant" else 0.2 - floor
        recorded[f"schedule/{name}"] = np.multiply.outer(JITTER, [1.0, end])
    return recorded


def verdicts(recorded):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(recorded)}


def test_numbers_as_claimed_reproduce_every_claim():
    judged = verdicts(made())
    assert set(judged) == {claim.name for claim in EXPERIMENT.claims}
    assert set(judged.values()) == {"reproduced"}
    assert "K-FAC" in EXPERIMENT.table(made())


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"momentum": 150}, {"momentum is faster on a quadratic"}),
        ({"second": 150}, {"curvature saves steps"}),
        ({"adaptive": 300}, {"adaptive rates save steps"}),
        ({"floor": -0.1}, {"schedules lower the floor"}),
        ({"plain": 1.2}, {"clipping keeps large steps from diverging"}),
        ({"slow": 2.0}, {"larger steps end flatter"}),
        ({"adam": 2.0}, {"Adam ends sharper"}),
        ({"natural": 0.1}, {"natural gradient undoes coherence's preference"}),
        ({"kronecker": 0.1}, {"so does K-FAC"}),
        ({"coherent": 3.0}, {"natural gradient uses up coherence"}),
    ],
)
def test_a_claim_that_the_numbers_contradict_is_not_reproduced(change, failing):
    judged = verdicts(made(**change))
    assert {name for name, verdict in judged.items() if verdict != "reproduced"} == failing
    assert {judged[name] for name in failing} == {"not reproduced"}


@pytest.mark.slow
def test_the_smoke_preset_descends_and_draws(tmp_path):
    recorded = perform(EXPERIMENT, EXPERIMENT.presets["smoke"], tmp_path)
    assert set(verdicts(recorded)) == {claim.name for claim in EXPERIMENT.claims}
    png, *_ = gallery.draw(ROOT, "optimizers_compared", tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000

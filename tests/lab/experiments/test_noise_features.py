"""Random inputs and the coherence of weights in use, on cases with known answers.

The judge on curves whose verdict is known.
"""

from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
noise_features = load(ROOT / "experiments" / "noise_features.py")
EXPERIMENT = collect(noise_features)
FEATURES = np.array([0, 64, 256])
STEP = np.array([0, 1, 3, 10, 30, 100, 300])
LOSS = np.array([2.3, 2.2, 1.9, 1.2, 0.8, 0.3, 0.1])


def verdicts(recorded):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(recorded)}


def learned(
    *,
    accuracy=(0.95, 0.8, 0.6),
    coherence=(8.0, 4.0, 2.0),
    restored=0.9,
    clean=0.95,
    whole=3.0,
    in_use=6.0,
    late=None,
):
    """Recorded arrays of 5 seeds, as if measured.

    `restored`, `whole`, `in_use`: accuracy and both coherences under L1.
    """
    jitter = 1 + 0.002 * np.arange(5)[:, None]
    recorded = {
        "features": FEATURES,
        "levels": np.array(noise_features.LEVELS),
        "m": 300,
        "l1": 0.003,
    }
    values = {f"features={k}": (a, c, c) for k, a, c in zip(FEATURES, accuracy, coherence)}
    values |= {"features=0,l1": (clean, 8.0, 8.0), "features=256,l1": (restored, whole, in_use)}
    for arm, (a, c, used) in values.items():
        falling = np.where(STEP > 30, late or 1, 1) * c * jitter
        recorded |= {
            f"{arm}/step": STEP,
            f"{arm}/train_loss": np.tile(LOSS, (5, 1)),
            f"{arm}/test_accuracy": a * jitter * np.ones(len(STEP)),
            f"{arm}/m_coherence": falling,
            f"{arm}/m_coherence_in_use": used * jitter * np.ones(len(STEP)),
            f"{arm}/pixels_in_use": np.ones((5, len(STEP))),
            f"{arm}/noise_in_use": np.ones((5, len(STEP))),
            f"{arm}/parameters": 1000,
        }
    return recorded | {"scale": "nowhere", "at_source_scale": False}


def test_numbers_as_claimed_reproduce_every_claim():
    assert set(verdicts(learned()).values()) == {"reproduced"}


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"accuracy": (0.95, 0.96, 0.6)}, {"useless features lower test accuracy"}),
        (
            {"coherence": (8.0, 1.0, 2.0)},
            {"useless features lower coherence at 1", "useless features lower coherence at 0.2"},
        ),
        (
            {"restored": 0.5},
            {
                "L1 restores test accuracy",
                "L1 restores half of it or more",
                "L1 does so because of the useless features",
            },
        ),
        ({"restored": 0.7}, {"L1 restores half of it or more"}),
        (
            {"accuracy": (0.55, 0.54, 0.53), "restored": 0.6, "clean": 0.95},
            {"L1 does so because of the useless features"},
        ),
        ({"whole": 1.5}, {"L1 restores coherence"}),
        ({"in_use": 1.5}, {"L1 restores coherence of the weights in use"}),
    ],
)
def test_a_claim_that_the_numbers_contradict_is_not_reproduced(change, failing):
    found = verdicts(learned(**change))
    assert {name for name, verdict in found.items() if verdict != "reproduced"} == failing
    assert {found[name] for name in failing} == {"not reproduced"}


def test_a_loss_that_is_never_reached_decides_nothing():
    recorded = learned()
    recorded["features=256/train_loss"] = np.maximum(recorded["features=256/train_loss"], 0.5)
    found = verdicts(recorded)
    assert {name for name, verdict in found.items() if verdict == "reproduced"} == {
        "useless features lower coherence at 1"
    }


def test_random_features_follow_the_pixels_have_their_variance_and_change_with_the_seed():
    plain, noisy, again, other = (
        noise_features.NoisyDigits(k, 400, seed=s).build()
        for k, s in ((0, 0), (50, 1), (50, 1), (50, 2))
    )
    assert noisy.x_train.shape == (400, 64 + 50)
    assert noisy.x_test.shape == (360, 64 + 50)
    assert np.array_equal(noisy.x_train[:, :64], plain.x_train)
    assert noisy.x_train[:, 64:].var() == pytest.approx(plain.x_train.var(0).mean(), rel=0.05)
    assert np.array_equal(noisy.x_test, again.x_test)
    assert (noisy.x_train[:, 64:] != other.x_train[:, 64:]).all()
    held = noise_features.NoisyDigits(0, 400, held_out=True).build()
    assert not (held.x_test[:, None] == held.x_train[None]).all(-1).any()
    assert not (held.x_test[:, None] == plain.x_test[None]).all(-1).any()


def test_coherence_of_the_weights_in_use_is_that_of_gradients_without_the_others():
    import jax.numpy as jnp

    from coherence import m_coherence

    rng = np.random.default_rng(0)
    gradients = {
        "w": rng.normal(1, 1, (6, 3, 2)).astype(np.float32),
        "b": rng.normal(1, 1, (6, 2)).astype(np.float32),
    }
    params = {"w": jnp.array([[0.0, 1.0], [0.0, 0.0], [2.0, 0.0]]), "b": jnp.array([0.0, -1.0])}
    found = noise_features.coherences(params, {name: jnp.array(g) for name, g in gradients.items()})
    used = np.stack([gradients["w"][:, 0, 1], gradients["w"][:, 2, 0], gradients["b"][:, 1]], 1)
    assert found["m_coherence"] == pytest.approx(float(m_coherence(gradients)), rel=1e-5)
    assert found["m_coherence_in_use"] == pytest.approx(
        (used.sum(0) ** 2).sum() / (used**2).sum(), rel=1e-5
    )


def test_the_smoke_preset_trains_with_and_without_l1_and_draws(tmp_path):
    recorded = perform(EXPERIMENT, EXPERIMENT.presets["smoke"], tmp_path)
    names = {
        claim.name for claim in EXPERIMENT.claims if "useless features lower" not in claim.name
    }
    assert {j.claim.name for j in EXPERIMENT.judgements(recorded)} == names
    assert "weights in use" in EXPERIMENT.table(recorded)
    none, l1 = (recorded[f"features=32{end}/noise_in_use"] for end in ("", ",l1"))
    assert (none == 1).all()
    assert (l1[:, -1] < 1).all()
    whole, in_use = (
        recorded[f"features=32/{name}"][:, 1:] for name in ("m_coherence", "m_coherence_in_use")
    )  # biases start at 0
    assert in_use == pytest.approx(whole, rel=1e-3)
    png, *_ = gallery.draw(ROOT, "noise_features", tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000

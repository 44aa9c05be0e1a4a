"""What back-propagation predicts against gradients, and the judge on made-up arrays."""

from pathlib import Path

import jax
import numpy as np
import pytest

from coherence import per_example_value_and_grad
from coherence.gradients import squared_norms
from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery
from coherence.lab.settings import MLP
from coherence.lab.tasks import cross_entropy

ROOT = Path(__file__).resolve().parents[3]
FILE = load(ROOT / "experiments" / "activations.py")
EXPERIMENT = collect(FILE)
DEPTH = 10


def recorded(lost=0.6, predicted=0.6, coherence=0.0, deep=0.1, repaired=0.9):
    """Recorded arrays of 4 seeds; decades that sigmoids lose a layer and so on, as given."""
    noise = np.linspace(-0.01, 0.01, 4)[:, None]
    arrays = {
        "activations": np.array(FILE.SMOOTH),
        "depths": np.array([2, DEPTH]),
        "residual": np.array(["sigmoid"]),
        "function_error": np.zeros(4),
        "sigmoid-10-residual/accuracy": repaired + noise,
    }
    layers = np.arange(DEPTH)
    for name in FILE.SMOOTH:
        slope = lost if name == "sigmoid" else 0.0
        product = predicted if name == "sigmoid" else 0.0
        arrays |= {
            f"{name}-10/layer_sizes": 10 ** ((slope + noise) * layers),
            f"{name}-10/predicted": (product - noise) * layers,
            f"{name}-10/layer_coherence": 4 * 2 ** (noise - coherence * layers / (DEPTH - 1)),
            f"{name}-10/accuracy": (deep if name == "sigmoid" else 0.9) + noise,
        }
    return arrays | {"scale": "nowhere", "at_source_scale": False}


def verdicts(arrays):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(arrays)}


def test_what_is_as_claimed_reproduces_every_claim():
    found = verdicts(recorded())
    assert found.keys() == {claim.name for claim in EXPERIMENT.claims}
    assert set(found.values()) == {"reproduced"}


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"lost": 0.3, "predicted": 0.3}, {"sigmoid vanishes"}),
        ({"predicted": 0.3}, {"as the product of derivatives says"}),
        ({"coherence": 1.0}, {"coherence does not vanish with the norm"}),
        ({"coherence": -1.0}, {"coherence does not vanish with the norm"}),
        ({"deep": 0.5}, {"deep sigmoids do not learn"}),
        ({"repaired": 0.5}, {"residual connections repair sigmoids"}),
    ],
)
def test_a_claim_that_numbers_contradict_is_not_reproduced(change, failing):
    found = verdicts(recorded(**change))
    assert {name for name, verdict in found.items() if verdict == "not reproduced"} == failing


def test_the_prediction_is_the_gradients_size_where_derivatives_are_constant():
    """Of a wide network of ReLU with weights that keep lengths, up to one constant."""
    setting = MLP(256, 4, initializer="he")
    model, x = setting.build(10), np.random.default_rng(0).normal(size=(200, 64))
    batch = np.float32(x), np.arange(200) % 10

    @jax.jit
    def both(key):
        params = model.init(key, batch[0][:1])
        _, gradients = per_example_value_and_grad(cross_entropy(model))(params, batch)
        layers = gradients["params"]
        squares = [squared_norms({"w": layers[f"hidden_{i}"]["kernel"]}) for i in range(4)]
        return squares, FILE.predicted(setting, params["params"], batch[0])

    squares, said = both(jax.random.key(0))
    sizes = np.log10([np.mean(each) ** 0.5 for each in squares])
    np.testing.assert_allclose(said - said[-1], sizes - sizes[-1], atol=0.1)


@pytest.mark.slow
def test_the_smoke_preset_runs_judges_and_draws(tmp_path):
    arrays = perform(EXPERIMENT, EXPERIMENT.presets["smoke"], tmp_path)
    judgements = {j.claim.name: j for j in EXPERIMENT.judgements(arrays)}
    assert judgements["derivatives"].verdict == "reproduced"
    assert EXPERIMENT.table(arrays)
    png, *_ = gallery.draw(ROOT, "activations", tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000

"""The atlas of generative models: its images, its judge on made-up numbers, its samples."""

from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
atlas = load(ROOT / "experiments" / "generative_atlas.py")
EXPERIMENT = collect(atlas)
SEEDS, STEPS = 5, np.array([0, 20, 100, 600, 2000])
JITTER = 1 + 1e-3 * np.arange(SEEDS)


def verdicts(recorded):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(recorded)}


def learned(*, real=8.0, shuffled=2.0, discriminator=8.0, novelty=None, best=1.0):
    """As if measured: the last model draws best; novelty grows with coherence unless given."""
    recorded = {"models": np.array(atlas.MODELS), "m": 200, "passes_a_step": 0.05}
    curve = lambda value: np.outer(JITTER * value, np.ones(len(STEPS)))
    for i, model in enumerate(atlas.MODELS):
        for kind, level in (("real", real), ("shuffled", shuffled)):
            quality = np.full((len(atlas.MEASURES), SEEDS), 0.5)
            place = atlas.MEASURES.index
            own = (0.8 if kind == "real" else 0.5) + 0.01 * i if novelty is None else novelty(i)
            own = best if (model, kind) == (atlas.MODELS[-1], "real") else own
            quality[place("novelty")] = own * JITTER
            quality[place("frechet")] = 20 - i
            value = level * (1 + 0.01 * i)
            parts = {"coherence": curve(value)}
            if model == "GAN":
                other = discriminator if kind == "real" else shuffled
                parts = {"generator": curve(value), "discriminator": curve(other)}
            recorded |= {f"{model}, {kind}/{name}": values for name, values in parts.items()}
            recorded |= {f"{model}, {kind}/step": STEPS, f"{model}, {kind}/quality": quality}
    recorded["real_quality"] = np.ones((len(atlas.MEASURES), SEEDS))
    return recorded | {"scale": "nowhere", "at_source_scale": False}


def test_numbers_as_claimed_reproduce_every_claim():
    judged = verdicts(learned())
    assert judged.keys() == {claim.name for claim in EXPERIMENT.claims}
    assert set(judged.values()) == {"reproduced"}


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"discriminator": 1.5}, "real images agree more than shuffled ones"),
        ({"novelty": lambda i: 2 - 0.1 * i}, "models memorize where coherence is low"),
        ({"best": 0.8}, "the best samples are no copies"),
    ],
)
def test_a_claim_that_the_numbers_contradict_is_not_reproduced(change, failing):
    judged = verdicts(learned(**change))
    assert {name for name, verdict in judged.items() if verdict != "reproduced"} == {failing}


def test_shuffled_images_keep_their_white_pixels_and_nothing_else():
    real, shuffled = (atlas.BlackAndWhite(50, kind, seed=3).build() for kind in (False, True))
    for part in ("x_train", "x_test"):
        a, b = getattr(real, part), getattr(shuffled, part)
        assert set(np.unique(a)) == {0, 1}
        np.testing.assert_array_equal(a.sum(1), b.sum(1))
        assert a.mean(0).std() > 3 * b.mean(0).std()
    np.testing.assert_array_equal(real.y_train, shuffled.y_train)
    other = atlas.BlackAndWhite(50, seed=4)
    assert not np.array_equal(other.build().x_train, real.x_train)
    _, train, left = other.parts()
    assert not set(train) & set(left)


def test_naive_bayes_learns_shares_of_white_pixels_by_full_steps():
    """At the minimum of its loss the chances are those of counting."""
    import jax

    data = atlas.BlackAndWhite(200).build()
    params = {"label": np.zeros(10, np.float32), "pixel": np.zeros((10, 64), np.float32)}
    losses = jax.vmap(atlas._joint_loss(), (None, 0))
    mean = lambda params: losses(params, (data.x_train, data.y_train)).mean()
    step = lambda _, params: jax.tree.map(lambda p, g: p - 10 * g, params, jax.grad(mean)(params))
    params = jax.jit(lambda params: jax.lax.fori_loop(0, 2000, step, params))(params)
    counted = np.array([data.x_train[data.y_train == k].mean(0) for k in range(10)])
    chances = 1 / (1 + np.exp(-params["pixel"]))
    assert np.abs(chances - counted).max() < 0.02


@pytest.mark.slow
def test_the_smoke_preset_draws_and_is_judged(tmp_path):
    recorded = perform(EXPERIMENT, EXPERIMENT.presets["smoke"], tmp_path)
    assert [j.claim.name for j in EXPERIMENT.judgements(recorded)] == [
        claim.name for claim in EXPERIMENT.claims
    ]
    assert "novelty" in EXPERIMENT.table(recorded)
    assert gallery.draw(ROOT, "generative_atlas", tmp_path / "recorded.npz", tmp_path)

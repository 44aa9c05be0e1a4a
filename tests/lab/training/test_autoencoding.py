"""Autoencoders as settings: they learn, deterministically; garbage is recorded apart."""

import contextlib
import dataclasses
import json

import jax
import numpy as np
import pytest

from coherence.lab.experiment import plain
from coherence.lab.runs import Run
from coherence.lab.settings import (
    AE,
    VAE,
    ConditionalVAE,
    ConvVAE,
    Probing,
    adam,
    circles,
    digits,
    sgd,
    winsorize,
)
from coherence.lab.training import Autoencoding, train
from coherence.lab.training.step import initial_state, make_step
from coherence.probes import Every

SMALL = {"width": 8, "depth": 1, "latents": 2}
IMAGE = {"shape": (8, 8, 1)}
CIRCLES = Autoencoding(
    data=circles(40, 10),
    model=VAE(**SMALL),
    optimizer=adam(3e-3),
    batch_size=8,
    steps=40,
    points_per_decade=1,
    probes=(),
    track_batches=False,
)
DIGITS = dataclasses.replace(CIRCLES, data=digits(), model=VAE(**SMALL, **IMAGE))


def learn(folder, settings, seeds=(0,), measure=True):
    with contextlib.ExitStack() as stack:
        runs = [
            stack.enter_context(Run.open(folder / f"seed={seed}", plain(settings), seed=seed))
            for seed in seeds
        ]
        schedule = settings.schedule() if measure else ()
        train(
            [settings.build(seed) for seed in seeds],
            runs,
            steps=settings.steps,
            batch_size=settings.batch_size,
            schedule=schedule,
        )
    return [Run.read(folder / f"seed={seed}") for seed in seeds]


def changed(settings, **kwargs):
    return dataclasses.replace(settings, **kwargs)


HALF = changed(CIRCLES, factor=0.5)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    return learn(tmp_path_factory.mktemp("learned"), HALF, (0, 1))


def test_it_learns_and_the_loss_is_factor_times_reconstruction_plus_kl(learned):
    first, *_, last = learned[0].records()
    assert last["train_loss"] < 0.8 * first["train_loss"]
    assert last["test_reconstruction"] < 0.8 * first["test_reconstruction"]
    for record in (first, last):
        for part in ("train", "test"):
            assert record[f"{part}_loss"] == pytest.approx(
                0.5 * record[f"{part}_reconstruction"] + record[f"{part}_kl"], rel=1e-5
            )
    assert not any(name.startswith(("pristine", "corrupt")) for name in last)
    assert HALF.describe() == "circles (40 examples, drawn by seed), VAE 784-8-2"


def test_the_same_seed_ends_at_the_same_bits_and_another_elsewhere(learned, tmp_path):
    (one, other), (again,) = learned, learn(tmp_path, HALF)
    for x, y, z in zip(*(run.load("params").values() for run in (one, again, other)), strict=True):
        np.testing.assert_array_equal(x, y)
        assert not np.array_equal(x, z)
    assert one.records() == again.records()


def test_garbage_is_recorded_apart_and_probes_use_the_keys_that_all_is_measured_with(tmp_path):
    probes = (
        Probing(m=40, quantities="light", when=Every(5)),
        Probing("test", 10, "light", "none", when=Every(5)),
    )
    settings = changed(CIRCLES, garbage=0.25, steps=5, probes=probes)
    (run,) = learn(tmp_path, settings)
    kept, (first, *_, last) = run.load("drawn"), run.records()
    share = kept["corrupt"].mean()
    assert share == 0.25
    assert first["corrupt_reconstruction"] == pytest.approx(
        784 / 3, rel=0.3
    )  # of uniform noise from nothing
    assert first["pristine_reconstruction"] == pytest.approx(
        738, rel=0.2
    )  # of a circle's white background
    for term in ("reconstruction", "kl", "loss"):
        mixed = share * last[f"corrupt_{term}"] + (1 - share) * last[f"pristine_{term}"]
        assert last[f"train_{term}"] == pytest.approx(mixed, rel=1e-4)
    for record in (first, last):
        assert record["train/loss"] == pytest.approx(record["train_loss"], rel=1e-4)
        assert record["test/loss"] == pytest.approx(record["test_loss"], rel=1e-4)
        assert 0 < record["train/m_coherence"] <= 40.01
    shown = run.load("examples-train")
    assert shown["group_names"].tolist() == ["pristine", "corrupt"]
    np.testing.assert_array_equal(
        shown["group"], kept["corrupt"][kept["sample-train"]][shown["index"]]
    )
    alone = changed(settings, probes=(Probing("corrupt", 5), Probing("pristine", 5))).build(0)
    assert [
        alone.drawn["corrupt"][alone.drawn[f"sample-{probe.name}"]].all() for probe in alone.probes
    ] == [True, False]


def test_garbage_is_noise_in_place_of_images_and_a_larger_share_keeps_that_of_a_smaller_one():
    clean, little, much = (
        changed(DIGITS, garbage=share).build(3).data for share in (0.0, 0.1, 0.3)
    )
    assert little["corrupt"].sum() == 144
    assert (much["corrupt"] >= little["corrupt"]).all()
    (x,), (a,), (b,) = clean["train"], little["train"], much["train"]
    np.testing.assert_array_equal(a[~little["corrupt"]], x[~little["corrupt"]])
    np.testing.assert_array_equal(a[little["corrupt"]], b[little["corrupt"]])
    assert a[little["corrupt"]].mean() == pytest.approx(0.5, abs=0.02)
    np.testing.assert_array_equal(clean["test"][0], much["test"][0])
    assert x is changed(DIGITS).build(4).data["train"][0]  # held once for all seeds


def test_shuffled_garbage_has_the_grey_levels_of_its_image_in_an_order_of_its_own():
    shuffled = changed(DIGITS, garbage_kind="shuffled")
    clean, little, much = (
        changed(shuffled, garbage=share).build(3).data for share in (0.0, 0.1, 0.3)
    )
    (x,), (a,), (b,), corrupt = clean["train"], little["train"], much["train"], little["corrupt"]
    np.testing.assert_array_equal(a[~corrupt], x[~corrupt])
    np.testing.assert_array_equal(a[corrupt], b[corrupt])
    ordered = lambda images: np.sort(images.reshape(len(images), -1), 1)
    np.testing.assert_array_equal(ordered(a[corrupt]), ordered(x[corrupt]))
    pixels = a[corrupt].reshape(corrupt.sum(), -1)
    assert pixels.mean(0).std() < 0.1 < x.mean(0).std()  # no place is brighter than another


@pytest.mark.parametrize("kind", ["noise", "shuffled"])
def test_fresh_garbage_is_the_test_images_made_garbage_and_what_training_did_not_see(
    kind, tmp_path
):
    settings = changed(DIGITS, garbage=0.1, garbage_kind=kind, steps=1)
    data = settings.build(3).data
    assert data["fresh"][0].shape == data["test"][0].shape
    same_levels = np.allclose(
        np.sort(data["fresh"][0].reshape(360, -1), 1), np.sort(data["test"][0].reshape(360, -1), 1)
    )
    assert same_levels == (kind == "shuffled")
    (run,) = learn(tmp_path, settings)
    first, *_ = run.records()
    assert first["fresh_reconstruction"] == pytest.approx(
        first["corrupt_reconstruction"], rel=0.1
    )  # nothing learned yet
    assert first["fresh_reconstruction"] != first["test_reconstruction"]


def test_robust_aggregators_get_per_example_gradients_of_the_same_noise(tmp_path):
    plain = changed(CIRCLES, optimizer=sgd(1e-4), steps=10)
    robust = changed(plain, aggregator=winsorize(0))  # nothing pulled in: the mean
    assert [one.build(0).per_example for one in (plain, robust)] == [False, True]
    (mean,), (none,) = (
        learn(tmp_path / "a", plain, measure=False),
        learn(tmp_path / "b", robust, measure=False),
    )
    for x, y in zip(mean.load("params").values(), none.load("params").values(), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-6)


def test_a_network_that_is_told_labels_gets_them(tmp_path):
    model = ConditionalVAE(**SMALL, **IMAGE, sigmoid=True)
    settings = changed(
        DIGITS, model=model, error="cross_entropy", pixels="mean", steps=3, track_batches=True
    )
    (run,) = learn(tmp_path, settings, measure=False)
    images, labels = settings.build(0).data["train"]
    assert images.shape == (1437, 8, 8, 1)
    np.testing.assert_array_equal(labels, digits().build().y_train)
    assert all(np.isfinite(values).all() for values in run.load("batches").values())


def test_convolutions_are_trained_by_the_same_settings():
    problem = changed(
        CIRCLES, model=ConvVAE(width=2, latents=2), garbage=0.5, track_batches=True
    ).build(0)
    state, indices = initial_state(problem), np.arange(8)
    trained, _ = jax.eval_shape(make_step(problem.recipe), state, problem.data["train"], indices)
    assert jax.tree.map(np.shape, trained) == jax.tree.map(np.shape, state)
    assert len(jax.eval_shape(problem.measure, problem.params, problem.data)) == 5 * 3


def test_an_autoencoder_draws_nothing_and_its_loss_is_its_error(tmp_path):
    settings = changed(CIRCLES, model=AE(**SMALL), factor=2.0, pixels="mean")
    assert settings.build(0).noise is None
    (run,) = learn(tmp_path, settings)
    first, *_, last = run.records()
    assert set(last) == {
        "step",
        "train_reconstruction",
        "train_loss",
        "test_reconstruction",
        "test_loss",
    }
    assert last["train_loss"] == pytest.approx(2 * last["train_reconstruction"], rel=1e-6)
    assert last["train_loss"] < 0.8 * first["train_loss"]


def test_settings_are_plain_values():
    values = json.loads(json.dumps(plain(changed(CIRCLES, probes=(Probing(),)))))
    assert values["kind"] == "Autoencoding"
    assert values["model"]["kind"] == "VAE"
    assert values["optimizer"] == {"kind": "adam", "learning_rate": 3e-3, "b1": 0.9, "b2": 0.999}
    assert hash(CIRCLES) == hash(changed(CIRCLES))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"garbage": 1.5},
            r"Autoencoding\(garbage\): the share of images replaced by garbage is in \[0, 1\], got "
            r"1.5",
        ),
        ({"garbage_kind": "salt"}, r"Autoencoding\(garbage_kind\): noise or shuffled, got 'salt'"),
        (
            {"factor": -1.0},
            r"Autoencoding\(factor\): reconstruction counts at least 0 times, got -1.0",
        ),
        (
            {"model": ConditionalVAE(**SMALL)},
            r"ConditionalVAE\(classes=10\) is told one of so many labels; circles has 0",
        ),
        (
            {"model": VAE(**SMALL, **IMAGE)},
            r"circles's images have 784 pixels and the model's 64: its shape \(8, 8, 1\) has",
        ),
        (
            {"probes": (Probing(m=10, groups="class"),)},
            r"Probing\(groups='class'\): circles has targets, not classes",
        ),
        (
            {"probes": (Probing(m=500),)},
            r"Probing\(m\): of all 40 training examples at most, got 500",
        ),
        (
            {"probes": (Probing(m=5), Probing(m=6))},
            "probes need names of their own, got train, train",
        ),
        ({"error": "cross_entropy"}, "error='cross_entropy' reads outputs as logits"),
    ],
)
def test_what_cannot_be_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        changed(CIRCLES, **kwargs).build(0)

"""Diffusion as settings: it learns, is resumed to the same bits, and its finished runs draw."""

import contextlib
import dataclasses

import jax
import numpy as np
import pytest

from coherence.lab.experiment import plain
from coherence.lab.runs import Run
from coherence.lab.settings import DenoisingMLP, Probing, UNet, adam, digits, linear_schedule
from coherence.lab.tasks import sampler
from coherence.lab.training import Diffusion, train
from coherence.lab.training.checkpoints import from_arrays
from coherence.lab.training.trained import samplers
from coherence.probes import Every

DIGITS = Diffusion(
    data=digits(200),
    model=DenoisingMLP(32, 1, (8, 8, 1), classes=10, embedding=8),
    noise_schedule=linear_schedule(20, 0.01, 0.5),
    optimizer=adam(3e-3),
    batch_size=20,
    steps=60,
    points_per_decade=1,
    probes=(Probing(m=20, quantities="light", groups="class", when=Every(30)),),
)


def learn(folder, settings, seeds=(0,), **kwargs):
    with contextlib.ExitStack() as stack:
        runs = [
            stack.enter_context(Run.open(folder / f"seed={seed}", plain(settings), seed=seed))
            for seed in seeds
        ]
        train(
            [settings.build(seed) for seed in seeds],
            runs,
            steps=settings.steps,
            batch_size=settings.batch_size,
            schedule=settings.schedule(),
            **kwargs,
        )
    return [Run.read(folder / f"seed={seed}") for seed in seeds]


def changed(**kwargs):
    return dataclasses.replace(DIGITS, **kwargs)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    return learn(tmp_path_factory.mktemp("learned"), DIGITS, (0, 1))


def test_it_learns_to_predict_noise(learned):
    first, *_, last = learned[0].records()
    assert 1 < first["train_loss"] < 1.6  # nothing is known of the noise, whose variance is 1
    assert last["train_loss"] < 0.75 * first["train_loss"]
    assert last["test_loss"] < 0.75 * first["test_loss"]
    assert last["train/loss"] < 0.75 * first["train/loss"]
    assert DIGITS.describe() == (
        "digits (200 of 1,437 examples, drawn by seed), "
        "noise predictor 64-32-64, told one of 10 classes"
    )


def test_killed_and_resumed_it_ends_at_the_same_bits(learned, tmp_path):
    class Killed(Exception):
        pass

    calls = []

    def kill(n):
        calls.append(n)
        if len(calls) == 2:
            raise Killed

    with pytest.raises(Killed):
        learn(tmp_path, DIGITS, checkpoint_seconds=0, progress=kill)
    (again,) = learn(tmp_path, DIGITS)
    whole, other = learned
    for x, y, z in zip(
        *(run.load("params").values() for run in (whole, again, other)), strict=True
    ):
        np.testing.assert_array_equal(x, y)
        assert not np.array_equal(x, z)
    assert whole.records() == again.records()


def test_examples_are_scaled_by_one_number_and_drawn_ones_are_in_the_units_of_the_data(learned):
    x, _ = DIGITS.build(0).data["train"]
    assert x.mean() == pytest.approx(0, abs=1e-5)
    assert x.std() == pytest.approx(1, abs=1e-5)
    of = lambda **options: next(samplers(DIGITS, learned[:1], steps=10, **options))
    draw, labels = of(), np.repeat(np.arange(10), 8)
    images = draw(labels, 3)
    assert images.shape == (80, 8, 8, 1)
    kept = learned[0].load("drawn")
    noise = np.random.default_rng(3).normal(size=(80, 8, 8, 1)).astype(np.float32)
    sample = sampler(DIGITS.model.build(), DIGITS.noise_schedule.build(), steps=10)
    params = from_arrays(DIGITS.build(0).params, learned[0].load("params"))
    standard = sample(params, noise, labels)
    np.testing.assert_allclose(images, kept["centre"] + kept["scale"] * standard, rtol=1e-4)
    np.testing.assert_array_equal(images, draw(labels, 3))
    assert not np.allclose(images, draw(labels, 4))
    assert not np.allclose(images, of(guidance=2.0)(labels, 3))
    assert draw(5, 3).shape == (5, 8, 8, 1)  # of any class


def test_garbage_is_recorded_apart_and_scaled_as_images_are():
    garbled = changed(garbage=0.5, garbage_kind="shuffled")
    clean, half = DIGITS.build(0), garbled.build(0)
    corrupt = half.data["corrupt"]
    assert corrupt.mean() == 0.5
    ordered = lambda x: np.sort(x.reshape(len(x), -1), 1)
    (a, _), (b, _) = clean.data["train"], half.data["train"]
    np.testing.assert_array_equal(ordered(a), ordered(b))
    assert (a == b).reshape(200, -1).all(1).tolist() == (~corrupt).tolist()
    measured = jax.eval_shape(half.measure, half.params, half.data)
    parts = ("train", "pristine", "corrupt", "test", "fresh")
    assert set(measured) == {f"{part}_loss" for part in parts}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: changed(label_dropout=-1), r"Diffusion\(label_dropout\): .* got -1"),
        (lambda: changed(garbage=2), r"Diffusion\(garbage\): .* got 2"),
        (
            lambda: changed(model=UNet(classes=3)).describe(),
            r"UNet\(classes=3\) is told one of so many labels; digits has 10",
        ),
        (
            lambda: changed(model=UNet(shape=(4, 4, 1))).describe(),
            r"digits's images have 64 pixels and the model's 16: its shape \(4, 4, 1\)",
        ),
        (
            lambda: next(samplers(changed(label_dropout=0.0), [], guidance=1.0)),
            r"samplers\(guidance\): .* always told: train with label_dropout=0\.1",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()

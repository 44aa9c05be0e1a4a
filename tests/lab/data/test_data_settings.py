"""Data settings are plain values that load what they name."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from coherence.lab import data
from coherence.lab.data import MNIST, Digits, LabelNoise, Learnable, Memorizable, Npz, SMSSpam


@pytest.mark.parametrize(
    "settings",
    [
        Digits(),
        MNIST(),
        MNIST(100),
        Npz("mine.npz"),
        SMSSpam(500, counts=True),
        Learnable(),
        Memorizable(),
        LabelNoise(0.5, "redraw"),
    ],
)
def test_settings_survive_json_and_compare(settings):
    assert type(settings)(**json.loads(json.dumps(dataclasses.asdict(settings)))) == settings


@pytest.mark.parametrize(
    ("settings", "name"),
    [(Digits(), "digits"), (Learnable(), "learnable"), (Memorizable(), "memorizable")],
)
def test_building_loads_the_data_named(settings, name):
    assert settings.build().name == name


def test_label_noise_touches_training_labels_only():
    digits = data.digits()
    noisy, corrupt = LabelNoise(0.5).apply(digits, seed=3)
    np.testing.assert_array_equal(corrupt, noisy.y_train != digits.y_train)
    assert corrupt.mean() == pytest.approx(0.45, abs=0.03)
    assert noisy.x_train is digits.x_train
    assert noisy.y_test is digits.y_test


def test_targets_cannot_be_made_noisy():
    with pytest.raises(ValueError, match="LabelNoise: learnable has targets, not classes"):
        LabelNoise(0.5).apply(data.learnable(), seed=0)


def test_noise_in_percent_is_refused_before_anything_is_loaded():
    with pytest.raises(
        ValueError, match=r"LabelNoise\(fraction\): the fraction .* is in \[0, 1\], got 50"
    ):
        LabelNoise(50)


def test_loading_data_never_imports_jax():
    program = "import sys; from coherence import data; data.Digits().build(); data.learnable(); data.MNIST(); print('jax' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout
        == "False\n"
    )

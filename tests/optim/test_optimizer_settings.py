"""Settings are plain values; what they build is the optimizer of the same name."""

import dataclasses
import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from coherence.optim import (
    SGD,
    AdaGrad,
    Adam,
    Aggregator,
    Average,
    CoherenceMask,
    CoordinateMask,
    GeometricMedian,
    L1Decay,
    L2Decay,
    Median,
    MedianOfMeans,
    NormClip,
    RMSProp,
    RollingMean,
    RollingMedian,
    SignAgreement,
    SignOfSum,
    SoftThreshold,
    SumOfSigns,
    TopK,
    TrimmedMean,
    Winsorize,
    settings,
)

G = jnp.array([[0.0], [1.0], [2.0], [3.0], [100.0]])
AGGREGATORS = [
    (Average(), 21.2),
    (Winsorize(25), 2.0),
    (Winsorize(), 21.2),
    (TrimmedMean(25), 2.0),
    (Median(), 2.0),
    (MedianOfMeans(), 2.5),
    (MedianOfMeans(5, seed=3), 2.0),
    (MedianOfMeans(3, consecutive=True), 0.0),
    (RollingMedian(), 0.0),
    (RollingMedian(1), 21.2),
    (RollingMean(1), 21.2),
    (GeometricMedian(100), 2.0),
    (NormClip(2.0), 1.4),
    (SumOfSigns(), 4.0),
    (SignOfSum(), 1.0),
    (SignAgreement(0.8), 21.2),
    (SignAgreement(0.9), 0.0),
    (CoherenceMask(1.1), 21.2),
    (CoherenceMask(1.2, by="leaf"), 0.0),
    (CoordinateMask(1.1), 21.2),
    (TopK(), 21.2),
    (TopK(by_coherence=True), 21.2),
]


@pytest.mark.parametrize(("setting", "expected"), AGGREGATORS, ids=repr)
def test_aggregators_are_built(setting, expected):
    tx, params = setting.build(), jnp.ones(1)
    assert isinstance(tx, Aggregator)
    np.testing.assert_allclose(tx.update(G, tx.init(params), params)[0], [expected], rtol=1e-4)


def test_every_aggregator_with_settings_is_tried_here():
    aggregators = {
        cls for name in settings.__all__ if hasattr(cls := getattr(settings, name), "per_example")
    }
    assert {type(setting) for setting, _ in AGGREGATORS} == aggregators


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (SGD(0.5), -0.5),
        (SGD(0.5, momentum=0.9), -0.5),
        (Adam(0.5), -0.5),  # its first step has the learning rate's length
        (AdaGrad(0.5), -0.5 / 1.1**0.5),  # optax begins with a sum of squares of 0.1
        (RMSProp(0.5, decay=0.75), -1.0),
        (L1Decay(0.25), 1.25),
        (L2Decay(0.25), 1.5),
        (SoftThreshold(0.25), 0.75),
    ],
)
def test_the_rest_of_a_chain_is_built(setting, expected):
    tx, params = setting.build(), jnp.full(1, 2.0)
    np.testing.assert_allclose(
        tx.update(jnp.ones(1), tx.init(params), params)[0], [expected], rtol=1e-5
    )


@pytest.mark.parametrize("setting", [setting for setting, _ in AGGREGATORS], ids=repr)
def test_who_needs_no_per_example_gradients_says_so(setting):
    tx, params = setting.build(), jnp.ones(1)
    state = tx.init(params)
    if setting.per_example:
        with pytest.raises(ValueError, match="needs per-example gradients, got a batch gradient"):
            tx.update(params, state, params)
    else:
        assert tx.update(params, state, params)[0].shape == (1,)


def test_settings_are_values():
    assert Winsorize(2) == Winsorize(2.0) != Winsorize(4)
    assert json.dumps(dataclasses.asdict(SGD(0.1))) == '{"learning_rate": 0.1, "momentum": 0.0}'
    assert dataclasses.asdict(Average()) == {}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: Winsorize(60),
            r"Winsorize: c is in percent of the examples, in \[0, 50\], got 60\.",
        ),
        (
            lambda: TrimmedMean(-1),
            r"TrimmedMean: c is in percent of the examples, in \[0, 50\], got -1\.",
        ),
        (lambda: MedianOfMeans(0), r"MedianOfMeans: groups is at least 1, got 0\."),
        (
            lambda: MedianOfMeans(3, seed=1, consecutive=True),
            r"MedianOfMeans: consecutive batches have no order to draw, got seed=1\. Leave one of the two out\.",
        ),
        (lambda: RollingMedian(0), r"RollingMedian: window is at least 1, got 0\."),
        (lambda: RollingMean(-1), r"RollingMean: window is at least 1, got -1\."),
        (
            lambda: GeometricMedian(smoothing=0),
            r"GeometricMedian: iterations is at least 1 and smoothing in \(0, 1\], got iterations=32, smoothing=0\.",
        ),
        (lambda: NormClip(0), r"NormClip: max_norm is a length, above 0, got 0\."),
        (
            lambda: SignAgreement(2),
            r"SignAgreement: threshold is a share of the examples, in \[0, 1\], got 2\.",
        ),
        (
            lambda: CoherenceMask(-1),
            r"CoherenceMask: threshold is an m-coherence, at least 0, got -1\.",
        ),
        (lambda: CoherenceMask(by="all"), r"CoherenceMask: by is layer or leaf, got all\."),
        (
            lambda: CoordinateMask(-1),
            r"CoordinateMask: threshold is an m-coherence, at least 0, got -1\.",
        ),
        (lambda: TopK(0), r"TopK: share is of the coordinates, in \(0, 1\], got 0\."),
        (lambda: Adam(-1), r"Adam: learning_rate is at least 0, got -1\."),
        (lambda: Adam(b2=1), r"Adam: b1 and b2 are in \[0, 1\), got b1=0\.9, b2=1\."),
        (lambda: RMSProp(decay=-1), r"RMSProp: decay is in \[0, 1\), got -1\."),
        (
            lambda: SGD(-1),
            r"SGD: learning_rate is at least 0 and momentum in \[0, 1\), got learning_rate=-1, momentum=0\.0\.",
        ),
    ],
)
def test_bad_settings_are_refused_before_anything_runs(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_settings_do_not_import_jax():
    code = "import sys; from coherence.optim import settings as s; s.Winsorize(), s.TopK()"
    code += "; sys.exit('jax' in sys.modules or 'optax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

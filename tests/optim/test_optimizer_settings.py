"""Settings are plain values; what they build is the optimizer of the same name."""

import dataclasses
import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from coherence.optim import SGD, Aggregator, Average, L1Decay, L2Decay, Median, SoftThreshold, Winsorize

G = jnp.array([[0.0], [1.0], [2.0], [3.0], [100.0]])


@pytest.mark.parametrize(("setting", "expected"), [(Average(), 21.2), (Winsorize(25), 2.0), (Winsorize(), 21.2), (Median(), 2.0)])
def test_aggregators_are_built(setting, expected):
    tx = setting.build()
    assert isinstance(tx, Aggregator)
    np.testing.assert_allclose(tx.update(G, tx.init(None))[0], [expected], rtol=1e-6)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [(SGD(0.5), -0.5), (SGD(0.5, momentum=0.9), -0.5), (L1Decay(0.25), 1.25), (L2Decay(0.25), 1.5), (SoftThreshold(0.25), 0.75)],
)
def test_the_rest_of_a_chain_is_built(setting, expected):
    tx, params = setting.build(), jnp.full(1, 2.0)
    np.testing.assert_allclose(tx.update(jnp.ones(1), tx.init(params), params)[0], [expected])


def test_only_the_average_is_content_with_a_batch_gradient():
    assert [s.per_example for s in (Average(), Winsorize(), Median())] == [False, True, True]


def test_settings_are_values():
    assert Winsorize(2) == Winsorize(2.0) != Winsorize(4)
    assert json.dumps(dataclasses.asdict(SGD(0.1))) == '{"learning_rate": 0.1, "momentum": 0.0}'
    assert dataclasses.asdict(Average()) == {}


def test_bad_settings_are_refused_before_anything_runs():
    with pytest.raises(ValueError, match=r"Winsorize: c is in percent of the examples, in \[0, 50\], got 60\."):
        Winsorize(60)
    with pytest.raises(
        ValueError, match=r"SGD: learning_rate is at least 0 and momentum in \[0, 1\), got learning_rate=-1, momentum=0\.0\."
    ):
        SGD(-1)


def test_settings_do_not_import_jax():
    code = "import sys; from coherence.optim import Winsorize, SGD; Winsorize(); sys.exit('jax' in sys.modules or 'optax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Every function that can be chosen is a setting of its own name, and builds what the function
makes.
"""

import importlib
import inspect
import json
import pickle
import subprocess
import sys
import typing

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.base import clone

import coherence as co
from coherence.lab import settings
from coherence.lab.data import Dataset
from coherence.lab.models import AdversarialNetwork, Autoencoder, Network
from coherence.lab.settings import check, parse, plain, rooms
from coherence.optim import Aggregator
from coherence.optim.stopping import Rule

G = jnp.array([[0.0], [1.0], [2.0], [3.0], [100.0]])
AGGREGATORS = {
    "average()": 21.2,
    "winsorize(c=25.0)": 2.0,
    "winsorize(c=2.0)": 21.2,
    "trimmed_mean(c=25.0)": 2.0,
    "median()": 2.0,
    "median_of_means(groups=3, consecutive=False)": 2.5,
    "median_of_means(groups=5, seed=3, consecutive=False)": 2.0,
    "median_of_means(groups=3, consecutive=True)": 0.0,
    "rolling_median(window=3)": 0.0,
    "rolling_median(window=1)": 21.2,
    "rolling_mean(window=1)": 21.2,
    "geometric_median(iterations=100, smoothing=0.001)": 2.0,
    "clipped_mean(max_norm=2.0, scaling='clip', seed=0)": 1.4,
    "clipped_mean(max_norm=3.0, per='layer', scaling='normalize', seed=0)": 2.4,
    "krum(share=0.2, chosen=1)": 1.0,
    "medoid_of_means(groups=5)": 2.0,
    "agreement_filter(max_distance=1.0, groups=2)": 26.25,
    "slow_gradients(decay=0.98, factor=1.0)": 42.4,
    "conflict_free(sweeps=50)": 21.2,
    "scale_by_per_example_rms(b1=0.9, b2=0.999, eps=1e-08)": 21.2 / 2002.8**0.5,
    "with_statistics(aggregator=average(), decay=0.95, by='layer')": 21.2,
    "natural_gradient(damping=50.0)": 21.2 / (2002.8 + 50),
    "kfac(damping=50.0)": 21.2 / (2002.8 + 50),
    "compressed(compressor=scaled_sign(), workers=4, feedback=True)": 21.2,
    "sum_of_signs()": 4.0,
    "sign_of_sum()": 1.0,
    "sign_agreement(threshold=0.8)": 21.2,
    "sign_agreement(threshold=0.9)": 0.0,
    "coherence_mask(threshold=1.1, by='layer')": 21.2,
    "coherence_mask(threshold=1.2, by='leaf')": 0.0,
    "coordinate_mask(threshold=1.1)": 21.2,
    "top_k(share=0.1, by_coherence=False)": 21.2,
    "top_k(share=0.1, by_coherence=True)": 21.2,
}
BEHIND = {
    "sgd(0.5)": -0.5,
    "sgd(0.5, momentum=0.9)": -0.5,
    "adam(0.5)": -0.5,  # its first step has the learning rate's length
    "adagrad(0.5)": -0.5 / 1.1**0.5,  # optax begins with a sum of squares of 0.1
    "rmsprop(0.5, decay=0.75)": -1.0,
    "nesterov(0.5)": -0.95,
    "adamw(0.5, weight_decay=0.1)": -0.6,
    "lbfgs(0.5)": -0.5,
    "clipped(sgd(0.5), longest=0.2)": -0.1,
    "step_rate(sgd(0.5))": -0.5,
    "exponential_rate(adam(0.5))": -0.5,
    "cosine_rate(sgd(0.5))": -0.5,
    "warm_up(sgd(0.5), steps=5)": -0.1,
    "l1_decay(0.25)": 1.25,
    "l2_decay(0.25)": 1.5,
    "soft_threshold(0.25)": 0.75,
}


WRAPPERS = ("clipped", "step_rate", "exponential_rate", "cosine_rate", "warm_up")


@pytest.mark.parametrize("text", AGGREGATORS)
def test_an_aggregator_is_built_from_its_text(text):
    setting = parse(text, settings.Aggregators)
    assert repr(setting) == text
    tx, params = setting.build(), jnp.ones(1)
    assert isinstance(tx, Aggregator)
    update, _ = tx.update(G, tx.init(params), params)
    np.testing.assert_allclose(update, [AGGREGATORS[text]], rtol=1e-4)


@pytest.mark.parametrize("text", AGGREGATORS)
def test_the_function_of_that_name_and_its_setting_are_one_thing(text):
    setting = parse(text, settings.Aggregators)
    assert setting.target() is getattr(co.optim, type(setting).__name__)
    built = eval(text, {name: getattr(co.optim, name) for name in co.optim.__all__})
    assert parse(repr(built), settings.Aggregators) == setting


@pytest.mark.parametrize("text", BEHIND)
def test_what_stands_behind_an_aggregator_is_built(text):
    tx, params = parse(text, settings.Optimizers | settings.Decays).build(), jnp.full(1, 2.0)
    update, _ = tx.update(jnp.ones(1), tx.init(params), params)
    np.testing.assert_allclose(update, [BEHIND[text]], rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("step_rate(sgd(1.0), every=2, factor=0.5)", [1, 1, 0.5, 0.5, 0.25]),
        ("exponential_rate(sgd(1.0), every=2, factor=0.25)", [1, 0.5, 0.25, 0.125, 0.0625]),
        ("cosine_rate(sgd(1.0), steps=2, last=0.1)", [1, 0.55, 0.1, 0.1, 0.1]),
        ("warm_up(sgd(1.0), steps=4)", [0.25, 0.5, 0.75, 1, 1]),
        ("warm_up(cosine_rate(sgd(1.0), steps=2), steps=2)", [0.5, 0.5, 0, 0, 0]),
    ],
)
def test_a_schedule_scales_each_step(text, shares):
    tx = parse(text, settings.Optimizers).build()
    state, steps = tx.init(jnp.ones(1)), []
    for _ in shares:
        update, state = tx.update(jnp.ones(1), state, jnp.ones(1))
        steps.append(-update[0])
    np.testing.assert_allclose(steps, shares, atol=1e-6)


def test_every_optimizer_is_tried_here():
    tried = {text.partition("(")[0] for text in (*AGGREGATORS, *BEHIND)}
    assert tried == {
        name for room in ("Aggregators", "Optimizers", "Decays") for name in rooms.members(room)
    }


COMBINE = {
    "chain",
    "aggregator",
    "averaged",
    "add_mean_variance_to_opt",
}  # take transformations or functions: not plain values
MADE = {
    "Aggregators": Aggregator,
    "StoppingRules": Rule,
    "Optimizers": optax.GradientTransformation,
    "Datasets": Dataset,
    "Networks": Network,
    "AdversarialNetworks": AdversarialNetwork,
    "Autoencoders": Autoencoder,
}


@pytest.mark.parametrize("room", MADE)
def test_all_that_a_stub_lists_and_makes_the_kind_is_in_its_union(room):
    """By importing what the settings only read: a line in the stub is all it takes."""
    made, module = MADE[room], importlib.import_module(rooms.ROOMS[room].module)
    expected = set()
    for name in {name for name in dir(module) if name[0] != "_"} - COMBINE:
        thing = getattr(module, name)
        if isinstance(thing, type):
            networks = (Network, Autoencoder, AdversarialNetwork)
            if made in networks and issubclass(thing, made) and thing is not made:
                expected.add(name)
        elif not inspect.isfunction(inspect.unwrap(thing)):
            continue
        elif typing.get_type_hints(thing).get("return") is made:
            expected.add(name)
    assert set(rooms.members(room)) == expected
    assert len(expected) > (0 if made is AdversarialNetwork else 2)


@pytest.mark.parametrize("name", rooms.everything())
def test_a_setting_can_be_copied_pickled_and_cloned(name):
    cls = rooms.everything()[name]
    required = {"path": "mine.npz", "rate": 0.1, "threshold": 0.5, "watch": "test_loss"}
    fields = {key: required[key] for key in required if key in cls.__signature__.parameters}
    wrapped = {
        "any_of": settings.patience(3),
        "compressed": settings.rounded(),
        "with_statistics": settings.average(),
    }
    wrapped |= dict.fromkeys(WRAPPERS, settings.sgd())
    args = (wrapped[name],) if name in wrapped else ()
    setting = cls(*args, **fields)
    assert parse(repr(setting), cls) == setting
    assert pickle.loads(pickle.dumps(setting)) == setting
    assert clone(setting, safe=False) == setting
    assert hash(clone(setting, safe=False)) == hash(setting)
    assert json.loads(json.dumps(plain(setting)))["kind"] == name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("winsorize(60)", r"winsorize\(c\): c is in percent of the examples, in \[0, 50\], got 60"),
        ("trimmed_mean(-1)", r"trimmed_mean\(c\)"),
        ("median_of_means(0)", r"median_of_means\(groups\)"),
        ("median_of_means(3, seed=1, consecutive=True)", "consecutive batches have no order"),
        ("rolling_median(0)", r"rolling_median\(window\)"),
        ("geometric_median(smoothing=0)", "geometric_median"),
        ("clipped_mean(0)", r"clipped_mean\(max_norm\)"),
        ("natural_gradient(0)", r"natural_gradient\(damping\)"),
        ("kfac(-1)", r"kfac\(damping\)"),
        ("sign_agreement(2)", r"sign_agreement\(threshold\)"),
        ("coherence_mask(-1)", r"coherence_mask\(threshold\)"),
        ("coordinate_mask(-1)", r"coordinate_mask\(threshold\)"),
        ("top_k(0)", r"top_k\(share\)"),
        ("sgd(-1)", r"sgd\(learning_rate\): at least 0, got -1\.0"),
        ("sgd(momentum=1)", r"sgd\(momentum\): in \[0, 1\), got 1\.0"),
        ("adam(-1)", r"adam\(learning_rate\)"),
        ("adam(b1=-1)", r"adam\(b1\)"),
        ("adam(b2=1)", r"adam\(b2\): in \[0, 1\), got 1\.0"),
        ("adagrad(-1)", r"adagrad\(learning_rate\)"),
        ("nesterov(momentum=1)", r"nesterov\(momentum\)"),
        ("adamw(b1=1)", r"adamw\(b1\)"),
        ("lbfgs(memory=0)", r"lbfgs\(memory\): at least 1, got 0"),
        ("clipped(sgd(), longest=0)", r"clipped\(longest\)"),
        ("step_rate(sgd(), every=0)", r"step_rate\(every\)"),
        ("exponential_rate(sgd(), factor=2)", r"what is left of a rate is a share, .* got 2"),
        ("cosine_rate(sgd(), last=-1)", "cosine_rate: what is left of a rate"),
        ("warm_up(sgd(), steps=0)", r"warm_up\(steps\)"),
        ("rmsprop(-1)", r"rmsprop\(learning_rate\)"),
        ("rmsprop(decay=-1)", r"rmsprop\(decay\)"),
        ("l1_decay(-1)", r"l1_decay\(rate\)"),
        ("patience(0)", r"patience\(checks\)"),
        ("MLP(0)", "MLP: width is at least 1"),
        ("ConvVAE(shape=(9, 9, 1))", "multiples of 4"),
        ("label_noise(50)", r"label_noise\(fraction\)"),
        ("circles(0)", r"circles\(examples, tests\)"),
    ],
)
def test_a_value_is_refused_by_its_function_and_the_field_is_named(text, said):
    class_with_it = settings.setting(lambda choice=None: None)
    held = class_with_it(parse(text, settings.Setting))
    with pytest.raises(ValueError, match=rf"^choice={type(held.choice).__name__}\(.*{said}"):
        check(held)


def test_settings_do_not_import_jax():
    code = """
import sys
from coherence.lab import settings
from coherence.lab.settings import rooms
everything = rooms.everything()
settings.winsorize(c=2), settings.VAE(), settings.mnist(examples=7), settings.sgd(0.1)
assert not {"jax", "flax", "optax", "numpy", "sklearn"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_says_where_settings_come_from():
    with pytest.raises(AttributeError, match="no setting 'Winsorize': .* stub of coherence.optim"):
        _ = settings.Winsorize

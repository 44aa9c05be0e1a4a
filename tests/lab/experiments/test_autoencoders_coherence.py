"""Who is coherent in an autoencoder.

The judge on arrays whose verdicts are known, the sums on gradients whose coherence is known.
"""

from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load, perform
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[3]
findings = load(ROOT / "experiments" / "autoencoders_coherence.py")
EXPERIMENT = collect(findings)
UNEXPLAINED = np.array([10.0, 3.0, 1.1, 0.7, 0.5])
SEEDS = 1 + 0.02 * np.arange(5)[:, None]
LAYERS = ["decoder/output", "encoder/log_var", "encoder/mu"]
NETWORKS = findings.NETWORKS


def verdicts(recorded):
    return {j.claim.name: j.verdict for j in EXPERIMENT.judgements(recorded)}


def measured(values):
    """[seed, step] with a little spread over seeds."""
    return SEEDS ** np.array([1, -1, 1, -1, 1]) * np.broadcast_to(values, 5)


def network(
    *,
    decoder=(64, 16, 8, 4, 3),
    encoder=(8, 4, 2, 1.5, 1),
    kl=(100, 60, 20, 9, 5),
    log_var=20.0,
    mu=5.0,
    cosine=-0.6,
    whole=2.0,
    conv=6.0,
):
    """The arrays of one network, as if measured at five steps.

    The third and fourth of which are at the levels of the claims.
    """
    parts = np.full((3, 5, 5, 5), np.nan)
    for (term, part), values in {
        (0, 0): encoder,
        (0, 1): decoder,
        (1, 0): kl,
        (2, 2): whole,
        (2, 3): conv,
        (2, 4): 3.0,
    }.items():
        parts[term, :, :, part] = measured(values)
    by_layer = np.full((2, 5, 5, 3), np.nan)
    by_layer[1, :, :, 1], by_layer[1, :, :, 2] = measured(log_var), measured(mu)
    return {
        "step": np.array([0, 1, 10, 100, 1000]),
        "unexplained": np.tile(UNEXPLAINED, (5, 1)),
        "layers": np.array(LAYERS),
        "by_layer": by_layer,
        "by_part": parts,
        "cosine": measured(cosine),
    }


def recorded(*, networks=NETWORKS, **changes):
    """Of all networks as the claims have it, those in `changes` otherwise."""
    usual = {arm: {"encoder": (8, 4, 2, 2.5, 1)} if arm.endswith("-ae") else {} for arm in networks}
    usual = {
        arm: options | ({"whole": 6.0} if arm == "circles-conv_vae" else {})
        for arm, options in usual.items()
    }
    arrays = {"arms": np.array(networks), "m": 256, "scale": "nowhere", "at_source_scale": False}
    for arm in networks:
        made = network(**usual[arm] | changes.get(arm.replace("-", "_"), {}))
        arrays |= {f"{arm}/{name}": values for name, values in made.items()}
    return arrays


def test_coherence_as_derived_reproduces_every_claim():
    assert verdicts(recorded()) == {claim.name: "reproduced" for claim in EXPERIMENT.claims}


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({"digits_ae": {"decoder": (64, 16, 1.5, 4, 3)}}, {"decoder above encoder early"}),
        ({"circles_conv_vae": {"decoder": (64, 16, 8, 1, 3)}}, {"decoder above encoder later"}),
        ({"circles_ae": {"decoder": (20, 16, 8, 4, 3)}}, {"what all images share comes first"}),
        ({"digits_vae": {"kl": (6, 6, 4, 3, 2)}}, {"KL above reconstruction at first"}),
        ({"circles_vae": {"kl": (20, 60, 100, 100, 100)}}, {"KL falls apart as the code spreads"}),
        ({"digits_vae": {"log_var": 4.0}}, {"KL agrees on variances"}),
        ({"circles_vae": {"cosine": 0.5}}, {"the terms oppose each other"}),
        ({"digits_ae": {"encoder": (8, 4, 2, 1.0, 1)}}, {"noise in the code costs coherence"}),
        ({"circles_conv_vae": {"whole": 1.0}}, {"convolutional network above dense"}),
        ({"circles_conv_vae": {"whole": 6.0, "conv": 2.0}}, {"convolutions above dense layers"}),
    ],
)
def test_one_network_that_contradicts_a_claim_is_enough(changes, failing):
    found = verdicts(recorded(**changes))
    assert {name for name, verdict in found.items() if verdict == "not reproduced"} == failing


def test_nothing_is_said_of_a_level_that_a_run_never_reached():
    arrays = recorded()
    arrays["digits-vae/unexplained"] = arrays["digits-vae/unexplained"] + np.where(
        UNEXPLAINED < 1, 0.5, 0
    )
    found = {j.claim.name: j for j in EXPERIMENT.judgements(arrays)}
    assert (
        found["decoder above encoder later"].reason
        == "a run never got to an unexplained variance of 0.7: 1.00"
    )
    reproduced = {name for name, j in found.items() if j.verdict == "reproduced"}
    early = {
        "decoder above encoder early",
        "what all images share comes first",
        "KL above reconstruction at first",
    }
    assert reproduced == early | {
        "convolutional network above dense",
        "convolutions above dense layers",
    }  # of other networks


def test_claims_about_networks_that_were_not_run_are_left_out():
    names = verdicts(recorded(networks=("circles-ae",)))
    assert set(names) == {
        "decoder above encoder early",
        "decoder above encoder later",
        "what all images share comes first",
    }
    assert "convolutional network above dense" not in verdicts(
        recorded(networks=("circles-vae", "digits-ae"))
    )


def test_a_level_is_read_between_measurements_and_none_is_the_start():
    arrays = recorded()
    arrays["circles-vae/unexplained"][:] = [10, 3, 1.2, 1.0, 0.5]
    values = np.tile([5.0, 4.0, 3.0, 2.0, 1.0], (5, 1))
    assert findings.at(arrays, "circles-vae", values, 1.1) == pytest.approx(np.full(5, 2.5))
    assert findings.at(arrays, "circles-vae", values) == pytest.approx(np.full(5, 5.0))
    assert np.isnan(findings.at(arrays, "circles-vae", values, 0.1)).all()


def test_a_part_is_as_coherent_as_the_sums_of_its_layers():
    rng = np.random.default_rng(0)
    names = ["encoder/conv_0", "encoder/mu", "decoder/input", "decoder/conv_0"]
    gradients = {name: rng.normal(1, 1, (12, size)) for name, size in zip(names, (3, 5, 2, 4))}
    pair = lambda g: [np.square(g.mean(0)).sum(), np.square(g).sum(1).mean()]
    sums = np.array([pair(g) for g in gradients.values()])
    joined = lambda *members: np.concatenate([gradients[name] for name in members], 1)
    expected = [
        joined(*names[:2]),
        joined(*names[2:]),
        joined(*names),
        joined(names[0], names[3]),
        joined(*names[1:3]),
    ]
    assert findings._by_part(sums, names) == pytest.approx(np.array([pair(g) for g in expected]))
    found = findings._coherence(findings._by_part(sums, names), 12)
    assert found == pytest.approx([12 * np.divide(*pair(g)) for g in expected])


def test_dense_networks_have_no_convolutions_and_a_gradient_of_zero_no_coherence():
    sums = np.array([[1.0, 2.0], [0.0, 0.0]])
    found = findings._coherence(findings._by_part(sums, ["encoder/mu", "decoder/output"]), 10)
    assert found == pytest.approx([5, np.nan, 5, np.nan, 5], nan_ok=True)


def test_the_cosine_comes_from_three_lengths():
    a, b = np.array([3.0, 0.0]), np.array([-1.0, 1.0])
    for factor in (1.0, 4.0):
        both = factor * a + b
        assert findings.cosine([a @ a, b @ b, both @ both], factor) == pytest.approx(-np.sqrt(0.5))


@pytest.mark.slow
def test_the_terms_are_probed_apart_and_the_loss_is_their_sum():
    import jax

    from coherence.lab.tasks import elbo_terms

    network = findings.arms(EXPERIMENT.presets["smoke"])["circles-vae"]
    problem = network.build(0)
    found = {probe.name: probe(problem.params)[f"{probe.name}/moments"] for probe in problem.probes}
    examples, terms = (
        problem.probes[0].sample.examples,
        elbo_terms(network.model.build(), factor=network.factor),
    )
    naive = jax.jacrev(
        lambda params: [term.mean() for term in jax.vmap(terms, (None, 0))(params, examples)]
    )(problem.params)
    squared = lambda tree: sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(tree))
    for name, gradient in zip(findings.TERMS, naive):
        for layer, values in found[name].items():
            part, last = layer.split("/")
            assert values[0] == pytest.approx(
                squared(gradient["params"][part][last]), rel=1e-3, abs=1e-9
            )
            assert values[2] == 16
    assert not any(
        values[1] for layer, values in found["kl"].items() if layer.startswith("decoder")
    )
    flat = [
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(one["params"]["encoder"])])
        for one in naive[:2]
    ]
    lengths = [
        sum(values[0] for layer, values in found[name].items() if layer.startswith("encoder"))
        for name in findings.TERMS
    ]
    expected = flat[0] @ flat[1] / np.sqrt((flat[0] @ flat[0]) * (flat[1] @ flat[1]))
    assert findings.cosine(lengths, network.factor) == pytest.approx(expected, abs=1e-2)


@pytest.mark.slow
def test_the_smoke_preset_measures_parts_and_draws(tmp_path):
    found = perform(EXPERIMENT, EXPERIMENT.presets["smoke"], tmp_path)
    assert "circles-vae" in EXPERIMENT.table(found)
    assert [j.verdict for j in EXPERIMENT.judgements(found)] == ["inconclusive"] * 7
    assert np.isnan(found["circles-vae/by_part"][1, ..., 1]).all()  # KL never touches the decoder
    assert (np.abs(found["circles-vae/cosine"]) <= 1.001).all()
    png, *_ = gallery.draw(ROOT, "autoencoders_coherence", tmp_path / "recorded.npz", tmp_path)
    assert png.stat().st_size > 20_000

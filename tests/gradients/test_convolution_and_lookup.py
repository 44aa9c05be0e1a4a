"""Convolutions and embeddings.

Never recomputed in whole networks, reduced without patches or tables, and robustly aggregated.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coherence as co
from coherence.gradients.terms import Convolved, Looked, convolved, term
from coherence.lab.models import ResNet
from coherence.lab.tasks import cross_entropy
from tests import reference, zoo

SHAPES = [
    zoo.convolution_of_a_small_map,
    zoo.convolution_of_a_large_map,
    zoo.grouped_convolution,
    zoo.transposed_convolution,
    zoo.siamese_convolution,
    zoo.embedding,
    zoo.indexed_by_pairs,
    zoo.tied_embedding,
]


def nodes(gradients):
    return jax.tree.leaves(
        gradients,
        is_leaf=lambda x: isinstance(
            x, co.gradients.Factored | co.gradients.Stacked | co.gradients.Recomputed
        ),
    )


@functools.cache
def truth(model):
    loss, params, batch = model()
    return reference.gradients(loss, params, batch)


def reduced(model, *reductions):
    """The nodes, and each reduction's result, all of one program; the slow truth, flat."""
    loss, params, batch = model()
    kinds = []

    @jax.jit
    def program(params, batch):
        _, gradients = co.per_example_value_and_grad(loss)(params, batch)
        kinds.extend(map(type, nodes(gradients)))
        return [reduce(gradients) for reduce in reductions]

    return kinds, program(params, batch), reference.flat(truth(model))


# that it has rules for all leaves is tested without running it in test_networks.py
@pytest.mark.slow
def test_a_residual_network_with_group_norm_is_exact():
    model = ResNet(width=4, depth=1, stages=2)
    batch = zoo.normal(0, 3, 8, 8, 3), jnp.arange(3)
    params, loss = jax.jit(model.init)(jax.random.key(0), batch[0]), cross_entropy(model)
    _, gradients = co.per_example_value_and_grad(loss)(params, batch)
    g = reference.flat(reference.gradients(loss, params, batch))
    np.testing.assert_allclose(co.gradients.squared_norms(gradients), (g**2).sum(1), rtol=1e-4)
    np.testing.assert_allclose(
        reference.flat(co.gradients.materialize(gradients)),
        g,
        rtol=1e-3,
        atol=1e-4 * np.abs(g).max(),
    )


class _Language(nn.Module):
    """A bag of words whose output layer is its embedding."""

    @nn.compact
    def __call__(self, ids):
        embed = nn.Embed(50, 8)
        return embed.attend(nn.tanh(nn.Dense(8)(embed(ids).mean(-2))))


def test_a_tied_flax_embedding_is_exact_and_never_formed():
    model, ids = _Language(), np.random.default_rng(0).integers(50, size=(4, 6))
    params, batch = jax.jit(model.init)(jax.random.key(0), ids), (ids, ids[:, 0])
    loss = cross_entropy(model)
    kinds, (norms, gram), g = reduced(
        lambda: (loss, params, batch), co.gradients.squared_norms, co.gradients.gram
    )
    assert kinds[-1] is co.gradients.Factored  # the embedding, after the dense layer's leaves
    np.testing.assert_allclose(norms, (g**2).sum(1), rtol=1e-5)
    np.testing.assert_allclose(gram, g @ g.T, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("model", SHAPES, ids=lambda model: model.__name__)
def test_how_many_examples_are_worked_on_at_a_time_changes_nothing(model, monkeypatch):
    loss, params, batch = model()
    of = co.gradients
    reductions = of.materialize, of.squared_norms, of.gram, co.mean

    @jax.jit
    def reduced(params, batch):
        results = []
        for room in (1, 40, 10**6):
            monkeypatch.setattr(term, "IN_CACHE", room)
            monkeypatch.setattr(term, "_SLAB", room)
            monkeypatch.setattr(convolved, "IN_CACHE", room)
            monkeypatch.setattr(convolved, "_FEW_POSITIONS", room)
            monkeypatch.setattr(convolved, "_MANY", room)  # positions
            _, gradients = co.per_example_value_and_grad(loss)(params, batch)
            results.append([reduce(gradients) for reduce in reductions])
        return results

    g = reference.flat(truth(model))
    for formed, norms, gram, mean in reduced(params, batch):
        formed = reference.flat(formed)
        mean = reference.flat(jax.tree.map(lambda x: x[None], mean))[0]
        np.testing.assert_allclose(mean, g.mean(0), rtol=1e-4, atol=1e-5 * np.abs(g).max())
        np.testing.assert_allclose(formed, g, rtol=1e-4, atol=1e-5 * np.abs(g).max())
        np.testing.assert_allclose(norms, (g**2).sum(1), rtol=1e-5)
        np.testing.assert_allclose(gram, g @ g.T, rtol=1e-4, atol=1e-5 * (g**2).sum(1).max())


@pytest.mark.parametrize("model", SHAPES, ids=lambda model: model.__name__)
@pytest.mark.parametrize("rows", [0, 10**9])
def test_factors_and_rows_of_a_leaf_give_the_same_numbers(model, rows, monkeypatch):
    monkeypatch.setattr("coherence.gradients.factors._LARGER", rows)
    monkeypatch.setattr("coherence.gradients.factors.pairs_are_cheaper", lambda *_: not rows)
    kinds, (norms, mean, dots), g = reduced(
        model,
        co.gradients.squared_norms,
        co.mean,
        lambda gradients: co.gradients.dot(gradients, co.mean(gradients)),
    )
    assert set(kinds) == {co.gradients.Stacked if rows else co.gradients.Factored}
    np.testing.assert_allclose(norms, (g**2).sum(1), rtol=1e-5)
    whole = lambda tree: reference.flat(jax.tree.map(lambda x: x[None], tree))[0]
    np.testing.assert_allclose(whole(mean), g.mean(0), rtol=1e-4, atol=1e-5 * np.abs(g).max())
    np.testing.assert_allclose(dots, g @ g.mean(0), rtol=1e-4, atol=1e-5 * (g**2).sum(1).max())


@pytest.mark.parametrize("model", SHAPES, ids=lambda model: model.__name__)
def test_order_statistics_of_factors_are_those_of_rows(model, monkeypatch):
    monkeypatch.setattr("coherence.gradients.factors._LARGER", 0)  # factors, wherever
    monkeypatch.setattr("coherence.optim.order_statistics.leaves._JOINED", 0)
    monkeypatch.setattr(
        "coherence.optim.order_statistics.leaves._FORMED", 200
    )  # a few columns at a time
    _, params, _ = model()
    update = lambda g: co.optim.median().update(g, co.optim.median().init(params), params)[0]
    _, (medians,), _ = reduced(model, update)
    expected = jax.tree.map(lambda rows: np.median(rows, 0), truth(model))
    for ours, plain in zip(jax.tree.leaves(medians), jax.tree.leaves(expected)):
        np.testing.assert_allclose(
            ours, plain, rtol=1e-4, atol=1e-5 * float(np.abs(plain).max()) + 1e-7
        )


def test_float64_agrees_to_twelve_digits():
    """One of each way: pairs of patches, formed patches, looked up, tied."""
    models = zoo.convolution_of_a_small_map, zoo.grouped_convolution, zoo.tied_embedding
    wide = lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x
    with jax.enable_x64(True):
        for model in models:
            loss, params, batch = model()
            params, batch = jax.tree.map(wide, (params, batch))

            @jax.jit
            def reduced(params, batch, loss=loss):
                _, gradients = co.per_example_value_and_grad(loss)(params, batch)
                return co.gradients.squared_norms(gradients), co.gradients.gram(gradients)

            norms, gram = reduced(params, batch)
            g = reference.flat(reference.gradients(loss, params, batch))
            np.testing.assert_allclose(norms, (g**2).sum(1), rtol=1e-12)
            np.testing.assert_allclose(gram, g @ g.T, rtol=1e-12, atol=1e-12 * (g**2).sum(1).max())


def test_patches_are_never_kept():
    """The inputs of a convolution are kept, not its patches, nine times as large."""
    x, k = jnp.ones((8, 32, 32, 16)), jnp.ones((3, 3, 16, 16))
    convolve = lambda k, x: jax.lax.conv_general_dilated(
        x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    loss = lambda k, x: jnp.sum(jnp.tanh(convolve(k, x[None])) ** 2)

    def norms(k, x):
        _, gradients = co.per_example_value_and_grad(loss)(k, x)
        return co.gradients.squared_norms(gradients), co.mean(gradients)

    memory = jax.jit(norms).lower(k, x).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 6 * 4 * x.size  # the patches alone would be 9 * 4 * x.size


def test_a_table_sized_array_an_example_is_never_formed():
    table, ids = jnp.ones((10_000, 16)), jnp.zeros((32, 8), int)

    def everything(table, ids):
        _, gradients = co.per_example_value_and_grad(
            lambda table, ids: jnp.sum(jnp.tanh(table[ids]) ** 2)
        )(table, ids)
        return (
            co.gradients.squared_norms(gradients),
            co.gradients.gram(gradients),
            co.alpha(gradients, by="layer"),
            co.mean(gradients),
        )

    memory = jax.jit(everything).lower(table, ids).compile().memory_analysis()
    assert (
        memory.temp_size_in_bytes + memory.output_size_in_bytes < 5 * 4 * table.size
    )  # the rows would be 32 * 4 * table.size


def test_what_no_rule_covers_is_still_exact():
    """The parameter as the image, a gather of blocks: recomputed, or formed where small."""

    def loss(p, e):
        image = jax.lax.conv_general_dilated(
            p["image"][None], e[0], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        numbers = jax.lax.GatherDimensionNumbers(
            offset_dims=(0,), collapsed_slice_dims=(), start_index_map=(0,)
        )
        return jnp.sum(image**2) + jnp.sum(
            jax.lax.gather(p["line"], e[1][None], numbers, (3,)) ** 2
        )

    params = {"image": zoo.normal(0, 4, 4, 2), "line": zoo.normal(1, 9)}
    batch = zoo.normal(2, 3, 2, 2, 2, 3), jnp.array([0, 2, 6])
    _, gradients = co.per_example_value_and_grad(loss)(params, batch)
    g = reference.flat(reference.gradients(loss, params, batch))
    np.testing.assert_allclose(co.gradients.squared_norms(gradients), (g**2).sum(1), rtol=1e-5)


@pytest.mark.parametrize("stacked", [False, True])
def test_terms_of_a_scans_steps_are_one_term(stacked):
    """Shared over time: positions are appended. Stacked over layers: groups are."""
    for model, kind in ((zoo.grouped_convolution, Convolved), (zoo.embedding, Looked)):
        loss, params, batch = model()

        @jax.jit
        def forms(params, batch, loss=loss, kind=kind):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("coherence.gradients.factors._LARGER", 0)
                _, gradients = co.per_example_value_and_grad(loss)(params, batch)
            ((term,),) = (node.terms for node in nodes(gradients))
            assert isinstance(term, kind)
            rows = term.form()
            whole = jnp.concatenate(list(rows)) if stacked else rows.sum(0)
            merged = jax.tree.map(
                lambda x: x[None], term.of_steps(stacked=stacked)
            )  # m examples as the steps of one
            axis = 1 if stacked else 2
            assert merged.dims[axis] == term.dims[0] * term.dims[axis]
            return merged.form()[0], whole

        merged, whole = forms(params, batch)
        np.testing.assert_allclose(merged, whole, rtol=1e-4, atol=1e-5)

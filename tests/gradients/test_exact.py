"""Every reduction of every odd model equals what a Python loop of `jax.grad` gives."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coherence as co
from coherence.gradients import reductions, tracked
from coherence.gradients.reductions import mean_of
from coherence.trees import leaf
from tests import reference, zoo

NODES = (co.gradients.Factored, co.gradients.Stacked, co.gradients.Recomputed)


@pytest.fixture(autouse=True)
def large(request, monkeypatch):
    """The models are small.

    Where one is to show what happens to large parameters, none counts as small.
    """
    model = request.node.callspec.params.get("model") if hasattr(request.node, "callspec") else None
    if model in zoo.SMALL_COUNT_AS_LARGE or getattr(model, "__name__", "").startswith("joined"):
        monkeypatch.setattr(tracked, "ROWS", 0)


def recomputed_leaves(gradients):
    paths = jax.tree.leaves_with_path(gradients, is_leaf=lambda x: isinstance(x, NODES))
    return {leaf(path) for path, node in paths if isinstance(node, co.gradients.Recomputed)}


def whole(tree):
    return reference.flat(jax.tree.map(lambda x: np.asarray(x)[None], tree))[0]


def agree(ours, truth, rtol=4e-5):  # of float32 sums in another order
    ours, truth = np.asarray(ours), np.asarray(truth)
    np.testing.assert_allclose(ours, truth, rtol=rtol, atol=rtol * max(1e-6, np.abs(truth).max()))


@pytest.mark.parametrize("model", [*zoo.FAST, *zoo.FALLBACK], ids=lambda model: model.__name__)
def test_every_reduction_equals_the_loop(model):
    loss, params, batch = model()
    m = jax.tree.leaves(batch)[0].shape[0]
    weights = np.linspace(-1, 2, m, dtype=np.float32)
    kinds = []

    @jax.jit
    def reduced(params, batch):
        losses, g = co.per_example_value_and_grad(loss)(params, batch)
        kinds.append(recomputed_leaves(g))
        sums = [co.gradients.weighted_sum(g, weights), co.mean(g), co.gradients.total(g)]
        powers = mean_of(g, jnp.square), mean_of(g, jnp.abs)
        return (
            losses,
            co.gradients.squared_norms(g),
            co.gradients.gram(g),
            co.gradients.dot(g, params),
            sums,
            powers,
            co.gradients.rows(g, [2, 0]),
            co.gradients.materialize(g),
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", co.gradients.RecomputedWarning)
        losses, norms, gram, dots, sums, powers, rows, formed = reduced(params, batch)
    assert kinds == [zoo.FALLBACK.get(model, set())], (
        "a leaf lost its rule, or gained one: say so in the zoo"
    )
    true_losses, truth = reference.values_and_gradients(loss, params, batch)
    g = reference.flat(truth)
    agree(losses, true_losses)
    agree(norms, (g**2).sum(1))
    agree(gram, g @ g.T)
    agree(dots, g @ whole(params))
    for ours, truth in zip(sums, (weights @ g, g.mean(0), g.sum(0))):
        agree(whole(ours), truth)
    for ours, truth in zip(powers, ((g**2).mean(0), abs(g).mean(0))):
        agree(whole(ours), truth)
    agree(reference.flat(rows), g[[2, 0]])
    agree(reference.flat(formed), g)


norms_and_mean = lambda g: (co.gradients.squared_norms(g), co.mean(g))


@pytest.mark.parametrize(
    "model", [zoo.dense, zoo.tied, zoo.convolution], ids=lambda model: model.__name__
)
def test_microbatches_change_nothing(model):
    loss, params, batch = model()

    @jax.jit
    def read(params, batch):
        transforms = (
            co.per_example_value_and_grad(loss, microbatch_size=size) for size in (1, 2, 4, 100)
        )
        return [norms_and_mean(transform(params, batch)[1]) for transform in transforms]

    g = reference.flat(reference.gradients(loss, params, batch))
    for norms, mean in read(params, batch):
        agree(norms, (g**2).sum(1))
        agree(whole(mean), g.mean(0))


@pytest.mark.parametrize(
    "model",
    [zoo.dense, zoo.sliced_weights, zoo.convolution, zoo.norm_layer],
    ids=lambda model: model.__name__,
)
def test_masked_examples_might_as_well_not_be_there(model):
    loss, params, batch = model()
    m = jax.tree.leaves(batch)[0].shape[0]
    keep = np.arange(m) != 1
    poisoned = jax.tree.map(
        lambda x: np.where(keep.reshape(-1, *[1] * (x.ndim - 1)), x, np.nan), batch
    )

    @jax.jit
    def read(params, batch, keep):
        _, g = co.per_example_value_and_grad(loss)(params, batch, keep)
        return *norms_and_mean(g), co.alpha(g)

    norms, mean, alpha = read(params, poisoned, keep)
    g = reference.flat(reference.gradients(loss, params, batch))[keep]
    agree(norms[keep], (g**2).sum(1))
    assert norms[1] == 0
    agree(whole(mean), g.mean(0))
    agree(alpha, reference.alpha(g))


def test_float64_agrees_to_twelve_digits():
    with jax.enable_x64(True):
        for model in (zoo.dense, zoo.sequence, zoo.long_sequence, zoo.tied):
            loss, params, batch = jax.tree.map(
                lambda x: x if callable(x) else jnp.asarray(x, jnp.float64), model()
            )

            @jax.jit
            def reduced(params, batch, loss=loss):
                _, gradients = co.per_example_value_and_grad(loss)(params, batch)
                return co.gradients.squared_norms(gradients), co.gradients.gram(gradients)

            norms, gram = reduced(params, batch)
            g = reference.flat(reference.gradients(loss, params, batch))
            agree(norms, (g**2).sum(1), rtol=1e-12)
            agree(gram, g @ g.T, rtol=1e-12)


def test_bfloat16_sums_are_kept_in_float32():
    loss, params, batch = zoo.dense()
    half = lambda tree: jax.tree.map(lambda x: np.asarray(x).astype(jnp.bfloat16), tree)
    value_and_grad = co.per_example_value_and_grad(loss)
    read = jax.jit(lambda params, batch: norms_and_mean(value_and_grad(params, batch)[1]))
    norms, mean = read(half(params), half(batch))
    assert norms.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(mean)} == {jnp.dtype(jnp.bfloat16)}
    g = reference.flat(reference.gradients(loss, params, batch))
    agree(norms, (g**2).sum(1), rtol=5e-2)


@pytest.mark.parametrize("half", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("kind", ["dense", "positions", "images"])
def test_many_small_gradients_in_half_precision_are_summed_in_float32(half, kind):
    """1/m times a small cotangent is nothing in float16, and the sum of many is infinite."""
    m, rng = 4000, np.random.default_rng(0)
    inputs = {"dense": (8,), "positions": (2, 8), "images": (3, 3, 2)}[kind]
    x, c = (rng.normal(size=(m, *shape)).astype("f") for shape in (inputs, (4,)))
    c = 1e-3 * (c + 1)  # agree a little
    kernel = (2, 2, 2, 4) if kind == "images" else (8, 4)

    def loss(w, e):
        x, w = e[0].astype(half), w.astype(half)
        if kind == "images":
            numbers = ("NHWC", "HWIO", "NHWC")
            y = jax.lax.conv_general_dilated(
                x[None], w, (1, 1), "VALID", dimension_numbers=numbers
            ).sum((0, 1, 2))
        else:
            y = (x.sum(0) if kind == "positions" else x) @ w
            y = y + (x @ w).sum(0) if kind == "positions" else y
        return jnp.sum(y.astype(jnp.float32) * e[1])

    @jax.jit
    def reduced(w, batch):
        _, g = co.per_example_value_and_grad(loss)(w, batch)
        mean, total = co.mean(g), co.gradients.total(g)
        return (
            co.gradients.materialize(g),
            mean,
            total,
            co.alpha(g),
            co.gradients.dot(g, 1e-4 * mean),
            mean_of(g, jnp.sign),
        )

    rows, mean, total, alpha, dots, signs = reduced(jnp.ones(kernel), (x, c))
    g = np.asarray(rows, np.float64).reshape(m, -1)
    agree(np.ravel(mean), g.mean(0), rtol=5e-3)
    agree(np.ravel(total), g.sum(0), rtol=5e-3)
    agree(np.ravel(signs), np.sign(g).mean(0), rtol=5e-3)
    truth = (g.mean(0) ** 2).sum() / (g**2).sum(1).mean()
    np.testing.assert_allclose(alpha, truth, rtol=2e-2)
    agree(dots, g @ (1e-4 * g.mean(0)), rtol=1e-2)


@pytest.mark.parametrize("model", zoo.FALLBACK, ids=lambda model: model.__name__)
def test_small_parameters_without_a_rule_are_not_recomputed(model, monkeypatch):
    monkeypatch.setattr(tracked, "ROWS", 4096)
    loss, params, batch = model()
    recomputed = []

    @jax.jit
    def gram(params, batch):
        _, g = co.per_example_value_and_grad(loss)(params, batch)
        recomputed.append(recomputed_leaves(g))
        return co.gradients.gram(g)

    ours = gram(params, batch)
    assert recomputed == [set()]
    g = reference.flat(reference.gradients(loss, params, batch))
    agree(ours, g @ g.T)


def test_leaves_can_be_left_out_and_count_as_frozen():
    loss, params, batch = zoo.siamese()
    value_and_grad = co.per_example_value_and_grad(loss, only=lambda path: leaf(path) == "w")
    read = jax.jit(lambda params, batch: norms_and_mean(value_and_grad(params, batch)[1]))
    norms, mean = read(params, batch)
    truth = reference.gradients(loss, params, batch)
    agree(norms, (reference.flat({"w": truth["w"]}) ** 2).sum(1))
    assert not mean["b"].any()


def test_aux_comes_back_with_an_example_axis():
    loss, params, batch = zoo.dense()
    with_aux = lambda p, e: (loss(p, e), {"first": e[0][0]})

    @jax.jit
    def read(params, batch):
        value, g = co.per_example_value_and_grad(with_aux, has_aux=True)(params, batch)
        bare, _ = co.per_example_value_and_grad(loss)(params, batch)
        return value, co.gradients.squared_norms(g), bare

    (losses, aux), norms, bare = read(params, batch)
    agree(aux["first"], batch[0][:, 0])
    agree(losses, bare)
    agree(norms, (reference.flat(reference.gradients(loss, params, batch)) ** 2).sum(1))


def test_aux_of_masked_examples_is_zero_and_keys_stay():
    def with_aux(w, e):
        x, key = e
        return jnp.dot(w, x), {"right": x[0] > 0, "sum": x.sum(), "key": key}

    batch = (
        np.array([[np.nan, 1.0], [2.0, 3.0], [4.0, 5.0]]),
        jax.random.split(jax.random.key(0), 3),
    )
    keep = jnp.array([False, True, True])
    (_, aux), _ = co.per_example_value_and_grad(with_aux, has_aux=True)(jnp.ones(2), batch, keep)
    assert aux["sum"].tolist() == [0, 5, 9]
    assert aux["right"].tolist() == [False, True, True]
    assert aux["key"].shape == (3,)


def test_of_nothing_but_padding_the_total_is_zero():
    """As of the last batch on one of many devices."""
    w, x = jnp.ones((3, 2)), np.full((4, 3), np.nan, np.float32)
    none, all_of_it = jnp.zeros(4, bool), co.metrics.pool({"w": np.ones((2, 3, 2), np.float32)})
    loss = lambda p, x: jnp.sum(jnp.tanh(x @ p["w"]) ** 2)

    @jax.jit
    def read(w, mask):
        _, g = co.per_example_value_and_grad(loss)({"w": w}, x, mask)
        return co.gradients.total(g)["w"], co.metrics.contributions(g, pooled=all_of_it)

    for value in read(w, none):
        assert not value.any()


def test_a_batch_of_numpys_arrays_is_read_by_traced_indices(monkeypatch):
    monkeypatch.setattr(tracked, "ROWS", 0)  # nothing is kept but the batch
    x, keep = np.random.default_rng(0).normal(size=(4, 3)), np.array([True, True, True, False])

    @jax.jit
    def read(w, index):
        loss = lambda w, x: jnp.sum(jnp.sort(w) * x)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", co.gradients.RecomputedWarning)
            _, g = co.per_example_value_and_grad(loss)(w, x, keep)
        groups = jnp.zeros(4, jnp.int32).at[index].set(1)
        return co.gradients.rows(g, index), co.metrics.pool(g, groups=groups, num_groups=2)[1].mean

    rows, mean = read(jnp.arange(3.0), jnp.array([2, 0]))
    agree(rows, x[[2, 0]])
    agree(mean, x[[2, 0]].mean(0))


@pytest.mark.parametrize("kind", ["product", "table"])
def test_a_gradient_that_cancels_over_positions_has_no_negative_square(kind):
    """Its square is a sum over pairs of positions: zero but for rounding, on either side."""
    rng = np.random.default_rng(0)
    d = rng.normal(size=(64, 4, 5))
    d = (d - d.mean(1, keepdims=True)).astype(np.float32)
    if kind == "product":
        loss, w = lambda w, e: jnp.sum(e[1] * (e[0] @ w)), jnp.zeros((6, 5))
        batch = np.repeat(rng.normal(size=(64, 1, 6)), 4, 1).astype(np.float32), d
    else:
        loss, w = lambda w, e: jnp.sum(e[1] * w[e[0]]), jnp.zeros((400, 5))
        batch = np.full((64, 4), 3), d
    _, g = co.per_example_value_and_grad(loss)(w, batch)
    assert isinstance(g, co.gradients.Factored)
    assert (co.gradients.squared_norms(g) >= 0).all()
    for tx in (co.optim.clipped_mean(1.0), co.optim.conflict_free(1)):
        assert jnp.isfinite(tx.update(g, tx.init(w), w)[0]).all(), tx


def test_a_plain_tree_of_rows_is_reduced_alike():
    loss, params, batch = zoo.dense()
    gradients = zoo.gradients(zoo.dense)
    rows = jax.tree.map(jnp.asarray, reference.gradients(loss, params, batch))
    reductions = co.gradients.squared_norms, co.gradients.gram, co.mean, co.alpha
    reduce = jax.jit(lambda g: [reduction(g) for reduction in reductions])
    for ours, plain in zip(jax.tree.leaves(reduce(gradients)), jax.tree.leaves(reduce(rows))):
        agree(ours, plain)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sums_of_a_leaf_without_a_rule_are_kept_in_float32_in_half_precision(dtype):
    """Each example's gradient is x at every coordinate: all sums are known, and exact in float32.

    Added up in the loss's dtype they stall at 256 or 2,048, or overflow.
    """
    loss = lambda w, x: x * jnp.sum(jnp.sort(w) * jnp.ones((), w.dtype))  # sorted: no rule
    w, x = jnp.ones(tracked.ROWS + 1, dtype), jnp.tile(jnp.array([5.0, 5, 3, -5], dtype), 700)
    with pytest.warns(co.gradients.RecomputedWarning):
        _, g = co.per_example_value_and_grad(loss, microbatch_size=20)(w, x)
    few = reductions.take(g, slice(0, 4))
    exact = np.asarray(x, np.float64)
    assert reductions.wide_weighted_sum(g, jnp.ones(len(x)))[0] == exact.sum()
    assert co.gradients.mean(g)[0] == 2
    inner = exact[:4] * w.size
    np.testing.assert_allclose(co.gradients.dot(few, w), inner, rtol=1e-6)
    np.testing.assert_allclose(co.gradients.gram(few), np.outer(inner, exact[:4]), rtol=1e-6)

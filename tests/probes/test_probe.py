"""Probes read what the metrics say of the whole sample, in one pass, and change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import coherence as co
from coherence import metrics
from coherence.lab.runs import Run
from coherence.lab.settings.probing import QUANTITIES
from coherence.probes import AtLoss, Every, LogSpaced, Probe, Quantity, batch_readings, cost
from coherence.probes.presets import PRESETS, select_quantities
from tests import zoo

M = 40


def problem(seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(M, 6)).astype(np.float32), rng.integers(3, size=M)
    params = {
        "a": {"w": rng.normal(size=(6, 5)).astype(np.float32)},
        "b": {"w": rng.normal(size=(5, 3)).astype(np.float32)},
    }
    return jax.device_put(params), (x, y)


def loss(params, example):
    x, y = example
    return optax.losses.softmax_cross_entropy_with_integer_labels(
        jnp.tanh(x @ params["a"]["w"]) @ params["b"]["w"], y
    )


value_and_grad = jax.jit(co.per_example_value_and_grad(loss))


@jax.jit
def read_whole(params, sample, chosen):
    """What the metrics say of all of the sample, and of the chosen examples."""
    y = sample[1]
    losses, g = value_and_grad(params, sample)
    few = jax.tree.map(lambda a: a[chosen], co.gradients.materialize(g))
    pooled = metrics.pool(g, variances=True)
    groups = {"groups": y, "num_groups": 3}
    return {
        "loss": losses.mean(),
        "m_coherence": co.m_coherence(g),
        "m_coherence_by_group": co.m_coherence(g, **groups),
        "m_coherence_by_layer": co.m_coherence(g, by="layer"),
        "alpha_unbiased": co.metrics.alpha_unbiased(g),
        "gradient_norm": metrics.gradient_norm(g),
        "shares_by_group": metrics.shares(g, y, num_groups=3),
        "loss_by_group": [jnp.mean(losses, where=y == k) for k in range(3)],
        "noise_trace": metrics.noise_moments(g).trace,
        "norm_test": metrics.norm_test(g),
        "mean_gsnr": metrics.mean_gsnr(g),
        "evidence": metrics.evidence(g),
        "alpha_between": metrics.alpha_between(g, **groups),
        "contributions": metrics.contributions(few, pooled=pooled),
        "orthogonality_test": metrics.orthogonality_test(few, pooled=pooled),
        "squared_norms": co.gradients.squared_norms(few),
        "cosine_stiffness": metrics.cosine_stiffness(few),
        "stiffness_by_group_matrix": metrics.stiffness_by_group(
            few, y[chosen], num_groups=3
        ).matrix,
        "confusion_bound": metrics.gradient_confusion(few).bound,
        "disparity": metrics.gradient_disparity(few),
    }


@pytest.mark.parametrize(
    "options", [{}, {"batch_size": 7, "few": 16}, {"batch_size": 7, "few": M}, {"few": 16}], ids=str
)
def test_however_the_sample_is_cut_a_probe_reads_the_metrics_of_all_of_it(options):
    params, (x, y) = problem()
    probe = Probe(loss, (x, y), quantities="full", groups=y, num_groups=3, **options)
    found = {name.removeprefix("train/"): value for name, value in probe(params).items()}
    chosen = probe.shown()["index"]
    assert len(chosen) == min(options.get("few", M), M)
    expected = jax.device_get(read_whole(params, (x, y), chosen))
    by_layer = jax.tree.map(float, expected.pop("m_coherence_by_layer"))
    assert found["m_coherence_by_layer"] == pytest.approx(by_layer, rel=1e-4)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-3, atol=1e-5, err_msg=name)


def test_a_batch_is_read_inside_the_step_without_another_pass():
    params, batch = problem()

    @jax.jit
    def step(params):
        losses, g = value_and_grad(params, batch)
        return batch_readings(losses, g), co.mean(g)

    found, _ = step(params)
    probe = Probe(loss, batch)(params)
    assert set(found) == {name.removeprefix("train/") for name in probe}
    for name, value in found.items():
        np.testing.assert_allclose(
            jax.tree.leaves(value), jax.tree.leaves(probe[f"train/{name}"]), rtol=1e-4
        )
    products = jax.jit(step).lower(params).compile().as_text().count(" dot(")
    plain = (
        jax.jit(jax.grad(lambda p: jnp.mean(jax.vmap(loss, (None, 0))(p, batch))))
        .lower(params)
        .compile()
        .as_text()
        .count(" dot(")
    )
    assert products <= plain + 12  # vdots of norms; no product of the size of a layer's comes twice


def test_masked_examples_do_not_count_in_a_batch():
    params, (x, y) = problem()
    mask = np.arange(M) < 30
    read = jax.jit(lambda *args: batch_readings(*value_and_grad(*args)))
    masked, fewer = read(params, (x, y), mask), read(params, (x[:30], y[:30]))
    for a, b in zip(jax.tree.leaves(masked), jax.tree.leaves(fewer)):
        np.testing.assert_allclose(a, b, rtol=1e-4)


def test_a_quantity_of_ones_own_is_a_name_and_a_function():
    params, batch = problem()
    mine = (
        Quantity("diversity", metrics.gradient_diversity),
        Quantity("longest", lambda few: jnp.max(co.gradients.squared_norms(few)), reads="few"),
        Quantity("between", metrics.alpha_between, reads="groups"),
        Quantity("signal", lambda pooled: jnp.max(pooled.second_moments["a"]["w"]), variances=True),
    )
    found = Probe(loss, batch, name="mine", quantities=mine)(params)
    _, g = value_and_grad(params, batch)
    assert set(found) == {
        "mine/diversity",
        "mine/longest",
        "mine/signal",
    }  # there are no groups to be between
    assert found["mine/diversity"] == pytest.approx(1 / float(co.m_coherence(g)), rel=1e-4)
    assert found["mine/signal"] == pytest.approx(
        float(jnp.max(jnp.mean(co.gradients.materialize(g)["a"]["w"] ** 2, 0))), rel=1e-4
    )


def main_share(view):
    """Of the squared norm of the mean gradient, the share along the first principal direction."""
    lengths, directions = jnp.linalg.eigh(co.gradients.gram(view.few))
    parts = lengths.clip(min=0) * jnp.square(directions.sum(0))
    return parts[-1] / parts.sum()


def right_by_group(view):
    x, y = view.examples
    right = (jnp.tanh(x @ view.params["a"]["w"]) @ view.params["b"]["w"]).argmax(1) == y
    return jax.ops.segment_sum(right.astype(int), view.example_groups, 3)


def scaled_losses(view):
    """Of the sample, from the loss itself."""
    return 2 * jax.vmap(view.loss_function, (None, 0))(view.params, view.few_examples)


def drawn(view):
    return jax.random.uniform(view.key, (2,))


@pytest.mark.parametrize("options", [{}, {"batch_size": 7}], ids=["one batch", "batches"])
def test_presets_names_quantities_and_functions_of_a_view_are_mixed(options):
    params, (x, y) = problem()
    spread = Quantity("spread", lambda few: jnp.std(co.gradients.squared_norms(few)), reads="few")
    mixed = ("light", "evidence", spread, "m_coherence", main_share, right_by_group, drawn)
    options = {"groups": y, "num_groups": 3, **options}
    probe = Probe(loss, (x, y), quantities=(*mixed, scaled_losses), seed=5, **options)
    found = {name.removeprefix("train/"): value for name, value in probe(params).items()}
    losses, g = value_and_grad(params, (x, y))
    names = ["loss", "m_coherence", "gradient_norm", "evidence", "spread", "main_share"]
    assert set(found) == {*names, "right_by_group", "drawn", "scaled_losses"}
    rows = np.concatenate(
        [np.reshape(leaf, (M, -1)) for leaf in jax.tree.leaves(co.gradients.materialize(g))], 1
    )
    u, s, _ = np.linalg.svd(rows, full_matrices=False)
    along = s[0] ** 2 * u[:, 0].sum() ** 2 / M**2
    expected = {
        "loss": losses.mean(),
        "evidence": metrics.evidence(g),
        "spread": np.std((rows**2).sum(1)),
        "main_share": along / np.sum(rows.mean(0) ** 2),
        "scaled_losses": 2 * losses,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, err_msg=name)
    guess = np.argmax(np.tanh(x @ params["a"]["w"]) @ params["b"]["w"], 1)
    assert found["right_by_group"] == [int(np.sum((guess == y) & (y == k))) for k in range(3)]
    assert found["drawn"] == probe(params)["train/drawn"]
    assert found["drawn"] != Probe(loss, (x, y), quantities=drawn, seed=6)(params)["train/drawn"]


def test_a_batch_gives_a_quantity_what_it_is_told():
    params, batch = problem()
    losses, g = value_and_grad(params, batch)
    told = {"params": params, "examples": batch, "key": jax.random.key(5)}
    weights = lambda view: jnp.sum(view.params["a"]["w"]) + jnp.sum(view.examples[0])
    found = batch_readings(losses, g, [Quantity("sum", weights, "view"), drawn], **told)
    assert found["sum"] == pytest.approx(float(params["a"]["w"].sum() + batch[0].sum()), rel=1e-4)
    np.testing.assert_array_equal(found["drawn"], jax.random.uniform(jax.random.key(5), (2,)))


def test_a_second_reading_compiles_nothing_and_other_seeds_samples_share_the_program():
    params, batch = problem()
    traced = []

    def counted(params, example):
        traced.append(1)
        return loss(params, example)

    one = Probe(counted, batch, batch_size=7, few=16, quantities="full")
    one(params)
    before = len(traced)
    other = Probe(counted, problem(1)[1], batch_size=7, few=16, quantities="full")
    first, second = one(params), one(params, other.sample)
    assert len(traced) == before
    assert first != second
    assert second == other(params)


def test_an_empty_group_is_nan_and_the_rest_is_read():
    params, (x, y) = problem()
    for options in ({}, {"batch_size": 7, "few": 16}):
        found = Probe(loss, (x, y), groups=np.zeros(M, bool), **options)(params)
        assert found["train/m_coherence_by_group"][0] == pytest.approx(
            found["train/m_coherence"], rel=1e-4
        )
        assert np.isnan(found["train/m_coherence_by_group"][1])


def test_diverged_parameters_are_read_as_nan():
    params, batch = problem()
    found = Probe(loss, batch, quantities="full")(jax.tree.map(lambda x: x * jnp.nan, params))
    assert np.isnan(found["train/m_coherence"])
    assert np.isnan(found["train/loss"])


def test_what_it_costs_is_known_from_shapes():
    params, batch = problem()
    shapes = jax.eval_shape(lambda: params)
    light, full = (
        cost(Probe(loss, batch, quantities=q, groups=batch[1], num_groups=3), shapes)
        for q in ("light", "full")
    )
    assert 0.5 < light.gradients < 2.5
    assert full.gradients > light.gradients
    assert full.bytes > light.bytes > 0
    assert "gradients of its sample and" in str(full)
    cut = cost(Probe(loss, batch, batch_size=8, few=8, quantities="full"), shapes)
    assert 0.5 < cut.gradients < 8
    _, g = value_and_grad(params, batch)
    assert light.bytes < 4 * co.gradients.materialize(g)["a"]["w"].size * 4


def test_pictures_are_kept_as_bytes_with_their_labels_and_places():
    rng = np.random.default_rng(0)
    x, y = rng.random((M, 8, 8)).astype(np.float32), rng.integers(10, size=M)
    shown = Probe(
        lambda p, e: jnp.sum(p * e[0]), (x, y), few=5, groups=y > 4, group_names=("low", "high")
    ).shown()
    assert shown["inputs"].dtype == np.uint8
    np.testing.assert_allclose(shown["inputs"] / 255, x[shown["index"]], atol=1 / 255)
    np.testing.assert_array_equal(shown["labels"], y[shown["index"]])
    np.testing.assert_array_equal(shown["group"], (y > 4)[shown["index"]])
    assert shown["group_names"].tolist() == ["low", "high"]


def test_a_probe_says_what_the_axes_of_its_readings_are():
    params, (x, y) = problem()
    probe = Probe(loss, (x, y), quantities="full", groups=y, num_groups=3, few=16)
    sizes = {"group": 3, "example": 16, "layer": 2}
    shapes = {
        name: (len(value),) if isinstance(value, dict) else np.shape(value)
        for name, value in probe(params).items()
    }
    said = {name: tuple(sizes[axis] for axis in axes) for name, axes in probe.axes.items()}
    assert said == {name: shape for name, shape in shapes.items() if shape}


def test_a_recorded_reading_has_the_examples_and_axes_that_a_report_needs(tmp_path):
    params, (x, y) = problem()
    probe = Probe(loss, (x, y), quantities="examples", groups=y, num_groups=3, few=16)
    with Run.open(tmp_path / "run", {}, seed=0) as run:
        run.annotate(axes={"test/alpha_by_class": ["class"]})
        read = probe.record(run, np.int64(0), params, {"train_loss": 2.5})
        probe.record(run, 10, params)
    records, run = run.records(), Run.read(tmp_path / "run")
    assert records[0] == {"step": 0, "train_loss": 2.5, **probe(params)}
    assert records[1] == {"step": 10, **read}
    kept = run.load("examples-train")
    for name, array in probe.shown().items():
        np.testing.assert_array_equal(kept[name], array)
    assert run.axes["train/contributions"] == ["example"]
    assert run.axes["test/alpha_by_class"] == ["class"]


def test_every_preset_runs_on_a_sequence_and_a_convolution():
    for make in (zoo.sequence, zoo.convolution):
        loss, params, batch = make()
        assert np.isfinite(Probe(loss, batch, quantities="full")(params)["train/m_coherence"])


def test_a_loop_of_ones_own_asks_when():
    _, batch = problem()
    due = lambda probe, **kw: [step for step in range(0, 31) if probe.due(step, **kw)]
    assert due(Probe(loss, batch, when=Every(10)), total=30) == [0, 10, 20, 30]
    assert due(Probe(loss, batch, when=Every(7)), total=30) == [0, 7, 14, 21, 28, 30]
    assert due(Probe(loss, batch, when=LogSpaced(2)), total=30) == list(LogSpaced(2).steps(30))
    assert due(Probe(loss, batch, when=Every(10))) == [0, 10, 20, 30]
    falling = Probe(loss, batch, when=AtLoss((0.5,), window=2))
    for _ in range(2):  # a new run begins at step 0; asking twice changes nothing
        assert [
            step
            for step in range(31)
            if falling.due(step, 30, loss=0.9**step) | falling.due(step, 30, loss=0.9**step)
        ] == [0, 10, 30]


def test_the_few_are_not_what_else_is_drawn_with_the_same_seed():
    examples = np.arange(1000.0)
    few = Probe(lambda p, x: p * x, examples, few=100, seed=3).shown()["index"]
    others = np.random.default_rng(3).permutation(1000)[:100]
    assert len(set(few) & set(others.tolist())) < 30


def test_examples_of_any_container_are_shown_by_name():
    x, y = np.ones((6, 4), np.float32), np.arange(6)
    keys = jax.random.split(jax.random.key(0), 6)
    named = Probe(
        lambda p, e: p * jnp.sum(e["picture"]), {"picture": x, "label": y, "key": keys}
    ).shown()
    assert set(named) == {"picture", "label", "index"}
    assert set(Probe(lambda p, e: p * jnp.sum(e[0]), (x, y)).shown()) == {
        "inputs",
        "labels",
        "index",
    }
    assert set(Probe(lambda p, e: p * jnp.sum(e), x).shown()) == {"inputs", "index"}


def test_one_hot_labels_are_shown_as_classes_and_targets_as_they_are():
    x, loss = jnp.ones((4, 2)), lambda p, e: p * jnp.sum(e[0])
    labels = lambda y: Probe(loss, (x, jnp.asarray(y))).shown()["labels"]
    classes = np.array([2, 0, 1, 2])
    assert labels(classes).tolist() == labels(np.eye(3)[classes]).tolist() == classes.tolist()
    assert labels(np.eye(3, dtype=bool)[classes]).tolist() == classes.tolist()
    assert labels(np.full((4, 3), 7.5)).tolist() == [[7.5] * 3] * 4
    assert labels(np.arange(4.0)[:, None]).tolist() == [[0], [1], [2], [3]]


def test_some_of_the_parameters_can_be_probed():
    params, batch = problem()
    only = lambda path: path[0].key == "a"
    _, g = jax.jit(co.per_example_value_and_grad(loss, only=only))(params, batch)
    found = Probe(loss, batch, quantities="light", only=only)(params)
    assert found["train/m_coherence"] == pytest.approx(float(co.m_coherence(g)), rel=1e-4)
    assert found["train/m_coherence"] != pytest.approx(
        Probe(loss, batch, quantities="light")(params)["train/m_coherence"], rel=1e-3
    )


def test_every_preset_is_known_to_the_settings_and_full_holds_them_all():
    assert set(PRESETS) == set(QUANTITIES)
    for quantities in PRESETS.values():
        assert select_quantities(quantities) == quantities
    metrics = [quantities for name, quantities in PRESETS.items() if name != "histograms"]
    for quantities in metrics:  # histograms are 31 numbers a layer, to be watched
        assert {one.name for one in quantities} <= {one.name for one in PRESETS["full"]}


def test_bad_input_is_named():
    _, (x, y) = problem()
    with pytest.raises(
        ValueError,
        match="there is no preset or quantity 'ful': there are the presets light, standard, "
        "examples, full, histograms, which hold loss, m_coherence",
    ):
        Probe(loss, (x, y), quantities="ful")
    with pytest.raises(
        ValueError, match=r"alpha is a metric of gradients, not of a View: write Quantity\('alpha'"
    ):
        Probe(loss, (x, y), quantities=[co.alpha])
    with pytest.raises(ValueError, match=r"has no name to be recorded under: write Quantity"):
        Probe(loss, (x, y), quantities=["light", lambda view: view.loss])
    with pytest.raises(TypeError, match=r"quantities are names, .* got 3\."):
        Probe(loss, (x, y), quantities=["light", 3])
    with pytest.raises(
        ValueError, match="quantity mine: reads is one of pooled, groups, few, view, got 'all'"
    ):
        Quantity("mine", co.alpha, reads="all")
    with pytest.raises(
        ValueError, match=r"groups must have one entry an example, \[40\], got \[3\]"
    ):
        Probe(loss, (x, y), groups=np.ones(3, bool))
    with pytest.raises(
        ValueError, match="groups must be between 0 and num_groups - 1 = 1, got 0 to 2"
    ):
        Probe(loss, (x, y), groups=y, num_groups=2)
    with pytest.raises(ValueError, match=r"group_names must be one name a group, 3, got \['a'\]"):
        Probe(loss, (x, y), groups=y, num_groups=3, group_names=["a"])
    with pytest.raises(ValueError, match="int groups need num_groups"):
        Probe(loss, (x, y), groups=y)
    with pytest.raises(ValueError, match="leaves disagree about the number of examples"):
        Probe(loss, (x, y[:3]))


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (
            lambda b: Probe("loss", b),
            TypeError,
            r"loss must be a function \(params, example\) -> scalar, got str",
        ),
        (
            lambda b: Probe(loss, b, when=LogSpaced),
            TypeError,
            r"when must be a schedule, LogSpaced\(\), Every\(100\), Epochs\(\) or AtLoss\(\), got",
        ),
        (lambda b: Probe(loss, b, when=100), TypeError, "when must be a schedule, .* got 100"),
        (
            lambda b: Probe(loss, b, name=""),
            ValueError,
            "name must be a word that readings start with, got ''",
        ),
        (
            lambda b: Probe(loss, iter([b])),
            TypeError,
            "examples must be arrays, a fixed sample, got list_iterator: read it once",
        ),
        (
            lambda b: Probe(loss, b, few=0),
            ValueError,
            "few must be a whole number of examples, at least 2, got 0",
        ),
        (
            lambda b: Probe(loss, b, batch_size=10.0),
            ValueError,
            "batch_size must be a whole number of examples, at least 1, got 10.0",
        ),
        (
            lambda b: Probe(loss, b, num_groups=3),
            ValueError,
            "num_groups=3 counts groups, and there are none: give groups",
        ),
        (
            lambda b: Probe(
                loss, b, quantities=[Quantity("a", co.alpha), Quantity("a", co.m_coherence)]
            ),
            ValueError,
            "quantities need names of their own, got 'a' twice",
        ),
        (
            lambda b: Quantity("a", 3),
            TypeError,
            "quantity a: function must be one, of what it reads, got 3",
        ),
        (
            lambda b: Probe(loss, b)(problem()[0], b),
            TypeError,
            r"sample must be another probe's, probe\(params, other.sample\), got tuple",
        ),
        (
            lambda b: jax.jit(Probe(loss, b))(problem()[0]),
            TypeError,
            "a probe is called between steps, not inside jit: .* batch_readings",
        ),
        (
            lambda b: cost(Probe(loss, b), {"w": jnp.ones(3, int)}),
            TypeError,
            "leaf w is int32: gradients need floats",
        ),
        (
            lambda b: batch_readings(1.0, {"w": jnp.ones((4, 3))}),
            ValueError,
            r"losses must be those of the 4 examples, .* a mean gradient has no",
        ),
    ],
)
def test_what_cannot_be_probed_is_said_before_anything_is_computed(make, kind, message):
    with pytest.raises(kind, match=message):
        make(problem()[1])


@pytest.mark.parametrize(("dtype", "value"), [("bfloat16", 1), ("float16", 100)])
def test_means_of_losses_in_half_precision_are_not(dtype, value):
    """1,000 losses of 1 add up to 256 in bfloat16; of 100 to infinity in float16."""
    loss, params = lambda w, x: jnp.dot(w, x), jnp.ones(1, dtype)
    x, groups = jnp.full((1000, 1), value, dtype), np.arange(1000) % 2
    told = {"groups": groups, "num_groups": 2}
    read = Probe(loss, x, quantities="standard", batch_size=100, **told)(params)
    losses, g = co.per_example_value_and_grad(loss)(params, x)
    at_once = batch_readings(losses, g, "standard", **told)
    for readings, prefix in ((read, "train/"), (at_once, "")):
        assert readings[f"{prefix}loss"] == value
        np.testing.assert_array_equal(readings[f"{prefix}loss_by_group"], [value, value])

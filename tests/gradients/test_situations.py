"""Situations people reported and their siblings.

Exact plainly, in `jit`, masked, on several devices and in bfloat16.

`python -m tests.gradients.test_situations` prints the table of them in the documentation.
"""

import re
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coherence as co
from coherence.gradients import tracked
from coherence.trees import leaf
from tests import eight_devices, reference, situations

PAGE = Path(__file__).resolve().parents[2] / "docs/losses.md"
MODELS = [model for models in situations.ALL.values() for model in models]
FIRST = [models[0] for models in situations.ALL.values()]
SOLVER = (
    situations.ordinary_differential_equation
)  # whose programs take a fifth of this file's time
by_name = pytest.mark.parametrize(
    "model",
    [pytest.param(model, marks=pytest.mark.slow if model is SOLVER else ()) for model in MODELS],
    ids=[model.__name__ for model in MODELS],
)
FIRST_OF_EACH_KIND = pytest.mark.parametrize(
    "model",
    [pytest.param(model, marks=() if model in FIRST else pytest.mark.slow) for model in MODELS],
    ids=[model.__name__ for model in MODELS],
)

# In half precision both sides round: their own derivative is what each is compared with.
TOLERANCES = {
    **dict.fromkeys(situations.ALL["half precision"], 1e-2),
    situations.joined_and_cast: 1e-2,
    situations.convolved_spectrum: 1e-4,
}


@pytest.fixture(autouse=True)
def large(request, monkeypatch):
    """The models are small.

    Where one shows what happens to large parameters, none counts as small.
    """
    model = request.node.callspec.params.get("model") if hasattr(request.node, "callspec") else None
    if model in situations.LARGE:
        monkeypatch.setattr(tracked, "ROWS", 0)


def gradients(loss, **kwargs):
    """The transform, whose warnings the test of the nodes is about."""

    def function(*args):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", co.gradients.RecomputedWarning)
            return co.per_example_value_and_grad(loss, **kwargs)(*args)

    return function


def by_jax(loss):
    """By JAX alone, a function of parameters and batch."""
    return jax.vmap(jax.grad(loss), (None, 0))


def rows(loss, params, batch):
    """By JAX alone, [m, parameters]."""
    return reference.flat(jax.jit(by_jax(loss))(params, batch))


def agree(ours, truth, tolerance):
    truth = np.asarray(truth, np.float64)
    assert np.isfinite(truth).all()
    atol = tolerance * max(np.abs(truth).max(), 1e-30)
    np.testing.assert_allclose(np.asarray(ours, np.float64), truth, rtol=0, atol=atol)


def whole(tree):
    return reference.flat(jax.tree.map(lambda x: np.asarray(x)[None], tree))[0]


def norms_and_mean(g):
    return co.gradients.squared_norms(g), co.mean(g)


def reductions(g):
    norms, mean = norms_and_mean(g)
    return norms, co.gradients.gram(g), mean, co.gradients.dot(g, mean), co.gradients.materialize(g)


def compare(reduced, g, tolerance):
    norms, gram, mean, dots, formed = reduced
    agree(norms, (g**2).sum(1), tolerance)
    agree(gram, g @ g.T, tolerance)
    agree(whole(mean), g.mean(0), tolerance)
    agree(dots, g @ g.mean(0), tolerance)
    agree(reference.flat(formed), g, tolerance)


def kinds(g):
    leaves = jax.tree.leaves_with_path(g, is_leaf=lambda x: isinstance(x, tracing_nodes))
    return {leaf(path): type(node) for path, node in leaves}


tracing_nodes = (co.gradients.Factored, co.gradients.Stacked, co.gradients.Recomputed)


def poison(x):
    """The last example is nan, where it can be."""
    x = np.array(x)
    if jnp.issubdtype(x.dtype, jnp.floating):
        x[-1] = np.nan
    return x


@by_name
def test_every_reduction_is_exact_and_masked_examples_might_as_well_not_be_there(model):
    """In one program: what takes time is to make programs."""
    loss, params, batch = model()
    m = jax.tree.leaves(batch)[0].shape[0]
    keep = np.arange(m) != m - 1
    nodes = {}

    @jax.jit
    def reduced(params, batch, poisoned):
        _, g = gradients(loss)(params, batch)
        nodes.update(kinds(g))
        _, masked = gradients(loss, microbatch_size=2)(params, poisoned, keep)
        return by_jax(loss)(params, batch), reductions(g), norms_and_mean(masked)

    truth, plain, (norms, mean) = reduced(params, batch, jax.tree.map(poison, batch))
    tolerance = TOLERANCES.get(model, 2e-5)
    g = reference.flat(truth)
    compare(plain, g, tolerance)
    recomputed = {name for name, kind in nodes.items() if kind is co.gradients.Recomputed}
    assert recomputed == situations.RECOMPUTED.get(model, set())
    agree(norms, np.append((g[:-1] ** 2).sum(1), 0.0), tolerance)
    agree(whole(mean), g[:-1].mean(0), tolerance)


@FIRST_OF_EACH_KIND
def test_parameters_and_data_in_bfloat16(model):
    loss, params, batch = model()
    floats = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    half = lambda x: np.asarray(x).astype(jnp.bfloat16) if floats(x) else x
    params, batch = jax.tree.map(half, (params, batch))
    try:
        jax.eval_shape(by_jax(loss), params, batch)
    except (TypeError, ValueError):  # scans and Fourier transforms that JAX refuses in bfloat16
        pytest.skip("JAX does not take this loss in bfloat16")

    @jax.jit
    def reduced(params, batch):
        _, g = gradients(loss)(params, batch)
        return by_jax(loss)(params, batch), norms_and_mean(g)

    truth, (norms, mean) = reduced(params, batch)
    g = reference.flat(truth)
    assert norms.dtype == jnp.float32
    agree(norms, (g**2).sum(1), 4e-2)
    agree(whole(mean), g.mean(0), 4e-2)


@pytest.mark.parametrize("model", FIRST, ids=lambda model: model.__name__)
def test_without_jit_the_numbers_are_the_same(model):
    loss, params, batch = model()
    _, g = gradients(loss)(params, batch)
    truth = rows(loss, params, batch)
    agree(co.gradients.squared_norms(g), (truth**2).sum(1), TOLERANCES.get(model, 2e-5))


DEVICES = """
import itertools, warnings
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, PartitionSpec as P
import coherence as co
from coherence.gradients import tracked
from tests import reference, situations, zoo
from tests.gradients import test_situations

warnings.simplefilter("ignore", co.gradients.RecomputedWarning)
automatic = {"axis_types": (AxisType.Auto,)}
meshes = {n: jax.make_mesh((n,), ("d",), devices=jax.devices()[:n], **automatic) for n in (2, 8)}
ways = itertools.cycle([(2, True), (8, False), (8, True), (2, False)])
zoo_models = [*zoo.FAST, *zoo.FALLBACK]
joined = {model for model in zoo_models if model.__name__.startswith("joined")}
large = {*zoo.SMALL_COUNT_AS_LARGE, *situations.LARGE, *joined}
wrong = []


def jax_refuses(loss, params, batch, mesh, check):
    # A state that starts constant and becomes varying, as in JAX's own odeint.
    vary = lambda x: jax.lax.pcast(x, "d", to="varying")
    local = lambda p, b: jax.vmap(jax.grad(loss), (None, 0))(jax.tree.map(vary, p), b)
    specs = {"in_specs": (P(), P("d")), "out_specs": P("d")}
    split = jax.shard_map(local, mesh=mesh, check_vma=check, **specs)
    try:
        jax.eval_shape(split, params, batch)
    except Exception:
        return True
    return False


for model, (n, check) in zip(MODELS, ways):
    tracked.ROWS = 0 if model in large else 4096
    loss, params, batch = model()
    batch = jax.tree.map(lambda x: np.concatenate([x] * 8)[:8], batch)

    def local(p, b):
        _, g = co.per_example_value_and_grad(loss)(p, b)
        total = jax.tree.map(lambda x: jax.lax.psum(x, "d"), co.gradients.total(g))
        return co.gradients.squared_norms(g), co.gradients.dot(g, p), total

    specs = {"in_specs": (P(), P("d")), "out_specs": (P("d"), P("d"), P())}
    split = jax.shard_map(local, mesh=meshes[n], check_vma=check, **specs)
    try:
        norms, dots, total = jax.jit(split)(params, batch)
        g = test_situations.rows(loss, params, batch)
        tolerance = test_situations.TOLERANCES.get(model, 5e-5)
        test_situations.agree(norms, (g**2).sum(1), tolerance)
        test_situations.agree(dots, g @ test_situations.whole(params), tolerance)
        test_situations.agree(test_situations.whole(total), g.sum(0), tolerance)
    except Exception as error:
        if jax_refuses(loss, params, batch, meshes[n], check):
            continue
        problem = f"{type(error).__name__}: {str(error)[:300]}"
        wrong.append(f"{model.__name__} on {n} devices, {check=}: {problem}")
assert not wrong, "\\n".join(wrong)
"""


@pytest.mark.parametrize(
    "models",
    [
        "[*zoo_models[::8], *test_situations.FIRST]",
        pytest.param("[*zoo_models, *test_situations.MODELS]", marks=pytest.mark.slow),
    ],
    ids=["some", "all"],
)
def test_the_zoo_on_several_devices(models):
    """Under `shard_map`, checked and not, on two devices and on eight: the ways take turns."""
    eight_devices.run(DEVICES.replace("MODELS", models, 1))


def table():
    """The situations as the documentation lists them."""
    lines = ["| situation | what it is | gradients |", "|---|---|---|"]
    for kind, models in situations.ALL.items():
        for model in models:
            text = (model.__doc__ or "").strip().split("\n")[0]
            recomputed = situations.RECOMPUTED.get(model)
            how = f"recomputed: {', '.join(sorted(recomputed))}" if recomputed else "by rules"
            name = model.__name__.replace("_", " ")
            lines.append(f"| {kind}: {name} | {text} | {how} |")
    return "\n".join(lines)


def test_the_documentation_lists_them():
    (listed,) = re.findall(r"(?s)(\| situation \|.*?)\n*\Z", PAGE.read_text())
    assert listed == table(), "python -m tests.gradients.test_situations prints the table"


if __name__ == "__main__":
    print(table())

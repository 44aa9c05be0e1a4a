"""What we use of JAX below its public API, one claim each.

When JAX changes, this says what broke.
"""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from coherence.gradients import jax_internals

PACKAGE = Path(__file__).resolve().parents[2] / "coherence"


def equations(function, *args):
    """The equations of a function, calls opened."""
    pending = list(jax.make_jaxpr(function)(*args).jaxpr.eqns)
    while pending:
        equation = pending.pop(0)
        if (call := jax_internals.inlined(equation)) is None:
            yield equation
        else:
            pending[:0] = call[0].eqns


def only(name, function, *args):
    (equation,) = (e for e in equations(function, *args) if e.primitive.name == name)
    return equation


def mesh(kind):
    return jax.make_mesh((1,), ("d",), axis_types=(kind,))


def test_values_inside_jit_are_traced():
    seen = []
    jax.jit(lambda x: seen.append(jax_internals.is_traced(x)))(1.0)
    assert seen == [True]
    assert not jax_internals.is_traced(jnp.ones(2))
    assert not jax_internals.is_traced(1.0)


def test_containers_are_told_from_leaves():
    assert all(map(jax_internals.is_container, ([], {"a": 1}, (1, 2))))
    assert not any(map(jax_internals.is_container, (1, jnp.ones(2), iter([]))))


def test_axes_the_compiler_may_divide_are_named():
    assert jax_internals.automatic_axes() == ()
    with jax.set_mesh(mesh(AxisType.Auto)):
        assert jax_internals.automatic_axes() == ("d",)
    with jax.set_mesh(mesh(AxisType.Explicit)):
        assert jax_internals.automatic_axes() == ()


def test_axes_among_which_a_vmap_divides_are_taken():
    seen = []

    @jax.jit
    def inside(x):
        seen.append((jax_internals.automatic_axes(), jax_internals.is_in_automatic_mesh()))
        return x

    inside(1.0)
    with jax.set_mesh(mesh(AxisType.Auto)):
        jax.vmap(inside)(jnp.ones(2))
        jax.vmap(inside, spmd_axis_name="d")(jnp.ones(2))
    assert seen == [((), False), (("d",), True), ((), True)]


def test_values_know_over_which_axes_they_vary():
    def inside(x, y):
        assert jax_internals.varying_axes(x) == frozenset({"d"})
        assert jax_internals.varying_axes(y) == frozenset()
        assert jax_internals.varying_axes(jax_internals.as_varying(y, "d")) == {"d"}
        struct = jax_internals.struct_like(x, (4, 2))
        assert (struct.shape, struct.dtype) == ((4, 2), x.dtype)
        assert jax_internals.varying_axes(struct) == {"d"}
        zeros = jax_internals.zeros_like(struct)
        assert jax_internals.varying_axes(zeros) == {"d"}
        (total,) = jax_internals.bind(jax.lax.add_p, (x, y), {})  # JAX alone would refuse
        vary = only("pvary", lambda y: jax.lax.pcast(y, "d", to="varying"), y)
        assert jax_internals.is_retyping(vary)
        (again,) = jax_internals.evaluate(vary, [x])  # and this, too
        assert again is x
        return total + zeros.sum()

    specs = PartitionSpec("d"), PartitionSpec()
    split = jax.shard_map(inside, mesh=mesh(AxisType.Auto), in_specs=specs, out_specs=specs[0])
    np.testing.assert_array_equal(split(jnp.ones(3), jnp.ones(3)), 2 * np.ones(3))
    assert jax_internals.varying_axes(1.0) == frozenset()
    assert jax_internals.struct_like(jnp.ones(3), (2,)) == jax.ShapeDtypeStruct((2,), jnp.float32)


def test_a_jaxpr_can_be_evaluated():
    closed = jax.make_jaxpr(lambda x, y: jnp.sin(x) + y)(1.0, 2.0)
    (out,) = jax_internals.evaluate_jaxpr(closed.jaxpr, closed.consts, [1.0, 3.0])
    np.testing.assert_allclose(out, np.sin(1.0) + 3, rtol=1e-6)


def test_known_values_are_computed_whatever_is_traced():
    equation = only("sin", jnp.sin, 1.0)
    seen = []
    jax.jit(lambda x: seen.extend(jax_internals.evaluate_now(equation, [np.float32(2.0)])))(1.0)
    assert not jax_internals.is_traced(seen[0])
    np.testing.assert_allclose(seen[0], np.sin(2.0), rtol=1e-6)


def test_an_axis_nobody_binds_is_named():
    with pytest.raises(NameError) as error:
        jax.make_jaxpr(lambda x: jax.lax.psum(x, "nowhere"))(1.0)
    assert jax_internals.unbound_axis(error.value) == "nowhere"
    assert jax_internals.unbound_axis(NameError("name 'x' is not defined")) is None


def test_an_equation_can_be_evaluated_alone():
    jaxpr = jax.make_jaxpr(lambda x: jax.nn.relu(x) * 2)(jnp.ones(3))
    values = {jaxpr.jaxpr.invars[0]: jnp.array([-1.0, 2.0, 3.0])}
    for equation in jaxpr.jaxpr.eqns:
        operands = [
            v.val if isinstance(v, jax_internals.Literal) else values[v] for v in equation.invars
        ]
        values.update(zip(equation.outvars, jax_internals.evaluate(equation, operands)))
    np.testing.assert_array_equal(values[jaxpr.jaxpr.outvars[0]], [0.0, 4.0, 6.0])


def test_jit_and_checkpoint_can_be_inlined():
    for wrap in (jax.jit, jax.checkpoint):
        (equation,) = jax.make_jaxpr(wrap(lambda x: x + 1))(1.0).jaxpr.eqns
        inner, consts = jax_internals.inlined(equation)
        assert [e.primitive.name for e in inner.eqns] == ["add"]
        assert not list(consts)


def test_a_checkpoint_says_what_it_saves():
    policy = jax.checkpoint_policies.dots_saveable
    function = jax.checkpoint(jnp.sin, prevent_cse=False, policy=policy)
    (equation,) = jax.make_jaxpr(function)(1.0).jaxpr.eqns
    assert jax_internals.checkpointing(equation) == {"prevent_cse": False, "policy": policy}
    assert jax_internals.checkpointing(only("sin", jnp.sin, 1.0)) is None


def test_calls_can_be_opened_throughout():
    half = jax.jit(lambda x: x / 2)
    closed = jax.make_jaxpr(lambda x: half(jnp.sin(half(x))) + np.arange(3.0, dtype=np.float32))
    flat = jax_internals.with_calls_inlined(closed(jnp.ones(3)))
    names = [e.primitive.name for e in flat.jaxpr.eqns]
    assert [name for name in names if name != "pjit"] == names
    assert names.count("div") == 2
    (out,) = jax_internals.evaluate_jaxpr(flat.jaxpr, flat.consts, [jnp.ones(3)])
    np.testing.assert_allclose(out, np.sin(0.5) / 2 + np.arange(3), rtol=1e-6)


def test_custom_derivatives_stay_closed_and_are_known_by_name():
    jvp, vjp = jax.custom_jvp(jnp.sin), jax.custom_vjp(jnp.sin)
    jvp.defjvp(lambda x, t: (jvp(*x), t[0]))
    vjp.defvjp(lambda x: (vjp(x), None), lambda _, ct: (ct,))
    for function, name in zip((jvp, vjp), jax_internals.CUSTOM_DERIVATIVES):
        (equation,) = equations(jax.jit(function), 1.0)
        assert equation.primitive.name == name
        assert jax_internals.contains(jax.make_jaxpr(jax.jit(function))(1.0).jaxpr, name)
        assert not jax_internals.contains(jax.make_jaxpr(jnp.sin)(1.0).jaxpr, name)
    assert next(equations(jax.nn.relu, 1.0)).primitive.name == "custom_jvp_call"


def test_an_operation_is_applied_to_other_operands_and_hashable():
    equation = only("transpose", jnp.transpose, jnp.ones((2, 3)))
    operation = jax_internals.operation(equation)
    assert operation == jax_internals.transposition((1, 0))
    assert hash(operation) == hash(jax_internals.transposition([1, 0]))
    assert (operation.name, jax_internals.permutation(operation)) == ("transpose", (1, 0))
    x = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(operation(x), x.T)
    np.testing.assert_array_equal(jax_internals.reshaping((3, 2))(x), x.reshape(3, 2))
    assert jax_internals.reshaping((3, 2)).name == "reshape"
    index = np.array([[1], [0], [1]], np.int32)
    np.testing.assert_array_equal(jax_internals.taking(2, (3,))(x, index), x[index[:, 0]])
    spread = only("broadcast_in_dim", lambda x: jax.lax.broadcast_in_dim(x, (2, 4, 3), (0, 2)), x)
    assert jax_internals.operation(spread) == jax_internals.broadcasting((2, 4, 3), (0, 2))
    assert jax_internals.broadcast_axes(jax_internals.operation(spread)) == (0, 2)
    slices = only("slice", lambda x: jax.lax.slice(x, (1, 0), (2, 2)), x)
    np.testing.assert_array_equal(jax_internals.operation(slices)(x), x[1:2, :2])
    assert jax_internals.operation(slices) == jax_internals.slicing((1, 0), (2, 2))


def test_the_floats_inside_are_seen():
    inner = jax.jit(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32))
    jaxpr = jax.make_jaxpr(lambda x: inner(x) * (x > 0).astype(int).astype(jnp.float32))(1.0).jaxpr
    assert jax_internals.float_dtypes(jaxpr) == {jnp.dtype("bfloat16"), jnp.dtype("float32")}


def test_a_scan_says_what_is_constant_carried_and_scanned():
    step = lambda carry, x: (carry * x[0], (carry, x[1]))
    run = lambda w, xs: jax.lax.scan(
        lambda c, x: step(c + w, x), jnp.zeros(2), (xs, xs), reverse=True
    )
    equation = only("scan", run, jnp.ones(2), jnp.ones((5, 2)))
    scan = jax_internals.scan(equation)
    assert (scan.constants, scan.carries, scan.length, scan.reverse) == (1, 1, 5, True)
    assert scan.carried == range(1, 2)
    jaxpr, consts = jax_internals.open_jaxpr(scan.jaxpr)
    assert len(jaxpr.invars) == len(equation.invars) == 4
    assert len(jaxpr.outvars) == len(equation.outvars)
    assert not list(consts)


def test_a_cond_has_branches():
    equation = only("cond", lambda x: jax.lax.cond(x > 0, jnp.sin, jnp.cos, x), 1.0)
    jaxprs = [jax_internals.open_jaxpr(branch)[0] for branch in jax_internals.branches(equation)]
    assert [e.primitive.name for jaxpr in jaxprs for e in jaxpr.eqns] == ["cos", "sin"]
    assert [jaxpr.eqns for jaxpr in jax_internals.inner_jaxprs(equation)] == [
        jaxpr.eqns for jaxpr in jaxprs
    ]


def test_concatenations_parts_and_sums_name_their_axes():
    x = jnp.ones((2, 3))
    assert jax_internals.joined_axis(only("stack", lambda x: jnp.stack([x, x], 1), x)) == 1
    assert jax_internals.parts(only("split", lambda x: jnp.split(x, [1], 1), x)) == ((1, 2), 1)
    assert jax_internals.joined_axis(only("concatenate", lambda x: jnp.hstack([x, x]), x)) == 1
    assert jax_internals.summed_axes(only("reduce_sum", lambda x: x.sum((0, 1)), x)) == (0, 1)


def test_a_product_names_what_it_contracts_and_what_it_shares():
    function = lambda x, w: jnp.einsum("gab,gbc->gac", x, w)
    equation = only("dot_general", function, jnp.ones((2, 3, 4)), jnp.ones((2, 4, 5)))
    assert jax_internals.contraction(equation) == (((2,), (1,)), ((0,), (0,)))


def test_a_convolution_has_its_geometry():
    function = lambda x, k: jax.lax.conv_general_dilated(
        x,
        k,
        (1, 2),
        ((1, 0), (0, 2)),
        lhs_dilation=(2, 1),
        rhs_dilation=(1, 3),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=2,
    )
    equation = only(
        "conv_general_dilated", function, jnp.ones((1, 6, 7, 4)), jnp.ones((2, 2, 2, 4))
    )
    geometry = jax_internals.convolution(equation)
    assert geometry.lhs_spec == geometry.out_spec == (0, 3, 1, 2)
    assert geometry.rhs_spec == (3, 2, 0, 1)
    assert (geometry.strides, geometry.padding) == ((1, 2), ((1, 0), (0, 2)))
    assert (geometry.lhs_dilation, geometry.rhs_dilation) == ((2, 1), (1, 3))
    assert (geometry.feature_groups, geometry.batch_groups) == (2, 1)


def test_a_gather_says_what_it_looks_up_and_how():
    take = lambda t, i: jnp.take(t, i, axis=0, mode="clip")
    gather = jax_internals.gather(only("gather", take, jnp.ones((5, 3)), jnp.ones(4, int)))
    assert gather.numbers.start_index_map == gather.numbers.collapsed_slice_dims == (0,)
    assert gather.numbers.offset_dims == (1,)
    assert gather.numbers.operand_batching_dims == ()
    assert gather.slice_sizes == (1, 3)
    assert gather.mode == jax.lax.GatherScatterMode.CLIP
    inside = only("gather", take, jnp.ones((5, 3)), jnp.ones(4, int))
    assert jax_internals.is_inside(inside, np.array([[0], [4]]))
    assert not jax_internals.is_inside(inside, np.array([[0], [5]]))
    assert not jax_internals.is_inside(inside, np.array([[-1]]))
    row = lambda t, i: jax.lax.dynamic_index_in_dim(t, i)
    equation = only("dynamic_slice", row, jnp.ones((5, 3)), 2)
    assert jax_internals.slice_sizes(equation) == (1, 3)


def test_collectives_name_their_axes_and_meshes_bind_them():
    reduced = lambda x: jax.lax.psum(x, "d") + jax.lax.axis_index("d")
    split = jax.shard_map(
        reduced, mesh=mesh(AxisType.Auto), in_specs=PartitionSpec("d"), out_specs=PartitionSpec("d")
    )
    equation = only("shard_map", split, jnp.ones(3))
    assert jax_internals.mesh_axis_names(equation) == ("d",)
    (jaxpr,) = jax_internals.inner_jaxprs(equation)
    names = {e.primitive.name: jax_internals.reduced_axis_names(e) for e in jaxpr.eqns}
    assert names.pop("axis_index") == []
    assert [axes for axes in names.values() if axes] == [["d"]]
    assert jax_internals.mesh_axis_names(only("sin", jnp.sin, 1.0)) == ()


def test_named_scopes_are_seen():
    def layer(x):
        with jax.named_scope("Dense_0"):
            return jnp.sin(x)

    assert jax_internals.layer_scope(only("sin", layer, 1.0)) == "Dense_0"


def test_nothing_else_in_the_package_looks_below_jax():
    """Names, equations and variables of a jaxpr are `jax.extend.core`.

    What is asked of them here is not.
    """
    forbidden = {"get_bind_params", "Tracer", "default_registry", "get_abstract_mesh"}
    for path in PACKAGE.rglob("*.py"):
        if path.name == "jax_internals.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert not node.module.startswith(("jax.extend", "jax._src", "jax.core")), path
            if isinstance(node, ast.Attribute):
                assert node.attr not in forbidden, f"{path}: .{node.attr}"
                owner = getattr(node.value, "id", getattr(node.value, "attr", ""))
                binds = node.attr == "bind" and owner.endswith(("primitive", "_p"))
                assert not binds, f"{path}: {owner}.bind"
                parameters = isinstance(node.value, ast.Name) and node.value.id == "equation"
                assert not (parameters and node.attr == "params"), f"{path}: equation.params"

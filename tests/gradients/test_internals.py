"""What we use of JAX below its public API, one claim each: when JAX changes, this says what broke."""

import jax
import jax.numpy as jnp
import numpy as np

from coherence.gradients import _jax


def test_an_equation_can_be_evaluated_alone():
    jaxpr = jax.make_jaxpr(lambda x: jax.nn.relu(x) * 2)(jnp.ones(3))
    values = {jaxpr.jaxpr.invars[0]: jnp.array([-1.0, 2.0, 3.0])}
    for equation in jaxpr.jaxpr.eqns:
        operands = [v.val if isinstance(v, _jax.Literal) else values[v] for v in equation.invars]
        values.update(zip(equation.outvars, _jax.evaluate(equation, operands)))
    np.testing.assert_array_equal(values[jaxpr.jaxpr.outvars[0]], [0.0, 4.0, 6.0])


def test_jit_and_checkpoint_can_be_inlined():
    for wrap in (jax.jit, jax.checkpoint):
        (equation,) = jax.make_jaxpr(wrap(lambda x: x + 1))(1.0).jaxpr.eqns
        inner, consts = _jax.inner(equation)
        assert [e.primitive.name for e in inner.eqns] == ["add"]
        assert not list(consts)


def test_custom_derivatives_stay_closed():
    (equation,) = jax.make_jaxpr(jax.nn.relu)(1.0).jaxpr.eqns
    while equation.primitive.name == "jit":
        (equation,) = _jax.inner(equation)[0].eqns
    assert _jax.inner(equation) is None


def test_custom_derivatives_are_found_by_name():
    jvp, vjp = jax.custom_jvp(jnp.sin), jax.custom_vjp(jnp.sin)
    jvp.defjvp(lambda x, t: (jvp(*x), t[0]))
    vjp.defvjp(lambda x: (vjp(x), None), lambda _, ct: (ct,))
    jaxprs = [jax.make_jaxpr(jax.jit(f))(1.0).jaxpr for f in (jvp, vjp)]
    assert [_jax.contains(jaxpr, name) for jaxpr, name in zip(jaxprs, _jax.CUSTOM)] == [True, True]
    assert not _jax.contains(jax.make_jaxpr(jnp.sin)(1.0).jaxpr, _jax.CUSTOM[1])


def test_a_scan_says_what_is_constant_carried_and_scanned():
    step = lambda carry, x: (carry * x[0], (carry, x[1]))
    run = lambda w, xs: jax.lax.scan(
        lambda c, x: step(c + w, x), jnp.zeros(2), (xs, xs), reverse=True
    )
    (equation,) = (
        e
        for e in jax.make_jaxpr(run)(jnp.ones(2), jnp.ones((5, 2))).jaxpr.eqns
        if e.primitive.name == "scan"
    )
    scan = _jax.scan(equation)
    assert (scan.constants, scan.carries, scan.length, scan.reverse) == (1, 1, 5, True)
    jaxpr, consts = _jax.opened(scan.jaxpr)
    assert len(jaxpr.invars) == len(equation.invars) == 4
    assert len(jaxpr.outvars) == len(equation.outvars)
    assert not list(consts)

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

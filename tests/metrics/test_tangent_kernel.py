"""Alignment of the tangent kernel: loops of `jax.grad`, known kernels, and its tie to alpha."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import coherence as co
from coherence.metrics.tangent_kernel import tangent_kernel_alignment
from tests import reference, zoo

PARAMS = {"w": zoo.normal(0, 5, 4), "v": zoo.normal(1, 4, 3), "b": zoo.normal(2, 3)}
INPUTS, TARGETS = zoo.normal(3, 6, 5), zoo.normal(4, 6, 3)


def network(params, x):
    return jnp.tanh(x @ params["w"]) @ params["v"] + params["b"]


def first_output(params, x):
    return network(params, x)[0]


def test_alignment_is_that_of_the_naive_kernel():
    kernel = reference.tangent_kernel(network, PARAMS, INPUTS)
    expected = reference.kernel_alignment(kernel, np.asarray(TARGETS, np.float64).ravel())
    measured = jax.jit(lambda *args: tangent_kernel_alignment(network, *args))
    np.testing.assert_allclose(measured(PARAMS, INPUTS, TARGETS), expected, rtol=1e-5)


def test_scalar_outputs_are_one_output():
    expected = tangent_kernel_alignment(
        lambda p, x: network(p, x)[:1], PARAMS, INPUTS, TARGETS[:, :1]
    )
    np.testing.assert_allclose(
        tangent_kernel_alignment(first_output, PARAMS, INPUTS, TARGETS[:, 0]), expected, rtol=1e-6
    )


def test_inputs_may_be_any_tree():
    apart = {"left": INPUTS[:, :2], "right": INPUTS[:, 2:]}
    joined = lambda p, x: network(p, jnp.concatenate([x["left"], x["right"]]))
    expected = tangent_kernel_alignment(network, PARAMS, INPUTS, TARGETS)
    np.testing.assert_allclose(
        tangent_kernel_alignment(joined, PARAMS, apart, TARGETS), expected, rtol=1e-5
    )


def test_the_loss_weighted_kernel_is_alphas():
    """1^T Kt 1 / (m tr Kt) = alpha, with Kt_ij = l'_i l'_j K_ij: the slopes are the targets."""
    y = TARGETS[:, 0]
    loss = lambda p, example: 0.5 * (first_output(p, example[0]) - example[1]) ** 2
    _, gradients = co.per_example_value_and_grad(loss)(PARAMS, (INPUTS, y))
    slopes = jnp.stack([first_output(PARAMS, x) for x in INPUTS]) - y
    kernel = reference.tangent_kernel(lambda p, x: network(p, x)[:1], PARAMS, INPUTS)
    sum_of_weighted = (
        tangent_kernel_alignment(first_output, PARAMS, INPUTS, slopes)
        * np.linalg.norm(kernel)
        * np.sum(slopes**2)
    )
    np.testing.assert_allclose(
        sum_of_weighted / (6 * np.trace(np.outer(slopes, slopes) * kernel)),
        co.alpha(gradients),
        rtol=1e-5,
    )


def test_a_kernel_made_of_the_targets_is_aligned_and_an_orthogonal_one_is_not():
    y = jnp.array([1.0, -2.0, 3.0, 0.5])
    linear = lambda w, x: w * x
    np.testing.assert_allclose(
        tangent_kernel_alignment(linear, jnp.float32(1), y, -3 * y), 1, rtol=1e-6
    )
    np.testing.assert_allclose(
        tangent_kernel_alignment(linear, jnp.float32(1), y, jnp.array([2.0, 1.0, 0.0, 0.0])),
        0,
        atol=1e-7,
    )


def test_a_kernel_without_preferences_has_one_over_root_n():
    linear = lambda w, x: w @ x
    np.testing.assert_allclose(
        tangent_kernel_alignment(linear, jnp.ones((3, 4)), jnp.eye(4), TARGETS[:4]),
        1 / np.sqrt(12),
        rtol=1e-5,
    )


def test_unfitting_outputs_and_targets_are_refused():
    with pytest.raises(
        ValueError, match=r"targets must be \[6, 3\], one an output of each input, got \[6\]"
    ):
        tangent_kernel_alignment(network, PARAMS, INPUTS, TARGETS[:, 0])
    with pytest.raises(
        ValueError,
        match=r"outputs\(params, x\) must return a scalar or \[C\] .*, got shape \(2, 3\)",
    ):
        tangent_kernel_alignment(
            lambda p, x: jnp.stack([network(p, x)] * 2), PARAMS, INPUTS, TARGETS
        )
    with pytest.raises(
        ValueError, match=r"must return a scalar or \[C\] for one input, got a tuple"
    ):
        tangent_kernel_alignment(lambda p, x: (network(p, x),), PARAMS, INPUTS, TARGETS)

"""ResNet-18 for small images, with group norm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coherence.models import ResNet


def test_resnet_18_has_eleven_million_parameters():
    shapes = jax.eval_shape(ResNet().init, jax.random.key(0), jnp.zeros((32, 32, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 11_173_962


def test_an_image_alone_and_in_a_batch_has_the_same_logits():
    model, x = ResNet(width=4, blocks=(1, 1), groups=2), jax.random.normal(jax.random.key(1), (3, 8, 8, 3))
    params = model.init(jax.random.key(0), x)
    np.testing.assert_allclose(model.apply(params, x)[1], model.apply(params, x[1]), rtol=1e-4, atol=1e-5)


def test_flat_examples_are_refused():
    with pytest.raises(ValueError, match=r"ResNet takes images \[h, w, c\] or a batch of them \[m, h, w, c\], got shape \(3, 784\)"):
        ResNet().init(jax.random.key(0), jnp.zeros((3, 784)))

"""ResNet-18 for small images, with group norm; its groups fit every width."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coherence.lab.models import ResNet
from coherence.lab.models.residual import groups


def shapes(model, *image):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(image))["params"]


def test_resnet_18_has_eleven_million_parameters():
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes(ResNet(), 32, 32, 3))) == 11_173_962


def test_depth_is_the_blocks_of_a_stage_and_width_the_first_stages_channels():
    params = shapes(ResNet(width=6, depth=3, stages=2), 8, 8, 3)
    blocks = {name.split("_conv")[0] for name in params if "_conv" in name}
    assert blocks == {f"stage_{stage}_block_{block}" for stage in range(2) for block in range(3)}
    assert params["stem"]["kernel"].shape == (3, 3, 3, 6)
    assert params["stage_1_block_2_conv_1"]["kernel"].shape == (3, 3, 12, 12)
    assert params["output"]["kernel"].shape == (12, 10)


@pytest.mark.parametrize(
    ("width", "count"), [(64, 32), (128, 32), (48, 24), (50, 25), (4, 2), (7, 1), (1, 1)]
)
def test_any_width_has_its_groups(width, count):
    assert groups(width) == count
    shapes(ResNet(width=width, depth=1), 8, 8, 1)  # and the wider stages take them too


def test_a_narrow_net_still_tells_images_of_a_single_pixel_apart():
    """Where every channel were a group of its own, a norm over 1 x 1 pixels would leave zeros."""
    x = jax.random.normal(jax.random.key(1), (8, 1, 1, 5))
    logits, _ = jax.jit(ResNet(width=4, depth=1, stages=1).init_with_output)(jax.random.key(0), x)
    assert np.ptp(logits, axis=0).max() > 0.1

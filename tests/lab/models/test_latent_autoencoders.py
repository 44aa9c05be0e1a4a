"""A VAE whose code is a map: its numbers are about places; and its discriminator of patches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coherence.lab.models import SpatialVAE

SMALL = {"width": 2, "latents": 16, "shape": (8, 8, 1)}
X = jax.random.uniform(jax.random.key(0), (3, 8, 8, 1))


def moved(model, changed):
    """Which numbers of the code's mean move when the first image's top left pixel does."""
    params = model.init(jax.random.key(1), X)
    encode = jax.jit(lambda x: model.apply(params, x, method="encode")[0])
    return encode(X[0]) != encode(X[0].at[changed].add(1.0))


def test_numbers_of_a_spatial_code_are_about_their_places_and_others_about_the_whole_image():
    here = np.asarray(moved(SpatialVAE(**SMALL), (0, 0, 0))).reshape(4, 4)
    assert here[0, 0]
    assert not here[3].any()
    assert not here[:, 3].any()
    assert np.asarray(moved(SpatialVAE(**SMALL, spatial=False), (0, 0, 0))).all()


@pytest.mark.parametrize("spatial", [True, False])
def test_codes_are_flat_and_a_batch_gives_what_its_images_give(spatial):
    model = SpatialVAE(**{**SMALL, "latents": 8, "halvings": 2}, spatial=spatial, patches=2)
    params = model.init(jax.random.key(1), X)
    for method, shape in (("encode", (3, 8)), ("discriminate", (3, 16)), (None, X.shape)):
        apply = jax.jit(lambda x, how=method: model.apply(params, x, method=how))
        together, alone = (jax.tree.leaves(apply(x))[0] for x in (X, X[1]))
        assert together.shape == shape
        np.testing.assert_allclose(together[1], alone, rtol=1e-4, atol=1e-6)


def test_it_describes_itself():
    assert SpatialVAE().describe() == "VAE of 16 channels to 4x4x1"
    assert SpatialVAE(spatial=False, patches=8).describe() == (
        "VAE of 16 channels to 16 and patches of 8 channels"
    )
    assert "discriminator" not in SpatialVAE(**SMALL).init(jax.random.key(0), X)["params"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: SpatialVAE(latents=20),
            r"SpatialVAE\(latents=20\): .* 4 x 4 places, so latents is a multiple of 16",
        ),
        (
            lambda: SpatialVAE(halvings=2, shape=(8, 6, 1)),
            r"SpatialVAE\(halvings=2, shape=\(8, 6, 1\)\): height and width are multiples of 4",
        ),
        (lambda: SpatialVAE(halvings=0), "halvings is at least 1"),
        (
            lambda: SpatialVAE().init(jax.random.key(0), jnp.zeros(5)),
            r"shape: \(8, 8, 1\) holds 64 numbers and a flat example has 5",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()

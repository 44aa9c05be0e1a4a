"""Convolutions: shared weights under a moving window.

The inputs are kept, never the patches, which are larger by the window.
"""

import dataclasses
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from coherence.gradients.jax_internals import is_in_automatic_mesh, struct_like

from .outer import pairs_are_cheaper
from .term import IN_CACHE, Term, by_examples, static, sum_by_examples

# Positions from which on an example's gradient is cheap to form beside its patches, and of fewer
# the numbers in the patches of the examples that go into one product.
_MANY = 128
_FEW_POSITIONS = 2**19


class Window(NamedTuple):
    """The geometry of a convolution, as `jax.lax.conv_general_dilated` has it.

    One entry a spatial dimension.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]

    def convolve(self, images, kernel, groups):
        """[M, ..., C] and [..., C / groups, O] to [M, ..., O]."""
        letters = "DHW"[-len(self.shape) :]
        numbers = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
        return jax.lax.conv_general_dilated(
            images, kernel, *self[1:], feature_group_count=groups, dimension_numbers=numbers
        )

    def views(self, images):
        """What each place of the window sees, one after the other.

        The images, padded, shifted and strided, [..., positions, C].
        """
        padded = self._padded(images)
        for place in itertools.product(*map(range, self.shape)):
            view = padded
            for axis, o in enumerate(place):
                view = self._shifted(view, axis, o)
            yield view

    def patches(self, images):
        """All views together, [..., positions, (places, C)].

        By one axis after the other, which compiles in half the time.
        """
        images = self._padded(images)
        for axis in reversed(range(len(self.shape))):
            images = jnp.concatenate(
                [self._shifted(images, axis, o) for o in range(self.shape[axis])], -1
            )
        return images

    def _padded(self, images):
        none = (0, 0, 0)
        edges = [
            (low, high, dilation - 1)
            for (low, high), dilation in zip(self.padding, self.lhs_dilation)
        ]
        return jax.lax.pad(
            images,
            jnp.zeros((), images.dtype),
            [none] * (images.ndim - len(edges) - 1) + edges + [none],
        )

    def _shifted(self, padded, axis, o):
        """What place o of the window sees along one spatial axis."""
        where = padded.ndim - 1 - len(self.shape) + axis
        last = padded.shape[where] - (self.shape[axis] - 1 - o) * self.rhs_dilation[axis]
        return jax.lax.slice_in_dim(
            padded, o * self.rhs_dilation[axis], last, self.strides[axis], where
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Convolved(Term):
    """G_i[b, (o, c), n] = sum_t x_i[t s + o, b, c] cotangents_i[b, t, n].

    o runs over the window's places, b over feature groups.

    `inputs` x is [m, images, ..., B C], one example holding one image or several; T runs over
    images and positions.
    """

    window: Window = static(default=None)

    positions = (0, 1)
    batches = (-1, 0)

    @property
    def dims(self):
        m, b, t, n = self.cotangents.shape
        return m, b, t, math.prod(self.window.shape) * (self.inputs.shape[-1] // b), n

    def form(self, cotangents=None):
        return self._each_formed(lambda g: g, self.cotangents if cotangents is None else cotangents)

    def squared_norms(self):
        _, _, t, k, n = self.dims
        if pairs_are_cheaper(t, k, n):
            return self._squared_norms_by_pairs()
        return self._each_formed(lambda g: jnp.sum(jnp.square(g), (1, 2, 3)), self.cotangents)

    def weighted_sum(self, weights):
        if self.dims[1] > 1 or is_in_automatic_mesh():
            return self._sum_by_convolution(weights)
        return jax.lax.platform_dependent(
            weights, cpu=self._sum_by_patches, default=self._sum_by_convolution
        )

    def _sum_by_convolution(self, weights):
        """The plain gradient of a convolution whose cotangents are weighted."""
        _, b, _, k, n = self.dims
        weighted = self.weighted_cotangents(weights)
        images = self.inputs.reshape(-1, *self.inputs.shape[2:]).astype(self.dtype)
        shape = (*self.window.shape, k // math.prod(self.window.shape), b * n)
        kernel = struct_like(weighted, shape)
        convolve = lambda x: self.window.convolve(images, x, b)
        outputs = jnp.moveaxis(weighted, 1, 2).reshape(jax.eval_shape(convolve, kernel).shape)
        return self._to_groups(jax.linear_transpose(convolve, kernel)(outputs)[0])

    def _sum_by_patches(self, weights):
        """The same by products of patches in the cache.

        XLA's own gradient of a kernel takes up to four times as long on CPU, and ten times that in
        a loop over microbatches.
        """
        _, _, t, k, _ = self.dims

        def of_few(images, cotangents, weights):
            few = dataclasses.replace(self, inputs=images, cotangents=cotangents)
            d, patches = few.weighted_cotangents(weights), few._patches(images)
            if t < _MANY:
                return jnp.einsum("mbtn,mbtk->bnk", d, patches)
            # As norms are taken, of each; sums of the few matrices are cheap.
            return jnp.sum(jnp.einsum("mbtn,mbtk->mbnk", d, patches), 0)

        arrays = self.inputs, self.cotangents, weights
        room = _FEW_POSITIONS if t < _MANY else IN_CACHE
        return sum_by_examples(of_few, arrays, t * k, room).swapaxes(1, 2)

    def dot(self, vector):
        """The outputs that v makes, against the cotangents."""
        m, b, t, k, n = self.dims
        kernel = (
            jnp.moveaxis(vector, 0, 1)
            .reshape(*self.window.shape, k // math.prod(self.window.shape), b * n)
            .astype(self.dtype)
        )
        outputs = self.window.convolve(
            self.inputs.reshape(-1, *self.inputs.shape[2:]).astype(self.dtype), kernel, b
        )
        return jnp.einsum(
            "mtbn,mbtn->m", outputs.reshape(m, t, b, n), self.cotangents.astype(self.dtype)
        )

    def bilinear(self, left, right):
        def products(images, d):
            return jnp.sum(left.dot(self._patches(images)[:, 0]) * right.dot(d), 1)

        _, _, t, k, _ = self.dims
        arrays = self.inputs, self.cotangents[:, 0]
        return by_examples(products, arrays, t * max(k, len(left.rows)))

    def _squared_norms_by_pairs(self):
        """||g_i||^2 for each example, from Gram matrices over positions.

        The Gram matrix of patches is the sum over the window's places of those of the
        shifted images.
        """
        m, b, t, _, _ = self.dims
        d = self.cotangents.astype(self.dtype)
        views = [
            jnp.moveaxis(view.reshape(m, t, b, -1), 2, 1)
            for view in self.window.views(self.inputs.astype(self.dtype))
        ]
        patches = sum(jnp.einsum("mbtc,mbuc->mbtu", view, view) for view in views)
        return jnp.einsum("mbtu,mbtu->m", patches, jnp.einsum("mbtn,mbun->mbtu", d, d))

    def _each_formed(self, reduce, cotangents):
        """`reduce(G [few, B, K, n])`, a few examples at a time.

        Their patches are made, used in the cache and forgotten.
        """
        _, b, t, k, _ = self.dims

        def few(images, d):
            g = jnp.einsum("mbtn,mbtk->mbnk", d.astype(self.dtype), self._patches(images))
            return reduce(g.swapaxes(2, 3))

        return by_examples(few, (self.inputs, cotangents), b * t * k)

    def _patches(self, images):
        """What the window sees at each position, [few, B, T, K], in the accumulator's dtype."""
        _, b, t, k, _ = self.dims
        places = math.prod(self.window.shape)
        patches = self.window.patches(images.astype(self.dtype))
        patches = patches.reshape(-1, t, places, b, k // places)
        return jnp.moveaxis(patches, 3, 1).reshape(-1, b, t, k)

    def _to_groups(self, kernel):
        """[..., C, B N] -> [B, (places, C), N]."""
        _, b, _, k, n = self.dims
        return jnp.moveaxis(kernel.reshape(k, b, n), 1, 0)

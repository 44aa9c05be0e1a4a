"""Restricted Boltzmann machines: an energy for every joint state of visible and hidden units."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from coherence.lab.models.network import at_least, chain_of

START = 0.01
"""Standard deviation of the initial weights; biases start at 0 (Hinton, 2010, Section 8)."""


class RBM(nn.Module):
    r"""A restricted Boltzmann machine of binary units, with or without units for the label.

    .. math:: E(v, h) = -b \cdot v - c \cdot h - v^\top W h, \qquad p(v, h) = e^{-E(v, h)} / Z

    v = [x, one-hot y] where there are classes: of the label's units exactly one is on, so that they
    are a softmax given h, and the machine models p(x, y). Within a layer units are independent
    given the other layer.

    All methods take one state, `[visible + classes]` or `[hidden]`, or a batch of them.

    Smolensky (1986); labels among the visible units: Larochelle & Bengio, Classification using
    discriminative restricted Boltzmann machines (2008).
    """

    visible: int = 64
    """Numbers in x."""
    hidden: int = 128
    """Hidden units."""
    classes: int = 0
    """Labels there are; 0: the machine models p(x)."""

    def __post_init__(self) -> None:
        at_least(self, visible=1, hidden=1, classes=0)
        super().__post_init__()

    @nn.nowrap
    def describe(self) -> str:
        """The machine in a few words: `RBM 64-128, 10 classes`."""
        labels = f", {self.classes} classes" if self.classes else ""
        return f"RBM {chain_of(self.visible, self.hidden)}{labels}"

    def setup(self):
        normal, zeros = nn.initializers.normal(START), nn.initializers.zeros
        self.kernel = self.param("kernel", normal, (self.visible, self.hidden))
        self.bias = self.param("bias", zeros, (self.visible,))
        self.hidden_bias = self.param("hidden_bias", zeros, (self.hidden,))
        if self.classes:
            self.label_kernel = self.param("label_kernel", normal, (self.classes, self.hidden))
            self.label_bias = self.param("label_bias", zeros, (self.classes,))

    @nn.nowrap
    def joined(self, x: jax.Array, *labels: jax.Array) -> jax.Array:
        """v of x and its integer label, which only a machine with classes has."""
        return jnp.concatenate([x, *(jax.nn.one_hot(y, self.classes) for y in labels)], -1)

    def __call__(self, x: jax.Array, *labels: jax.Array) -> jax.Array:
        """The free energy of x and its label."""
        return self.free_energy(self.joined(x, *labels))

    def energy(self, v: jax.Array, h: jax.Array) -> jax.Array:
        """E(v, h)."""
        return -self._visible_score(v) - jnp.sum(h * self.hidden_logits(v), -1)

    def free_energy(self, v: jax.Array) -> jax.Array:
        r"""F(v), with p(v) = exp(-F(v)) / Z: the energy with the hidden units summed out.

        .. math:: F(v) = -b \cdot v - \sum_j \log(1 + e^{c_j + (W^\top v)_j})
        """
        return -self._visible_score(v) - jnp.sum(jax.nn.softplus(self.hidden_logits(v)), -1)

    def hidden_logits(self, v: jax.Array) -> jax.Array:
        """Of p(h = 1 | v), for each hidden unit."""
        x, label = v[..., : self.visible], v[..., self.visible :]
        logits = x @ self.kernel + self.hidden_bias
        return logits + label @ self.label_kernel if self.classes else logits

    def visible_logits(self, h: jax.Array) -> jax.Array:
        """Of p(x = 1 | h), for each number of x, then of p(y | h), a softmax."""
        x = h @ self.kernel.T + self.bias
        if not self.classes:
            return x
        return jnp.concatenate([x, h @ self.label_kernel.T + self.label_bias], -1)

    def label_logits(self, x: jax.Array) -> jax.Array:
        """-F(x, y) of every label, `[..., classes]`: log p(y | x) up to a constant, exactly."""
        logits = (x @ self.kernel + self.hidden_bias)[..., None, :] + self.label_kernel
        joint = jnp.sum(jax.nn.softplus(logits), -1) + self.label_bias
        return joint + (x @ self.bias)[..., None]

    def gibbs(self, v: jax.Array, key: jax.Array, *, clamped: bool = False) -> jax.Array:
        """One sweep: all hidden units given v, then all visible ones given these.

        Args:
            v: one state.
            clamped: keep the label as it is, so that sweeps draw from p(x | y).
        """
        hidden_key, visible_key = jax.random.split(key)
        h = self._on(hidden_key, self.hidden_logits(v))
        logits = self.visible_logits(h)
        if not self.classes:
            return self._on(visible_key, logits)
        pixel_key, label_key = jax.random.split(visible_key)
        x, label = self._on(pixel_key, logits[: self.visible]), v[self.visible :]
        if not clamped:
            drawn = jax.random.categorical(label_key, logits[self.visible :])
            label = jax.nn.one_hot(drawn, self.classes)
        return jnp.concatenate([x, label])

    def _visible_score(self, v):
        score = v[..., : self.visible] @ self.bias
        return score + v[..., self.visible :] @ self.label_bias if self.classes else score

    @nn.nowrap
    def _on(self, key, logits):
        """Which units are on, 1 or 0, drawn with the probabilities of these logits."""
        uniform = jax.random.uniform(key, logits.shape, logits.dtype)
        return (uniform < jax.nn.sigmoid(logits)).astype(logits.dtype)

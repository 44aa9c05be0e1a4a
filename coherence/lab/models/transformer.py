"""A small transformer over tokens, layer norm before each block."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp


class Transformer(nn.Module):
    """A causal transformer over tokens: logits over the vocabulary at every position.

    Each layer is self-attention and a GELU MLP, with layer norm before each.
    Takes one sequence of token numbers [T] or a batch [m, T]; returns [..., T, vocabulary]. With
    `tied`, the embedding is also the output layer. No dropout.

    >>> model = Transformer(vocabulary=16, length=5, width=8, depth=1, heads=2)
    >>> jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.zeros((2, 5), int))[0].shape
    (2, 5, 16)
    """

    vocabulary: int = 256
    length: int = 128
    width: int = 256
    depth: int = 4
    heads: int = 4
    tied: bool = True

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        embed = nn.Embed(self.vocabulary, self.width, name="embedding")
        positions = self.param("positions", nn.initializers.normal(0.02), (self.length, self.width))
        x = embed(tokens) + positions[: tokens.shape[-1]]
        mask = nn.make_causal_mask(jnp.ones(tokens.shape))
        for layer in range(self.depth):
            y = nn.LayerNorm(name=f"norm_attention_{layer}")(x)
            x = x + nn.MultiHeadDotProductAttention(self.heads, name=f"attention_{layer}")(
                y, mask=mask
            )
            y = nn.LayerNorm(name=f"norm_mlp_{layer}")(x)
            y = nn.gelu(nn.Dense(4 * self.width, name=f"mlp_in_{layer}")(y))
            x = x + nn.Dense(self.width, name=f"mlp_out_{layer}")(y)
        x = nn.LayerNorm(name="norm_output")(x)
        return embed.attend(x) if self.tied else nn.Dense(self.vocabulary, name="output")(x)

"""The benchmark's nets in plain PyTorch.

The shapes of `coherence.lab.models`, written as a PyTorch user would for these libraries.

Every parameter sits in a leaf module with an example axis first in its input (positions are an
embedding, attention is four linear layers), because hooks see nothing else; none is called
`output`, a name BackPACK writes to on modules. Nothing here depends on the libraries compared.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class Problem(NamedTuple):
    """A net and one batch; `m` examples on the leading axis of `x` and `y`."""

    model: nn.Module
    x: torch.Tensor
    y: torch.Tensor

    @property
    def m(self):
        return len(self.x)


def problem(net):
    """The net of this name with its batch, on the GPU where there is one."""
    torch.manual_seed(0)
    make, draw = NETS[net]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Problem(
        make().to(device), *(torch.from_numpy(a).to(device) for a in draw(np.random.default_rng(0)))
    )


def images(*shape):
    return lambda rng: (rng.normal(size=shape).astype(np.float32), rng.integers(10, size=shape[0]))


def tokens(m, length, vocabulary):
    def draw(rng):
        text = rng.integers(vocabulary, size=(m, length + 1))
        return text[:, :-1].copy(), text[:, 1:].copy()

    return draw


class CNN(nn.Module):
    def __init__(self, features=(32, 64, 64)):
        super().__init__()
        sizes = zip((3, *features), features)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2 if i else 1, padding=1) for i, (a, b) in enumerate(sizes)
        )
        self.logits = nn.Linear(8 * 8 * features[-1], 10)

    def forward(self, x):
        for conv in self.convs:
            x = F.relu(conv(x))
        return self.logits(x.flatten(1))


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, a 1 x 1 convolution where the shape changes."""

    def __init__(self, inputs, features, stride):
        super().__init__()
        self.conv_0, self.norm_0 = (
            nn.Conv2d(inputs, features, 3, stride, 1, bias=False),
            nn.GroupNorm(32, features),
        )
        self.conv_1, self.norm_1 = (
            nn.Conv2d(features, features, 3, 1, 1, bias=False),
            nn.GroupNorm(32, features),
        )
        changes = stride > 1 or inputs != features
        self.shortcut = (
            nn.Sequential(
                nn.Conv2d(inputs, features, 1, stride, bias=False), nn.GroupNorm(32, features)
            )
            if changes
            else nn.Identity()
        )

    def forward(self, x):
        y = F.relu(self.norm_0(self.conv_0(x)))
        return F.relu(self.norm_1(self.conv_1(y)) + self.shortcut(x))


class ResNet18(nn.Module):
    """The variant for 32 x 32 images: a 3 x 3 stem, no pooling before the mean over positions."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.GroupNorm(32, 64)
        widths = [
            (64, 64, 1),
            (64, 64, 1),
            (64, 128, 2),
            (128, 128, 1),
            (128, 256, 2),
            (256, 256, 1),
            (256, 512, 2),
            (512, 512, 1),
        ]
        self.blocks = nn.Sequential(*(Block(*w) for w in widths))
        self.logits = nn.Linear(512, 10)

    def forward(self, x):
        return self.logits(self.blocks(F.relu(self.norm(self.stem(x)))).mean((2, 3)))


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x):
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        return self.out(
            (scores.masked_fill(future, -torch.inf).softmax(-1) @ v).transpose(1, 2).flatten(2)
        )


class TransformerLayer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp_in, self.mlp_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        x = x + self.attention(self.norm_attention(x))
        return x + self.mlp_out(F.gelu(self.mlp_in(self.norm_mlp(x)), approximate="tanh"))


class Transformer(nn.Module):
    def __init__(self, vocabulary=256, length=128, width=256, depth=4, heads=4, tied=False):
        super().__init__()
        self.embedding, self.positions = (
            nn.Embedding(vocabulary, width),
            nn.Embedding(length, width),
        )
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.layers = nn.Sequential(*(TransformerLayer(width, heads) for _ in range(depth)))
        self.norm_output = nn.LayerNorm(width)
        self.logits = nn.Linear(width, vocabulary, bias=not tied)
        if tied:
            self.logits.weight = self.embedding.weight

    def forward(self, x):
        positions = torch.arange(x.shape[1], device=x.device).repeat(
            len(x), 1
        )  # expand gives strides Opacus refuses
        return self.logits(
            self.norm_output(self.layers(self.embedding(x) + self.positions(positions)))
        )


class LSTM(nn.Module):
    def __init__(self, inputs=32, width=128):
        super().__init__()
        self.lstm, self.logits = nn.LSTM(inputs, width, batch_first=True), nn.Linear(width, 10)

    def forward(self, x):
        return self.logits(self.lstm(x)[0][:, -1])


NETS = {
    "MLP 784-2048-10, m=100": (
        lambda: nn.Sequential(nn.Linear(784, 2048), nn.ReLU(), nn.Linear(2048, 10)),
        images(100, 784),
    ),
    "CNN 32-64-64, 32x32x3, m=128": (CNN, images(128, 3, 32, 32)),
    "ResNet-18, group norm, m=32": (ResNet18, images(32, 3, 32, 32)),
    "transformer 4x256, T=128, m=16": (Transformer, tokens(16, 128, 256)),
    "the same, tied embedding": (lambda: Transformer(tied=True), tokens(16, 128, 256)),
    "LSTM 128, T=64, m=32": (LSTM, images(32, 64, 32)),
}

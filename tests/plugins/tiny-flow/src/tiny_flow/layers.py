"""A small transformer in three parts: what makes tokens, the blocks, what makes a picture of tokens again.

B rows, N patches of P x P pixels, C width. A token in front of the patches holds the time and the class.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from ditbench.methods.backbones.layers import mix_heads, timestep_embedding
from ditbench.methods.call import PLAIN, Call
from ditbench.methods.errors import ConfigError
from torch import Tensor, nn

CHANNELS, SIDE, CLASSES = 1, 8, 10  # the handwritten digits: what facts in entries.py say


@dataclass(frozen=True)
class Shape:
    """What a suite may set under ``config:``. A ConfigError becomes one line that points into the suite."""

    width: int = 64
    depth: int = 4
    heads: int = 4
    patch: int = 2

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ConfigError(f"heads {self.heads} does not divide width {self.width}")
        if SIDE % self.patch:
            raise ConfigError(f"patch {self.patch} does not divide the side of {SIDE} pixels")

    @property
    def tokens(self) -> int:
        return (SIDE // self.patch) ** 2 + 1


class Embed(nn.Module):
    """x (B, 1, 8, 8), t (B,), y (B,) -> tokens (B, 1 + N, C)."""

    def __init__(self, shape: Shape, time_scale: float) -> None:
        super().__init__()
        self.patch, self.time_scale = shape.patch, time_scale
        self.pixels = nn.Linear(CHANNELS * shape.patch**2, shape.width)
        self.time = nn.Linear(64, shape.width)
        self.label = nn.Embedding(CLASSES + 1, shape.width)  # the last row means "no class": it makes guidance possible
        self.place = nn.Parameter(0.02 * torch.randn(1, shape.tokens, shape.width))

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        rows, grid, p = len(x), SIDE // self.patch, self.patch
        patches = x.view(rows, CHANNELS, grid, p, grid, p).permute(0, 2, 4, 1, 3, 5).reshape(rows, grid * grid, -1)
        time = timestep_embedding(self.time_scale * t, 64).to(x.dtype)
        told = self.time(time) + self.label(y)
        return torch.cat([told[:, None], self.pixels(patches)], 1) + self.place


class Attention(nn.Module):
    """(B, N, C) -> (B, N, C)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.norm = nn.LayerNorm(shape.width)
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        self.out = nn.Linear(shape.width, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.out(mix_heads(self.qkv(self.norm(x)), self.heads).flatten(2))
        return mixed


class Mlp(nn.Module):
    """(B, N, C) -> (B, N, C)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(shape.width)
        self.up = nn.Linear(shape.width, 4 * shape.width)
        self.down = nn.Linear(4 * shape.width, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(nn.functional.gelu(self.up(self.norm(x))))
        return out


class Block(nn.Module):
    """(B, N, C) -> (B, N, C). Its units run through ``call.unit``, so that modifiers can wrap, reuse or skip them."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention, self.mlp = Attention(shape), Mlp(shape)

    def forward(self, x: Tensor, call: Call = PLAIN) -> Tensor:
        x = x + call.unit("attention", x, self.attention)
        return x + call.unit("mlp", x, self.mlp)


class Head(nn.Module):
    """Tokens (B, 1 + N, C) -> (B, 1, 8, 8)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.patch = shape.patch
        self.norm = nn.LayerNorm(shape.width)
        self.pixels = nn.Linear(shape.width, CHANNELS * shape.patch**2)

    def forward(self, tokens: Tensor) -> Tensor:
        rows, grid, p = len(tokens), SIDE // self.patch, self.patch
        made = self.pixels(self.norm(tokens[:, 1:])).view(rows, grid, grid, CHANNELS, p, p)
        picture: Tensor = made.permute(0, 3, 1, 4, 2, 5).reshape(rows, CHANNELS, SIDE, SIDE)
        return picture

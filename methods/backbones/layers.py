"""Layers that DiT-like transformers share, under the parameter names of the public DiT checkpoints.

Shapes: B batch, N tokens, C width, H heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Packing:
    """Rows that hold tokens of several sequences, which must not see each other.

    condition  which condition a token has: (B,) where a row has one, else (B, N); indices
    mask       which keys a query sees: (B or 1, 1, N, N) bool
    """

    condition: Tensor
    mask: Tensor


def per_token(vector: Tensor) -> Tensor:
    """(B, C), one for all tokens of a row, -> (B, 1, C); (B, N, C) as it is."""
    return vector.unsqueeze(1) if vector.ndim == 2 else vector


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x * (1 + scale) + shift, with x (B, N, C) and shift, scale (B, C) or (B, N, C)."""
    return torch.addcmul(per_token(shift), x, 1 + per_token(scale))


def timestep_embedding(t: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Sinusoidal features of t (B,): (B, dim), cosines first, frequencies max_period^(-k / (dim/2))."""
    half = dim // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t[:, None].float() * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def sincos_1d(positions: Tensor, dim: int) -> Tensor:
    """Sines then cosines of positions (N,) at frequencies 10000^(-k / (dim/2)): (N, dim), float64."""
    omega = 10_000.0 ** (-torch.arange(dim // 2, dtype=torch.float64, device=positions.device) / (dim / 2))
    angles = positions.double()[:, None] * omega[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def sincos_2d(places: Tensor, dim: int) -> Tensor:
    """Fixed position embedding of a square grid with these coordinates (grid,) on both axes, row-major: (grid^2, dim),
    float32.

    The first half of the width encodes the column, the second half the row, as in the public checkpoints.
    """
    axis = places.double()
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    return torch.cat([sincos_1d(columns.flatten(), dim // 2), sincos_1d(rows.flatten(), dim // 2)], 1).float()


class PatchEmbed(nn.Module):
    """(B, C_in, S, S) -> (B, N, C), non-overlapping patches, row-major."""

    def __init__(self, patch_size: int, in_channels: int, hidden_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, hidden_size, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.proj(x)
        return out.flatten(2).transpose(1, 2)


class TimestepEmbedder(nn.Module):
    """t (B,) -> (B, C): 256 sinusoidal features through a two-layer MLP with SiLU."""

    features = 256

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(self.features, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size))

    def forward(self, t: Tensor) -> Tensor:
        embedded: Tensor = self.mlp(timestep_embedding(t, self.features).to(next(self.mlp.parameters()).dtype))
        return embedded


class LabelEmbedder(nn.Module):
    """Class labels (B,) -> (B, C). One row more than classes: the last one means "no class"."""

    def __init__(self, num_classes: int, hidden_size: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, hidden_size)

    def forward(self, y: Tensor) -> Tensor:
        embedded: Tensor = self.embedding_table(y)
        return embedded


class Attention(nn.Module):
    """Multi-head self-attention (B, N, C) -> (B, N, C) with the fused kernel of the device at hand.

    Rows of ``qkv`` are ordered query, key, value, then head, then head dimension.
    """

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        out: Tensor = self.proj(mix_heads(self.qkv(x), self.num_heads, mask).flatten(2))
        return out


def mix_heads(qkv: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Softmax attention within each head: joint projections (B, N, 3·heads·d) -> (B, N, heads, d).

    ``mask`` (B or 1, 1, N, N) bool: which keys a query sees; None: all.
    """
    query, key, value = qkv.view(*qkv.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh approximation, as the public checkpoints were trained with."""
    return F.gelu(x, approximate="tanh")


class Mlp(nn.Module):
    """fc1, GELU, fc2 on the last axis."""

    def __init__(self, hidden_size: int, mlp_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, mlp_size)
        self.fc2 = nn.Linear(mlp_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(gelu(self.fc1(x)))
        return out

"""TDW at inference: weights of active heads and channel groups, sliced; ``ditbench.methods.prepared`` keeps them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditbench.methods.backbones.layers import Attention, Mlp, gelu, mix_heads

Indices = tuple[int, ...]
WeightOf = Callable[[nn.Linear], Tensor]


def stored(layer: nn.Linear) -> Tensor:
    """The weight as it is."""
    return layer.weight


@dataclass(frozen=True, eq=False)
class AttentionSlice:
    """Attention of ``heads`` heads: (B, N, C) -> (B, N, C). Without any head the bias of the projection is left."""

    heads: int
    qkv_weight: Tensor
    qkv_bias: Tensor
    proj_weight: Tensor
    proj_bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        if not self.heads:
            return self.proj_bias.expand_as(x)
        mixed = mix_heads(F.linear(x, self.qkv_weight, self.qkv_bias), self.heads)
        return F.linear(mixed.flatten(2), self.proj_weight, self.proj_bias)


@dataclass(frozen=True, eq=False)
class MlpSlice:
    """MLP of some channel groups: (..., C) -> (..., C). Without any group the second bias is left."""

    fc1_weight: Tensor
    fc1_bias: Tensor
    fc2_weight: Tensor
    fc2_bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        if not len(self.fc1_bias):
            return self.fc2_bias.expand_as(x)
        return F.linear(gelu(F.linear(x, self.fc1_weight, self.fc1_bias)), self.fc2_weight, self.fc2_bias)


def slice_attention(attention: Attention, heads: Indices, weight_of: WeightOf = stored) -> AttentionSlice:
    """Rows of W_Q, W_K, W_V and columns of W_O of ``heads``; with all heads the weights themselves, uncopied."""
    qkv, proj, total = attention.qkv, attention.proj, attention.num_heads
    joint, out = weight_of(qkv), weight_of(proj)
    if len(heads) == total:
        return AttentionSlice(total, joint, qkv.bias, out, proj.bias)
    chosen, width = torch.tensor(heads, dtype=torch.long, device=joint.device), joint.shape[1]
    return AttentionSlice(
        len(heads),
        joint.view(3, total, -1, width).index_select(1, chosen).flatten(0, 2),
        qkv.bias.view(3, total, -1).index_select(1, chosen).flatten(),
        out.view(width, total, -1).index_select(1, chosen).flatten(1),
        proj.bias,
    )


def slice_mlp(mlp: Mlp, groups: Indices, total: int, weight_of: WeightOf = stored) -> MlpSlice:
    """Rows of fc1 and columns of fc2 of ``groups`` (of ``total`` contiguous ones); with all groups no copy."""
    fc1, fc2 = mlp.fc1, mlp.fc2
    first, second = weight_of(fc1), weight_of(fc2)
    if len(groups) == total:
        return MlpSlice(first, fc1.bias, second, fc2.bias)
    chosen, width = torch.tensor(groups, dtype=torch.long, device=first.device), first.shape[1]
    return MlpSlice(
        first.view(total, -1, width).index_select(0, chosen).flatten(0, 1),
        fc1.bias.view(total, -1).index_select(0, chosen).flatten(),
        second.view(width, total, -1).index_select(1, chosen).flatten(1),
        fc2.bias,
    )

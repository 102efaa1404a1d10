"""TDW at inference: weights of the active heads and channel groups, sliced once and kept while memory allows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.backbones.layers import Attention, Mlp, gelu, mix_heads

Indices = tuple[int, ...]


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


def slice_attention(attention: Attention, heads: Indices) -> AttentionSlice:
    """Rows of W_Q, W_K, W_V and columns of W_O of ``heads``; with all heads the weights themselves, uncopied."""
    qkv, proj, total = attention.qkv, attention.proj, attention.num_heads
    if len(heads) == total:
        return AttentionSlice(total, qkv.weight, qkv.bias, proj.weight, proj.bias)
    chosen, width = torch.tensor(heads, dtype=torch.long, device=qkv.weight.device), qkv.weight.shape[1]
    return AttentionSlice(
        len(heads),
        qkv.weight.view(3, total, -1, width).index_select(1, chosen).flatten(0, 2),
        qkv.bias.view(3, total, -1).index_select(1, chosen).flatten(),
        proj.weight.view(width, total, -1).index_select(1, chosen).flatten(1),
        proj.bias,
    )


def slice_mlp(mlp: Mlp, groups: Indices, total: int) -> MlpSlice:
    """Rows of fc1 and columns of fc2 of ``groups`` (of ``total`` contiguous ones); with all groups no copy."""
    fc1, fc2 = mlp.fc1, mlp.fc2
    if len(groups) == total:
        return MlpSlice(fc1.weight, fc1.bias, fc2.weight, fc2.bias)
    chosen, width = torch.tensor(groups, dtype=torch.long, device=fc1.weight.device), fc1.weight.shape[1]
    return MlpSlice(
        fc1.weight.view(total, -1, width).index_select(0, chosen).flatten(0, 1),
        fc1.bias.view(total, -1).index_select(0, chosen).flatten(),
        fc2.weight.view(width, total, -1).index_select(1, chosen).flatten(1),
        fc2.bias,
    )


Slice = AttentionSlice | MlpSlice
Key = tuple[int, str, Indices]
"""(layer, 'attention' or 'mlp', indices of the active parts)."""


class PreparedWeights:
    """Slices by (layer, kind, indices), least recently used dropped first, never more than ``limit`` bytes.

    Plans that agree in a layer share its slices. Slices that are the weights themselves take no room. A slice is
    made anew when the weights were written to in between.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self._kept: OrderedDict[Key, tuple[tuple[tuple[Tensor, int], ...], Slice, int]] = OrderedDict()

    def get(self, key: Key, sources: tuple[Tensor, ...], make: Callable[[], Slice]) -> Slice:
        """The slice of ``key``; ``sources`` are the weights that ``make`` reads."""
        versions = tuple((tensor, 0 if tensor.is_inference() else tensor._version) for tensor in sources)
        if (found := self._kept.get(key)) is not None:
            if all(a is b and v == w for (a, v), (b, w) in zip(found[0], versions, strict=True)):
                self._kept.move_to_end(key)
                return found[1]
            self._drop(key)
        # ordinary tensors even when the first call is an inference-mode one: later calls may differentiate
        with torch.inference_mode(False), torch.no_grad():
            made = make()
        own = {tensor.data_ptr() for tensor in sources}
        tensors = [value for value in vars(made).values() if isinstance(value, Tensor)]
        size = sum(t.numel() * t.element_size() for t in tensors if t.data_ptr() not in own)
        if size <= self.limit:
            while self.bytes + size > self.limit:
                self._drop(next(iter(self._kept)))
            self._kept[key] = (versions, made, size)
            self.bytes += size
        return made

    def clear(self) -> None:
        self._kept.clear()
        self.bytes = 0

    def _drop(self, key: Key) -> None:
        self.bytes -= self._kept.pop(key)[2]

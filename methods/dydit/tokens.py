"""SDT at inference: the selected tokens of the whole batch are gathered, processed and put back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ditbench.methods.backbones.layers import modulate


def apply_to_tokens(
    norm: Callable[[Tensor], Tensor],
    mlp: Callable[[Tensor], Tensor],
    x: Tensor,
    kept: Tensor,
    index: Tensor,
    shift: Tensor,
    scale: Tensor,
    gate: Tensor,
) -> Tensor:
    """x + gate * mlp(modulate(norm(x))) on the tokens that ``kept`` (B, N) bool selects, at the places ``index`` of
    the flattened batch; the others pass unchanged.

    x (B, N, C); shift, scale, gate (B, C). Norm and MLP act token by token, so the batch may be flattened. ``x`` is
    overwritten when some tokens are skipped.
    """
    if len(index) == kept.numel():
        gate = torch.where(kept[:, :1], gate, gate)  # no effect, but a tracer then keeps what made the verdict
        return torch.addcmul(x, gate.unsqueeze(1), mlp(modulate(norm(x), shift, scale)))
    flat, row = x.flatten(0, 1), index // x.shape[1]
    chosen = flat.index_select(0, index)
    done = torch.addcmul(chosen, gate.index_select(0, row), mlp(_modulated(norm, chosen, row, shift, scale)))
    return flat.index_copy_(0, index, done).view_as(x)


def spread_tokens(
    norm: Callable[[Tensor], Tensor],
    mlp: Callable[[Tensor], Tensor],
    x: Tensor,
    index: Tensor,
    shift: Tensor,
    scale: Tensor,
) -> Tensor:
    """mlp(modulate(norm(x))) at the places ``index`` of the flattened batch, zeros at the others: (B, N, C)."""
    flat, row = x.flatten(0, 1), index // x.shape[1]
    out = mlp(_modulated(norm, flat.index_select(0, index), row, shift, scale))
    return torch.zeros_like(flat).index_copy_(0, index, out).view_as(x)


def _modulated(norm: Callable[[Tensor], Tensor], chosen: Tensor, row: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift.index_select(0, row), norm(chosen), (1 + scale).index_select(0, row))


@dataclass(frozen=True, eq=False)
class Imposed:
    """mask (rows, tokens) bool with ``kept`` scattered tokens a row."""

    mask: Tensor
    kept: int


def chosen_tokens(kept: Tensor, imposed: Imposed | None) -> Tensor:
    """Places in the flattened batch that ``kept`` (B, N) selects; without values (on ``meta``) only as many."""
    if kept.is_meta:
        assert imposed is not None, "without values nothing else says how many"
        return kept.new_empty(len(kept) * imposed.kept, dtype=torch.long)
    return kept.flatten().nonzero().squeeze(1)


@torch.compiler.disable  # type: ignore[untyped-decorator]
@lru_cache(maxsize=1024)
def impose(rows: int, tokens: int, kept: int, seed: int, device: str) -> Imposed:
    """The same for the same ``seed``."""
    scores = torch.rand(rows, tokens, generator=torch.Generator().manual_seed(seed))
    return Imposed((scores.argsort(1).argsort(1) < kept).to(device), kept)

"""SDT at inference: the selected tokens of the whole batch are gathered, processed and put back."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from ditbench.methods.backbones.layers import modulate


def apply_to_tokens(
    norm: Callable[[Tensor], Tensor],
    mlp: Callable[[Tensor], Tensor],
    x: Tensor,
    kept: Tensor,
    shift: Tensor,
    scale: Tensor,
    gate: Tensor,
) -> Tensor:
    """x + gate * mlp(modulate(norm(x))) on the tokens that ``kept`` (B, N) bool selects; the others pass unchanged.

    x (B, N, C); shift, scale, gate (B, C). Norm and MLP act token by token, so the batch may be flattened. ``x`` is
    overwritten when some tokens are skipped.
    """
    index = kept.flatten().nonzero().squeeze(1)
    if len(index) == kept.numel():
        gate = torch.where(kept[:, :1], gate, gate)  # no effect, but a tracer then keeps what made the verdict
        return torch.addcmul(x, gate.unsqueeze(1), mlp(modulate(norm(x), shift, scale)))
    flat, row = x.flatten(0, 1), index // x.shape[1]
    chosen = flat.index_select(0, index)
    modulated = torch.addcmul(shift.index_select(0, row), norm(chosen), (1 + scale).index_select(0, row))
    done = torch.addcmul(chosen, gate.index_select(0, row), mlp(modulated))
    return flat.index_copy_(0, index, done).view_as(x)


@torch.compiler.disable  # type: ignore[untyped-decorator]
@lru_cache(maxsize=1024)
def imposed_mask(rows: int, tokens: int, kept: int, seed: int, device: str) -> Tensor:
    """(rows, tokens) bool with ``kept`` scattered tokens a row, the same for the same ``seed``."""
    scores = torch.rand(rows, tokens, generator=torch.Generator().manual_seed(seed))
    return (scores.argsort(1).argsort(1) < kept).to(device)

"""What trains routers: a loss on the compute they leave on, and its target over the steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ditbench.methods.dydit.activity import BlockCost
from ditbench.methods.dydit.block import Masks


def active_share(masks: Sequence[Masks], cost: BlockCost) -> Tensor:
    """MHSA and MLP MACs left on, as a share of the full model's, for each row: (B,), differentiable.

    Sum over blocks of h·A + g·n·M over L·(A + M), with h, g, n the active shares of heads, groups and tokens
    (arXiv 2410.03456, section 3.4; the part that is always on counts).
    """

    def share(mask: Tensor | None) -> Tensor | float:
        return 1.0 if mask is None else mask.mean(1)

    blocks = [share(mask.heads) * cost.attention + share(mask.groups) * share(mask.tokens) * cost.mlp for mask in masks]
    # a block that routes nothing is a plain number; the first that routes makes the sum a tensor
    total = torch.as_tensor(sum(blocks[1:], blocks[0]))
    return total / (len(masks) * (cost.attention + cost.mlp))


def flops_loss(shares: Tensor, target: float) -> Tensor:
    """(mean over the batch − target)²: single samples may differ, their mean may not."""
    return (shares.mean() - target).square()


def target_at(step: int, target: float, hold: int, ramp: int) -> float:
    """The target at ``step``: 1 for ``hold`` steps, then on the line from 1 at step 0 to ``target`` at ``ramp``."""
    if step < hold:
        return 1.0
    return 1.0 - (1.0 - target) * min(step / ramp, 1.0) if ramp else target

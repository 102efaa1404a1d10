"""What a call of a DyDiT executes, piece by piece, for counting: the same code on the same shapes as the call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ditbench.methods.dydit.block import DynamicBlock
from ditbench.methods.dydit.choices import Kept, Width
from ditbench.methods.dydit.width import slice_attention, slice_mlp
from ditbench.methods.plans import StepPlan
from ditbench.methods.work import WorkUnit

if TYPE_CHECKING:
    from ditbench.methods.dydit.model import DyDiT

TOKEN_ROUTERS, WIDTH_ROUTERS = "token routers", "width routers"


class Planner(nn.Module):
    """What TDW evaluates ahead of sampling: timesteps (T,) -> logits of heads and of groups, each (T, depth, H)."""

    def __init__(self, t_embedder: nn.Module, blocks: Sequence[DynamicBlock]) -> None:
        super().__init__()
        self.t_embedder = t_embedder
        self.heads = nn.ModuleList(block.attn_rate for block in blocks)
        self.groups = nn.ModuleList(block.mlp_rate for block in blocks)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        embedded = self.t_embedder(t)
        heads = torch.stack([router(embedded) for router in self.heads], 1)
        return heads, torch.stack([router(embedded) for router in self.groups], 1)


def work_units(model: DyDiT, plan: StepPlan, rows: int, decided: tuple[int, ...] | None) -> list[WorkUnit]:
    """See ``Denoiser.work``. A token's MLP is a unit of its own: tokens do not meet there, so counts add up."""
    config = model.config
    width, length, block = config.hidden_size, config.tokens, model.layers[0]
    imposed, chosen, every = plan.get(Kept), plan.get(Width), range(config.depth)
    tokens = decided or tuple(rows * (length if imposed is None else imposed.tokens[k]) for k in every)
    heads = [config.num_heads if chosen is None else len(chosen.heads[k]) for k in every]
    groups = [config.num_heads if chosen is None else len(chosen.groups[k]) for k in every]
    units = [
        *model.work_around_blocks(rows),
        WorkUnit(
            "modulation",
            config.depth,
            block.adaLN_modulation,
            lambda: (model.random(rows, width),),
            unit="modulation",
            layers=tuple(every),
        ),
    ]
    units += [
        WorkUnit(
            f"attention heads={count}",
            heads.count(count),
            AttentionWork(block, count),
            lambda: (model.random(rows, length, width), *(model.random(rows, width) for _ in range(3))),
            unit="attention",
            layers=tuple(k for k in every if heads[k] == count),
        )
        for count in sorted(set(heads))
    ]
    units += [
        WorkUnit(
            f"one token's mlp groups={count}",
            tokens[layer],
            MlpWork(block, count),
            lambda: (model.random(1, 1, width), *(model.random(1, width) for _ in range(3))),
            unit="mlp",
            layers=(layer,),
        )
        for layer, count in enumerate(groups)
    ]
    if config.sdt:
        selection = block.token_selection
        units.append(
            WorkUnit(
                "token-router",
                config.depth,
                selection,
                lambda: (model.random(rows, length, width),),
                TOKEN_ROUTERS,
                unit="mlp",
                layers=tuple(every),
            )
        )
    if config.tdw:
        planner = Planner(model.t_embedder, model.layers)
        units.append(WorkUnit("planning", 1, planner, lambda: (torch.zeros(1),), WIDTH_ROUTERS, "plan"))
    return units


class AttentionWork(nn.Module):
    """The attention sub-layer of a block on so many heads, for counting."""

    def __init__(self, block: DynamicBlock, heads: int) -> None:
        super().__init__()
        self.block, self.heads = block, heads

    def forward(self, x: Tensor, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
        attention = slice_attention(self.block.attn, tuple(range(self.heads)))
        return torch.addcmul(x, gate.unsqueeze(1), self.block.attend_by(x, shift, scale, attention))


class MlpWork(nn.Module):
    """The MLP sub-layer of a block on so many groups, for counting."""

    def __init__(self, block: DynamicBlock, groups: int) -> None:
        super().__init__()
        self.block, self.groups = block, groups

    def forward(self, x: Tensor, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
        mlp = slice_mlp(self.block.mlp, tuple(range(self.groups)), self.block.parts)
        return torch.addcmul(x, gate.unsqueeze(1), self.block.feed_forward_by(x, shift, scale, mlp))

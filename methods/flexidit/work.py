"""What a call of a FlexiDiT executes, piece by piece, for counting: the same operators on the same shapes.

Projecting kernels and folding updates in happens once, not in calls: it is in no count, and ``prepare_ms`` has it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ditbench.methods.backbones.dit import FinalLayer
from ditbench.methods.backbones.layers import PatchEmbed
from ditbench.methods.flexidit.choices import Layout
from ditbench.methods.flexidit.packing import arrange, join
from ditbench.methods.lora.adapted import BlockWork
from ditbench.methods.plans import StepPlan
from ditbench.methods.work import WorkUnit

if TYPE_CHECKING:
    from ditbench.methods.flexidit.model import FlexiDiT


def work_units(model: FlexiDiT, plan: StepPlan, rows: int) -> list[WorkUnit]:
    """See ``Denoiser.work``. A plan with a layout counts what that executed, for rows / 2 images."""
    config = model.config
    size, layout = model.size_of(plan), plan.get(Layout)
    if plan.guidance is not None and layout is not None:
        return _packed(model, plan, layout, rows // 2)
    if plan.guidance is not None:
        both = [unit for branch in plan.branches for unit in work_units(model, branch, rows // 2)]
        return _of_rows(both, rows // 2)
    return [
        *model.work_of_condition(rows),
        *_ends(model, size, rows),
        *model.work_of_blocks(rows, config.tokens_at(size), plan, model.update_at(size)),
    ]


def _of_rows(units: list[WorkUnit], rows: int) -> list[WorkUnit]:
    """Pieces whose rows are not those of the call: they are other pieces than the same of a call with as many."""
    return [replace(unit, key=f"{unit.key}, {rows} of the rows") for unit in units]


def _ends(model: FlexiDiT, size: int, rows: int) -> list[WorkUnit]:
    config = model.config
    width, side, length = config.hidden_size, config.input_size, config.tokens_at(size)
    with torch.device("meta"):
        embed: nn.Module = PatchEmbed(size, config.in_channels, width)
        if str(size) in model.size_norms:
            embed = nn.Sequential(embed, nn.LayerNorm(width, eps=1e-6))
        final = FinalLayer(width, size**2 * config.head_channels)
    dtype = model.pos_embed.dtype
    return [
        WorkUnit(
            f"patch-embed size={size}",
            1,
            embed.to(dtype),
            lambda: (model.random(rows, config.in_channels, side, side),),
        ),
        WorkUnit(
            f"final size={size}",
            1,
            final.to(dtype),
            lambda: (model.random(rows, length, width), model.random(rows, width)),
        ),
    ]


def _packed(model: FlexiDiT, plan: StepPlan, layout: Layout, images: int) -> list[WorkUnit]:
    config, conditions = model.config, images if layout.same_class else 2 * images
    large, small = (model.size_of(branch) for branch in plan.branches)
    long, short, width = config.tokens_at(large), config.tokens_at(small), config.hidden_size
    update = model.update_at(large) if model.runs_beside(plan) else None
    packed = PackedBlock(model.blocks[0], layout.name, images, long, short, layout.same_class)
    block = BlockWork(packed, model.switch, update)
    return [
        *_of_rows(model.work_of_condition(conditions), conditions),
        *_of_rows([*_ends(model, large, images), *_ends(model, small, images)], images),
        WorkUnit(
            f"block {layout.name} of {long} and {short}, {conditions} conditions",
            config.depth,
            block,
            lambda: (
                model.random(images, long, width),
                model.random(images, short, width),
                model.random(conditions, width),
            ),
        ),
    ]


class PackedBlock(nn.Module):
    """A block on the rows of a layout; putting tokens into them moves data only."""

    def __init__(self, block: nn.Module, layout: str, images: int, long: int, short: int, same_class: bool) -> None:
        super().__init__()
        self.block, self.arrangement = block, arrange(layout, images, long, short, same_class, "cpu")

    def forward(self, fine: Tensor, coarse: Tensor, c: Tensor) -> Tensor:
        out: Tensor = self.block(join(fine, coarse, self.arrangement), c, packing=self.arrangement.packing)
        return out

"""Training of routers and weights together."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from ditbench.methods.dydit.loss import active_share, flops_loss, target_at
from ditbench.methods.dydit.model import DyDiT, MaskedOutput
from ditbench.methods.training.loop import LossOf
from ditbench.methods.training.objectives import Data, Objective, draw_batch, drop_labels
from ditbench.methods.training.recipe import DynamicRecipe, Recipe


class Dynamic(Objective):
    """Recipes with a section 'dynamic'."""

    def __call__(self, data: Data, recipe: Recipe, device: str = "cpu") -> LossOf:
        return dynamic_denoising(data, recipe, device)

    def conversion(self, recipe: Recipe) -> dict[str, Any]:
        return {"rank": _section(recipe).rank}

    def ready(self, recipe: Recipe, model: nn.Module) -> None:
        cast(DyDiT, model).open_routers(_section(recipe).router_bias)

    def steps_differ(self, recipe: Recipe) -> bool:
        return 0 < _section(recipe).complete_steps < recipe.steps

    def target(self, recipe: Recipe) -> float:
        return _section(recipe).target


OBJECTIVE = Dynamic(section="dynamic")


def _section(recipe: Recipe) -> DynamicRecipe:
    assert recipe.dynamic is not None
    return recipe.dynamic


def dynamic_denoising(data: Data, recipe: Recipe, device: str = "cpu") -> LossOf:
    """Denoising loss of the masked model, the FLOPs loss, and for some steps the loss of the complete model.

    Both forwards see the same x_t; labels are dropped anew in each.
    """
    dynamic = _section(recipe)

    def loss(model: nn.Module, generator: torch.Generator, step: int) -> Tensor:
        dydit = cast(DyDiT, model)
        batch = draw_batch(data, recipe, dydit.process, generator, device, dynamic.stratified)

        def denoise(complete: bool) -> tuple[Tensor, MaskedOutput]:
            labels = drop_labels(batch.y, dydit.num_classes, recipe, generator)
            answer = dydit.masked(batch.x_t, batch.t, labels, complete=complete, generator=generator)
            return batch.loss(answer.out), answer

        total, answer = denoise(complete=False)
        shares = active_share(answer.masks, dydit.config.block_cost)
        target = target_at(step, dynamic.target, dynamic.hold, dynamic.ramp)
        total = total + dynamic.weight * flops_loss(shares, target)
        return total + denoise(complete=True)[0] if step < dynamic.complete_steps else total

    return loss

"""Training at both widths."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ditbench.methods.conditions import LABEL
from ditbench.methods.config import make_config
from ditbench.methods.errors import ConfigError
from ditbench.methods.training.loop import LossOf
from ditbench.methods.training.objectives import Data, Objective, draw_batch, told
from ditbench.methods.training.recipe import Recipe


@dataclass(frozen=True)
class Options:
    """cut: the timestep from which on it is narrow; every: the narrow loss comes in every so-manieth step."""

    cut: int = 500
    every: int = 1
    order: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.cut <= 1000:
            raise ConfigError(f"options: cut is a timestep of 0..1000, not {self.cut}")


def options_of(recipe: Recipe) -> Options:
    return make_config(Options, recipe.options or {})


class AtBothWidths(Objective):
    def __call__(self, data: Data, recipe: Recipe, device: str = "cpu") -> LossOf:
        options = options_of(recipe)

        def loss(model: nn.Module, generator: torch.Generator, step: int) -> Tensor:
            batch = draw_batch(data, recipe, model.process, generator, device)
            labels = told(model.facts, batch.y, recipe, generator)[LABEL]
            widths = (model.width, model.width // 2) if step % options.every == 0 else (model.width,)
            return torch.stack([batch.loss(model.run(batch.x_t, batch.t, labels, width)) for width in widths]).sum()

        return loss

    def check(self, recipe: Recipe, model: nn.Module) -> None:
        options_of(recipe)

    def conversion(self, recipe: Recipe) -> dict[str, Any]:
        return {"order": options_of(recipe).order}

    def ready(self, recipe: Recipe, model: nn.Module) -> None:
        model.cut.fill_(options_of(recipe).cut)

    def steps_differ(self, recipe: Recipe) -> bool:
        return options_of(recipe).every > 1

    def target(self, recipe: Recipe) -> int:
        return options_of(recipe).cut


OBJECTIVE = AtBothWidths()

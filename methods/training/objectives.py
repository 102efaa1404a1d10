"""What a method is trained to do. An entry's ``objective`` names a function (data, recipe, device) -> LossOf, or an
``Objective`` where there is more to say than the loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from ditbench.methods.call import Call
from ditbench.methods.conditions import Conditions, of_labels
from ditbench.methods.diffusion.process import Process
from ditbench.methods.errors import ConfigError
from ditbench.methods.facts import Facts
from ditbench.methods.protocols import Denoiser
from ditbench.methods.registry import methods
from ditbench.methods.training.loop import LossOf
from ditbench.methods.training.recipe import SECTIONS, Recipe


class Data(Protocol):
    """A data set to train a denoiser on."""

    def __len__(self) -> int: ...

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(images (B, C, S, S) float32, labels (B,) int64) of ``rows`` (B,), on the CPU."""
        ...


class Objective:
    """How a method is trained: give the loss, or override ``__call__``, and override what else differs.

    section  the one section of recipes that it reads: 'options', or one of those that ship; '' for none
    """

    def __init__(self, loss: Callable[[Data, Recipe, str], LossOf] | None = None, section: str = "options") -> None:
        self._loss, self.section = loss, section

    def __call__(self, data: Data, recipe: Recipe, device: str = "cpu") -> LossOf:
        return (self._loss or denoising)(data, recipe, device)

    def check(self, recipe: Recipe, model: nn.Module) -> None:
        """Raise ConfigError where the recipe cannot train this fresh ``model``."""

    def conversion(self, recipe: Recipe) -> dict[str, Any]:
        """Options of the conversion from the recipe's static base, beside the config."""
        return {}

    def ready(self, recipe: Recipe, model: nn.Module) -> None:
        """Set what training starts from, once the base's weights are in."""

    def steps_differ(self, recipe: Recipe) -> bool:
        """Whether some steps of a training cost more than others."""
        return False

    def target(self, recipe: Recipe) -> Any:
        """What must be equal for two ways of training to be compared, beside their data and config; a JSON value."""
        return None


def objective_of(recipe: Recipe) -> Objective:
    """Of the recipe's method. Raises UnknownNameError; ConfigError for a section that it does not read, or lacks."""
    found = methods()[recipe.method].load_objective()
    objective = found if isinstance(found, Objective) else Objective(found)
    for name in recipe.sections - {objective.section}:
        raise ConfigError(f"{name}: {recipe.method} {SECTIONS[name].misplaced}")
    section = SECTIONS.get(objective.section)
    if section is not None and section.needed and objective.section not in recipe.sections:
        raise ConfigError(f"{recipe.method} needs a section {objective.section!r} {section.needed}")
    return objective


@dataclass(frozen=True)
class Batch:
    """x0, x_t, noise (B, C, H, W); times t (B,); labels y (B,), not yet dropped."""

    process: Process
    x0: Tensor
    x_t: Tensor
    noise: Tensor
    t: Tensor
    y: Tensor

    def loss(self, output: Tensor) -> Tensor:
        """Mean loss of a model's output (B, C or 2C, H, W) at x_t."""
        return self.process.loss(output, self.x0, self.x_t, self.t, self.noise).mean()


def denoising(data: Data, recipe: Recipe, device: str = "cpu") -> LossOf:
    """The loss of the model's process at uniform times on random images; labels are dropped at the recipe's rate."""

    def loss(model: nn.Module, generator: torch.Generator, step: int) -> Tensor:
        denoiser = cast(Denoiser, model)
        batch = draw_batch(data, recipe, denoiser.process, generator, device)
        conditions = told(denoiser.facts, batch.y, recipe, generator)
        return batch.loss(denoiser.predict(batch.x_t, batch.t, conditions, Call()))

    return loss


PLAIN = Objective(denoising, section="")
"""Of a method that has none of its own."""


def draw_batch(
    data: Data, recipe: Recipe, process: Process, generator: torch.Generator, device: str, stratified: bool = False
) -> Batch:
    """All random numbers are drawn on the CPU, so that a device changes no choice. ``stratified``: times from equal
    strata."""
    rows = torch.randint(len(data), (recipe.batch,), generator=generator)
    x0, y = (each.to(device) for each in data.batch(rows))
    t = process.draw_times(recipe.batch, generator, stratified)
    noise = torch.randn(x0.shape, generator=generator).to(device)
    t = t.to(device)
    return Batch(process, x0, process.noised(x0, t, noise), noise, t, y)


def told(facts: Facts, y: Tensor, recipe: Recipe, generator: torch.Generator) -> Conditions:
    """What a model of these facts is told of images with labels y (B,): some are dropped where it has a row for that;
    nothing, where it takes no labels."""
    if not facts.conditions:
        return Conditions(len(y))
    kind = facts.conditions[0]
    return of_labels(facts, drop_labels(y, kind.count, recipe, generator) if kind.droppable else y)


def drop_labels(y: Tensor, no_class: int, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Labels with the recipe's share of them replaced by ``no_class``."""
    dropped = (torch.rand(len(y), generator=generator) < recipe.label_dropout).to(y.device)
    return torch.where(dropped, no_class, y)

"""Losses that recipes name: denoising with label dropout, static or dynamic, and the classification of digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditbench.methods.call import Call
from ditbench.methods.conditions import of_labels
from ditbench.methods.diffusion.process import Process
from ditbench.methods.dydit.loss import active_share, flops_loss, target_at
from ditbench.methods.dydit.model import DyDiT, MaskedOutput
from ditbench.methods.protocols import Denoiser
from ditbench.methods.training.data.digits import Digits
from ditbench.methods.training.loop import LossOf
from ditbench.methods.training.recipe import Recipe


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


class Data(Protocol):
    """A data set to train a denoiser on."""

    def __len__(self) -> int: ...

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(images (B, C, S, S) float32, labels (B,) int64) of ``rows`` (B,), on the CPU."""
        ...


def denoising(data: Data, recipe: Recipe, device: str = "cpu") -> LossOf:
    """The loss of the model's process at uniform times on random images; labels are dropped at the recipe's rate."""

    def loss(model: nn.Module, generator: torch.Generator, step: int) -> Tensor:
        denoiser = cast(Denoiser, model)
        batch = draw_batch(data, recipe, denoiser.process, generator, device)
        labels = drop_labels(batch.y, denoiser.facts.conditions[0].count, recipe, generator)
        conditions = of_labels(denoiser.facts, labels)
        return batch.loss(denoiser.predict(batch.x_t, batch.t, conditions, Call()))

    return loss


def dynamic_denoising(data: Data, recipe: Recipe, device: str = "cpu") -> LossOf:
    """Denoising loss of the masked model, the FLOPs loss, and for some steps the loss of the complete model.

    Both forwards see the same x_t; labels are dropped anew in each.
    """
    dynamic = recipe.dynamic
    assert dynamic is not None

    def loss(model: nn.Module, generator: torch.Generator, step: int) -> Tensor:
        dydit = cast(DyDiT, model)
        batch = draw_batch(data, recipe, dydit.process, generator, device)

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


def draw_batch(data: Data, recipe: Recipe, process: Process, generator: torch.Generator, device: str) -> Batch:
    """All random numbers are drawn on the CPU, so that a device changes no choice."""
    rows = torch.randint(len(data), (recipe.batch,), generator=generator)
    x0, y = (each.to(device) for each in data.batch(rows))
    t = process.draw_times(recipe.batch, generator, recipe.dynamic is not None and recipe.dynamic.stratified)
    noise = torch.randn(x0.shape, generator=generator).to(device)
    t = t.to(device)
    return Batch(process, x0, process.noised(x0, t, noise), noise, t, y)


def drop_labels(y: Tensor, no_class: int, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Labels with the recipe's share of them replaced by ``no_class``."""
    dropped = (torch.rand(len(y), generator=generator) < recipe.label_dropout).to(y.device)
    return torch.where(dropped, no_class, y)


def classification(data: Digits, recipe: Recipe) -> LossOf:
    """Cross-entropy on images shifted by up to a pixel with a little noise, so that features are smooth."""

    def loss(model: nn.Module, generator: torch.Generator, step: int) -> Tensor:
        rows = torch.randint(len(data.labels), (recipe.batch,), generator=generator)
        padded = F.pad(data.images[rows], (1, 1, 1, 1), value=-1.0)
        down, right = torch.randint(3, (2, recipe.batch), generator=generator)
        windows = padded.unfold(2, 8, 1).unfold(3, 8, 1)
        images = windows[torch.arange(recipe.batch), :, down, right]
        images = images + 0.1 * torch.randn(images.shape, generator=generator)
        return F.cross_entropy(model(images), data.labels[rows], label_smoothing=0.05)

    return loss

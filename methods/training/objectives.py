"""Losses that recipes name: denoising with label dropout, and the classification of digits."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.diffusion.loss import HybridLoss
from methods.diffusion.schedules import TRAINING_STEPS, noise_schedule
from methods.protocols import Denoiser
from methods.training.data.digits import Digits
from methods.training.loop import LossOf
from methods.training.recipe import Recipe


def denoising(data: Digits, recipe: Recipe) -> LossOf:
    """Hybrid loss at uniform timesteps on random images; labels are dropped at the recipe's rate."""
    hybrid = HybridLoss(noise_schedule())

    def loss(model: nn.Module, generator: torch.Generator) -> Tensor:
        denoiser = cast(Denoiser, model)
        rows = torch.randint(len(data.labels), (recipe.batch,), generator=generator)
        x0, y = data.images[rows], data.labels[rows]
        t = torch.randint(TRAINING_STEPS, (recipe.batch,), generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        dropped = torch.rand(recipe.batch, generator=generator) < recipe.label_dropout
        x_t = hybrid.noised(x0, t, noise)
        output = denoiser(x_t, t, torch.where(dropped, denoiser.num_classes, y))
        return hybrid(output, x0, x_t, t, noise).total.mean()

    return loss


def classification(data: Digits, recipe: Recipe) -> LossOf:
    """Cross-entropy on images shifted by up to a pixel with a little noise, so that features are smooth."""

    def loss(model: nn.Module, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(data.labels), (recipe.batch,), generator=generator)
        padded = F.pad(data.images[rows], (1, 1, 1, 1), value=-1.0)
        down, right = torch.randint(3, (2, recipe.batch), generator=generator)
        windows = padded.unfold(2, 8, 1).unfold(3, 8, 1)
        images = windows[torch.arange(recipe.batch), :, down, right]
        images = images + 0.1 * torch.randn(images.shape, generator=generator)
        return F.cross_entropy(model(images), data.labels[rows], label_smoothing=0.05)

    return loss

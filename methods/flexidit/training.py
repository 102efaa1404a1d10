"""Training of a model with many patch sizes: one size a batch, and two terms that tie the sizes together."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ditbench.methods.diffusion.ddpm import DDPM
from ditbench.methods.diffusion.flow import Euler
from ditbench.methods.errors import ConfigError
from ditbench.methods.flexidit.model import FlexiDiT
from ditbench.methods.training.loop import LossOf
from ditbench.methods.training.objectives import Data, Objective, draw_batch, drop_labels
from ditbench.methods.training.recipe import FlexibleRecipe, MatchingRecipe, Recipe

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)


class Flexible(Objective):
    """Recipes with a section 'flexible'."""

    def __call__(self, data: Data, recipe: Recipe, device: str = "cpu") -> LossOf:
        return flexible_denoising(data, recipe, device)

    def check(self, recipe: Recipe, model: nn.Module) -> None:
        check_sizes(_section(recipe), cast(FlexiDiT, model))

    def steps_differ(self, recipe: Recipe) -> bool:
        return True


OBJECTIVE = Flexible(section="flexible")


def _section(recipe: Recipe) -> FlexibleRecipe:
    assert recipe.flexible is not None
    return recipe.flexible


def check_sizes(flexible: FlexibleRecipe, model: FlexiDiT) -> None:
    """Raise ConfigError for probabilities that do not fit the model, or an objective that would train nothing."""
    for size, share in flexible.probabilities.items():
        if size not in model.patch_sizes:
            raise ConfigError(f"flexible: probabilities name patch size {size}; the model has {model.patch_sizes}")
        if share < 0:
            raise ConfigError(f"flexible: the probability of patch size {size} is {share}")
    new = sum(flexible.probabilities.get(size, 0.0) for size in model.patch_sizes[1:])
    if not new > 0:
        raise ConfigError("flexible: probabilities train no new patch size")
    if (flexible.objective == "distillation") != (model.config.recipe == "lora"):
        raise ConfigError(
            "flexible: distillation needs a frozen teacher (config: {recipe: lora}); shared weights take denoising"
        )


def flexible_denoising(data: Data, recipe: Recipe, device: str = "cpu") -> LossOf:
    """Each batch has one patch size, drawn from the recipe's probabilities.

    denoising     the process's loss at that size
    distillation  squared distance to the frozen base at the pre-trained size, variance channels included
    """
    flexible = _section(recipe)
    distils, matching = flexible.objective == "distillation", flexible.matching

    def loss(model: nn.Module, generator: torch.Generator, step: int) -> Tensor:
        flexidit = cast(FlexiDiT, model)
        size = _draw_size(flexible, flexidit, generator)
        batch = draw_batch(data, recipe, flexidit.process, generator, device)
        labels = drop_labels(batch.y, flexidit.num_classes, recipe, generator)
        output: Tensor = flexidit(batch.x_t, batch.t, labels, patch_size=size)
        if distils:
            with torch.no_grad():
                target = flexidit(batch.x_t, batch.t, labels)
            total: Tensor = (output - target).square().mean()
        else:
            total = batch.loss(output)
        if matching is not None and step % matching.every == 0:
            total = total + matching.weight * matching_loss(flexidit, data, matching, generator, device)
        return total

    return loss


def _draw_size(flexible: FlexibleRecipe, model: FlexiDiT, generator: torch.Generator) -> int:
    """By the probabilities; under distillation the pre-trained size, which cannot change, is never drawn."""
    sizes = [size for size in model.patch_sizes if model.config.recipe == "shared" or size != model.config.patch_size]
    shares = torch.tensor([flexible.probabilities.get(size, 0.0) for size in sizes])
    return sizes[int(torch.multinomial(shares, 1, generator=generator))]


def matching_loss(
    model: FlexiDiT, data: Data, recipe: MatchingRecipe, generator: torch.Generator, device: str = "cpu"
) -> Tensor:
    """Squared maximum mean discrepancy between what a chain of weak, then powerful steps gives and noised data.

    Steps are DDPM's on a grid of noise prediction, Euler's on one of a flow.

    Chains start from other images than those they are compared with, at random places of the grid, more often near its
    clean end. Gradients run through the whole chain.
    """
    process = model.process
    sampler = DDPM(recipe.grid) if process.predicts == "noise" else Euler(recipe.grid)
    steps = recipe.weak_steps + recipe.powerful_steps
    new = model.patch_sizes[1:]
    weak = new[int(torch.randint(len(new), (1,), generator=generator))]
    # u² puts most chains near the clean end, where the discrepancy is largest
    end = recipe.grid - 1 - int(float(torch.rand(1, generator=generator)) ** 2 * (recipe.grid - steps))
    rows = torch.randint(len(data), (2 * recipe.batch,), generator=generator)
    images, labels = (each.to(device) for each in data.batch(rows))

    def normal() -> Tensor:
        return torch.randn((recipe.batch, *images.shape[1:]), generator=generator).to(device)

    def at(step: int) -> Tensor:
        return torch.full((recipe.batch,), sampler.timesteps[step], device=device)

    y = labels[: recipe.batch]
    x = process.noised(images[: recipe.batch], at(end - steps), normal())
    for done in range(steps):
        step = end - steps + done
        size = weak if done < recipe.weak_steps else model.config.patch_size
        x = sampler.step(model(x, at(step), y, patch_size=size), x, step, normal)
    return squared_mmd(x, process.noised(images[recipe.batch :], at(end), normal()))


def squared_mmd(a: Tensor, b: Tensor) -> Tensor:
    """Unbiased squared maximum mean discrepancy of samples a, b (n, …) under a sum of Gaussian kernels.

    Bandwidths are multiples of the median squared distance between a and b, which carries no gradient.
    """
    a, b = a.flatten(1), b.flatten(1)
    n = len(a)
    distances = [torch.cdist(p, q).square() for p, q in ((a, a), (b, b), (a, b))]
    scale = distances[2].detach().median()

    def kernel(squared: Tensor) -> Tensor:
        return sum((torch.exp(-squared / (width * scale)) for width in BANDWIDTHS), torch.zeros_like(squared))

    within_a, within_b, across = map(kernel, distances)
    off = n * (n - 1)
    found: Tensor = (within_a.sum() - within_a.trace() + within_b.sum() - within_b.trace()) / off - 2 * across.mean()
    return found

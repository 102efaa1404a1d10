"""The training loop: AdamW, EMA, progress, and a resumable state that a kill cannot spoil.

Every random choice of step k comes from a generator seeded by (recipe seed, k), so a run that was stopped and
resumed ends in the same weights as one that was not.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ditbench.methods.errors import CheckpointError
from ditbench.methods.training.recipe import OptimizerRecipe, Recipe

LossOf = Callable[[nn.Module, torch.Generator, int], Tensor]
"""(model in train mode, this step's generator, step) -> scalar loss."""


@dataclass(frozen=True)
class Trained:
    """``ema``: a whole state dict, averaged in what was trained; ``losses``: mean loss of each tenth of the run."""

    ema: dict[str, Tensor]
    steps: int
    losses: list[float]


class Training:
    """A model beside what training it holds: AdamW's averages and ``ema``, a copy, both of trained parameters alone.

    The model must be in train mode. A step changes all of them in place.
    """

    def __init__(self, model: nn.Module, loss_of: LossOf, recipe: Recipe) -> None:
        self.model, self.loss_of, self.recipe = model, loss_of, recipe
        trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self._trained = list(trained.values())
        self.ema = {name: value.detach().clone() for name, value in trained.items()}
        self.optimizer = torch.optim.AdamW(
            self._trained,
            lr=recipe.optimizer.rate,
            betas=recipe.optimizer.betas,
            weight_decay=recipe.optimizer.weight_decay,
        )

    def step(self, step: int) -> Tensor:
        """One whole step: batch, forward, loss, backward, AdamW, average. Returns the loss, a scalar.

        Raises FloatingPointError when that is not finite.
        """
        recipe = self.recipe
        self.optimizer.zero_grad(set_to_none=True)  # first, so that the forward need not find room beside gradients
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe.optimizer, step, recipe.steps)
        loss = self.loss_of(self.model, step_generator(recipe.seed, step), step)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss is {loss.item()} at step {step}")
        loss.backward()  # type: ignore[no-untyped-call]
        if recipe.optimizer.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._trained, recipe.optimizer.clip_norm)
        self.optimizer.step()
        with torch.no_grad():
            for average, value in zip(self.ema.values(), self._trained, strict=True):
                average.lerp_(value, 1 - recipe.ema)
        return loss.detach()

    def averaged(self) -> dict[str, Tensor]:
        """The model's state dict with the averages in place of what is trained; the rest is the model's own."""
        return {**self.model.state_dict(), **self.ema}


def learning_rate(recipe: OptimizerRecipe, step: int, total: int) -> float:
    """Rate at ``step`` (0-based) of ``total``: linear warm-up, then constant or half a cosine down to 0."""
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    if recipe.schedule == "constant":
        return recipe.rate
    progress = (step - recipe.warmup) / max(1, total - recipe.warmup)
    return recipe.rate * 0.5 * (1 + math.cos(math.pi * progress))


def train(model: nn.Module, loss_of: LossOf, recipe: Recipe, folder: Path, progress: bool = True) -> Trained:
    """Train ``model`` in place, resuming from ``folder``/checkpoint.pt if it is there.

    Raises CheckpointError if that file belongs to another recipe, FloatingPointError when the loss is not finite.
    """
    training = Training(model, loss_of, recipe)
    path = folder / "checkpoint.pt"
    start, history = _resume(path, training) if path.is_file() else (0, [])
    model.train()
    bar = tqdm(
        range(start, recipe.steps),
        initial=start,
        total=recipe.steps,
        desc=recipe.recipe,
        disable=not progress,
    )
    for step in bar:
        history.append(training.step(step).item())
        if step % 20 == 0:
            recent = history[-100:]
            bar.set_postfix(loss=f"{sum(recent) / len(recent):.4f}", refresh=False)
        if (step + 1) % recipe.checkpoint_every == 0 or step + 1 == recipe.steps:
            _save(path, training, step + 1, history)
    model.eval()
    tenth = max(1, len(history) // 10)
    return Trained(
        training.averaged(),
        recipe.steps,
        [sum(part) / len(part) for k in range(0, len(history), tenth) if (part := history[k : k + tenth])],
    )


def step_generator(seed: int, step: int) -> torch.Generator:
    """The generator of one step.

    torch's CPU generator uses only the low 32 bits of its seed, so the pair is hashed into them rather than packed.
    """
    return torch.Generator().manual_seed(int(np.random.SeedSequence((seed, step)).generate_state(1)[0]))


def _save(path: Path, training: Training, step: int, history: list[float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    state = {
        "model": training.model.state_dict(),
        "trained": training.ema,
        "opt": training.optimizer.state_dict(),
        "step": step,
        "history": history,
        "recipe": training.recipe.model_dump_json(),
    }
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _resume(path: Path, training: Training) -> tuple[int, list[float]]:
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["recipe"] != training.recipe.model_dump_json():
        raise CheckpointError(f"{path} was made by another recipe; delete it or train into another folder")
    if state.get("trained", {}).keys() != training.ema.keys():
        raise CheckpointError(f"{path} was made by another version of ditbench; delete it or train into another folder")
    training.model.load_state_dict(state["model"])
    for name, value in state["trained"].items():
        training.ema[name].copy_(value)
    training.optimizer.load_state_dict(state["opt"])
    return int(state["step"]), list(state["history"])

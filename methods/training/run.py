"""From a recipe to a checkpoint: build, train, measure what the manifest states, save."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

import methods
from methods.backbones.dit import DiTConfig
from methods.dydit.model import DyDiT
from methods.errors import ConfigError
from methods.flexidit.model import FlexiDiT
from methods.registry import datasets
from methods.training.data.digits import Digits
from methods.training.digit_classifier import DigitClassifier
from methods.training.flexible import check_sizes, flexible_denoising
from methods.training.loop import LossOf, train
from methods.training.objectives import Data, classification, denoising, dynamic_denoising
from methods.training.recipe import Recipe
from methods.weights import save_state


@dataclass(frozen=True)
class TrainingResult:
    """The checkpoint (EMA weights), its digest, and figures of the training itself."""

    path: Path
    sha256: str
    figures: dict[str, Any]


def run_recipe(
    recipe: Recipe, folder: Path, base: Path | None = None, progress: bool = True, device: str = "cpu"
) -> TrainingResult:
    """Train as ``recipe`` says into ``folder``; resumes there after a kill.

    ``base``: the file that ``recipe.base`` names. Raises CheckpointError, ConfigError.
    """
    torch.manual_seed(recipe.seed)
    data = datasets()[recipe.dataset].load()(**({} if recipe.data is None else {"folder": recipe.data}))
    if recipe.kind == "classifier":
        training, test = cast(Digits, data).split()
        model: nn.Module = DigitClassifier()
        trained = train(model, classification(training, recipe), recipe, folder, progress)
        model.load_state_dict(trained.ema)
        with torch.no_grad():
            correct = (model(test.images).argmax(1) == test.labels).float().mean().item()
        figures: dict[str, Any] = {"held_out_accuracy": correct, "held_out_images": len(test.labels)}
    else:
        model = _denoiser(recipe, base).to(device)
        trained = train(model, _objective(recipe)(data, recipe, device), recipe, folder, progress)
        figures = {}
    figures |= {
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": trained.steps,
        "loss_by_tenth": [round(value, 4) for value in trained.losses],
    }
    path = folder / f"{recipe.recipe}.safetensors"
    dtype = torch.float16 if recipe.stored == "float16" else torch.float32
    state = {name: value.to(dtype) if value.is_floating_point() else value for name, value in trained.ema.items()}
    return TrainingResult(path, save_state(path, state, {"recipe": recipe.model_dump()}), figures)


def _objective(recipe: Recipe) -> Callable[[Data, Recipe, str], LossOf]:
    if recipe.dynamic is not None:
        return dynamic_denoising
    return flexible_denoising if recipe.flexible is not None else denoising


def _denoiser(recipe: Recipe, base: Path | None) -> nn.Module:
    """The recipe's model, with the weights of its base where it has one."""
    if recipe.base is not None and base is None:
        raise ConfigError(f"base: {recipe.base} was not given")
    model = methods.build(recipe.method, **recipe.config)
    _check_sections(recipe, model)
    if recipe.dynamic is None and recipe.flexible is None:
        return model if base is None else methods.load_weights(model, base)
    if base is not None:
        shape = {field.name: getattr(model.config, field.name) for field in fields(DiTConfig)}
        static = methods.load_weights(methods.build("dit", **shape), base)
        options = {"rank": recipe.dynamic.rank} if recipe.dynamic is not None else {}
        model = methods.convert(static, recipe.method, **options, **recipe.config)
    if recipe.dynamic is not None:
        cast(DyDiT, model).open_routers(recipe.dynamic.router_bias)
    else:
        cast(FlexiDiT, model).freeze_base()
    return model


def _check_sections(recipe: Recipe, model: nn.Module) -> None:
    """Raise ConfigError where the recipe's sections are not what its method trains with."""
    if recipe.dynamic is None and isinstance(model, DyDiT):
        raise ConfigError(f"{recipe.method} needs a section 'dynamic' with the target of its routers")
    if recipe.dynamic is not None and not isinstance(model, DyDiT):
        raise ConfigError(f"dynamic: {recipe.method} has no routers to train")
    if recipe.flexible is None and isinstance(model, FlexiDiT):
        raise ConfigError(f"{recipe.method} needs a section 'flexible' with its patch sizes")
    if recipe.flexible is not None:
        if not isinstance(model, FlexiDiT):
            raise ConfigError(f"flexible: {recipe.method} has one patch size")
        check_sizes(recipe.flexible, model)

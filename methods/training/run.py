"""From a recipe to a checkpoint: build, train, measure what the manifest states, save."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ditbench import methods
from ditbench.methods.backbones.dit import DiT
from ditbench.methods.conversion import static_shape
from ditbench.methods.dydit.model import DyDiT
from ditbench.methods.errors import ConfigError
from ditbench.methods.flexidit.model import FlexiDiT
from ditbench.methods.lora.accounting import accounting
from ditbench.methods.lora.files import Origin, added, put_base
from ditbench.methods.registry import datasets
from ditbench.methods.training.data.digits import Digits
from ditbench.methods.training.digit_classifier import DigitClassifier
from ditbench.methods.training.flexible import check_sizes, flexible_denoising
from ditbench.methods.training.loop import LossOf, train
from ditbench.methods.training.objectives import Data, classification, denoising, dynamic_denoising
from ditbench.methods.training.recipe import Recipe
from ditbench.methods.weights import save_state


@dataclass(frozen=True)
class TrainingResult:
    """The checkpoint (EMA weights), its digest, and figures of the training itself.

    Of a model with adapters on a base the file holds what was trained, and which base that belongs to.
    """

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
    if recipe.kind == "classifier":
        training, test = cast(Digits, _data(recipe)).split()
        model: nn.Module = DigitClassifier()
        trained = train(model, classification(training, recipe), recipe, folder, progress)
        model.load_state_dict(trained.ema)
        with torch.no_grad():
            correct = (model(test.images).argmax(1) == test.labels).float().mean().item()
        figures: dict[str, Any] = {"held_out_accuracy": correct, "held_out_images": len(test.labels)}
    else:
        model, loss = prepared(recipe, base, device)
        trained = train(model, loss, recipe, folder, progress)
        counted = accounting(model)
        figures = {
            "trainable": counted.trainable,
            "gradient_bytes": counted.gradient_bytes,
            "optimizer_bytes": counted.optimizer_bytes,
        }
    figures |= {
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": trained.steps,
        "loss_by_tenth": [round(value, 4) for value in trained.losses],
    }
    path = folder / f"{recipe.recipe}.safetensors"
    dtype = torch.float16 if recipe.stored == "float16" else torch.float32
    state, metadata = trained.ema, {"recipe": recipe.model_dump()}
    if base is not None and isinstance(model, DiT) and model.config.adapter is not None:
        assert recipe.base is not None
        ranked = recipe.dynamic is not None and recipe.dynamic.rank
        state = added(model, state)
        metadata |= Origin.of(model, recipe.method, recipe.base, base, ranked).metadata()
    state = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
    return TrainingResult(path, save_state(path, state, metadata), figures)


def prepared(recipe: Recipe, base: Path | None, device: str = "cpu") -> tuple[nn.Module, LossOf]:
    """A denoiser's model as its training begins, on ``device``, only what is trained marked so, and its loss.

    ``base``: the file that ``recipe.base`` names. What is fresh in the model is drawn from torch's own generator.
    Raises CheckpointError, ConfigError.
    """
    model = _denoiser(recipe, base).to(device)
    return model, _objective(recipe)(cast(Data, _data(recipe)), recipe, device)


def _data(recipe: Recipe) -> Any:
    return datasets()[recipe.dataset].load()(**({} if recipe.data is None else {"folder": recipe.data}))


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
    plain = recipe.dynamic is None and recipe.flexible is None
    if not isinstance(model, DiT) or (plain and model.config.adapter is None):
        return model if base is None else methods.load_weights(model, base)
    if base is not None:
        static = cast(DiT, methods.load_weights(methods.build("dit", **static_shape(model.config)), base))
        options = {"rank": recipe.dynamic.rank} if recipe.dynamic is not None else {}
        if plain:
            put_base(model, static, rank_parts=False)
        else:
            model = cast(DiT, methods.convert(static, recipe.method, **options, **recipe.config))
    if recipe.dynamic is not None:
        cast(DyDiT, model).open_routers(recipe.dynamic.router_bias)
    model.freeze_base()
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

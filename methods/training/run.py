"""From a recipe to a checkpoint: build, train, measure what the manifest states, save."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ditbench import methods
from ditbench.methods.adaptation import FULL
from ditbench.methods.bases import OnBase
from ditbench.methods.errors import ConfigError
from ditbench.methods.lora.files import Origin, added
from ditbench.methods.registry import datasets
from ditbench.methods.registry import methods as registered
from ditbench.methods.training.accounting import accounting
from ditbench.methods.training.data.digits import Digits
from ditbench.methods.training.digit_classifier import DigitClassifier, classification
from ditbench.methods.training.loop import LossOf, train
from ditbench.methods.training.objectives import Data, Objective, objective_of
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

    ``base``: the file that ``recipe.base`` names. Raises UnknownNameError, CheckpointError, ConfigError.
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
    if base is not None and isinstance(model, OnBase) and model.adapter is not None:
        assert recipe.base is not None
        state, options = added(model, state), objective_of(recipe).conversion(recipe)
        metadata |= Origin.of(model, recipe.method, recipe.base, base, options).metadata()
    state = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
    return TrainingResult(path, save_state(path, state, metadata), figures)


def prepared(recipe: Recipe, base: Path | None, device: str = "cpu") -> tuple[nn.Module, LossOf]:
    """A denoiser's model as its training begins, on ``device``, only what is trained marked so, and its loss.

    ``base``: the file that ``recipe.base`` names. What is fresh in the model is drawn from torch's own generator.
    Raises UnknownNameError, CheckpointError, ConfigError.
    """
    objective = objective_of(recipe)
    model = _denoiser(recipe, objective, base).to(device)
    return model, objective(cast(Data, _data(recipe)), recipe, device)


def _data(recipe: Recipe) -> Any:
    return datasets()[recipe.dataset].load()(**({} if recipe.data is None else {"folder": recipe.data}))


def steps_differ(recipe: Recipe) -> bool:
    """Whether some steps of the training cost more than others. Raises UnknownNameError, ConfigError."""
    return objective_of(recipe).steps_differ(recipe)


def adaptation_of(recipe: Recipe, model: nn.Module) -> dict[str, Any]:
    """How the recipe makes weights from its base's, as records tell it: the fields of ``Adaptation``, and

    family  equal for ways of training that can be compared
    course  equal for those that are set side by side
    """
    adapter = model.adapter if isinstance(model, OnBase) else None
    return {
        **asdict(FULL if adapter is None else adapter.adaptation),
        "family": {
            "config": registered()[recipe.method].without_adapter(recipe.config),
            "base": recipe.base,
            "dataset": recipe.dataset,
            "target": objective_of(recipe).target(recipe),
        },
        "course": recipe.course,
    }


def _denoiser(recipe: Recipe, objective: Objective, base: Path | None) -> nn.Module:
    """The recipe's model, with the weights of its base where it has one."""
    if recipe.base is not None and base is None:
        raise ConfigError(f"base: {recipe.base} was not given")
    model, converts = methods.build(recipe.method, **recipe.config), registered()[recipe.method].converter
    objective.check(recipe, model)
    if base is not None and isinstance(model, OnBase) and (converts or model.adapter is not None):
        static, options = methods.load_weights(model.static_base(), base), objective.conversion(recipe)
        if converts:
            model = methods.convert(static, recipe.method, **options, **recipe.config)
        else:
            model.put_base(static, **options)
    elif base is not None:
        methods.load_weights(model, base)
    objective.ready(recipe, model)
    if isinstance(model, OnBase):
        model.freeze_base()
    return model

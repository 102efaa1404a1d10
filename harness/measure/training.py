"""What it takes to train a cell's weights: trained parameters, memory, and the time of a step, by their own recipe.

A step is the one that training runs: it draws a batch of the recipe's data, and ends with AdamW and the average of
the weights. Its values are those of the finished checkpoint, which the learning rate 0 keeps: every timed step is of
the same model, and updates that begin as zeros draw as much power as they do in training.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ditbench import methods
from ditbench.harness.assets.locations import weights_path
from ditbench.harness.errors import InputError
from ditbench.harness.measure.allocations import held_at_once
from ditbench.harness.measure.conditions import timing_conditions
from ditbench.harness.measure.latency import WHOLE, Call, Series, Weights, interleave, warm_up
from ditbench.harness.measure.options import LatencyOptions, TrainingOptions
from ditbench.harness.stats.intervals import paired_ratio_interval
from ditbench.harness.store.records import CellSpec, Quantity
from ditbench.methods.training.accounting import Accounting, accounting, full_accounting
from ditbench.methods.training.loop import Training
from ditbench.methods.training.recipe import Recipe
from ditbench.methods.training.run import adaptation_of, prepared, steps_differ

MIB = 2**20
STRATA = 16
CYCLES = 64


@dataclass(frozen=True)
class Trainee:
    """A cell and the file of its weights."""

    spec: CellSpec
    weights: Path


@dataclass(frozen=True)
class TrainingResult:
    """values: see ``measure_training``; detail: the recipe, how it adapts its base, rounds and conditions."""

    values: dict[str, Quantity]
    detail: dict[str, Any]


def recipe_of(weights: Path) -> Recipe | None:
    """The denoiser's recipe that a checkpoint keeps; None where it keeps none, or a classifier's.

    Raises InputError for one that this version cannot read.
    """
    if weights.suffix != ".safetensors":
        return None
    try:
        with safe_open(weights, "pt") as file:
            text = (file.metadata() or {}).get("recipe")
        recipe = None if text is None else Recipe.model_validate_json(text)
    except (SafetensorError, OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{weights}: its recipe cannot be read ({first}); train it again") from None
    return recipe if recipe is not None and recipe.kind == "denoiser" else None


def measure_training(trainee: Trainee, baseline: Trainee | None, options: TrainingOptions) -> TrainingResult:
    """Count, weigh and time the training of ``trainee``, in rounds of A B B A with ``baseline`` if that has a recipe.

    parameters, trainable      counts; trainable_share: their ratio
    gradient_mib               of all trained parameters; optimizer_mib: AdamW's two averages
    training_peak_mib          weights, gradients, optimiser, average, and the most that a step's tensors held at once
    training_step_ms           median of whole steps at the recipe's batch; where steps differ, of means over 16
    training_image_ms          the same an image; training_s: times the recipe's steps, not timed as a whole
    training_ratio             time an image as a multiple of the baseline's
    checkpoint_mib             of the weights file

    Raises InputError where the weights keep no recipe or its base is gone, CheckpointError, ConfigError,
    FloatingPointError.
    """
    recipe = recipe_of(trainee.weights)
    if recipe is None:
        raise InputError(
            f"{trainee.weights} keeps no recipe of a denoiser, so nobody knows how it was trained: measure training on "
            "weights that ditbench train made"
        )
    device = trainee.spec.device
    around = timing_conditions(device)
    training = _begun(trainee, recipe)
    counted = accounting(training.model)
    call, weights = step_call(training)
    call(0)  # AdamW makes its averages in the first step
    # the last step's gradients, freed inside, would be taken off the peak on CUDA and not be seen on the CPU
    training.optimizer.zero_grad(set_to_none=True)
    held = _held(training)
    steps = held_at_once(lambda: _all(call, len(weights)), device)
    other = None if baseline is None else recipe_of(baseline.weights)
    calls = [(call, weights)]
    if baseline is not None and other is not None:
        calls.append(step_call(_begun(baseline, other)))
    series = [warm_up(each, len(shares), device, options.warmup_s) for each, shares in calls]
    interleave(calls, series, device, LatencyOptions.model_validate(options.model_dump()))
    values = {
        **_counts(counted),
        "training_peak_mib": _once((held + steps) / MIB, "MiB", "peak of one pass; no interval"),
        "checkpoint_mib": _once(trainee.weights.stat().st_size / MIB, "MiB", "exact"),
        **_times(series, recipe, other),
    }
    shown = other is not None and baseline is not None
    return TrainingResult(
        values,
        {
            "recipe": recipe.model_dump(mode="json"),
            "adaptation": adaptation_of(recipe, training.model),
            "base": recipe.base,
            "seed": recipe.seed,
            "batch": recipe.batch,
            "steps": recipe.steps,
            "full": asdict(full_accounting(recipe.method, recipe.config)),
            "held_mib": held / MIB,
            "step_mib": steps / MIB,
            "baseline": baseline.spec.cell if shown and baseline else None,
            "baseline_batch": other.batch if other else None,
            "order": "A B B A" if shown else "A",
            "rounds": len(series[0].rounds),
            "calls": len(weights),
            "warmup_calls": series[0].warmup_calls,
            "first_call_ms": series[0].first_ms,
            "rounds_ms": [[round(ms, 4) for ms in timings] for timings in series[0].wall()],
            "baseline_rounds_ms": [[round(ms, 4) for ms in timings] for each in series[1:] for timings in each.wall()],
            "conditions": {
                "mode": "eager",
                "dtype": "float32",
                "threads": trainee.spec.threads,
                "precision": options.precision,
                "budget_s": options.budget_s,
                **around,
            },
        },
    )


def step_call(training: Training) -> tuple[Call, Weights]:
    """Steps of a training, and a cycle of them to take the mean of.

    Where all steps cost the same a cycle is one. Else (an extra term comes in some, say) it is one step at random from
    each sixteenth of the run, drawn anew for every cycle.
    """
    recipe = training.recipe
    strata = min(STRATA, recipe.steps) if steps_differ(recipe) else 1
    places = np.random.default_rng(recipe.seed).random((CYCLES, strata)) + np.arange(strata)
    steps = [int(place * recipe.steps / strata) for place in places.ravel()]

    def call(index: int) -> Tensor:
        return training.step(steps[index % len(steps)])

    return call, WHOLE if strata == 1 else (1 / strata,) * strata


def _begun(trainee: Trainee, recipe: Recipe) -> Training:
    """The recipe's training at the checkpoint's weights, with the learning rate 0."""
    device = trainee.spec.device
    torch.manual_seed(recipe.seed)
    model, loss = prepared(recipe, weights_path(recipe.base) if recipe.base else None, device)
    methods.load_weights(model, trainee.weights)
    if trainee.spec.weights_sha256 is not None and model.weights_sha256 != trainee.spec.weights_sha256:
        raise InputError(f"{trainee.weights} changed since the plan was made: run the suite again")
    resting = recipe.optimizer.model_copy(update={"rate": 0.0})
    return Training(model.train(), loss, recipe.model_copy(update={"optimizer": resting}))


def _all(call: Call, count: int) -> None:
    for index in range(count):
        call(index)


def _held(training: Training) -> int:
    """Bytes of what lasts from step to step: weights, the optimiser's state, the average."""
    state = training.optimizer.state_dict()["state"].values()
    tensors = [
        *training.model.parameters(),
        *training.model.buffers(),
        *(value for each in state for value in each.values() if isinstance(value, Tensor)),
        *training.ema.values(),
    ]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _counts(counted: Accounting) -> dict[str, Quantity]:
    return {
        "parameters": _once(counted.parameters, "1", "exact count"),
        "trainable": _once(counted.trainable, "1", "exact count"),
        "trainable_share": _once(counted.share, "1", "exact count"),
        "gradient_mib": _once(counted.gradient_bytes / MIB, "MiB", "exact count"),
        "optimizer_mib": _once(counted.optimizer_bytes / MIB, "MiB", "exact count"),
    }


def _times(series: list[Series], recipe: Recipe, other: Recipe | None) -> dict[str, Quantity]:
    taken = series[0].summary()

    def quantity(factor: float, unit: str, how: str = "") -> Quantity:
        low, high = (None if end is None else end * factor for end in (taken.low, taken.high))
        text = f"{how}; {taken.interval}" if how else taken.interval
        return Quantity(value=taken.median * factor, unit=unit, low=low, high=high, interval=text)

    values = {
        "training_step_ms": quantity(1.0, "ms"),
        "training_image_ms": quantity(1 / recipe.batch, "ms"),
        "training_s": quantity(recipe.steps / 1e3, "s", f"{recipe.steps} times the step's median"),
    }
    if other is not None:
        ratio, images = paired_ratio_interval(series[0].wall(), series[1].wall()), other.batch / recipe.batch
        low, high = (None if end is None else end * images for end in (ratio.low, ratio.high))
        values["training_ratio"] = Quantity(
            value=ratio.value * images, unit="1", low=low, high=high, interval=ratio.method
        )
    return values


def _once(value: float, unit: str, interval: str) -> Quantity:
    return Quantity(value=value, unit=unit, interval=interval)

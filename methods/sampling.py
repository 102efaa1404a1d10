"""From noise to samples: the one loop that the harness and the Python API run, and the call that binds all of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from ditbench.methods.conditions import Conditions, of_labels, zeros
from ditbench.methods.config import make_config
from ditbench.methods.diffusion.guidance import GuidanceRule, GuidedDenoiser, loop_plans
from ditbench.methods.diffusion.process import Process
from ditbench.methods.diffusion.sampler import Noise, Sampler
from ditbench.methods.errors import ConfigError
from ditbench.methods.modifiers import modified
from ditbench.methods.protocols import Denoiser
from ditbench.methods.registry import samplers
from ditbench.methods.work import WorkLedger


def make_sampler(name: str, steps: int, options: Mapping[str, Any], process: Process) -> Sampler:
    """A registered sampler for a model of ``process``. Raises ConfigError where the model predicts something else, or
    for an option that the sampler does not take; UnknownNameError, PluginError."""
    entry = samplers()[name]
    if entry.predicts != process.predicts:
        fitting = ", ".join(each.name for each in samplers() if each.predicts == process.predicts)
        raise ConfigError(
            f"{name} needs a model that predicts {entry.predicts}, and this one predicts {process.predicts} "
            f"(its samplers: {fitting})"
        )
    make = cast(type[Sampler], entry.load())
    try:
        return make(steps, make_config(make.Options, options), process)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def make_rule(guidance: float | Mapping[str, Any], process: Process) -> GuidanceRule:
    """From a scale, or scale, interval, channels and weak. Raises ConfigError."""
    given = dict(guidance) if isinstance(guidance, Mapping) else {"scale": float(guidance)}
    rule = make_config(GuidanceRule, given)
    if rule.interval is None:
        return rule
    low, high = rule.interval
    # an adaptive solver looks beyond the data's time
    beyond = process.predicts == "velocity" and high == process.cleanest
    return make_config(GuidanceRule, {**given, "interval": (low, math.inf if beyond else high)})


def loop(
    sampler: Sampler,
    guided: GuidedDenoiser,
    z: Tensor,
    noise: Noise,
    dtype: torch.dtype,
    see: Callable[[Tensor, int], None] | None = None,
) -> Tensor:
    """From z (B, C, …) float32 to samples of the same shape; the state is kept in float32.

    dtype  of the model's numbers
    see    gets the denoiser's input and the evaluation's number
    """

    def denoise(x: Tensor, step: int, t: float | None = None) -> Tensor:
        x = x.to(dtype)
        if see is not None:
            see(x, step)
        return guided(x, step, t).float()

    with torch.inference_mode():
        return sampler.sample(denoise, z, noise)


def sample(
    model: torch.nn.Module,
    *,
    noise: Tensor,
    sampler: str | Mapping[str, Any] = "ddim",
    labels: Tensor | None = None,
    conditions: Conditions | None = None,
    guidance: float | Mapping[str, Any] = 1.0,
    step_noise: Tensor | None = None,
    modifiers: Sequence[Mapping[str, Any]] = (),
    ledger: WorkLedger | None = None,
) -> Tensor:
    """Samples (B, C, …) float32 of ``model``, as the harness makes them.

    noise       (B, C, …) standard normal: where the loop begins
    sampler     a registered name, or name, steps (50) and the sampler's own options
    labels      (B,) class labels; or ``conditions``; neither: zeros, for a model that takes none
    guidance    a scale; or scale, interval, channels, weak as in a suite
    step_noise  (steps, B, C, …): what step i of a stochastic sampler draws; None: torch's own generator
    modifiers   what is put around the model, innermost first: [{"fora": {"interval": 3}}]
    ledger      records what ran

    Raises ConfigError, UnknownNameError.
    """
    around = modified(cast(Denoiser, model), modifiers)
    wanted = {"name": sampler} if isinstance(sampler, str) else dict(sampler)
    name, steps = str(wanted.pop("name")), int(wanted.pop("steps", 50))
    made = make_sampler(name, steps, wanted, around.process)
    rule = make_rule(guidance, around.process)
    if conditions is None:
        told = zeros(around.facts, len(noise), noise.device) if labels is None else of_labels(around.facts, labels)
    else:
        told = conditions
    guided = GuidedDenoiser(around, told, loop_plans(around, made, rule), rule, ledger)
    evaluation = 0

    def see(x: Tensor, number: int) -> None:
        nonlocal evaluation
        evaluation = number

    def drawn() -> Tensor:
        return torch.randn_like(noise) if step_noise is None else step_noise[evaluation // made.stages]

    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return loop(made, guided, noise.float(), drawn, dtype, see)

"""What is checked: a method with its config, its weights and what is put around it; and inputs for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ditbench import methods
from ditbench.harness.conformance.places import place_of
from ditbench.harness.measure.proof import bare
from ditbench.harness.sample.generate import BoundCell, bind_sampler
from ditbench.harness.store.records import CellSpec
from ditbench.methods.call import Call, Wrapper
from ditbench.methods.conditions import Conditions
from ditbench.methods.entries import MethodEntry
from ditbench.methods.facts import Facts
from ditbench.methods.memory import BRANCHES
from ditbench.methods.modifiers import Modified, Modifier, modified
from ditbench.methods.plans import StepPlan
from ditbench.methods.protocols import Denoiser
from ditbench.methods.registry import methods as registry
from ditbench.methods.registry import modifiers, samplers

ROWS = 4
SCALE = 1.5
CLOSE = 1e-5
"""Relative to the largest magnitude: how near calls must be whose rows differ in number."""
_OF_MODIFIERS = {"predict": ("output", "around"), "forward": (), "scheduled": ("schedule",), "plan": ("schedule",)}


@dataclass(frozen=True)
class Step:
    """One evaluation of an unguided loop: its plan and its input x (ROWS, C, …)."""

    plan: StepPlan
    x: Tensor


class Subject:
    """Everything is made when it is first asked for; what making it raises is raised there.

    steps  of the loops that checks run
    """

    def __init__(
        self,
        method: str,
        config: Mapping[str, Any] | None = None,
        around: Sequence[Mapping[str, Any]] = (),
        weights: Path | None = None,
        steps: int = 6,
    ) -> None:
        """Raises UnknownNameError, PluginError."""
        self.method, self.config, self.around = method, dict(config or {}), tuple(dict(each) for each in around)
        self.weights, self.steps = weights, steps
        self.entry: MethodEntry = registry()[method]
        self._around = [modifiers()[str(name)] for each in self.around for name in each]

    @cached_property
    def facts(self) -> Facts:
        """What its entry says."""
        return self.entry.facts_of(self.config)

    # Models

    def built(self, seed: int = 0) -> nn.Module:
        """A new model with its own initial weights, nothing around it."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return methods.build(self.method, **self.config)

    @cached_property
    def module(self) -> nn.Module:
        """With the weights that all checks use; as ``model``, before anything is put around."""
        made = self.built()
        if self.weights is None:
            enliven(made)
        else:
            methods.load_weights(made, self.weights)
        return made

    @cached_property
    def state(self) -> dict[str, Tensor]:
        """The weights that all checks use."""
        return {name: value.detach().clone() for name, value in self.module.state_dict().items()}

    @cached_property
    def model(self) -> Denoiser:
        """What is checked, on the CPU in float32."""
        return self.fresh()

    def fresh(self, dtype: torch.dtype = torch.float32) -> Denoiser:
        """Another one with the same weights that has never run."""
        made = self.built()
        methods.load_weights(made, self.state)
        return modified(cast(Denoiser, made.to(dtype)), self.around)

    @cached_property
    def meta(self) -> Denoiser:
        """On ``meta``, built as planning does."""
        with torch.device("meta"):
            made = methods.build(self.method, **self.config)
        return modified(cast(Denoiser, made), self.around)

    # Loops

    @cached_property
    def cell(self) -> BoundCell:
        """Guided where there is something to leave out."""
        return self.bound(self.model, SCALE if self.model.facts.guidable else 1.0)

    @cached_property
    def unguided(self) -> BoundCell:
        return self.bound(self.model, 1.0)

    def bound(self, model: Denoiser, scale: float, dtype: str = "float32") -> BoundCell:
        """Loops of ``model`` with the plain sampler of its prediction. Raises ConfigError."""
        predicts = model.process.predicts
        sampler = next(each for each in samplers() if each.predicts == predicts and each.name in ("ddim", "euler"))
        spec = CellSpec(
            cell=self.method.replace("/", "-"),
            method=self.method,
            config=self.config,
            modifiers=self.around,
            sampler=sampler.name,
            sampler_options={"clip": True} if predicts == "noise" else {},
            steps=self.steps,
            guidance_scale=scale,
            dtype=dtype,
        )
        return BoundCell(spec, model, *bind_sampler(spec, model))

    @cached_property
    def conditions(self) -> Conditions:
        """Of ROWS samples."""
        return self.unguided.streams(range(ROWS)).conditions

    @cached_property
    def walk(self) -> list[Step]:
        """The evaluations of a loop of ROWS samples. Each has fresh noise: states that random weights lead to grow, and
        saturate what they go through."""
        streams = self.unguided.streams(range(ROWS))
        return [Step(plan.branches[0], streams.noise()) for plan in self.unguided.plans()]

    @cached_property
    def looked_at(self) -> list[Step]:
        """At most four of the walk: of distinct work where there is such, the first and the last among them."""
        walk = self.walk
        distinct = list({step.plan.work_key: step for step in walk[::-1]}.values())[::-1]
        found = {id(step): step for step in [walk[0], walk[-1], *distinct[:3], walk[len(walk) // 2]]}
        return sorted(list(found.values())[:4], key=lambda step: -self.model.process.noisiness(step.plan.timestep))

    # Words

    def place(self, *names: str) -> str:
        """Where the model's class writes the first of these; before that, where modifiers around it write theirs."""
        theirs = tuple(each for name in names for each in _OF_MODIFIERS.get(name, (name,)))
        kinds = [(type(each), theirs) for each in around_of(self.model)]
        return "; ".join(place_of(kind, *written) for kind, written in [*kinds, (type(bare(self.model)), names)])

    @cached_property
    def packages(self) -> tuple[str, ...]:
        """Top-level packages of whoever wrote the method and its modifiers; of ditbench only the methods."""
        tops = {entry.target.partition(":")[0].partition(".")[0] for entry in (self.entry, *self._around)}
        plugins = tuple(sorted(tops - {"ditbench"}))
        return plugins or ("ditbench.methods",)


def predict(
    model: Denoiser,
    x: Tensor,
    plan: StepPlan,
    conditions: Conditions,
    *,
    time: float | None = None,
    wrappers: tuple[Wrapper, ...] = (),
) -> Tensor:
    """One unguided call of a loop that has just begun: x (B, C, …) -> its output, at the plan's time or another."""
    t = torch.full((len(x),), plan.timestep if time is None else time)
    with torch.inference_mode():
        call = Call(plan, None, model.begin(len(x)), wrappers, BRANCHES[:1])
        return model.predict(x, t, conditions, call).clone()


def off(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest magnitude; infinite where shapes differ or numbers are none."""
    if a.shape != b.shape or not (a.isfinite().all() and b.isfinite().all()):
        return math.inf
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)) if a.numel() else 0.0


def around_of(model: Denoiser) -> tuple[Modifier, ...]:
    """The modifiers around a model."""
    return model.modifiers if isinstance(model, Modified) else ()


@torch.no_grad()
def enliven(model: nn.Module) -> None:
    """Draw every weight so that all of it matters: layers that begin as zeros, or routers as open, hide faults.

    Products keep the size of what goes through them; scales of norms stay about 1.
    """
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            if not weight.requires_grad or not weight.is_floating_point():
                continue
            fan_in = weight[0].numel() if weight.dim() > 1 else 25
            weight.normal_(0.0, fan_in**-0.5, generator=generator)
            if name == "weight" and weight.dim() == 1:
                weight.add_(1.0)
    forget = getattr(model, "forget", None)
    if callable(forget):
        forget()

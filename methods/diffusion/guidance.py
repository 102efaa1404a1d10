"""Classifier-free guidance (Ho & Salimans 2022): the denoiser that a sampler calls, bound to conditions and plans."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ditbench.methods.call import Call
from ditbench.methods.conditions import Conditions
from ditbench.methods.diffusion.sampler import Sampler
from ditbench.methods.errors import ConfigError
from ditbench.methods.memory import BRANCHES, Memory
from ditbench.methods.plans import StepPlan
from ditbench.methods.protocols import Denoiser
from ditbench.methods.work import WorkLedger


@dataclass(frozen=True)
class GuidanceRule:
    """prediction = uncond + scale * (cond − uncond).

    scale     1 leaves the conditional prediction and runs one forward a step instead of two
    interval  guide only where low <= timestep <= high (Kynkäänniemi et al. 2024); None = everywhere
    channels  guide only this many leading channels; the public DiT sampler uses 3 of its 4 (None = all predicted)
    weak      what the guidance branch predicts where the plan gives it choices of its own: for the condition itself, at
              the scale ``weak_scale`` (arXiv 2502.20126), or for none, at ``scale``
    """

    scale: float = 1.0
    interval: tuple[float, float] | None = None
    channels: int | None = None
    weak: Literal["conditional", "unconditional"] = "conditional"

    def guides(self, timestep: float) -> bool:
        """Whether a step at ``timestep`` runs the second, unconditional forward."""
        inside = self.interval is None or self.interval[0] <= timestep <= self.interval[1]
        return self.scale != 1.0 and inside


def weak_scale(scale: float) -> float:
    """The scale for guidance by a weak conditional prediction that stands for ``scale``: (1 − s) / (1 − s₂) = 2.5."""
    return 1 + (scale - 1) / 2.5


def combine(cond: Tensor, uncond: Tensor, scale: float, channels: int) -> Tensor:
    """Guide the first ``channels`` of cond, uncond (B, C_out, H, W); the rest (variances) stay the conditional's."""
    guided = torch.lerp(uncond[:, :channels], cond[:, :channels], scale)
    return torch.cat([guided, cond[:, channels:]], dim=1)


def loop_plans(model: Denoiser, sampler: Sampler, rule: GuidanceRule) -> list[StepPlan]:
    """What ``model`` will compute at every evaluation of a loop; empty where times are not known ahead.

    Raises ConfigError where the sampler calls out of order and the model needs its calls in order.
    """
    if model.remembers and (sampler.adaptive or sampler.stages > 1):
        raise ConfigError(
            "the method keeps something from step to step, and this sampler does not evaluate once a step, in order"
        )
    plans = sampler.plans(model)
    return model.scheduled(plans, [rule.guides(plan.timestep) for plan in plans])


Execute = Callable[[Hashable, Callable[..., Tensor], tuple[Tensor, ...]], Tensor]
"""How a step runs: (key, run, tensors) -> run(*tensors). Equal keys are equal work; tensors: x, times, conditions."""


class GuidedDenoiser:
    """A denoiser for one batch of conditions: ``denoise(x, step)`` -> model output (B, C_out, …). One loop, one memory.

    ``plans`` of a fixed grid; empty where the sampler tells the time of each evaluation, and then they are made, and
    kept, as the loop goes.
    Conditional and unconditional rows run as one call of 2B rows where the step guides, else B rows run. Where the plan
    gives the guidance branch choices of its own, the model runs the pair; ``tuned``: as its measurement found best.
    ``execute``: what runs a step; None: a plain call.
    """

    def __init__(
        self,
        model: Denoiser,
        conditions: Conditions,
        plans: Sequence[StepPlan],
        rule: GuidanceRule,
        ledger: WorkLedger | None = None,
        tuned: bool = False,
        execute: Execute | None = None,
    ) -> None:
        self.model, self.conditions, self.plans, self.rule = model, conditions, list(plans), rule
        self.ledger, self.tuned, self.execute = ledger, tuned, execute
        self.memory: Memory = model.begin(len(conditions))
        # what an unguided loop never reads is not made: a model may have no row for "no condition"
        guided = rule.scale != 1.0
        self._none = conditions.null() if guided else conditions
        self._both = conditions.cat(self._none) if guided else conditions
        self._parts = tuple(t for each in (conditions, self._none, self._both) for t in each.tensors.values())

    def __call__(self, x: Tensor, step: int, t: float | None = None) -> Tensor:
        if t is not None:
            self.plans.append(self.model.plan_at(t))
        if self.ledger is not None:
            self.ledger.begin()
        plan, guides, tensors = self.told(step if t is None else -1, x)
        run = partial(self.evaluate, plan, guides)
        return run(*tensors) if self.execute is None else self.execute((plan.key, guides), run, tensors)

    def told(self, step: int, x: Tensor) -> tuple[StepPlan, bool, tuple[Tensor, ...]]:
        """What ``evaluate`` is given at this evaluation: its plan, whether it guides, and its tensors."""
        plan = self.plans[step]
        guides = self.rule.guides(plan.timestep)
        plan = plan if guides else plan.branches[0]
        rows = x.shape[0] * (2 if guides and plan.guidance is None else 1)
        return plan, guides, (x, torch.full((rows,), plan.timestep, device=x.device), *self._parts)

    def evaluate(self, plan: StepPlan, guides: bool, x: Tensor, times: Tensor, *parts: Tensor) -> Tensor:
        """The step's prediction, of nothing but plan, rule, memory and these tensors; ``times`` (rows,)."""
        conditions, none, both = self._conditions(parts)
        if not guides:
            return self.model.predict(x, times, conditions, self._call(plan, BRANCHES[:1]))
        scale = self.rule.scale
        if plan.guidance is None:
            call = self._call(plan, BRANCHES)
            cond, other = self.model.predict(torch.cat([x, x]), times, both, call).chunk(2)
        else:
            by_condition = self.rule.weak == "conditional"
            guide = conditions if by_condition else none
            call = self._call(plan, BRANCHES)
            cond, other = self.model.predict_pair(x, times, conditions, guide, call, tuned=self.tuned)
            scale = weak_scale(scale) if by_condition else scale
        channels = self.model.facts.space.channels
        return combine(cond, other, scale, min(self.rule.channels or channels, channels))

    def _call(self, plan: StepPlan, branches: tuple[str, ...]) -> Call:
        return Call(plan, self.ledger, self.memory, branches=branches)

    def _conditions(self, parts: tuple[Tensor, ...]) -> tuple[Conditions, Conditions, Conditions]:
        """The conditions of both branches and of both together, with these tensors in them."""
        if all(a is b for a, b in zip(parts, self._parts, strict=True)):
            return self.conditions, self._none, self._both
        names, count = list(self.conditions.tensors), len(self.conditions.tensors)
        made = [
            each.replaced(dict(zip(names, parts[place * count : (place + 1) * count], strict=True)))
            for place, each in enumerate((self.conditions, self._none, self._both))
        ]
        return made[0], made[1], made[2]

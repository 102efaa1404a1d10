"""Classifier-free guidance (Ho & Salimans 2022): the denoiser that a sampler calls, bound to labels and plans."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor

from ditbench.methods.protocols import Denoiser, Flexible, StepPlan, WorkLedger


@dataclass(frozen=True)
class GuidanceRule:
    """prediction = uncond + scale * (cond − uncond).

    scale     1 leaves the conditional prediction and runs one forward a step instead of two
    interval  guide only where low <= timestep <= high (Kynkäänniemi et al. 2024); None = everywhere
    channels  guide only this many leading channels; the public DiT sampler uses 3 of its 4 (None = all predicted)
    weak      what the guidance branch predicts where its patches are coarser: the class itself, at the scale
              ``weak_scale`` (arXiv 2502.20126), or no class, at ``scale``
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


Execute = Callable[[Hashable, Callable[..., Tensor], tuple[Tensor, ...]], Tensor]
"""How a step runs: (key, run, tensors) -> run(*tensors). Equal keys are equal work; tensors are x, times, labels."""


class GuidedDenoiser:
    """A denoiser for one batch of labels: ``denoise(x, step)`` -> model output (B, C_out, H, W).

    ``plans`` of a fixed grid; empty where the sampler tells the time of each evaluation, and then they are made, and
    kept, as the loop goes.
    Conditional and unconditional rows run as one call of 2B rows where the step guides, else B rows run. Where the plan
    gives the guidance branch another patch size, the model runs the pair; ``tuned``: as its measurement found best.
    ``execute``: what runs a step; None: a plain call.
    """

    def __init__(
        self,
        model: Denoiser,
        labels: Tensor,
        plans: Sequence[StepPlan],
        rule: GuidanceRule,
        ledger: WorkLedger | None = None,
        tuned: bool = False,
        execute: Execute | None = None,
    ) -> None:
        self.model, self.labels, self.plans, self.rule = model, labels, list(plans), rule
        self.ledger, self.tuned, self.execute = ledger, tuned, execute
        self._none = torch.full_like(labels, model.num_classes)
        self._both = torch.cat([labels, self._none])

    def __call__(self, x: Tensor, step: int, t: float | None = None) -> Tensor:
        if t is not None:
            self.plans.append(self.model.plan_at(t))
        plan = self.plans[step if t is None else -1]
        if self.ledger is not None:
            self.ledger.begin()
        guides = self.rule.guides(plan.timestep)
        plan = plan if guides else plan.branches[0]
        rows = x.shape[0] * (2 if guides and plan.guide is None else 1)
        tensors = (x, torch.full((rows,), plan.timestep, device=x.device), self.labels, self._none, self._both)
        run = partial(self._predict, plan, guides)
        return run(*tensors) if self.execute is None else self.execute((plan.key, guides), run, tensors)

    def _predict(
        self, plan: StepPlan, guides: bool, x: Tensor, times: Tensor, labels: Tensor, none: Tensor, both: Tensor
    ) -> Tensor:
        """The step's prediction, of nothing but plan, rule and these tensors; ``times`` (rows,), ``both`` (2B,)."""
        if not guides:
            return self.model(x, times, labels, plan=plan, ledger=self.ledger)
        scale = self.rule.scale
        if plan.guide is None:
            cond, other = self.model(torch.cat([x, x]), times, both, plan=plan, ledger=self.ledger).chunk(2)
        else:
            by_class = self.rule.weak == "conditional"
            cond, other = cast(Flexible, self.model).pair(
                x, times, labels, labels if by_class else none, plan, self.ledger, tuned=self.tuned
            )
            scale = weak_scale(scale) if by_class else scale
        channels = self.rule.channels or self.model.in_channels
        return combine(cond, other, scale, min(channels, self.model.in_channels))

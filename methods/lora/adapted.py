"""What a transformer with adapters adds to one without: their place, their switch, what is trained of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ditbench.methods.lora.lora import LoraLinear, Switch, add_lora
from ditbench.methods.plans import Choice, StepPlan
from ditbench.methods.prepared import KeepsPrepared

ALL = "all"
"""The name of the only update of a model that has one set."""


@dataclass(frozen=True)
class FoldedAt(Choice):
    """The time that low-rank updates are folded into the weights for, where they depend on it."""

    same_work: ClassVar[bool] = True
    time: float


class Adapted(KeepsPrepared):
    """A model with ``blocks``, a ``t_embedder`` and ``config.adapter``; None: every method here does nothing."""

    blocks: nn.ModuleList
    t_embedder: nn.Module
    switch: Switch
    lora_layers: list[LoraLinear]

    @property
    def adapter_names(self) -> tuple[str, ...]:
        """Names of the updates of every adapted layer."""
        return (ALL,)

    def add_adapters(self, width: int) -> None:
        """Adapters on the layers that the config names; ``width`` of the timestep embedding."""
        self.lora_layers = []
        self.switch = Switch(prepared=self.prepared)
        adapter = self.config.adapter
        if adapter is None or not self.adapter_names:
            return
        self.switch.folded = adapter.folded
        self.switch.embedder = self.t_embedder if adapter.timed else None
        self.lora_layers = add_lora(self.blocks, adapter, self.adapter_names, self.switch, width)

    @property
    def timed(self) -> bool:
        """Whether updates depend on the timestep."""
        return self.config.adapter is not None and self.config.adapter.timed

    def runs_beside(self, plan: StepPlan | None) -> bool:
        """Whether updates run beside the weights at inference under ``plan``, not folded into them."""
        adapter = self.config.adapter
        if adapter is None:
            return False
        return not adapter.folded or (adapter.timed and folded_time(plan) is None)

    def at_its_time(self, plan: StepPlan) -> StepPlan:
        """``plan`` with the time that updates are folded in for, where there is one."""
        return plan.having(FoldedAt(plan.timestep)) if self.timed and self.switch.folded else plan

    def adapt(self, t: Tensor, plan: StepPlan | None, update: str | None = ALL) -> None:
        """Tell the adapted layers what this call runs with; ``rest`` ends it.

        Where updates by time are not folded (in training, and without a plan that says a time) every row of ``t`` (B,)
        has its own.
        """
        if self.config.adapter is not None:
            self._adapt(t, plan, update)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # a compiled call would be made anew for every time
    def _adapt(self, t: Tensor, plan: StepPlan | None, update: str | None) -> None:
        switch = self.switch
        switch.active, switch.embedded = update, None
        switch.time = folded_time(plan)
        if self.timed and update is not None and (self.training or self.runs_beside(plan)):
            switch.embedded = self.t_embedder(t)

    def rest(self) -> None:
        """The call is over: let go of its embeddings."""
        if self.config.adapter is not None:
            self.switch.embedded = None

    def fold(self, plan: StepPlan, update: str | None = ALL) -> None:
        """Fold ``update`` into the weights for ``plan``, to be kept."""
        if self.config.adapter is None or self.runs_beside(plan) or update is None:
            return
        self.switch.active, self.switch.time = update, folded_time(plan)
        for layer in self.lora_layers:
            layer.folded()

    # What is trained

    def is_added(self, name: str) -> bool:
        """Whether a parameter is no part of the static base: what is trained on top of a frozen one, and saved."""
        return ".adapters." in name

    def freeze_base(self) -> None:
        """Leave only what is added to the base to be trained; nothing to do without adapters."""
        if self.config.adapter is None:
            return
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(self.is_added(name))


def folded_time(plan: StepPlan | None) -> float | None:
    """The time that ``plan`` folds updates for; None where it says none."""
    folded = None if plan is None else plan.get(FoldedAt)
    return None if folded is None else folded.time


class BlockWork(nn.Module):
    """A block, or a unit of one, with an update beside its weights, or with none (folded updates have the base's
    shapes), for counting.

    ``timed``: the last input is timestep embeddings (B, C), which the update depends on.
    """

    def __init__(self, block: nn.Module, switch: Switch, update: str | None, timed: bool = False) -> None:
        super().__init__()
        self.block, self.switch, self.update, self.timed = block, switch, update, timed

    def forward(self, *given: Tensor) -> Any:
        self.switch.active, self.switch.embedded = self.update, given[-1] if self.timed else None
        out = self.block(*(given[:-1] if self.timed else given))
        self.switch.embedded = None
        return out

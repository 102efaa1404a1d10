"""What a model with adapters adds to one without: their place, their switch, what is trained of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ditbench.methods.bases import Based
from ditbench.methods.errors import ConfigError
from ditbench.methods.lora.config import AdapterConfig
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


class Adapted(Based, KeepsPrepared):
    """A model whose linear layers may have low-rank updates: inherit it before ``StaticWork``, end ``__init__`` with
    ``add_adapters``, begin ``forward`` with ``adapt`` and say the ``static_base``. Without an adapter all methods here
    do nothing.
    """

    _adapter: AdapterConfig | None = None
    switch: Switch
    lora_layers: list[LoraLinear]

    @property
    def adapter_names(self) -> tuple[str, ...]:
        """Names of the updates of every adapted layer."""
        return (ALL,)

    @property
    def adapter(self) -> AdapterConfig | None:
        return self._adapter

    def add_adapters(
        self, adapter: AdapterConfig | None, root: nn.Module, embedder: nn.Module | None = None, width: int = 1
    ) -> None:
        """Adapters on the layers under ``root`` that ``adapter`` names; ``embedder`` of timesteps, (B,) -> (B, width).

        Raises ConfigError.
        """
        self.lora_layers, self._adapter = [], adapter
        self.switch = Switch(prepared=self.prepared)
        if adapter is None or not self.adapter_names:
            return
        if adapter.timed and embedder is None:
            raise ConfigError("adapter: experts are mixed by the timestep's embedding, and this model shows none")
        self.switch.folded = adapter.folded
        self.switch.embedder = embedder if adapter.timed else None
        self.lora_layers = add_lora(root, adapter, self.adapter_names, self.switch, width)

    @property
    def timed(self) -> bool:
        """Whether updates depend on the timestep."""
        return self._adapter is not None and self._adapter.timed

    def plan(self, timesteps: Sequence[float], *, stages: int = 1) -> list[StepPlan]:
        return [self.at_its_time(StepPlan(float(t))) for t in timesteps]

    def prepare(self, plan: StepPlan) -> None:
        self.fold(plan)

    def runs_beside(self, plan: StepPlan | None) -> bool:
        """Whether updates run beside the weights at inference under ``plan``, not folded into them."""
        adapter = self._adapter
        if adapter is None:
            return False
        return not adapter.folded or (adapter.timed and folded_time(plan) is None)

    def at_its_time(self, plan: StepPlan) -> StepPlan:
        """``plan`` with the time that updates are folded in for, where there is one."""
        return plan.having(FoldedAt(plan.timestep)) if self.timed and self.switch.folded else plan

    def adapt(self, t: Tensor, plan: StepPlan | None = None, update: str | None = ALL) -> None:
        """Tell the adapted layers what this call runs with; ``rest`` ends it.

        Where updates by time are not folded (in training, and without a plan that says a time) every row of ``t`` (B,)
        has its own.
        """
        if self._adapter is not None:
            self._adapt(t, plan, update)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # a compiled call would be made anew for every time
    def _adapt(self, t: Tensor, plan: StepPlan | None, update: str | None) -> None:
        switch = self.switch
        switch.active, switch.embedded = update, None
        switch.time = folded_time(plan)
        if self.timed and update is not None and (self.training or self.runs_beside(plan)):
            assert switch.embedder is not None
            switch.embedded = switch.embedder(t)

    def rest(self) -> None:
        """The call is over: let go of its embeddings."""
        if self._adapter is not None:
            self.switch.embedded = None

    def fold(self, plan: StepPlan, update: str | None = ALL) -> None:
        """Fold ``update`` into the weights for ``plan``, to be kept."""
        if self._adapter is None or self.runs_beside(plan) or update is None:
            return
        self.switch.active, self.switch.time = update, folded_time(plan)
        for layer in self.lora_layers:
            layer.folded()

    # What is trained

    def is_added(self, name: str) -> bool:
        return ".adapters." in name


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

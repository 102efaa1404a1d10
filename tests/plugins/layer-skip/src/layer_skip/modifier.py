"""A modifier: something put around any method. This one leaves out layers, in some steps or in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ditbench.methods.call import Call, Place, Run
from ditbench.methods.errors import ConfigError
from ditbench.methods.modifiers import Modifier, Want, without_units
from ditbench.methods.plans import Choice, Facet, StepPlan
from ditbench.methods.protocols import Denoiser
from ditbench.methods.work import WorkUnit
from torch import Tensor

ALL, SOME = "all run", "some left out"


@dataclass(frozen=True)
class Skipped(Choice):
    """What a step chooses. It stands in plans, so that steps of equal work are counted, timed and captured once."""

    layers: tuple[int, ...]

    def facets(self) -> tuple[Facet, ...]:
        """How the report shows it: a label, or a share between 0 and 1. Every step has to have one."""
        value = SOME if self.layers else ALL
        about = "Layers that are left out hand on what they are given."
        return (Facet("layers", value, levels=(ALL, SOME), about=about),)


class LayerSkip(Modifier):
    """layers: those that are left out, from 0; every: in every so-manieth step, 1 for all.

    Options are what a suite says: ``with: [{layer-skip: {layers: [1], every: 2}}]``.
    """

    wants: ClassVar[tuple[Want, ...]] = ("units",)  # methods that do not show their units are refused
    remembers: ClassVar[bool] = False  # True: keep tensors in call.memory, never in self; see docs/methods.md

    def __init__(self, layers: Sequence[int], every: int = 1) -> None:
        if not layers or any(not isinstance(layer, int) or layer < 0 for layer in layers):
            raise ConfigError(f"layers must be a list of whole numbers from 0, not {layers!r}")
        if every < 1:
            raise ConfigError(f"every must be at least 1, not {every}")
        self.layers, self.every = tuple(sorted(set(layers))), every

    def refuses(self, model: Denoiser) -> str:
        """The reason becomes one line in front of the user, before anything runs."""
        plan = model.plan_at(model.process.noisiest)
        depth = 1 + max((layer for unit in model.work(plan) for layer in unit.layers), default=-1)
        beyond = [layer for layer in self.layers if layer >= depth]
        return f"there is no layer {beyond[0]} among {depth}" if beyond else ""

    def schedule(self, plans: Sequence[StepPlan], guided: Sequence[bool]) -> list[StepPlan]:
        """The plans of a whole loop, in order, each with this modifier's choice in it."""
        return [plan.having(Skipped(self.layers if step % self.every == 0 else ())) for step, plan in enumerate(plans)]

    def around(self, place: Place, x: Tensor, run: Run, call: Call) -> Tensor:
        """In place of each unit, and of each whole 'block': not to call ``run`` is to compute nothing there."""
        if place.unit == "block" and place.layer in self._left_out(call.plan):
            return x
        return run(x)

    def work(self, units: list[WorkUnit], plan: StepPlan, rows: int) -> list[WorkUnit]:
        """The pieces that are left. A flops measurement traces a real call and fails where this says too little."""
        return without_units(units, dict.fromkeys(self._left_out(plan), ("block",)))

    def _left_out(self, plan: StepPlan | None) -> tuple[int, ...]:
        choice = None if plan is None else plan.get(Skipped)
        return () if choice is None else choice.layers

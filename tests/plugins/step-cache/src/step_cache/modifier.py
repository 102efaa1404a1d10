"""A modifier that remembers: outputs of units are computed in every so-manieth step and used again in between."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ditbench.methods.call import Call, Place, Run
from ditbench.methods.errors import ConfigError
from ditbench.methods.modifiers import Modifier, Want, without_units
from ditbench.methods.plans import Choice, Facet, StepPlan
from ditbench.methods.protocols import Denoiser
from ditbench.methods.work import WorkUnit
from torch import Tensor

UNITS = ("attention", "mlp")
COMPUTED, REUSED = "computed", "reused"


@dataclass(frozen=True)
class Cached(Choice):
    """Whether a step uses outputs of an earlier one again. Both kinds of step keep what the next ones may need."""

    reuses: bool

    def facets(self) -> tuple[Facet, ...]:
        """A label: the report draws which steps computed."""
        value = REUSED if self.reuses else COMPUTED
        about = "In a reused step, attention and MLP of all layers give what they gave in the last computed one."
        return (Facet("cache", value, levels=(COMPUTED, REUSED), about=about),)


class StepCache(Modifier):
    """interval: of so many steps one computes, as far as reuse is legal."""

    wants: ClassVar[tuple[Want, ...]] = ("units",)
    remembers: ClassVar[bool] = True  # solvers that call out of order refuse it

    def __init__(self, interval: int = 2) -> None:
        if not isinstance(interval, int) or interval < 1:
            raise ConfigError(f"interval must be a whole number of at least 1, not {interval!r}")
        self.interval = interval

    def refuses(self, model: Denoiser) -> str:
        return "it cannot stand around what remembers already" if model.remembers else ""

    def schedule(self, plans: Sequence[StepPlan], guided: Sequence[bool]) -> list[StepPlan]:
        """Reuse is legal of a step with equal other choices, and of both branches where this step guides: a step where
        guidance begins computes, since its branch has nothing to remember."""
        made: list[StepPlan] = []
        age, last = 0, None
        for step, (plan, guides) in enumerate(zip(plans, guided, strict=True)):
            begins = guides and (step == 0 or not guided[step - 1])
            fresh = last is None or begins or plan.key != last or age + 1 >= self.interval
            age, last = (0 if fresh else age + 1), plan.key
            made.append(plan.having(Cached(not fresh)))
        return made

    def around(self, place: Place, x: Tensor, run: Run, call: Call) -> Tensor:
        """Memory belongs to the loop, and holds rows by branch. Nothing is kept in ``self``: loops may alternate."""
        if place.unit not in UNITS or call.memory is None or call.plan is None:
            return run(x)
        key, stamp = (place.layer, place.unit), self._stamp(call.plan)
        if self._reuses(call.plan) and (kept := call.memory.get(call.branches, key, stamp)) is not None:
            return kept  # a call out of a loop finds nothing and computes
        made = run(x)
        call.memory.put(call.branches, key, made, stamp)
        return made

    def work(self, units: list[WorkUnit], plan: StepPlan, rows: int) -> list[WorkUnit]:
        """Modulation stays: its gates are applied to what is used again."""
        if not self._reuses(plan):
            return units
        return without_units(units, {layer: UNITS for unit in units for layer in unit.layers})

    @staticmethod
    def _reuses(plan: StepPlan) -> bool:
        choice = plan.get(Cached)
        return choice is not None and choice.reuses

    @staticmethod
    def _stamp(plan: StepPlan) -> Hashable:
        """What something is reused under only: the other choices of the call."""
        return plan.without(Cached).choices

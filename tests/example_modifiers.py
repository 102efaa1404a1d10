"""Small modifiers for tests: one that does nothing, one that leaves units out, one that reuses them, two of outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from ditbench.methods.call import Call, Place, Run
from ditbench.methods.entries import Entry
from ditbench.methods.modifiers import Modifier, without_units
from ditbench.methods.plans import Choice, Facet, StepPlan
from ditbench.methods.registry import modifiers
from ditbench.methods.work import WorkUnit


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of these under their names in small letters."""
    for kind in (Nothing, Skips, Reuses, Repeats, Halves):
        name = kind.__name__.lower()
        monkeypatch.setitem(modifiers()._entries, name, Entry(f"{__name__}:{kind.__name__}", name=name))


class Nothing(Modifier):
    """Stands around everything and changes nothing."""

    wants = ("units", "output")


class Halves(Modifier):
    """Half of every output."""

    wants = ("output",)

    def output(self, x: Tensor, run: Run, call: Call) -> Tensor:
        return run(x) / 2


class Skips(Modifier):
    """Leaves units out: layer -> names. ``places`` collects where it stood."""

    wants = ("units",)

    def __init__(self, left_out: Mapping[int, Sequence[str]]) -> None:
        self.left_out, self.places = left_out, list[Place]()

    def around(self, place: Place, x: Tensor, run: Run, call: Call) -> Tensor:
        self.places.append(place)
        if place.unit not in self.left_out.get(place.layer, ()):
            return run(x)
        return x if place.unit == "block" else torch.zeros_like(x)

    def work(self, units: list[WorkUnit], plan: StepPlan, rows: int) -> list[WorkUnit]:
        return without_units(units, self.left_out)


@dataclass(frozen=True)
class Again(Choice):
    """Whether what was kept runs in place of the units."""

    reuse: bool

    def facets(self) -> tuple[Facet, ...]:
        return (Facet("units", "reused" if self.reuse else "computed", ("computed", "reused")),)


class Reuses(Modifier):
    """At every second step the units' outputs of the step before, where that ran all branches under equal choices."""

    wants: ClassVar = ("units",)
    remembers = True

    def __init__(self, names: Sequence[str] = ("attention", "mlp")) -> None:
        self.names = names

    def schedule(self, plans: Sequence[StepPlan], guided: Sequence[bool]) -> list[StepPlan]:
        able = [
            number % 2 == 0 and before.key == plan.key and (guides_before or not guides)
            for number, ((before, guides_before), (plan, guides)) in enumerate(
                pairwise(zip(plans, guided, strict=True))
            )
        ]
        return [plan.having(Again(reuse)) for plan, reuse in zip(plans, [False, *able], strict=True)]

    def reuses(self, plan: StepPlan) -> bool:
        again = plan.get(Again)
        return again is not None and again.reuse

    def around(self, place: Place, x: Tensor, run: Run, call: Call) -> Tensor:
        if place.unit not in self.names:
            return run(x)
        assert call.memory is not None and call.plan is not None
        key, stamp = (place.layer, place.unit), call.plan.without(Again).key
        if self.reuses(call.plan):
            found = call.memory.get(call.branches, key, stamp)
            assert found is not None, "nothing was kept"
            return found
        out = run(x)
        call.memory.put(call.branches, key, out, stamp)
        return out

    def work(self, units: list[WorkUnit], plan: StepPlan, rows: int) -> list[WorkUnit]:
        if not self.reuses(plan):
            return units
        return without_units(units, {layer: self.names for unit in units for layer in unit.layers})


class Repeats(Reuses):
    """At every second step the whole output of the step before."""

    wants = ("output",)

    def output(self, x: Tensor, run: Run, call: Call) -> Tensor:
        return self.around(Place(0, "attention", 1), x, run, call)

    def work(self, units: list[WorkUnit], plan: StepPlan, rows: int) -> list[WorkUnit]:
        return [unit for unit in units if unit.when == "plan"] if self.reuses(plan) else units

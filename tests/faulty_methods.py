"""Small methods that keep the contract, and the same with one fault each: what ``ditbench check`` must find."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ditbench.methods.backbones.dit import DiT, dit
from ditbench.methods.entries import Entry, MethodEntry, Registry
from ditbench.methods.facts import ClassLabels, Facts
from ditbench.methods.memory import BRANCHES, Memory
from ditbench.methods.modifiers import Modifier, without_units
from ditbench.methods.plans import Choice, Facet, StepPlan
from ditbench.methods.protocols import StaticWork, WholeCall, example
from ditbench.methods.space import Space
from ditbench.methods.work import WorkUnit

SHAPE = {"input_size": 8, "patch_size": 4, "in_channels": 1, "hidden_size": 32, "depth": 2, "num_heads": 2}
SPACE, LABELS = Space(1, (4, 4)), (ClassLabels(3),)


def planted(monkeypatch: Any, registry: Registry, kind: type, facts: Any = "") -> str:
    """Register a class of this module under its own name."""
    target = f"{__name__}:{kind.__name__}"
    entry = Entry(target, name=kind.__name__)
    if registry.kind == "method":
        entry = MethodEntry(target, name=kind.__name__, facts=facts)
    monkeypatch.setitem(registry._entries, kind.__name__, entry)
    return kind.__name__


# Sound


class Tiny(StaticWork, nn.Module):
    """Two layers on the 16 pixels of a picture, with the label and the time in between; no transformer."""

    in_channels, input_size, num_classes = 1, 4, 3

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 16), nn.Linear(16, 16)
        self.table, self.clock = nn.Embedding(4, 16), nn.Linear(1, 16)
        self.middle = Middle()

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        told = self.table(y) + self.clock(t[:, None].to(x) / 1000)
        return self.last(self.middle(self.first(x.flatten(1)) + told)).view_as(x)


class Middle(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.tanh()


@dataclass(frozen=True)
class Rounds(Choice):
    """How often the middle runs."""

    count: int

    def facets(self) -> tuple[Facet, ...]:
        return (Facet("rounds", self.count / 2),)


class Deeper(Tiny):
    """Dynamic by the time: a product in the middle runs once or twice."""

    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Linear(16, 16)

    def plan(self, timesteps: Any, *, stages: int = 1) -> list[StepPlan]:
        return [StepPlan(float(t), (Rounds(1 if t > 500 else 2),)) for t in timesteps]

    def predict(self, x: Tensor, t: Tensor, conditions: Any, call: Any) -> Tensor:
        told = self.table(conditions["label"]) + self.clock(t[:, None].to(x) / 1000)
        hidden = self.first(x.flatten(1)) + told
        for _ in range(call.plan.get(Rounds).count):
            hidden = self.again(hidden.tanh())
        if call.ledger is not None:
            call.ledger.record(call.plan, rows=len(x))
        return self.last(hidden).view_as(x)


class Silent(Tiny):
    """Adds half of what the step before gave, from the memory; does not say so, and is no sound one."""

    def predict(self, x: Tensor, t: Tensor, conditions: Any, call: Any) -> Tensor:
        out = super().predict(x, t, conditions, call)
        if call.memory is None:
            return out
        before = call.memory.get(call.branches, "out")
        out = out if before is None else out + 0.5 * self.recalled(before)
        call.memory.put(call.branches, "out", out)
        return out

    def recalled(self, before: Tensor) -> Tensor:
        return before


class Recalls(Silent):
    """The same, and says so."""

    remembers = True


class Unconditional(Tiny):
    """Told nothing."""

    facts = Facts(SPACE)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return super().forward(x, t, torch.zeros(len(x), dtype=torch.long, device=x.device))


class Skips(Modifier):
    """Leaves one layer out, and says so in its work."""

    wants: ClassVar = ("units",)

    def __init__(self, layer: int = 1) -> None:
        self.layer = layer

    def around(self, place: Any, x: Tensor, run: Any, call: Any) -> Tensor:
        return x if place.unit == "block" and place.layer == self.layer else run(x)

    def work(self, units: Any, plan: StepPlan, rows: int) -> list[WorkUnit]:
        return without_units(units, {self.layer: ("modulation", "attention", "mlp")})


# The eight


class Undeclared(DiT):
    """Its pieces are fewer than what runs."""

    def __init__(self) -> None:
        super().__init__(dit(**SHAPE).config)

    def work(self, *args: Any, **kwargs: Any) -> list[WorkUnit]:
        return [unit for unit in super().work(*args, **kwargs) if unit.key != "final"]


class Misrecorded(Deeper):
    """Its ledger holds another plan than the planned one."""

    def predict(self, x: Tensor, t: Tensor, conditions: Any, call: Any) -> Tensor:
        if call.ledger is not None:
            call.ledger.record(StepPlan(call.plan.timestep, (Rounds(2),)), rows=len(x))
            call.ledger, kept = None, call.ledger
            out = super().predict(x, t, conditions, call)
            call.ledger = kept
            return out
        return super().predict(x, t, conditions, call)


class Mixed(Tiny):
    """A row's output depends on the other rows."""

    def __init__(self) -> None:
        super().__init__()
        self.middle = Mixing()


class Mixing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.tanh() - 0.1 * torch.cat([x[1:], x[:1]])


class Keeping(Tiny):
    """A module keeps what an earlier loop gave it."""

    def __init__(self) -> None:
        super().__init__()
        self.middle = Keeper()


class Keeper(nn.Module):
    last: Any = None

    def forward(self, x: Tensor) -> Tensor:
        out = x.tanh() if self.last is None or self.last.shape != x.shape else x.tanh() + 0.1 * self.last
        self.last = out.detach()
        return out


class Reading(Tiny):
    """Reads a value when it is built."""

    def __init__(self) -> None:
        super().__init__()
        self.limit = self.first.weight.abs().max().item()


class Losing(Tiny):
    """Its outputs depend on a buffer that no file holds."""

    def __init__(self) -> None:
        super().__init__()
        self.middle = Scaled()


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("gain", torch.rand(16), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.gain).tanh()


class Deaf(Tiny):
    """Nothing is the last class to it."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return super().forward(x, t, y.clamp(max=2))


class SelfGuided(Tiny):
    """Guides by itself where a call has both branches."""

    def predict(self, x: Tensor, t: Tensor, conditions: Any, call: Any) -> Tensor:
        out = super().predict(x, t, conditions, call)
        if call.branches == BRANCHES:
            cond, other = out.chunk(2)
            out = torch.cat([other + 4 * (cond - other), other])
        return out


class OtherFacts(Tiny):
    """Its entry tells another space and prediction (given where it is registered)."""


class OtherProcess(Tiny):
    """Both its facts tell velocity, and it undoes noise."""

    facts = Facts(SPACE, "velocity", LABELS)


class OtherSpace(Tiny):
    """Both its facts tell two channels, and it takes one."""

    facts = Facts(Space(2, (4, 4)), "noise", LABELS)


# More


class Lacking(nn.Module):
    """No denoiser."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Growing(Tiny):
    """Not finite."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return super().forward(x, t, y) / 0.0


class Fixed(Tiny):
    """Makes float32 whatever its weights are."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return super().forward(x.to(torch.float32), t, y)


class Wavering(Deeper):
    """Plans otherwise each time."""

    asked = 0

    def plan(self, timesteps: Any, *, stages: int = 1) -> list[StepPlan]:
        type(self).asked += 1
        return [StepPlan(float(t), (Rounds(1 + self.asked % 2),)) for t in timesteps]


class Short(Deeper):
    """Plans one evaluation a step of a solver of two stages."""

    def plan(self, timesteps: Any, *, stages: int = 1) -> list[StepPlan]:
        return super().plan(timesteps)[::stages]


class Alone(Deeper):
    """Plans a single time otherwise than the grid."""

    def plan_at(self, timestep: float) -> StepPlan:
        return StepPlan(timestep, (Rounds(2),))


class Beyond(Deeper):
    """Tells shares above 1."""

    def plan(self, timesteps: Any, *, stages: int = 1) -> list[StepPlan]:
        return [StepPlan(float(t), (Rounds(3),)) for t in timesteps]


class ByPlan(Deeper):
    """Reads its time from the plan, which calls of one key share."""

    def predict(self, x: Tensor, t: Tensor, conditions: Any, call: Any) -> Tensor:
        return super().predict(x, torch.full_like(t, call.plan.timestep), conditions, call)


class Unkeyed(Tiny):
    """Its work depends on the time, its keys do not."""

    def work(self, plan: StepPlan, rows: int = 1, decided: Any = None) -> list[WorkUnit]:
        name = "whole" if plan.timestep > 500 else "whole, late"
        return [WorkUnit(name, 1, WholeCall(self, plan), lambda: example(self, plan, rows))]


class Overwriting(Recalls):
    """Writes to what is kept."""

    def recalled(self, before: Tensor) -> Tensor:
        return before.mul_(0.5)


class Gathering(Recalls):
    """Remembers the mean of all samples of a loop."""

    def recalled(self, before: Tensor) -> Tensor:
        return before.mean(0, keepdim=True)


class Shared(Recalls):
    """All loops have one memory."""

    def begin(self, rows: int) -> Memory:
        if "memory" not in self.__dict__:
            self.__dict__["memory"] = Memory(rows)
        return self.__dict__["memory"]


class Stale(Tiny):
    """Keeps what it made of weights when the weights change."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        if x.is_meta:
            return super().forward(x, t, y)
        if "folded" not in self.__dict__:
            self.__dict__["folded"] = self.last.weight.detach().clone()
        told = self.table(y) + self.clock(t[:, None].to(x) / 1000)
        hidden = self.middle(self.first(x.flatten(1)) + told)
        return nn.functional.linear(hidden, self.folded.to(x), self.last.bias).view_as(x)


class Rounding(Tiny):
    """Computes otherwise once it is prepared."""

    def prepare(self, plan: StepPlan) -> None:
        self.last.weight.data.round_()


class Unmet(Tiny):
    """Says that it has units, and none is met."""

    has_units = True


class Unnamed(DiT):
    """Has units that no piece of its work names."""

    def __init__(self) -> None:
        super().__init__(dit(**SHAPE).config)

    def work(self, *args: Any, **kwargs: Any) -> list[WorkUnit]:
        return [replace(unit, unit="", layers=()) for unit in super().work(*args, **kwargs)]


class Raising(Deeper):
    """One of its functions fails."""

    def plan_at(self, timestep: float) -> StepPlan:
        raise KeyError("the first line\nand the second")


class Uncounted(Skips):
    """Leaves a layer out and counts it."""

    work = Modifier.work


class Hoards(Modifier):
    """Keeps outputs in itself, beyond the loop."""

    wants: ClassVar = ("output",)
    last: Any = None

    def output(self, x: Tensor, run: Any, call: Any) -> Tensor:
        out = run(x)
        if self.last is not None and self.last.shape == out.shape and not out.is_meta:
            out = out + 0.1 * self.last
        self.last = out.detach()
        return out

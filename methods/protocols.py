"""The contract between methods and harness: ``Denoiser``, and ``StaticWork``, a base that has most of it already.

The harness knows nothing else of a method. A static model satisfies it with one plan for all steps; a dynamic one
says ahead, as a value, what each step will compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from ditbench.methods.call import Call
from ditbench.methods.conditions import LABEL, Conditions, zeros
from ditbench.methods.facts import ClassLabels, Facts
from ditbench.methods.memory import BRANCHES, Memory
from ditbench.methods.plans import StepPlan
from ditbench.methods.space import Space
from ditbench.methods.work import WorkUnit

if TYPE_CHECKING:
    from ditbench.methods.diffusion.process import Process

Problem = tuple[str, str]
"""The field of a suite that is at fault ('config.depth', 'mode'), and why."""


@runtime_checkable
class Denoiser(Protocol):
    """A model that predicts noise or velocity of samples (B, C, …) as ``facts.space`` says."""

    @property
    def facts(self) -> Facts:
        """What was known of it before it was built."""
        ...

    @property
    def process(self) -> Process:
        """What the model undoes: its path, its prediction, its time."""
        ...

    @property
    def needs_weights(self) -> bool:
        """Whether plans depend on the weights: counting then needs them; without them routers count as open."""
        ...

    @property
    def data_decide(self) -> bool:
        """Whether the data decide how much a call computes: then counting needs samples too."""
        ...

    @property
    def remembers(self) -> bool:
        """Whether calls depend on earlier ones of their loop: solvers that call out of order then refuse it."""
        ...

    @property
    def has_units(self) -> bool:
        """Whether its blocks run their units through ``Call.unit``, so that modifiers can wrap them."""
        ...

    @property
    def routers(self) -> Sequence[torch.nn.Module]:
        """Modules that a call runs to decide what to compute: profiles show their time apart."""
        ...

    @property
    def prepared_bytes(self) -> int:
        """Memory of what ``prepare`` made and keeps, besides the weights themselves."""
        ...

    def predict(self, x: Tensor, t: Tensor, conditions: Conditions, call: Call) -> Tensor:
        """x (B, C, …), t (B,) -> (B, C or 2C, …): with 2C a variance is predicted too."""
        ...

    def predict_pair(
        self, x: Tensor, t: Tensor, conditions: Conditions, other: Conditions, call: Call, *, tuned: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Both branches of a step whose plan gives the guidance branch choices of its own: two outputs of B rows.

        ``tuned``: in the way that ``tune`` found fastest; else always in the same way.
        """
        ...

    def plan(self, timesteps: Sequence[float], *, stages: int = 1) -> list[StepPlan]:
        """One plan an evaluation, known before sampling; each ``stages`` of them make a step of the solver."""
        ...

    def plan_at(self, timestep: float) -> StepPlan:
        """The plan of one evaluation of a solver whose times are not known ahead."""
        ...

    def scheduled(self, plans: Sequence[StepPlan], guided: Sequence[bool]) -> list[StepPlan]:
        """These plans of a whole loop with what depends on their order, and on which of them guide."""
        ...

    def begin(self, rows: int) -> Memory:
        """The empty memory of a new loop of ``rows`` images."""
        ...

    def prepare(self, plan: StepPlan) -> None:
        """Make what calls under ``plan`` reuse (sliced weights); a call does it itself where it was not done."""
        ...

    def forget(self) -> None:
        """Drop everything prepared."""
        ...

    @property
    def tuning_about(self) -> str:
        """What ``tune`` chooses among, for readers of a report."""
        ...

    def tune(self, plans: Sequence[StepPlan], rows: int, same_class: bool) -> dict[str, dict[str, float]]:
        """Choose by measurement how calls with ``rows`` images execute; what they compute stays.

        Returns milliseconds by choice: step -> how -> ms; empty where there is nothing to choose. Only calls that ask
        for it use the choice, so that the clock decides nothing about samples. ``same_class``: the guidance branch
        has the labels of the conditional one.
        """
        ...

    def alternatives(self, plan: StepPlan) -> dict[str, StepPlan]:
        """By name, the plan with each way of computing that it chooses among, the fullest first; empty for one way."""
        ...

    def compute_shares(self, plans: Sequence[StepPlan]) -> dict[str, float]:
        """Compute of these sequences by conventions other than our count; as many at the fullest choice are 1."""
        ...

    def loop_problem(self, plans: Sequence[StepPlan], guided: Sequence[bool]) -> Problem | None:
        """Why a loop of these plans cannot be what its author meant."""
        ...

    def graph_problem(self, plans: Sequence[StepPlan]) -> Problem | None:
        """Why calls under these plans cannot be captured as graphs of fixed shapes."""
        ...

    def work(self, plan: StepPlan, rows: int = 1, decided: tuple[int, ...] | None = None) -> list[WorkUnit]:
        """The distinct pieces that one call under ``plan`` executes for ``rows`` sequences, and its step's planning.

        ``decided`` are the counts of ``Decided``, where the data decide.
        """
        ...


class StaticWork:
    """A denoiser whose work depends on nothing: inherit it beside ``torch.nn.Module`` and write ``forward(x, t, y)``
    with y class labels, and the attributes in_channels, input_size, num_classes, or ``facts``. Override what differs.
    """

    @property
    def facts(self) -> Facts:
        """Of a picture model with class labels, by its attributes."""
        channels, side, classes = (getattr(self, name) for name in ("in_channels", "input_size", "num_classes"))
        return Facts(Space(channels, (side, side)), self.process.predicts, (ClassLabels(classes),))

    @property
    def process(self) -> Process:
        """Noise prediction on the 1000 timesteps of DiT."""
        from ditbench.methods.diffusion.process import process_of

        return process_of(None)

    @property
    def needs_weights(self) -> bool:
        return False

    @property
    def data_decide(self) -> bool:
        return False

    @property
    def remembers(self) -> bool:
        return False

    @property
    def has_units(self) -> bool:
        return False

    @property
    def routers(self) -> Sequence[torch.nn.Module]:
        return ()

    @property
    def prepared_bytes(self) -> int:
        return 0

    def predict(self, x: Tensor, t: Tensor, conditions: Conditions, call: Call) -> Tensor:
        """By the model's own call with class labels; it records the call, since the work is that of the plan."""
        model = cast(torch.nn.Module, self)
        out: Tensor = model(x, t, conditions[LABEL]) if LABEL in conditions else model(x, t)
        if call.ledger is not None:
            call.ledger.record(call.plan or StepPlan(-1.0), rows=len(x))
        return out

    def predict_pair(
        self, x: Tensor, t: Tensor, conditions: Conditions, other: Conditions, call: Call, *, tuned: bool = False
    ) -> tuple[Tensor, Tensor]:
        return in_two_calls(cast(Denoiser, self), x, t, conditions, other, call)

    @property
    def tuning_about(self) -> str:
        return ""

    def tune(self, plans: Sequence[StepPlan], rows: int, same_class: bool) -> dict[str, dict[str, float]]:
        return {}

    def alternatives(self, plan: StepPlan) -> dict[str, StepPlan]:
        return {}

    def compute_shares(self, plans: Sequence[StepPlan]) -> dict[str, float]:
        return {}

    def loop_problem(self, plans: Sequence[StepPlan], guided: Sequence[bool]) -> Problem | None:
        return None

    def graph_problem(self, plans: Sequence[StepPlan]) -> Problem | None:
        return None

    def plan(self, timesteps: Sequence[float], *, stages: int = 1) -> list[StepPlan]:
        """The same at every step."""
        return [StepPlan(timestep=float(t)) for t in timesteps]

    def plan_at(self, timestep: float) -> StepPlan:
        """What a grid with this time in it would have there."""
        return self.plan([timestep])[0]

    def scheduled(self, plans: Sequence[StepPlan], guided: Sequence[bool]) -> list[StepPlan]:
        return list(plans)

    def begin(self, rows: int) -> Memory:
        return Memory(rows)

    def prepare(self, plan: StepPlan) -> None:
        """Nothing to prepare."""

    def forget(self) -> None:
        """Nothing to forget."""

    def work(self, plan: StepPlan, rows: int = 1, decided: tuple[int, ...] | None = None) -> list[WorkUnit]:
        """The whole call as one piece."""
        whole, chosen = WholeCall(cast(Denoiser, self), plan), plan.work_key.choices
        key = f"whole call {chosen}" if chosen else "whole call"
        return [WorkUnit(key, 1, whole, lambda: example(cast(Denoiser, self), plan, rows))]


class WholeCall(torch.nn.Module):
    """One call of a denoiser under a plan, for counting: x (B, C, …), t (B,), then the conditions' tensors."""

    def __init__(self, model: Denoiser, plan: StepPlan) -> None:
        super().__init__()
        self.model, self.plan = model, plan

    def prepare(self) -> None:
        """Make ahead what calls reuse, in eval mode."""
        self.eval()
        self.model.prepare(self.plan)

    def forward(self, x: Tensor, t: Tensor, *tensors: Tensor) -> Tensor:
        kind = zeros(self.model.facts, len(x), x.device)
        conditions = kind.replaced(dict(zip(kind.tensors, tensors, strict=True))) if tensors else kind
        return self.model.predict(x, t, conditions, Call(self.plan))


def example(model: Denoiser, plan: StepPlan, rows: int, device: str = "cpu") -> tuple[Tensor, ...]:
    """Inputs of ``WholeCall``: random samples of the model's number type, the plan's time, zeros for conditions."""
    dtype = next((p.dtype for p in cast(torch.nn.Module, model).parameters() if p.is_floating_point()), torch.float32)
    x = torch.randn(rows, *model.facts.space.shape, dtype=dtype, device=device)
    t = torch.full((rows,), max(plan.timestep, 0.0), device=device)
    return (x, t, *zeros(model.facts, rows, device).tensors.values())


def in_two_calls(
    model: Denoiser, x: Tensor, t: Tensor, conditions: Conditions, other: Conditions, call: Call
) -> tuple[Tensor, Tensor]:
    """Both branches of a guided step, each by a call of its own under its own plan."""
    assert call.plan is not None, "only a plan makes branches differ"
    first, second = call.plan.branches
    return (
        model.predict(x, t, conditions, call.at(first, BRANCHES[:1])),
        model.predict(x, t, other, call.at(second, BRANCHES[1:])),
    )

"""The whole contract between methods and harness: Denoiser, StepPlan, WorkUnit, WorkLedger.

The harness knows nothing else of a method. A static model satisfies it with one plan for all steps; a dynamic one
says ahead, as a value, what each step will compute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True)
class StepPlan:
    """What one denoiser call at ``timestep`` will compute, for one sequence.

    Two plans with equal ``key`` execute the same work: they share prepared weights, captured graphs and FLOPs
    counts. ``None`` in a field means "not dynamic in this respect".

    timestep  the denoiser's own time (DDPM: integer 0..999; flow: float in [0, 1])
    heads     active attention heads a layer, as sorted index tuples
    groups    active MLP channel groups a layer, as sorted index tuples
    patch     patch size of the (de-)embedding
    """

    timestep: float
    heads: tuple[tuple[int, ...], ...] | None = None
    groups: tuple[tuple[int, ...], ...] | None = None
    patch: int | None = None

    @property
    def key(self) -> StepPlan:
        """The plan without its time: hashable, equal for equal work."""
        return replace(self, timestep=-1.0)


@dataclass
class WorkEntry:
    """One executed denoiser call: its plan, its rows (sequences) and, if tokens were selected, how many a layer."""

    plan: StepPlan
    rows: int
    tokens: tuple[int, ...] | None = None


@dataclass
class WorkLedger:
    """What really ran. A denoiser appends one entry a call; the FLOPs of a run are counted from it."""

    entries: list[WorkEntry] = field(default_factory=list)

    def record(self, plan: StepPlan, rows: int, tokens: tuple[int, ...] | None = None) -> None:
        self.entries.append(WorkEntry(plan, rows, tokens))


@dataclass(frozen=True)
class WorkUnit:
    """A distinct piece of work of a forward: count it once, multiply by ``repeats``.

    ``run`` executes it on inputs made by ``inputs`` (small random tensors on the unit's device). ``key`` is equal
    for units whose operators and shapes are equal.
    """

    key: str
    repeats: int
    module: torch.nn.Module
    inputs: Callable[[], tuple[Tensor, ...]]


@runtime_checkable
class Denoiser(Protocol):
    """A model that predicts noise or velocity.

    ``model(x, t, y)``: x (B, C, H, W) float, t (B,) int or float, y (B,) int64 class labels, where the label
    ``num_classes`` means "no class". Returns (B, C_out, H, W) with C_out = C, or 2C when the variance is learned.
    """

    in_channels: int
    out_channels: int
    input_size: int
    num_classes: int

    def __call__(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor,
        *,
        plan: StepPlan | None = None,
        ledger: WorkLedger | None = None,
    ) -> Tensor: ...

    def plan(self, timesteps: Sequence[float]) -> list[StepPlan]:
        """One plan a step, known before sampling."""
        ...

    def work(self, plan: StepPlan, rows: int = 1, tokens: tuple[int, ...] | None = None) -> list[WorkUnit]:
        """The distinct pieces that one call under ``plan`` executes for ``rows`` sequences.

        ``tokens`` are the kept tokens a layer, summed over the rows, when the method selects tokens.
        """
        ...

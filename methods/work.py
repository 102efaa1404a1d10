"""What ran, and the pieces that it is counted by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ditbench.methods.plans import StepPlan


@dataclass(frozen=True)
class Decided:
    """What the data decided in a call: a number a layer, of ``whole`` possible ones a sequence.

    name    of the facet that it is: 'tokens'
    counts  a layer, summed over the rows of the call
    """

    name: str
    counts: tuple[int, ...]
    whole: int
    about: str = ""


@dataclass
class WorkEntry:
    """One executed denoiser call: its plan and its rows (sequences).

    evaluation  which evaluation of the sampler's it belongs to, from 0
    decided     where the data decided how much it computes
    maps        where the ledger keeps them: which of the whole, (layers, rows, whole) bool, on the CPU
    """

    plan: StepPlan
    rows: int
    decided: Decided | None = None
    maps: Tensor | None = None
    evaluation: int = 0


@dataclass
class WorkLedger:
    """What really ran. A denoiser appends one entry a call; the FLOPs of a run are counted from it.

    ``keep_maps``: also keep what exactly was selected, not only how much.
    """

    keep_maps: bool = False
    entries: list[WorkEntry] = field(default_factory=list)
    evaluations: int = 0

    def begin(self) -> None:
        """The next evaluation: what is recorded from now on belongs to it."""
        self.evaluations += 1

    def record(self, plan: StepPlan, rows: int, decided: Decided | None = None, maps: Tensor | None = None) -> None:
        self.entries.append(WorkEntry(plan, rows, decided, maps, max(self.evaluations - 1, 0)))


@dataclass(frozen=True)
class WorkUnit:
    """A distinct piece of work of a forward: count it once, multiply by ``repeats``.

    module   executes it on the tensors of ``inputs`` (small, random, on the CPU)
    key      equal for units whose operators and shapes are equal
    part     names overhead that is shown apart: 'token routers'
    when     'call': in the call; 'plan': when its step is planned, once for all rows
    unit     which unit of a block it is ('attention', 'mlp'), with the ``layers`` that it is repeated in; empty: none.
             Only such pieces can be left out or replaced by modifiers.
    """

    key: str
    repeats: int
    module: torch.nn.Module
    inputs: Callable[[], tuple[Tensor, ...]]
    part: str = ""
    when: Literal["call", "plan"] = "call"
    unit: str = ""
    layers: tuple[int, ...] = ()

"""One denoiser call on its way through a model: its plan, what it records, what it remembers, what wraps its units."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ditbench.methods.memory import BRANCHES, Memory
from ditbench.methods.plans import StepPlan
from ditbench.methods.work import WorkLedger

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Place:
    """Where a unit stands: its layer, its name ('attention', 'cross-attention', 'mlp', 'block'), how many layers."""

    layer: int
    unit: str
    depth: int


class Wrapper(Protocol):
    """What stands around units of a block, by which methods change what runs.

    ``run`` takes the unit's input (B, N, C), the residual stream, and gives its output before the gate, of the same
    shape; of a unit 'block' the stream after the block. Not to call it is to compute nothing there.
    """

    def around(self, place: Place, x: Tensor, run: Run, call: Call) -> Tensor: ...


class Call:
    """See the module.

    branches  whose rows the call holds, in order: ('conditional',), ('guidance',) or both, conditional rows first
    """

    def __init__(
        self,
        plan: StepPlan | None = None,
        ledger: WorkLedger | None = None,
        memory: Memory | None = None,
        wrappers: tuple[Wrapper, ...] = (),
        branches: tuple[str, ...] = BRANCHES[:1],
    ) -> None:
        self.plan, self.ledger, self.memory, self.wrappers, self.branches = plan, ledger, memory, wrappers, branches
        self.layer, self.depth = 0, 0

    def at(self, plan: StepPlan, branches: tuple[str, ...]) -> Call:
        """The same call for other rows, under another plan."""
        return Call(plan, self.ledger, self.memory, self.wrappers, branches)

    def through(self, blocks: Iterable[Run], x: Tensor) -> Tensor:
        """The loop over blocks, the only one: x (B, N, C) -> the stream after the last."""
        if not self.wrappers:
            for block in blocks:
                x = block(x)
            return x
        listed = list(blocks)
        self.depth = len(listed)
        for layer, block in enumerate(listed):
            self.layer = layer
            x = self.unit("block", x, block)
        return x

    def unit(self, name: str, x: Tensor, run: Run) -> Tensor:
        """``run(x)``, or what the wrappers make of it; the first wrapper is the innermost."""
        if not self.wrappers:
            return run(x)
        place = Place(self.layer, name, self.depth)
        for wrapper in self.wrappers:
            run = _wrapped(wrapper, place, run, self)
        return run(x)


PLAIN = Call()
"""Of whoever runs a block with nothing around it."""


def _wrapped(wrapper: Wrapper, place: Place, run: Run, call: Call) -> Run:
    return lambda x: wrapper.around(place, x, run, call)

"""A flow transformer whose units are open to modifiers, and whose work is declared in pieces."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from ditbench.methods.call import Call
from ditbench.methods.conditions import LABEL, Conditions
from ditbench.methods.config import make_config
from ditbench.methods.diffusion.process import Process, process_of
from ditbench.methods.facts import Facts
from ditbench.methods.plans import StepPlan
from ditbench.methods.protocols import StaticWork
from ditbench.methods.work import WorkUnit
from torch import Tensor, nn

from tiny_flow.entries import FACTS
from tiny_flow.layers import CHANNELS, SIDE, Block, Embed, Head, Shape


class TinyFlow(StaticWork, nn.Module):
    """``StaticWork`` answers everything that ditbench asks a method, for one whose work never changes. What follows
    overrides what differs here: the process, the units and the pieces of work.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed = Embed(shape, time_scale=1000.0)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.depth))
        self.head = Head(shape)

    @property
    def facts(self) -> Facts:
        """The same as the entry's: ditbench compares them before a run."""
        return FACTS

    @property
    def process(self) -> Process:
        """x_t = t * data + (1 - t) * noise; "cosine" is the other path."""
        return process_of("linear")

    @property
    def has_units(self) -> bool:
        return True

    def predict(self, x: Tensor, t: Tensor, conditions: Conditions, call: Call) -> Tensor:
        """x (B, 1, 8, 8), t (B,) in [0, 1] -> the velocity. ``conditions[LABEL]`` (B,): 10 means "no class"."""
        tokens = self.embed(x, t, conditions[LABEL])
        # call.through is the loop over blocks: it tells wrappers in which layer they are
        tokens = call.through([partial(block, call=call) for block in self.blocks], tokens)
        if call.ledger is not None:
            call.ledger.record(call.plan or StepPlan(-1.0), rows=len(x))
        out: Tensor = self.head(tokens)
        return out

    def work(self, plan: StepPlan, rows: int = 1, decided: tuple[int, ...] | None = None) -> list[WorkUnit]:
        """What one call executes. A flops measurement traces a real call and fails where this says something else."""
        shape, dtype = self.shape, next(self.parameters()).dtype

        def tokens() -> tuple[Tensor, ...]:
            return (torch.randn(rows, shape.tokens, shape.width, dtype=dtype),)

        def inputs() -> tuple[Tensor, ...]:
            x = torch.randn(rows, CHANNELS, SIDE, SIDE, dtype=dtype)
            return x, torch.zeros(rows), torch.zeros(rows, dtype=torch.long)

        def unit(name: str) -> WorkUnit:
            module = self.blocks[0].get_submodule(name)
            return WorkUnit(name, shape.depth, module, tokens, unit=name, layers=tuple(range(shape.depth)))

        return [
            WorkUnit("embed", 1, self.embed, inputs),
            unit("attention"),
            unit("mlp"),
            WorkUnit("head", 1, self.head, tokens),
        ]


def build(**config: Any) -> TinyFlow:
    """What the entry names: preset and the suite's ``config`` -> the model."""
    return TinyFlow(make_config(Shape, config))

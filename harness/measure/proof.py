"""Proof that a count is of what runs: real forwards are traced, one a distinct plan, and must equal the declared
pieces.

A trace is made where the model is: on ``meta``, where a call runs the same code on shapes alone, or with real weights
and inputs where the data decide. torch's own counter is a second witness of the products: it never replaces fvcore.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ditbench.harness.measure.flops import WorkCounter, counts_of
from ditbench.harness.measure.operators import count_module
from ditbench.harness.sample.generate import BoundCell, bind
from ditbench.methods.conditions import zeros
from ditbench.methods.diffusion.guidance import GuidanceRule, GuidedDenoiser
from ditbench.methods.plans import StepPlan
from ditbench.methods.protocols import Denoiser
from ditbench.methods.work import WorkEntry, WorkLedger

PRODUCTS = ("linear", "matmul", "attention", "conv")


class WorkMismatchError(RuntimeError):
    """A method declares other work than it executes; the message says which operator differs, and by how much."""


class _TracedStep(nn.Module):
    """One evaluation of a guided denoiser for counting: x (B, C, …), the times, and the conditions' tensors."""

    def __init__(self, denoiser: GuidedDenoiser, plan: StepPlan, guides: bool) -> None:
        super().__init__()
        self.denoiser, self.plan, self.guides = denoiser, plan, guides
        self.module = bare(denoiser.model)  # its parameters are then inputs of the trace
        self.training = self.module.training

    def forward(self, x: Tensor, times: Tensor, *parts: Tensor) -> Tensor:
        # a step may give back what its loop kept: a tracer wants an output that was made in it
        return torch.add(self.denoiser.evaluate(self.plan, self.guides, x, times, *parts), 0)


def bare(model: Denoiser) -> nn.Module:
    """The module inside all modifiers."""
    found: Any = model
    while not isinstance(found, nn.Module):
        found = found.model
    return found


def prove_plans(model: Denoiser, plans: Sequence[StepPlan], rule: GuidanceRule, images: int = 1) -> dict[str, Any]:
    """Trace a loop of these plans, each distinct one once, in order, for some images. ``model`` is on ``meta``.

    Returns what was traced, for the record. Raises WorkMismatchError, UncountedOperatorError.
    """
    ledger = WorkLedger()
    denoiser = GuidedDenoiser(model, zeros(model.facts, images, "meta"), plans, rule, ledger)
    x = torch.empty(images, *model.facts.space.shape, device="meta")
    proof = _Proof(denoiser, ledger, x)
    for step in range(len(plans)):
        proof.step(step, x)
    return proof.told()


def prove_watched(cell: BoundCell) -> dict[str, Any]:
    """The same with the cell's weights, along the making of its first sample. Raises as ``prove_plans``."""
    if cell.spec.mode != "eager":
        raise ValueError("compiled or captured calls cannot be traced: bind the cell again, eagerly")
    streams = cell.streams(range(1))
    guided = cell.denoiser(streams.conditions)
    ledger = WorkLedger()
    proof: _Proof | None = None

    def see(x: Tensor, step: int) -> None:
        nonlocal proof
        if proof is None:
            watched = GuidedDenoiser(cell.model, streams.conditions, guided.plans, cell.rule, ledger)
            proof = _Proof(watched, ledger, x)
        proof.denoiser.plans = guided.plans
        if step < len(guided.plans):
            proof.step(step, x)

    cell.loop(guided, streams.noise(), streams.noise, see)
    if proof is None:
        raise ValueError("the loop evaluated nothing")
    if cell.sampler.adaptive:  # its plans are known once it has run
        for step in range(len(guided.plans)):
            proof.step(step, proof.x)
    return proof.told()


def eager(cell: BoundCell, weights: Any) -> BoundCell:
    """The cell as it runs without compiler or captured graphs."""
    return cell if cell.spec.mode == "eager" else bind(cell.spec.model_copy(update={"mode": "eager"}), weights)


def _check_recorded(entries: Sequence[WorkEntry], plan: StepPlan, where: str) -> None:
    """What ran was what was planned: figures are counted from plans, so that an honest ledger alone proves nothing."""
    planned = {each.work_key for each in (plan, *plan.branches)}
    for entry in entries:
        running = {type(c) for c in (*entry.plan.choices, *(entry.plan.guidance or ())) if c.of_running}
        if entry.plan.without(*running).work_key not in planned:
            raise WorkMismatchError(
                f"the method records another plan than it was given {where}: {entry.plan.choices} where "
                f"{plan.choices} was planned"
            )


class _Proof:
    """Traces the distinct evaluations of one loop and compares them with what is declared."""

    def __init__(self, denoiser: GuidedDenoiser, ledger: WorkLedger, x: Tensor) -> None:
        self.denoiser, self.ledger, self.x = denoiser, ledger, x
        self.counter = WorkCounter(denoiser.model)
        self.seen: set[Hashable] = set()
        self.macs = 0
        self.witnessed = 0

    def step(self, step: int, x: Tensor) -> None:
        """Trace this evaluation of input x (1, C, …), unless one of equal work was."""
        denoiser = self.denoiser
        plan, guides, tensors = denoiser.told(step, x)
        if (plan.work_key, guides) in self.seen:
            return
        self.seen.add((plan.work_key, guides))
        before, start = denoiser.memory.snapshot(), len(self.ledger.entries)
        # what is made once (slices, imposed masks) is made here, outside the trace; and the ledger is written
        with torch.inference_mode(False), torch.no_grad():
            denoiser.model.prepare(plan)
            with self._witness(x) as witness:
                denoiser.evaluate(plan, guides, *tensors)
        entries = self.ledger.entries[start:]
        where = f"in a call at timestep {plan.timestep:g}"
        _check_recorded(entries, plan, where)
        after, denoiser.ledger = denoiser.memory.snapshot(), None
        denoiser.memory.restore(before)
        try:
            with torch.inference_mode(False):
                executed = count_module(_TracedStep(denoiser, plan, guides), tensors)
        finally:
            denoiser.ledger = self.ledger
            denoiser.memory.restore(after)
        self._compare(executed, self._declared(entries, plan, guides), where)
        if isinstance(witness, FlopCounterMode):
            self._agree(witness.get_total_flops() // 2, executed, where)
        self.macs += sum(executed.values())

    def _declared(self, entries: Sequence[WorkEntry], plan: StepPlan, guides: bool) -> Counter[str]:
        total: Counter[str] = Counter()
        branches = plan.branches if plan.guidance is not None else (plan,)
        images = len(self.x)
        planned = [WorkEntry(each, images * (2 // len(branches) if guides else 1)) for each in branches]
        for entry in entries or planned:
            total.update(self.counter.executed(entry.plan, entry.rows, counts_of(entry)))
        return total

    def _compare(self, executed: Counter[str], declared: Counter[str], where: str) -> None:
        differing = [
            f"{name}: {declared[name] / 1e6:,.6f} MMAC declared, {executed[name] / 1e6:,.6f} executed"
            for name in sorted({*executed, *declared})
            if executed[name] != declared[name]
        ]
        if differing:
            raise WorkMismatchError(f"the method declares other work than it executes {where}; {'; '.join(differing)}")

    def _agree(self, products: int, executed: Counter[str], where: str) -> None:
        counted = sum(executed[name] for name in PRODUCTS)
        if products != counted:
            raise WorkMismatchError(
                f"two counters disagree {where}: fvcore finds {counted / 1e6:,.6f} MMAC of products, torch's own "
                f"{products / 1e6:,.6f}"
            )
        self.witnessed += 1

    def _witness(self, x: Tensor) -> AbstractContextManager[Any]:
        """torch's counter where it can count all products: on ``meta``, where attention is two of them. It hears one
        call a loop, since it slows a call down several times."""
        return FlopCounterMode(display=False) if x.is_meta and not self.witnessed else nullcontext()

    def told(self) -> dict[str, Any]:
        return {"distinct_calls": len(self.seen), "traced_gmacs": self.macs / 1e9, "second_witness": self.witnessed}

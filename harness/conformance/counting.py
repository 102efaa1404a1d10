"""Checks of work: what is declared is what runs, and what ran is what was planned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ditbench.harness.conformance.outcome import Fault, Outcome, does_not_apply, judged, ok, wrong
from ditbench.harness.conformance.subject import ROWS, Subject, around_of
from ditbench.harness.measure.flops import WorkCounter
from ditbench.harness.measure.operators import UncountedOperatorError
from ditbench.harness.measure.proof import WorkMismatchError, prove_plans, prove_watched
from ditbench.harness.sample.generate import BoundCell
from ditbench.methods.diffusion.guidance import loop_plans
from ditbench.methods.plans import StepPlan
from ditbench.methods.work import WorkEntry, WorkLedger

_FREE = "use operators that have a rule, or give them one in harness/measure/operators.py"


def pieces(subject: Subject) -> Outcome:
    """Real calls are traced, one a distinct plan: guided, unguided, of several images, and where the data decide."""
    cells = {cell.rule.scale: cell for cell in (subject.cell, subject.unguided)}
    traced = 0
    for cell in cells.values():
        for how, prove in _ways(subject, cell):
            try:
                traced += int(prove()["distinct_calls"])
            except (WorkMismatchError, UncountedOperatorError) as error:
                do = _FREE if isinstance(error, UncountedOperatorError) else ""
                return wrong(f"{how}: {error}", subject.place("work"), do)
    return ok(f"{traced} calls traced")


def _ways(subject: Subject, cell: BoundCell) -> list[tuple[str, Callable[[], dict[str, Any]]]]:
    """How the calls of these loops are traced."""
    model, how = cell.model, "guided" if cell.rule.scale != 1.0 else "not guided"
    real = (f"{how}, with weights", lambda: prove_watched(cell))
    try:
        meta = subject.meta
        open_plans = loop_plans(meta, cell.sampler, cell.rule)
    except Exception:  # the check of the meta build tells it
        return [real]
    images = 1 if cell.rule.scale != 1.0 else 3
    first = f"{how}, {images} image{'s' if images > 1 else ''}"
    ways = [(first, lambda: prove_plans(meta, open_plans, cell.rule, images))]
    if model.data_decide:
        return [*ways, real]
    if model.needs_weights:
        return [*ways, (f"{how}, with weights", lambda: prove_plans(meta, cell.plans(), cell.rule))]
    return ways


def ledger(subject: Subject) -> Outcome:
    """Each evaluation records its calls: the planned choices, the time, and all rows."""
    faults = list[Fault]()
    for cell in {cell.rule.scale: cell for cell in (subject.cell, subject.unguided)}.values():
        book = WorkLedger()
        streams = cell.streams(range(ROWS))
        guided = cell.denoiser(streams.conditions, book)
        cell.loop(guided, streams.noise(), streams.noise)
        for number, plan in enumerate(guided.plans):
            entries = [entry for entry in book.entries if entry.evaluation == number]
            if not entries and around_of(subject.model):
                continue  # a modifier may run nothing
            guides = cell.rule.guides(plan.timestep)
            if found := _unlike(plan, guides, entries):
                how = "a guided" if guides else "an unguided"
                what = f"{how} evaluation {number} (timestep {plan.timestep:g}) {found}"
                return judged([*faults, Fault(what, subject.place("predict", "forward"))])
    return judged(faults)


def _unlike(plan: StepPlan, guides: bool, entries: Sequence[WorkEntry]) -> str:
    if not entries:
        return "recorded nothing"
    rows = sum(entry.rows for entry in entries)
    if rows != ROWS * (1 + guides):
        return f"recorded {rows} rows in {len(entries)} calls, and ran {ROWS * (1 + guides)}"
    wanted = list(plan.branches) if guides and plan.guidance is not None else [plan.branches[0]] * len(entries)
    if len(entries) == 1 and len(wanted) == 2:
        wanted = [plan]  # both branches in one call
    if len(entries) != len(wanted):
        return f"recorded {len(entries)} calls, and planned {len(wanted)}"
    for entry, each in zip(entries, wanted, strict=True):
        if entry.plan.timestep != plan.timestep:
            return f"recorded timestep {entry.plan.timestep:g}"
        branches = zip(each.branches, entry.plan.branches, strict=True)
        if not all({*planned.choices} <= {*recorded.choices} for planned, recorded in branches):
            return f"planned {each.key}, and recorded {entry.plan.key}"
    return ""


def on_meta(subject: Subject) -> Outcome:
    """The same plan declares the same pieces, and counts the same, where the model has no memory."""
    here, there = WorkCounter(subject.model), WorkCounter(subject.meta)
    plans = [branch for plan in subject.cell.plans() for branch in plan.branches]
    for plan in list({plan.work_key: plan for plan in plans}.values())[:3]:
        for rows in (1, 2):
            ours, theirs = (
                [(u.key, u.repeats, u.part, u.when, u.unit, u.layers) for u in model.work(plan, rows)]
                for model in (subject.model, subject.meta)
            )
            where = f"at timestep {plan.timestep:g}, {rows} row{'s' if rows > 1 else ''}"
            if ours != theirs:
                differing = sorted({repr(each[0]) for each in {*ours} ^ {*theirs}})
                return judged([Fault(f"other pieces {where}: {', '.join(differing[:3])}", subject.place("work"))])
            try:
                a, b = here.call(plan, rows), there.call(plan, rows)
            except UncountedOperatorError:
                return does_not_apply("its pieces cannot be counted")
            if a != b:
                names = sorted(name for name in {*a, *b} if a[name] != b[name])
                return judged([Fault(f"other counts {where}: {', '.join(names)}", subject.place("work"))])
    return ok()

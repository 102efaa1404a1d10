"""All checks in order, and how they run: each by itself, none stops another; what needs a failed one is left out."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ditbench.harness.conformance.outcome import Outcome, Status, not_tried, wrong
from ditbench.harness.conformance.places import error_place, first_line
from ditbench.harness.conformance.subject import Subject


@dataclass(frozen=True)
class Check:
    """name    what must hold
    target   'module:function' under this package: (subject) -> Outcome
    do       what mends a fault of it, where the fault itself does not say
    needs    checks that must have passed
    """

    name: str
    target: str
    do: str
    needs: tuple[str, ...]

    @property
    def run(self) -> Callable[[Subject], Outcome]:
        module, _, function = self.target.partition(":")
        found: Callable[[Subject], Outcome] = getattr(importlib.import_module(f"{__package__}.{module}"), function)
        return found


@dataclass(frozen=True)
class Result:
    """One check as it came out, after ``seconds`` of wall clock."""

    check: Check
    outcome: Outcome
    seconds: float

    @property
    def status(self) -> Status:
        return self.outcome.status


BUILDS, META, OUTPUT = "build", "meta build", "output"
MEMORY = "an empty memory at each loop's start"
CALLS = (OUTPUT, MEMORY)
"""Calls that what ran before changes cannot be compared."""

CHECKS = (
    Check(
        BUILDS,
        "building:builds",
        "return a torch.nn.Module that inherits ditbench.methods.protocols.StaticWork, or has all that Denoiser names",
        (),
    ),
    Check(
        META,
        "building:on_meta",
        "let constructors make tensors on torch's default device, without reading their values",
        (BUILDS,),
    ),
    Check(
        "facts equal the model's",
        "facts:equal",
        "compute both from one config: planning reads the entry's, sampling the model's",
        (BUILDS,),
    ),
    Check(
        "facts without torch",
        "facts:without_torch",
        "put the entry and its facts function into a module that does not import torch",
        (BUILDS,),
    ),
    Check(
        "plans",
        "planning:plans",
        "plan() is a function of the times: one StepPlan each, in order",
        (BUILDS,),
    ),
    Check(
        "plan_at agrees with plan",
        "planning:single",
        "plan_at(t) is what a grid with t in it has there",
        (BUILDS,),
    ),
    Check(
        "facets",
        "planning:facets",
        "shares lie in [0, 1]; labels are among the facet's levels",
        (BUILDS,),
    ),
    Check(
        OUTPUT,
        "outputs:shape",
        "predict takes x (B, C, …) of facts.space and gives (B, C or 2C, …), finite, rows and sides as they came",
        (BUILDS,),
    ),
    Check(
        MEMORY,
        "loops:empty",
        "keep what a loop remembers in call.memory, which begin() makes anew, never in a module",
        (OUTPUT,),
    ),
    Check(
        "remembering is declared",
        "loops:remembers",
        "let remembers be True where a call depends on earlier ones of its loop",
        CALLS,
    ),
    Check(
        "steps repeat from a snapshot",
        "loops:repeats",
        "put new tensors into the memory; never write to one that is kept",
        CALLS,
    ),
    Check(
        "batch independence",
        "outputs:rows",
        "decide and normalise a row at a time: a sample is its index, whatever lies beside it",
        CALLS,
    ),
    Check(
        "one sample alone equals the same in a batch",
        "outputs:alone",
        "nothing between steps may depend on how many samples there are",
        CALLS,
    ),
    Check(
        "conditions matter",
        "outputs:conditions",
        "read each condition that the facts name; what is droppable has a value of its own for nothing: label = count",
        CALLS,
    ),
    Check(
        "guidance at 1 equals none",
        "outputs:guidance",
        "give in a call of both branches what each gives alone; guidance itself is done by the sampler",
        CALLS,
    ),
    Check(
        "equal keys give equal work",
        "planning:keys",
        "put all that decides on work into choices, and read the time from t, not from the plan",
        CALLS,
    ),
    Check(
        "pieces equal the whole",
        "counting:pieces",
        "declare in work() what the call runs, by the same modules on the same shapes",
        CALLS,
    ),
    Check(
        "plan equals ledger",
        "counting:ledger",
        "record call.plan itself with the rows of the call, once a call: ledger.record(call.plan, rows=len(x))",
        (OUTPUT,),
    ),
    Check(
        "calls run on meta",
        "building:runs_on_meta",
        "read no values, and hold what a call reads as parameters or buffers",
        (*CALLS, META),
    ),
    Check(
        "work on meta equals work on the CPU",
        "counting:on_meta",
        "work(plan) depends on the plan and on shapes, not on where the weights are",
        (*CALLS, META),
    ),
    Check(
        "prepare, forget and tune change no output",
        "loops:prepared",
        "key what is prepared by all that it is made of; forget() drops it",
        CALLS,
    ),
    Check(
        "save and load",
        "building:saved",
        "register what outputs depend on as a parameter or a persistent buffer",
        (OUTPUT,),
    ),
    Check(
        "float32 and bfloat16",
        "outputs:dtypes",
        "make tensors in the type of the weights or of x, not in a fixed one",
        (OUTPUT,),
    ),
    Check(
        "wrapped units",
        "units:wrapped",
        "run blocks through call.through and units through call.unit, and name them in work(): unit=…, layers=…",
        CALLS,
    ),
)


def run(subject: Subject) -> Iterator[Result]:
    """Run all checks, one at a time. Raises nothing that a method can cause."""
    statuses: dict[str, Status] = {}
    for check in CHECKS:
        begin = time.perf_counter()
        missing = next((name for name in check.needs if statuses[name] != "ok"), None)
        outcome = _outcome(check, subject) if missing is None else not_tried(f"it needs the check '{missing}'")
        statuses[check.name] = outcome.status
        yield Result(check, outcome, time.perf_counter() - begin)


def _outcome(check: Check, subject: Subject) -> Outcome:
    try:
        return check.run(subject)
    except Exception as error:
        return wrong(first_line(error), error_place(error, subject.packages))

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
    needs: tuple[str, ...] = ("output",)

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

CHECKS = (
    Check(
        BUILDS,
        "building:builds",
        "return a torch.nn.Module that inherits ditbench.methods.protocols.StaticWork, or has all that Denoiser names",
        needs=(),
    ),
    Check(
        META,
        "building:on_meta",
        "let constructors and calls make tensors without reading their values; register what a call reads as "
        "parameters, or as buffers made on torch's default device",
        needs=(BUILDS,),
    ),
    Check(
        "facts equal the model's",
        "facts:equal",
        "compute both from one config: planning reads the entry's, sampling the model's",
        needs=(BUILDS,),
    ),
    Check(
        "facts without torch",
        "facts:without_torch",
        "put the entry and its facts function into a module that does not import torch",
        needs=(BUILDS,),
    ),
    Check(
        OUTPUT,
        "outputs:shape",
        "predict takes x (B, C, …) of facts.space and gives (B, C or 2C, …), finite, rows and sides as they came",
        needs=(BUILDS,),
    ),
    Check(
        "float32 and bfloat16",
        "outputs:dtypes",
        "make tensors in the type of the weights or of x, not in a fixed one",
    ),
    Check(
        "batch independence",
        "outputs:rows",
        "decide and normalise a row at a time: a sample is its index, whatever lies beside it",
    ),
    Check(
        "one sample alone equals the same in a batch",
        "outputs:alone",
        "nothing between steps may depend on how many samples there are",
    ),
    Check(
        "conditions matter",
        "outputs:conditions",
        "read each condition that the facts name; one that is droppable has a value of its own for nothing: label = count",
    ),
    Check(
        "guidance at 1 equals none",
        "outputs:guidance",
        "give in a call of both branches what each gives alone; guidance itself is done by the sampler",
    ),
    Check(
        "plans",
        "planning:plans",
        "plan() is a function of the times it is given: one StepPlan each, in order",
        (BUILDS,),
    ),
    Check("plan_at agrees with plan", "planning:single", "plan_at(t) is what a grid with t in it has there", (BUILDS,)),
    Check("facets", "planning:facets", "shares lie in [0, 1]; labels are among the facet's levels", (BUILDS,)),
    Check(
        "equal keys give equal work",
        "planning:keys",
        "put all that decides on work into choices, and read the time from t, not from the plan",
    ),
    Check(
        "pieces equal the whole",
        "counting:pieces",
        "declare in work() what the call runs, by the same modules on the same shapes",
    ),
    Check(
        "plan equals ledger",
        "counting:ledger",
        "record call.plan itself with the rows of the call, once a call: ledger.record(call.plan, rows=len(x))",
    ),
    Check(
        "work on meta equals work on the CPU",
        "counting:on_meta",
        "work(plan) depends on the plan and on shapes, not on where the weights are",
        needs=(OUTPUT, META),
    ),
    Check(
        "an empty memory at each loop's start",
        "loops:empty",
        "keep what a loop remembers in call.memory, which begin() makes anew, never in a module",
    ),
    Check(
        "remembering is declared",
        "loops:remembers",
        "let remembers be True where a call depends on earlier ones of its loop",
    ),
    Check(
        "steps repeat from a snapshot",
        "loops:repeats",
        "put new tensors into the memory; never write to one that is kept",
    ),
    Check(
        "prepare, forget and tune change no output",
        "loops:prepared",
        "key what is prepared by all that it is made of, and make it anew when weights change",
    ),
    Check(
        "save and load",
        "building:saved",
        "register what outputs depend on as a parameter or a persistent buffer",
    ),
    Check(
        "wrapped units",
        "units:wrapped",
        "run blocks through call.through and units through call.unit, and name them in work(): unit=…, layers=…",
    ),
)


def run(subject: Subject) -> Iterator[Result]:
    """Run all checks, one at a time. Raises nothing that a method can cause."""
    statuses: dict[str, Status] = {}
    for check in CHECKS:
        begin = time.perf_counter()
        missing = next((name for name in check.needs if statuses[name] != "ok"), None)
        if missing is None:
            outcome = _outcome(check, subject)
        else:
            outcome = not_tried(f"it needs the check '{missing}'")
        statuses[check.name] = outcome.status
        yield Result(check, outcome, time.perf_counter() - begin)


def _outcome(check: Check, subject: Subject) -> Outcome:
    try:
        return check.run(subject)
    except Exception as error:
        return wrong(first_line(error), error_place(error, subject.packages))

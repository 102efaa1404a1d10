"""Self-check: what a check is, how values are compared, and how all of them run, whatever breaks on the way.

A group is a function that names its cases. Every case runs by itself: an error inside one is a failed check of that
name, and the others go on. What a check expects and where that comes from stands in ``vectors.json``.
"""

from __future__ import annotations

import importlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

Status = Literal["ok", "warning", "failed", "skipped"]
Vector = Mapping[str, Any]

VECTORS = Path(__file__).with_name("vectors.json")
GROUPS = {
    "schedules and samplers": "ditbench.harness.selfcheck.model_checks:schedules",
    "FLOPs": "ditbench.harness.selfcheck.model_checks:flops",
    "models": "ditbench.harness.selfcheck.model_checks:models",
    "random streams": "ditbench.harness.selfcheck.model_checks:streams",
    "metrics": "ditbench.harness.selfcheck.metric_checks:metrics",
    "timing": "ditbench.harness.selfcheck.timing_checks:timing",
    "published figures": "ditbench.harness.selfcheck.metric_checks:published",
}


class SkippedError(Exception):
    """A check cannot run here. ``reason`` is for the closing line; the text says what is missing."""

    def __init__(self, reason: str, text: str) -> None:
        self.reason = reason
        super().__init__(text)


@dataclass(frozen=True)
class Outcome:
    """What one check found.

    expected, measured  JSON values: numbers, text, or lists and mappings of them
    tolerance           in words: 'exact', 'within 1e-12', '20 to 30 ms'
    result              at most 22 characters for a passed check's line: how near it was
    place               which of several numbers is furthest off, from 0
    """

    status: Status
    expected: Any
    measured: Any
    tolerance: str
    result: str
    place: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Case:
    """A check that has not run. ``name`` has at most 38 characters; ``source`` says where the expectation is from."""

    name: str
    source: str
    run: Callable[[], Outcome]


@dataclass(frozen=True)
class Check:
    """A check as it came out, after ``seconds`` of wall clock; see ``Outcome``. ``reason``: why skipped, in short."""

    group: str
    name: str
    status: Status
    seconds: float
    source: str
    expected: Any = None
    measured: Any = None
    tolerance: str = ""
    result: str = ""
    place: int | None = None
    note: str = ""
    reason: str = ""


@cache
def vectors() -> dict[str, Any]:
    """The stored expectations, by group. OSError or ValueError if the file is gone or broken."""
    stored: dict[str, Any] = json.loads(VECTORS.read_text(encoding="utf-8"))
    return stored


def cases_of(group: str, functions: Mapping[str, Callable[[Vector], Outcome]]) -> list[Case]:
    """One case a function, which gets the vector stored under its name."""
    stored = vectors()[group]
    return [Case(stored[k]["name"], stored[k]["source"], partial(call, stored[k])) for k, call in functions.items()]


def run(group: str) -> Iterator[Check]:
    """Run the checks of a group, one at a time. Raises nothing that a broken installation can cause."""
    begin = time.perf_counter()
    try:
        module, _, function = GROUPS[group].partition(":")
        cases: list[Case] = getattr(importlib.import_module(module), function)()
    except Exception as error:
        yield _broken(group, "can start", "", error, begin)
        return
    for case in cases:
        yield _run(group, case)


def exactly(measured: Any, expected: Any) -> Outcome:
    """Passed if both are equal."""
    return Outcome("ok" if measured == expected else "failed", expected, measured, "exact", "exact")


def near(measured: Sequence[float], expected: Sequence[float], tolerance: float, *, relative: bool = False) -> Outcome:
    """Passed if no number is further from its expectation than ``tolerance``.

    relative: than that share of the expectation, where it is not 0. NaN and another count of numbers fail.
    """
    off = [abs(m - e) / (abs(e) or 1.0) if relative else abs(m - e) for m, e in zip(measured, expected, strict=False)]
    off = [math.inf if math.isnan(each) else each for each in off]
    worst = math.inf if len(measured) != len(expected) or not off else max(off)
    return Outcome(
        status="ok" if worst <= tolerance else "failed",
        expected=[float(each) for each in expected],
        measured=[float(each) for each in measured],
        tolerance=f"within {tolerance:g}{' relative' if relative else ''}",
        result=f"off {worst:.0e} of {tolerance:.0e}" if worst else "equal",
        place=off.index(worst) if worst in off else None,
    )


def between(measured: float, low: float, high: float, unit: str = "") -> Outcome:
    """Passed if ``low`` <= measured <= ``high``."""
    bounds = f"{low:g} to {high:g}{unit and ' ' + unit}"
    status: Status = "ok" if low <= measured <= high else "failed"
    return Outcome(status, [low, high], float(measured), bounds, f"{measured:.3g} in {bounds}")


def _run(group: str, case: Case) -> Check:
    begin = time.perf_counter()
    try:
        found = case.run()
    except SkippedError as skipped:
        return Check(
            group=group,
            name=case.name,
            status="skipped",
            seconds=time.perf_counter() - begin,
            source=case.source,
            note=str(skipped),
            reason=skipped.reason,
        )
    except Exception as error:
        return _broken(group, case.name, case.source, error, begin)
    return Check(
        group=group,
        name=case.name,
        status=found.status,
        seconds=time.perf_counter() - begin,
        source=case.source,
        expected=found.expected,
        measured=found.measured,
        tolerance=found.tolerance,
        result=found.result,
        place=found.place,
        note=found.note,
    )


def _broken(group: str, name: str, source: str, error: Exception, begin: float) -> Check:
    return Check(
        group=group,
        name=name,
        status="failed",
        seconds=time.perf_counter() - begin,
        source=source,
        expected="no error",
        measured=f"{type(error).__name__}: {' '.join(str(error).split())}",
    )

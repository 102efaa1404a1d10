"""What a check found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "wrong", "does not apply", "not tried"]


@dataclass(frozen=True)
class Fault:
    """what: in one line; where: the place in the model or in its author's code; do: what mends it, where more is known
    than the check says."""

    what: str
    where: str
    do: str = ""


@dataclass(frozen=True)
class Outcome:
    """``note``: why a check does not apply, or what a passed one found worth telling."""

    status: Status
    faults: tuple[Fault, ...] = ()
    note: str = ""


def ok(note: str = "") -> Outcome:
    return Outcome("ok", note=note)


def wrong(what: str, where: str, do: str = "") -> Outcome:
    return Outcome("wrong", (Fault(what, where, do),))


def does_not_apply(reason: str) -> Outcome:
    return Outcome("does not apply", note=reason)


def not_tried(reason: str) -> Outcome:
    return Outcome("not tried", note=reason)


def judged(faults: Sequence[Fault], note: str = "") -> Outcome:
    """Wrong where there are faults."""
    return Outcome("wrong", tuple(faults)) if faults else ok(note)

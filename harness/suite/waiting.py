"""What a plan waits for: files that the user must bring, told once and never taken for random weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from ditbench.harness.errors import InputError, MissingFileError, Position

if TYPE_CHECKING:
    from ditbench.harness.suite.plan import Plan

SHOWN = 6


@dataclass(frozen=True)
class Waiting:
    """Measurements of a cell that have no identity yet, because a file is missing that would be part of it.

    measurements  name -> resolved options, in the order of ``MEASUREMENTS``
    reason        one line: which file, and where it is to be named
    position      where the suite, or the file of assets, asks for it
    expected      whether it is a file that ditbench knows of (an asset, a reference); else a path of the suite's own
    """

    measurements: Mapping[str, Mapping[str, Any]]
    reason: str
    position: Position | None
    expected: bool


Need = tuple[str, Mapping[str, Any], MissingFileError, bool]
"""A measurement, its options, what is missing, whether that is ``expected``."""


def grouped(needs: Iterable[Need]) -> tuple[Waiting, ...]:
    """One ``Waiting`` a missing file, in the order of first mention."""
    found: dict[str, tuple[dict[str, Mapping[str, Any]], MissingFileError, bool]] = {}
    for measurement, options, error, expected in needs:
        found.setdefault(str(error), ({}, error, expected))[0][measurement] = options
    return tuple(
        Waiting(measurements, error.message, error.position, expected)
        for measurements, error, expected in found.values()
    )


def refuse_waiting(plan: Plan, expected: bool = True) -> None:
    """Raise InputError at the first missing file of the plan's cells, with the ``--only`` that does without.

    expected  also for assets and references; False: only for paths that the suite itself names
    """
    waiting = [(cell.spec.cell, each) for cell in plan.cells for each in cell.waiting if expected or not each.expected]
    if not waiting:
        return
    names = list(dict.fromkeys(name for name, _ in waiting))
    ready = [cell.spec.cell for cell in plan.cells if not cell.waiting]
    first = waiting[0][1]
    raise InputError(f"{first.reason}; {_who(names, len(plan.cells))}{_way_out(ready, names)}", first.position)


def _who(names: Sequence[str], cells: int) -> str:
    if len(names) == cells:
        return "every chosen cell waits for a file" if cells > 1 else f"{names[0]} waits for it"
    shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    return f"{len(names)} of {cells} cells wait for files: {shown}"


def _way_out(ready: Sequence[str], waiting: Sequence[str]) -> str:
    if not ready:
        return ""
    glob = glob_of(ready, waiting)
    if glob is not None:
        return f"; --only '{glob}' leaves them out"
    return f"; those that can run, one by one with --only: {', '.join(ready[:SHOWN])}" + ", …" * (len(ready) > SHOWN)


def glob_of(wanted: Sequence[str], others: Sequence[str]) -> str | None:
    """A glob that matches all of ``wanted`` and none of ``others``; None where no simple one does."""
    if len(wanted) == 1:
        return wanted[0]
    for glob in (f"{_beginning(wanted)}*", f"*{_beginning([name[::-1] for name in wanted])[::-1]}"):
        if not any(fnmatchcase(name, glob) for name in others):
            return glob
    return None


def _beginning(names: Sequence[str]) -> str:
    first, last = min(names), max(names)
    same = next((at for at, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    return first[:same]

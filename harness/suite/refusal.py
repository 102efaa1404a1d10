"""Refusing to run a plan that waits for files, with the words that tell how to run the rest."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from ditbench.harness.errors import InputError
from ditbench.harness.suite.plan import Plan

SHOWN = 6


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

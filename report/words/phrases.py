"""What sentences are made of: lists, figures with their intervals, what is prepared."""

from __future__ import annotations

from collections.abc import Iterable

from ditbench.harness.store.records import Quantity
from ditbench.report.facets import facets_of
from ditbench.report.numbers import short
from ditbench.report.row import Row


def listed(words: Iterable[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    items = list(words)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def spread(quantity: Quantity) -> str:
    """'2.40 [2.30, 2.53]'."""
    text = short(quantity.value)
    if quantity.low is None or quantity.high is None:
        return text
    return f"{text} [{short(quantity.low)}, {short(quantity.high)}]"


def overlap(a: Quantity, b: Quantity) -> bool:
    """Whether the 95 % intervals meet; not where one has none."""
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return False
    return max(a.low, b.low) <= min(a.high, b.high)


def preparing(rows: Iterable[Row]) -> str:
    """What the preparation of these cells is, to be followed by 'once': timed alike for all methods, made otherwise."""
    facets = [facets_of(row) for row in rows]
    made = dict.fromkeys(each.prepares for found in facets for each in found.every if each.prepares)
    return f"planning, and {'; '.join(made)}" if made else "planning the cell's steps, and making what they reuse"

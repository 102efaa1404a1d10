"""What 'prepare' is: it is timed and held alike for all methods, but what is made differs."""

from __future__ import annotations

from collections.abc import Iterable

from ditbench.report.activity import is_dynamic
from ditbench.report.flexible import schedule_of
from ditbench.report.row import Row

# (some cell switches parts, some cell has patch sizes) -> what is made, once, for all steps of a cell
_WORDS = {
    (True, False): "planning and slicing all weights that the cell's steps need",
    (False, True): "planning, and projecting kernels or merging LoRA updates for the patch sizes of the cell's steps",
    (True, True): "planning, and making what the cell's steps need: slices of weights, or projected kernels or merged "
    "LoRA updates for their patch sizes",
    (False, False): "planning the cell's steps, and making what they reuse",
}


def preparing(rows: Iterable[Row]) -> str:
    """What the preparation of these cells is, to be followed by 'once'."""
    rows = tuple(rows)
    return _WORDS[any(map(is_dynamic, rows)), any(schedule_of(row) is not None for row in rows)]

"""The columns that say how sure each cell's place on the fronts is."""

from __future__ import annotations

from collections.abc import Sequence

from ditbench.report.fronts import FrontProbabilities, percent
from ditbench.report.row import Row
from ditbench.report.tables.table import EMPTY, Column, Value, text_column


def front_columns(rows: Sequence[Row], fronts: FrontProbabilities) -> tuple[Column, ...]:
    """'P(MACs)' and 'P(time)' in %, stored as shares; without any probability, the fronts that each row is on."""
    axes = (("gmacs", "P(MACs)", fronts.gmacs), ("time", "P(time)", fronts.time))
    if not fronts.gmacs and not fronts.time:
        return (text_column("front", "On front", [_places(row) for row in rows]),)
    return tuple(
        Column(f"front_probability_{key}", title, tuple(_share(of.get(row.cell)) for row in rows), "%", numeric=True)
        for key, title, of in axes
    )


def _share(probability: float | None) -> Value:
    return EMPTY if probability is None else Value(probability, percent(probability).removesuffix(" %"))


def _places(row: Row) -> str:
    if row.on_front_gmacs is None and row.on_front_time is None:
        return ""
    return ", ".join(["MACs"] * bool(row.on_front_gmacs) + ["time"] * bool(row.on_front_time)) or "–"

"""Figures of measurements that have no table of their own: whatever a record holds can be shown."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ditbench.harness.store.records import Quantity
from ditbench.report.row import Row
from ditbench.report.run_view import RunView
from ditbench.report.tables.rows import plain_marks_of, tag_of
from ditbench.report.tables.table import Column, Table, number_column, text_column

SHOWN_ELSEWHERE = frozenset(
    "flops latency kernels memory energy decode training agreement quality paired".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Figure:
    """One value of one measurement. ``key`` names its column in files; ``title`` heads it for readers."""

    measurement: str
    name: str
    key: str
    title: str
    unit: str
    digits: int | None

    def of(self, row: Row) -> Quantity | None:
        return row.quantity(self.measurement, self.name)


def more_figures(view: RunView, taken: Collection[str] = ()) -> tuple[Figure, ...]:
    """Every value that some cell has, measurement by measurement, as its records declare (``detail["columns"]``: name,
    title, unit, digits) or else as its values are called. Of measurements with a table only what they declare.

    A key that is ``taken``, or another measurement's, has the measurement's name before it.
    """
    found: dict[tuple[str, str], Figure] = {}
    keys = set(taken)
    for row in view.rows:
        for measurement, record in row.records.items():
            if record.status != "ok":
                continue
            declared = _declared(record.detail)
            others = () if measurement in SHOWN_ELSEWHERE else record.values
            for name in dict.fromkeys([*(n for n in declared if n in record.values), *others]):
                if (measurement, name) not in found:
                    key = f"{measurement}_{name}" if name in keys else name
                    keys.add(key)
                    found[measurement, name] = _figure(measurement, name, key, record.values[name], declared.get(name))
    order = list(dict.fromkeys(measurement for measurement, _ in found))
    return tuple(sorted(found.values(), key=lambda figure: order.index(figure.measurement)))


def more_columns(view: RunView, taken: Collection[str] = ()) -> tuple[Column, ...]:
    """A column a figure, one entry a cell of the run."""
    return tuple(
        number_column(each.key, each.title, each.unit, [each.of(row) for row in view.rows], decimals=each.digits)
        for each in more_figures(view, taken)
    )


def more_figures_table(view: RunView) -> Table | None:
    """One row a cell that has any of these figures; None if there is none."""
    figures = more_figures(view)
    rows = [row for row in view.rows if any(figure.of(row) for figure in figures)]
    if not rows:
        return None
    columns = (
        text_column("cell", "Cell", [row.cell for row in rows], tags=[tag_of(row) for row in rows]),
        *(number_column(f.key, f.title, f.unit, [f.of(row) for row in rows], decimals=f.digits) for f in figures),
    )
    caption = f"Further figures, of: {', '.join(dict.fromkeys(figure.measurement for figure in figures))}."
    ways = {f.title: dict.fromkeys(q.interval for row in rows if (q := f.of(row)) and q.interval) for f in figures}
    notes = tuple(f"{title}: {'; '.join(how)}." for title, how in ways.items() if how)
    return Table("more", caption, columns, plain_marks_of(rows), notes)


def _declared(detail: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {str(entry["name"]): entry for entry in detail.get("columns") or () if "name" in entry}


def _figure(measurement: str, name: str, key: str, value: Quantity, declared: Mapping[str, Any] | None) -> Figure:
    said = declared or {}
    title = str(said.get("title") or name.replace("_", " "))
    digits = said.get("digits")
    return Figure(
        measurement, name, key, title, str(said.get("unit") or value.unit), None if digits is None else int(digits)
    )

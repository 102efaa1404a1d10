"""Runs of flexible cells as the report reads them, edited as a test needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import report_fixtures as fixtures
from report_fixtures import Flexible, Planned

from ditbench.harness.store.store import RunStore
from ditbench.report.row import Row
from ditbench.report.run_view import RunView, load_run
from ditbench.report.tables.table import Table

UNEQUAL = Flexible((4,) * 30 + (2,) * 20, (4,) * 45 + (2,) * 5)


def view_of(folder: Path, *cells: Planned) -> RunView:
    return load_run(fixtures.write_run(folder, [fixtures.flexible_cells()[0], *cells]))


def edit(folder: Path, cell: str, measurement: str, **detail: Any) -> None:
    """Replace parts of a stored record's detail, as if it had been measured so."""
    store = RunStore(folder)
    identity = fixtures.identity_of(cell, measurement)
    record = store.load(identity)
    assert record is not None
    store.record_path(identity).unlink()
    store.commit(record.model_copy(update={"detail": record.detail | detail}))


def edit_labels(folder: Path, cell: str, **changes: Any) -> None:
    """Replace parts of the only labels in a stored count."""
    facets = rows_of(load_run(folder))[cell].detail("flops")["facets"]
    edit(folder, cell, "flops", facets=facets | {"labels": [facets["labels"][0] | changes]})


def labels_of(row: Row) -> dict[str, Any]:
    """The only labels in a stored count, as they are stored."""
    (stored,) = row.detail("flops")["facets"]["labels"]
    assert isinstance(stored, dict)
    return stored


def rows_of(view: RunView) -> dict[str, Row]:
    return {row.cell: row for row in view.rows}


def shown(table: Table | None, key: str) -> dict[str, str]:
    assert table is not None
    column = next(column for column in table.columns if column.key == key)
    return {cell.shown: value.shown for cell, value in zip(table.columns[0].values, column.values, strict=True)}


def notes_of(*tables: Table | None) -> str:
    return " ".join(note for table in tables if table is not None for note in table.notes)

"""What failed, and why."""

from __future__ import annotations

from collections.abc import Sequence

from ditbench.harness.store.records import Record
from ditbench.report.run_view import RunView
from ditbench.report.tables.table import Mark, Table, text_column


def failures_table(view: RunView) -> Table | None:
    """Failed measurements with reason and the file that holds the traceback; None if all went well.

    Measurements of a cell that failed for one reason share a row.
    """
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for row in view.rows:
        for record in row.failures.values():
            failure = record.failure
            kind, message = (failure.kind, failure.message) if failure else ("error", "")
            groups.setdefault((row.cell, kind, " ".join(message.split())), []).append(record)
    if not groups:
        return None
    files = [f"failures/{records[0].identity[:12]}*.json" for records in groups.values()]
    columns = (
        text_column("cell", "Cell", [cell for cell, _, _ in groups]),
        text_column("measurements", "Measurements", [_names(view, records) for records in groups.values()]),
        text_column("kind", "Kind", [kind for _, kind, _ in groups]),
        text_column("message", "Reason", [message for _, _, message in groups], wide=True),
        text_column("file", "Traceback in", files),
    )
    marks: list[Mark] = ["plain"] * len(groups)
    return Table("failures", "What failed, and why. The other cells are not touched by it.", columns, tuple(marks))


def _names(view: RunView, records: Sequence[Record]) -> str:
    planned = next(row.planned for row in view.rows if row.cell == records[0].cell)
    if len(records) == len(planned) > 1:
        return f"all {len(planned)}"
    return ", ".join(record.measurement for record in records)

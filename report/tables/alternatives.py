"""How steps ran that could run in several ways of equal output, and what else was tried."""

from __future__ import annotations

from ditbench.report.numbers import decimals_for, scale_for
from ditbench.report.row import Row
from ditbench.report.run_view import RunView
from ditbench.report.tables.rows import plain_marks_of, tag_of
from ditbench.report.tables.table import Table, number_column, text_column


def choices_of(row: Row) -> dict[str, dict[str, float]]:
    """What was to be run -> way -> ms; empty where there was no choice to time."""
    stored = row.detail("latency").get("choices_ms") or {}
    return {str(what): {str(way): float(ms) for way, ms in times.items()} for what, times in stored.items()}


def alternatives_table(view: RunView) -> Table | None:
    """One row a choice of a cell; None if no cell had one."""
    entries: list[tuple[Row, bool, str, dict[str, float]]] = []
    for row in view.rows:
        choices = [(what, times) for what, times in choices_of(row).items() if len(times) > 1]
        entries += [(row, place == 0, *choice) for place, choice in enumerate(choices)]
    if not entries:
        return None
    rows = [row for row, *_ in entries]
    ways = dict.fromkeys(way for *_, times in entries for way in times)
    every = [ms for *_, times in entries for ms in times.values()]
    scale = scale_for(every, "ms")
    decimals = decimals_for((ms / scale.divisor for ms in every), 5)
    columns = (
        text_column(
            "cell",
            "Cell",
            [row.cell if first else "" for row, first, *_ in entries],
            tags=[tag_of(row) if first else "" for row, first, *_ in entries],
        ),
        text_column("step", "Step", [what for _, _, what, _ in entries]),
        number_column("batch", "Batch", "1", [row.batch for row in rows], decimals=0),
        *(
            number_column(way, way, "ms", [times.get(way) for *_, times in entries], decimals=decimals, scale=scale)
            for way in ways
        ),
        text_column("used", "Used", [min(times, key=lambda way: times[way]) for *_, times in entries]),
    )
    about = dict.fromkeys(str(row.detail("latency").get("choices_about") or "") for row in rows)
    notes = (
        "All ways give the same output up to rounding; the fastest here was used in the timings, at this batch.",
        *filter(None, about),
    )
    caption = "Steps that can run in several ways, by the way in which they run."
    return Table("alternatives", caption, columns, plain_marks_of(rows), notes).without_empty_columns()

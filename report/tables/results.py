"""The tables of results: ``cells.csv``, the one wide table for papers, and its quality and cost halves."""

from __future__ import annotations

from collections.abc import Sequence

from ditbench.harness.store.records import Quantity
from ditbench.report.fronts import front_probabilities
from ditbench.report.numbers import Scale
from ditbench.report.row import Row
from ditbench.report.run_view import RunView
from ditbench.report.tables.fronts import front_columns
from ditbench.report.tables.more import more_columns
from ditbench.report.tables.rows import caption_of, marks_of, notes_of, setting_columns, whole
from ditbench.report.tables.table import Column, Table, number_column, text_column


def results_table(view: RunView) -> Table:
    """Cost and quality of every cell side by side: the table for a paper."""
    settings, shared = setting_columns(view.rows)
    columns = (
        *settings,
        *_cost_columns(view.rows),
        *_quality_columns(view.rows),
        *front_columns(view.rows, front_probabilities(view)),
    )
    status = [] if all(row.status == "ok" for row in view.rows) else [_status_column(view.rows)]
    table = Table(
        "results",
        caption_of(view, "Cost and quality"),
        (*columns, *status, *more_columns(view, [column.key for column in (*columns, *status)])),
        marks_of(view.rows),
        notes_of(view, view.rows, shared),
    )
    return table.without_empty_columns()


def quality_table(view: RunView) -> Table | None:
    """Quality beside the two costs it is bought with; None if the run has no quality figure."""
    rows = tuple(row for row in view.rows if row.has_quality)
    if not rows:
        return None
    settings, shared = setting_columns(rows)
    cost = (
        number_column("gmacs_image", "MACs/image", "GMAC", [r.value("flops", "gmacs_image") for r in rows]),
        number_column("image_ms", "time/image", "ms", [r.value("latency", "image_ms") for r in rows]),
    )
    # Precision and recall stand beside density and coverage in a table of their own: the page needs the room.
    quality = (column for column in _quality_columns(rows) if column.key not in ("precision", "recall"))
    columns = (*settings, *cost, *quality, *front_columns(rows, front_probabilities(view)))
    caption = caption_of(view, "Quality against cost")
    return Table("quality", caption, columns, marks_of(rows), notes_of(view, rows, shared)).without_empty_columns()


def cost_table(view: RunView) -> Table | None:
    """Compute, time and memory; None if nothing of it was measured."""
    rows = tuple(row for row in view.rows if any(not c.empty for c in _cost_columns([row])))
    if not rows:
        return None
    settings, shared = setting_columns(rows)
    # Sampler, steps and guidance already stand in the quality table: without them the times fit the page.
    timed = any(row.value("latency", "latency_ms") is not None for row in rows)
    leading = settings[:1] if timed and any(row.has_quality for row in rows) else settings
    notes = notes_of(view, rows, shared if leading == settings else ())
    # images/s says what time/image says; the room goes to the intervals.
    cost = (column for column in _cost_columns(rows) if column.key != "images_per_s")
    table = Table("cost", caption_of(view, "Cost"), (*leading, *cost), marks_of(rows), notes)
    return table.without_empty_columns()


def _status_column(rows: Sequence[Row]) -> Column:
    return text_column("status", "Status", [row.status for row in rows])


def _quality_columns(rows: Sequence[Row]) -> tuple[Column, ...]:
    def secondary(name: str, title: str, decimals: int) -> Column:
        entries = [row.quantity("quality", name) for row in rows]
        return number_column(name, title, "1", entries, decimals=decimals, show_interval=False)

    kid = [row.quantity("quality", "kid") for row in rows]
    # KID is quoted in thousandths; near zero its own size would ask for a dozen decimals.
    small = max((abs(entry.value) for entry in kid if entry), default=0.0) < 0.1
    thousandths = Scale(1e-3, "×10⁻³") if small else None
    return (
        number_column("frechet", "Fréchet ↓", "1", [row.quantity("quality", "frechet") for row in rows]),
        number_column("kid", "KID ↓", "1", kid, decimals=3 if small else 4, scale=thousandths, show_interval=False),
        secondary("precision", "Prec. ↑", 3),
        secondary("recall", "Recall ↑", 3),
        secondary("accuracy", "Acc. ↑", 3),
    )


def _cost_columns(rows: Sequence[Row]) -> tuple[Column, ...]:
    def of(measurement: str, name: str) -> list[Quantity | None]:
        return [row.quantity(measurement, name) for row in rows]

    return (
        number_column("params", "Params", "#", [whole(row.value("flops", "params")) for row in rows]),
        # Their intervals, where tokens are counted on samples, are a fraction of a percent: the page needs the room.
        number_column("gmacs_step", "MACs/step", "GMAC", of("flops", "gmacs_step"), show_interval=False),
        number_column("gmacs_image", "MACs/image", "GMAC", of("flops", "gmacs_image"), show_interval=False),
        number_column("flops_ratio", "Ratio", "1", [row.flops_ratio for row in rows], decimals=3),
        number_column("latency_ms", "time/call", "ms", of("latency", "latency_ms")),
        number_column("image_ms", "time/image", "ms", of("latency", "image_ms")),
        number_column("images_per_s", "images/s", "1", [row.value("latency", "images_per_s") for row in rows]),
        number_column("speedup", "Speed-up", "1", [row.speedup for row in rows], decimals=2),
        number_column("realised", "Realised", "1", [row.realised for row in rows], decimals=2),
        number_column("peak_mib", "Peak", "MiB", [row.value("memory", "peak_mib") for row in rows]),
        number_column("prepared_mib", "Prepared", "MiB", _prepared(rows)),
    )


def _prepared(rows: Sequence[Row]) -> list[float | None]:
    """MiB of prepared weights beside the stored ones; all None, and so no column, where no cell keeps any."""
    sizes = [row.value("memory", "prepared_mib") for row in rows]
    return sizes if any(sizes) else [None] * len(rows)

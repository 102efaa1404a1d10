"""Energy of an image by the device's own counter, and the power that the device takes when it does nothing."""

from __future__ import annotations

from ditbench.harness.store.records import Quantity
from ditbench.report.row import Row
from ditbench.report.run_view import RunView
from ditbench.report.tables.rows import plain_marks_of, tag_of
from ditbench.report.tables.table import Table, number_column, text_column
from ditbench.report.words.phrases import listed


def energy_table(view: RunView) -> Table | None:
    """One row a cell whose energy was asked for, with the reason where no device counts; None if there is none."""
    rows = [row for row in view.rows if row.detail("energy")]
    if not rows:
        return None
    details = [row.detail("energy") for row in rows]
    missing = [str(detail.get("not_available", "")) for detail in details]

    def figures(name: str) -> list[Quantity | None]:
        return [row.quantity("energy", name) for row in rows]

    columns = (
        text_column("cell", "Cell", [row.cell for row in rows], tags=[_tag(row) for row in rows]),
        number_column("batch", "batch", "1", [detail.get("batch") for detail in details], decimals=0),
        number_column("energy_image_j", "energy/image", "J", figures("energy_image_j")),
        number_column("energy_above_idle_j", "above idle", "J", figures("energy_above_idle_j")),
        number_column("power_w", "power", "W", figures("power_w")),
        number_column("idle_w", "idle", "W", figures("idle_w")),
        text_column("not_available", "Not measured because", missing, wide=True),
    )
    counted = dict.fromkeys(str(detail["counts"]) for detail in details if detail.get("counts"))
    note = "No device counted." if not counted else f"Counted: {listed(counted)}."
    note += (
        " Whole sampling loops in latent space, back to back; planning, sampler and waits for the host included. Idle: "
        "before the loops, with the model loaded. Energy above idle is an image's less what the device "
        "would have taken meanwhile. Brackets: t intervals over windows."
    )
    return Table("energy", "Energy of an image.", columns, plain_marks_of(rows), (note,)).without_empty_columns()


def _tag(row: Row) -> str:
    tags = [tag_of(row), "throttled" if row.detail("energy").get("throttled") else ""]
    return ", ".join(tag for tag in tags if tag)

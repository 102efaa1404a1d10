"""Which patch sizes a flexible model runs at, in words, and the compute that its schedule leaves."""

from __future__ import annotations

from report.flexible import Schedule, in_words, schedule_of
from report.result_tables import plain_marks_of, tag_of
from report.run_view import RunView
from report.tables import Table, number_column, text_column


def schedules_table(view: RunView) -> Table | None:
    """One row a cell that chooses its patch size by the step; None if there is none."""
    found = [(row, schedule) for row in view.rows if (schedule := schedule_of(row))]
    if not found:
        return None
    rows, schedules = [row for row, _ in found], [schedule for _, schedule in found]
    conventions = list(dict.fromkeys(name for schedule in schedules for name, _ in schedule.fractions))
    differences = [row.quantity("agreement", "difference") for row in rows]
    columns = (
        text_column("cell", "Cell", [row.cell for row in rows], tags=[tag_of(row) for row in rows]),
        number_column("steps", "Steps", "1", [len(schedule.patch) for schedule in schedules], decimals=0),
        text_column("schedule", "Patch sizes", [_branches(schedule) for schedule in schedules], wide=True),
        number_column("fraction", "Compute", "%", [100 * schedule.fraction for schedule in schedules], decimals=2),
        *(
            number_column(
                f"fraction_{letter}",
                f"Compute ({letter})",
                "%",
                [_percent(dict(schedule.fractions).get(name)) for schedule in schedules],
                decimals=2,
            )
            for letter, name in _lettered(conventions)
        ),
        number_column("difference", "Difference", "1", differences),
    )
    notes = [
        "Steps from noise to image. Compute: counted MACs of the sampling loop, guidance included, as a share of the "
        "same loop with every step at the pre-trained patch size."
        + "".join(f" ({letter}): {name}." for letter, name in _lettered(conventions))
    ]
    if any(schedule.guide for schedule in schedules):
        notes.append("The guidance branch is named only where its sizes differ from the conditional branch's.")
    if any(differences):
        notes.append(
            "Difference: mean absolute difference per element between the noise predicted at a coarser patch size and "
            "at the pre-trained one, mean over the steps and the coarser sizes; in brackets its 95 % interval."
        )
    caption = "Patch size by sampling step, and the compute that is left."
    return Table("schedules", caption, columns, plain_marks_of(rows), tuple(notes)).without_empty_columns()


def _branches(schedule: Schedule) -> str:
    words = in_words(schedule.patch)
    return f"{words}; guidance: {in_words(schedule.guide)}" if schedule.guide else words


def _lettered(names: list[str]) -> list[tuple[str, str]]:
    """'a', 'b', … for what is too long to be the title of a column."""
    return [(chr(ord("a") + place), name) for place, name in enumerate(names)]


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share

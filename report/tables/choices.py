"""Which patch sizes a flexible model runs at, in words, and the compute that its schedule leaves."""

from __future__ import annotations

from ditbench.report.flexible import Schedule, in_words, schedule_of, weak_guidance
from ditbench.report.run_view import RunView
from ditbench.report.tables.rows import plain_marks_of, tag_of
from ditbench.report.tables.table import Table, number_column, text_column


def schedules_table(view: RunView) -> Table | None:
    """One row a cell that chooses its patch size by the step; None if there is none."""
    found = [(row, schedule) for row in view.rows if (schedule := schedule_of(row))]
    if not found:
        return None
    rows, schedules = [row for row, _ in found], [schedule for _, schedule in found]
    conventions = list(dict.fromkeys(name for schedule in schedules for name, _ in schedule.fractions))
    guided = [weak_guidance(row) for row in rows]
    kinds = {*guided} - {""}
    differences = [row.quantity("agreement", "difference") for row in rows]
    columns = (
        text_column("cell", "Cell", [row.cell for row in rows], tags=[tag_of(row) for row in rows]),
        number_column("steps", "Steps", "1", [len(schedule.patch) for schedule in schedules], decimals=0),
        text_column(
            "schedule",
            "Patch sizes",
            [_branches(*pair, len(kinds) > 1) for pair in zip(schedules, guided, strict=True)],
            wide=True,
        ),
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
    if kinds:
        notes.append(
            "The guidance branch is named only where its sizes differ from the conditional branch's. "
            + _WEAK[kinds.pop() if len(kinds) == 1 else "both"]
        )
    if any(differences):
        notes.append(
            "Difference: mean absolute difference per element between the noise predicted at a coarser patch size and "
            "at the pre-trained one, mean over the steps and the coarser sizes; in brackets its 95 % interval."
        )
    caption = "Patch size by sampling step, and the compute that is left."
    return Table("schedules", caption, columns, plain_marks_of(rows), tuple(notes)).without_empty_columns()


_WEAK = {
    "conditional": "In steps in which they differ it predicts for the class itself, in the others for no class.",
    "unconditional": "It predicts for no class.",
    "both": "In steps in which they differ it predicts for the class itself (conditional) or for no class "
    "(unconditional), in the others for no class.",
}


def _branches(schedule: Schedule, weak: str, named: bool) -> str:
    """``named``: say what the guidance branch predicts, because other cells' predict something else."""
    words, guidance = in_words(schedule.patch), f"guidance ({weak})" if named else "guidance"
    return f"{words}; {guidance}: {in_words(schedule.guide)}" if schedule.guide else words


def _lettered(names: list[str]) -> list[tuple[str, str]]:
    """'a', 'b', … for what is too long to be the title of a column."""
    return [(chr(ord("a") + place), name) for place, name in enumerate(names)]


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share

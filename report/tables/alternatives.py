"""How the two branches of a guided step ran where their sequences have unequal lengths, and what else was tried."""

from __future__ import annotations

from ditbench.report.flexible import layouts_of
from ditbench.report.numbers import decimals_for, scale_for
from ditbench.report.row import Row
from ditbench.report.run_view import RunView
from ditbench.report.tables.rows import plain_marks_of, tag_of
from ditbench.report.tables.table import Table, number_column, text_column

_ORDER = ("separate", "padded", "joined", "packed")


def layouts_table(view: RunView) -> Table | None:
    """One row a pair of unequal branches of a cell; None if no cell had a choice."""
    entries: list[tuple[Row, bool, str, dict[str, float]]] = []
    for row in view.rows:
        choices = [(branches, times) for branches, times in layouts_of(row).items() if len(times) > 1]
        entries += [(row, place == 0, *choice) for place, choice in enumerate(choices)]
    if not entries:
        return None
    rows = [row for row, *_ in entries]
    tried = {layout for *_, times in entries for layout in times}
    layouts = [*(layout for layout in _ORDER if layout in tried), *sorted(tried - set(_ORDER))]
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
        text_column("branches", "Branches", [branches for _, _, branches, _ in entries]),
        number_column("batch", "Batch", "1", [row.batch for row in rows], decimals=0),
        *(
            number_column(
                layout, layout, "ms", [times.get(layout) for *_, times in entries], decimals=decimals, scale=scale
            )
            for layout in layouts
        ),
        text_column("used", "Used", [min(times, key=lambda layout: times[layout]) for *_, times in entries]),
    )
    note = (
        "Separate: a call for each branch. The other layouts put both branches into one call and mask attention "
        "between sequences. All give the same output up to rounding; the fastest here was used in the timings, at "
        "this batch. The counted MACs are those of separate: the masked layouts execute more."
    )
    caption = "A guided step whose branches have unequal lengths, by the layout in which they run."
    return Table("layouts", caption, columns, plain_marks_of(rows), (note,)).without_empty_columns()

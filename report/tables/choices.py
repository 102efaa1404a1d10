"""Which way each step of a cell runs, in words, and the compute that is left."""

from __future__ import annotations

from ditbench.report.facets import Labels, compute_of, facets_of, in_words, weak_guidance
from ditbench.report.row import Row
from ditbench.report.run_view import RunView
from ditbench.report.tables.rows import plain_marks_of, tag_of
from ditbench.report.tables.table import Column, Table, number_column, text_column


def choices_table(view: RunView) -> Table | None:
    """One row a cell whose steps run in ways that have labels; None if there is none."""
    rows = [row for row in view.rows if facets_of(row).labels]
    if not rows:
        return None
    computes = [compute_of(row) for row in rows]
    conventions = list(dict.fromkeys(name for each in computes if each for name, _ in each.by_convention))
    kinds = {weak_guidance(row) for row in rows} - {""}
    differences = [row.quantity("agreement", "difference") for row in rows]
    shares = [100 * each.share if each else None for each in computes]
    columns = (
        text_column("cell", "Cell", [row.cell for row in rows], tags=[tag_of(row) for row in rows]),
        number_column("steps", "Steps", "1", [len(facets_of(row).timesteps) for row in rows], decimals=0),
        *_words(rows, len(kinds) > 1),
        number_column("compute", "Compute", "%", shares, decimals=2),
        *(
            number_column(
                f"compute_{letter}",
                f"Compute ({letter})",
                "%",
                [_percent(dict(each.by_convention).get(name)) if each else None for each in computes],
                decimals=2,
            )
            for letter, name in _lettered(conventions)
        ),
        number_column("difference", "Difference", "1", differences),
    )
    notes = ["Steps from noise to image."]
    if of := dict.fromkeys(each.of for each in computes if each):
        notes[0] += (
            " Compute: counted MACs of the sampling loop, guidance included, as a share of the same loop with "
            f"{' or '.join(of)}." + "".join(f" ({letter}): {name}." for letter, name in _lettered(conventions))
        )
    if kinds:
        notes.append(
            "The guidance branch is named only where it runs otherwise than the conditional branch. "
            + _WEAK[kinds.pop() if len(kinds) == 1 else "both"]
        )
    if any(differences):
        notes.append(
            "Difference: mean absolute difference per element between the prediction of a cheaper variant and of the "
            "reference, mean over the steps and the variants; in brackets its 95 % interval."
        )
    caption = "How every sampling step runs, and the compute that is left."
    return Table("choices", caption, columns, plain_marks_of(rows), tuple(notes)).without_empty_columns()


_WEAK = {
    "conditional": "In steps in which they differ it predicts for the class itself, in the others for no class.",
    "unconditional": "It predicts for no class.",
    "both": "In steps in which they differ it predicts for the class itself (conditional) or for no class "
    "(unconditional), in the others for no class.",
}


def _words(rows: list[Row], named: bool) -> list[Column]:
    """A column a facet; ``named``: say what the guidance branch predicts, because other cells' predict other things."""
    of = [{labels.name: labels for labels in facets_of(row).labels} for row in rows]
    return [
        text_column(
            name.replace(" ", "_"),
            f"{name[0].upper()}{name[1:]}",
            [
                _branches(each[name], weak_guidance(row), named) if name in each else ""
                for row, each in zip(rows, of, strict=True)
            ],
            wide=True,
        )
        for name in dict.fromkeys(name for each in of for name in each)
    ]


def _branches(labels: Labels, weak: str, named: bool) -> str:
    words, guidance = in_words(labels, labels.values), f"guidance ({weak})" if named else "guidance"
    return f"{words}; {guidance}: {in_words(labels, labels.guidance)}" if labels.guidance else words


def _lettered(names: list[str]) -> list[tuple[str, str]]:
    """'a', 'b', … for what is too long to be the title of a column."""
    return [(chr(ord("a") + place), name) for place, name in enumerate(names)]


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share

"""Quality beyond the main table: the other set figures, and the pairs with the baseline's samples."""

from __future__ import annotations

from collections.abc import Sequence

from ditbench.harness.store.records import Quantity
from ditbench.report.numbers import Scale
from ditbench.report.row import Row
from ditbench.report.run_view import RunView
from ditbench.report.tables.cells import PAIRED_FIGURES
from ditbench.report.tables.rows import marks_of, plain_marks_of, setting_columns, tag_of
from ditbench.report.tables.table import Column, Table, number_column, text_column
from ditbench.report.words.phrases import listed


def more_quality_table(view: RunView) -> Table | None:
    """The set figures that the main table has no room for; None if no cell has any of them."""
    rows = tuple(row for row in view.rows if row.has_quality)
    if not rows:
        return None

    def of(name: str) -> list[Quantity | None]:
        return [row.quantity("quality", name) for row in rows]

    columns = (
        setting_columns(rows)[0][0],
        number_column("frechet_infinity", "Fréchet∞ ↓", "1", of("frechet_infinity")),
        number_column("sfid", "sFID ↓", "1", of("sfid")),
        number_column("inception_score", "IS ↑", "1", of("inception_score")),
        number_column(
            "rbf_mmd", "MMD ↓", "1", of("rbf_mmd"), decimals=3, scale=Scale(1e-3, "×10⁻³"), show_interval=False
        ),
        number_column("precision", "Prec. ↑", "1", of("precision"), decimals=3, show_interval=False),
        number_column("recall", "Recall ↑", "1", of("recall"), decimals=3, show_interval=False),
        number_column("density", "Density ↑", "1", of("density"), decimals=3, show_interval=False),
        number_column("coverage", "Coverage ↑", "1", of("coverage"), decimals=3, show_interval=False),
    )
    caption = f"Further quality figures; protocol {view.protocol}."
    table = Table("more_quality", caption, columns, marks_of(rows), _why_not(rows))
    return table.without_empty_columns()


def paired_table(view: RunView) -> Table | None:
    """Each sample beside the baseline's of the same noise and label; None if nothing was paired."""
    rows = tuple(row for row in view.rows if _is_paired(row))
    if not rows:
        return None

    def column(name: str, title: str, unit: str, decimals: int) -> Column:
        entries = [row.quantity("paired", name) for row in rows]
        return number_column(name, title, unit, entries, decimals=decimals)

    columns = (
        setting_columns(rows)[0][0],
        column("psnr", "PSNR ↑", "dB", 2),
        column("ssim", "SSIM ↑", "1", 3),
        column("lpips", "LPIPS ↓", "1", 3),
        column("latent_error", "Rel. error ↓", "1", 3),
    )
    caption = f"Samples beside those of {view.baseline} with the same noise and label: how far the pictures move."
    return Table("paired", caption, columns, plain_marks_of(rows), _identical(rows)).without_empty_columns()


def _is_paired(row: Row) -> bool:
    return any(row.quantity("paired", name) is not None for name in PAIRED_FIGURES)


def _why_not(rows: Sequence[Row]) -> tuple[str, ...]:
    """Why limits have no interval, one line a reason with the cells that it holds for."""
    cells: dict[str, list[str]] = {}
    for row in rows:
        limit = row.quantity("quality", "frechet_infinity")
        if limit is not None and limit.low is None:
            cells.setdefault(limit.interval, []).append(row.cell)
    lines = tuple(f"{listed(names)}: {why}." for why, names in cells.items())
    missing = {f"{name}: {why}" for row in rows for name, why in row.detail("quality").get("not_available", {}).items()}
    return (*lines, *(f"Not available: {text}." for text in sorted(missing)))


def _identical(rows: Sequence[Row]) -> tuple[str, ...]:
    counts = {row.cell: row.detail("paired").get("identical", 0) for row in rows}
    shown = [f"{cell} {count}" for cell, count in counts.items() if count]
    notes = [f"Equal to the baseline's picture, so without a PSNR: {listed(shown)}."] if shown else []
    missing = {f"{name}: {why}" for row in rows for name, why in row.detail("paired").get("not_available", {}).items()}
    return (*notes, *(f"Not available: {text}." for text in sorted(missing)))


def accuracy_table(view: RunView) -> Table | None:
    """Share of samples recognised as their class, class by class (at most 20); None if not measured."""
    shares: dict[str, list[float]] = {
        row.cell: row.detail("quality").get("accuracy_by_class") or [] for row in view.rows if not row.spec.cost_only
    }
    rows = [row for row in view.rows if shares.get(row.cell)]
    classes = max((len(shares[row.cell]) for row in rows), default=0)
    if not 0 < classes <= 20:
        return None
    columns = [text_column("cell", "Cell", [row.cell for row in rows], tags=[tag_of(row) for row in rows])]
    for index in range(classes):
        entries = [_at(shares[row.cell], index) for row in rows]
        columns.append(number_column(f"class_{index}", str(index), "1", entries, decimals=2))
    caption = "Share of samples that the reference classifier recognises as their class, by class."
    return Table("accuracy", caption, tuple(columns), plain_marks_of(rows))


def _at(shares: list[float], index: int) -> float | None:
    return float(shares[index]) if index < len(shares) else None

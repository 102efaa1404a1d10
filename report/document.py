"""Writes a run's report: the one module of this package that touches files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ditbench.harness.store.store import write_atomic
from ditbench.report.content import Content, compose
from ditbench.report.html import render_html
from ditbench.report.markdown import render_markdown
from ditbench.report.pdf import NoPdf, render_pdf
from ditbench.report.plots.adaptation import adaptation_picture
from ditbench.report.plots.agreement import agreement_picture
from ditbench.report.plots.choices import choices_picture
from ditbench.report.plots.kernels import kernels_picture
from ditbench.report.plots.pareto import pareto_picture
from ditbench.report.plots.profile import profile_picture
from ditbench.report.plots.samples import sample_grids
from ditbench.report.plots.shares import shares_picture
from ditbench.report.plots.style import Picture
from ditbench.report.plots.token_maps import PREFIX, token_map_pictures
from ditbench.report.run_view import RunView, load_run
from ditbench.report.tables.cells import cells_table
from ditbench.report.tables.formats import to_csv, to_latex, to_markdown
from ditbench.report.tables.results import results_table

FIGURES = ("pareto_gmacs", "pareto_time", "profile", "shares", "choices", "agreement", "adaptation", "kernels")


@dataclass(frozen=True)
class ReportFiles:
    """What was written. ``pdf`` is None if it could not be made; ``notice`` then says why, in one line."""

    folder: Path
    cells: Path
    tables: tuple[Path, ...]
    figures: tuple[Path, ...]
    samples: tuple[Path, ...]
    markdown: Path
    html: Path
    pdf: Path | None
    notice: str | None


def write_report(folder: Path) -> ReportFiles:
    """Write ``cells.csv`` and ``report/`` of a run's folder from its records, and nothing but its records.

    The same records give the same bytes. Files of an older report that this one does not have are removed.
    Raises InputError if ``folder`` is no run or its records cannot be reported together.
    """
    view = load_run(folder)
    pictures = _pictures(view)
    grids = sample_grids(view)
    content = compose(view, pictures, grids)
    report = folder / "report"

    cells = _write(folder / "cells.csv", to_csv(cells_table(view), with_ends=False))
    results = results_table(view)
    tables = (
        _write(report / "table.csv", to_csv(results)),
        _write(report / "table.md", to_markdown(results)),
        _write(report / "table.tex", to_latex(results)),
    )
    figures = [
        _write(report / f"{name}.{ending}", data)
        for name, picture in pictures.items()
        for ending, data in (("svg", picture.svg), ("png", picture.png))
    ]
    samples = [_write(report / "samples" / f"{grid.cell}.png", grid.png) for grid in grids]
    markdown = _write(report / "report.md", render_markdown(content))
    html = _write(report / "report.html", render_html(content))
    pdf, notice = _pdf(report / "report.pdf", content, view)
    _remove_stale(report, {*figures, *samples, *([pdf] if pdf else [])})
    return ReportFiles(report, cells, tables, tuple(figures), tuple(samples), markdown, html, pdf, notice)


def _pictures(view: RunView) -> dict[str, Picture]:
    makers: tuple[Callable[[], Picture | None], ...] = (
        lambda: pareto_picture(view, "flops", "gmacs_image", "compute an image", "compute"),
        lambda: pareto_picture(view, "latency", view.time_axis, _time_title(view), "measured time"),
        lambda: profile_picture(view),
        lambda: shares_picture(view),
        lambda: choices_picture(view),
        lambda: agreement_picture(view),
        lambda: adaptation_picture(view),
        lambda: kernels_picture(view),
    )
    made = [*(maker() for maker in makers), *token_map_pictures(view)]
    return {picture.name: picture for picture in made if picture is not None}


def _pdf(path: Path, content: Content, view: RunView) -> tuple[Path | None, str | None]:
    try:
        data = render_pdf(content, view.date)
    except NoPdf as reason:
        return None, str(reason)
    return _write(path, data), None


def _write(path: Path, data: str | bytes) -> Path:
    write_atomic(path, data.encode() if isinstance(data, str) else data)
    return path


def _remove_stale(report: Path, written: set[Path]) -> None:
    """Figures of an older report would stand beside this one as if they belonged to it."""
    ours = [report / f"{name}.{ending}" for name in FIGURES for ending in ("svg", "png")]
    ours += [path for ending in ("svg", "png") for path in report.glob(f"{PREFIX}*.{ending}")]
    ours += [*(report / "samples").glob("*.png"), report / "report.pdf"]
    for path in ours:
        if path not in written:
            path.unlink(missing_ok=True)


def _time_title(view: RunView) -> str:
    if view.time_axis == "time_ratio":
        return f"measured time an image, as a share of {view.baseline}'s"
    return "measured time an image"

"""The report as a list of blocks, before it becomes Markdown, HTML or a PDF."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ditbench.report.plots.samples import SampleGrid
from ditbench.report.plots.style import Picture
from ditbench.report.plots.token_maps import PREFIX
from ditbench.report.run_view import RunView
from ditbench.report.tables.adaptation import adaptation_table, equal_size_table
from ditbench.report.tables.alternatives import alternatives_table
from ditbench.report.tables.choices import choices_table
from ditbench.report.tables.decode import decode_table
from ditbench.report.tables.delivered import delivered_table, lost_time_table
from ditbench.report.tables.energy import energy_table
from ditbench.report.tables.failures import failures_table
from ditbench.report.tables.more import more_figures_table
from ditbench.report.tables.operators import operators_table
from ditbench.report.tables.published import published_summary, published_tables
from ditbench.report.tables.quality import accuracy_table, more_quality_table, paired_table
from ditbench.report.tables.results import cost_table, quality_table
from ditbench.report.tables.table import Table
from ditbench.report.tables.timing import timing_table
from ditbench.report.words.phrases import listed
from ditbench.report.words.reading import reading_notes
from ditbench.report.words.summary import summary


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Figures:
    """One figure, or several narrow ones that stand side by side where the page allows."""

    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Samples:
    grids: tuple[SampleGrid, ...]
    caption: str


@dataclass(frozen=True)
class Facts:
    """Names with their values, in a compact table."""

    entries: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Notes:
    """Terms with their explanations, set apart in a box."""

    entries: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Commands:
    """Cell names with the shell command that runs each again."""

    entries: tuple[tuple[str, str], ...]


Block = Paragraph | Figures | Samples | Facts | Notes | Commands | Table


@dataclass(frozen=True)
class Section:
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Content:
    """``facts`` are the short lines of the title block; ``sections`` hold only what the run has."""

    title: str
    description: str
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]


def compose(view: RunView, pictures: Mapping[str, Picture], grids: Sequence[SampleGrid]) -> Content:
    """Everything that the report says, in reading order."""
    drafts: list[tuple[str, list[Block | None]]] = [
        ("Summary", [Paragraph(text) for text in summary(view)]),
        (
            "Results",
            [
                quality_table(view),
                _figures(pictures, "pareto_gmacs", "pareto_time"),
                cost_table(view),
                more_quality_table(view),
                paired_table(view),
            ],
        ),
        ("More figures", [more_figures_table(view)]),
        (
            "Published beside measured",
            [Paragraph(text) if (text := published_summary(view)) else None, *published_tables(view)],
        ),
        ("Promised and delivered", [delivered_table(view), lost_time_table(view)]),
        ("Adaptation", [adaptation_table(view), equal_size_table(view), _figures(pictures, "adaptation")]),
        ("How to read these numbers", [Notes(notes) if (notes := reading_notes(view)) else None]),
        (
            "What failed" if failures_table(view) else "What has not run",
            [failures_table(view), _pending(view)],
        ),
        ("Samples", [_samples(view, grids), accuracy_table(view)]),
        (
            "Compute",
            [
                _figures(pictures, "profile"),
                _figures(pictures, "shares"),
                _figures(pictures, *(name for name in pictures if name.startswith(PREFIX))),
                _figures(pictures, "choices"),
                choices_table(view),
                _figures(pictures, "agreement"),
                operators_table(view),
            ],
        ),
        (
            "Time",
            [
                _figures(pictures, "kernels"),
                timing_table(view),
                alternatives_table(view),
                decode_table(view),
                energy_table(view),
            ],
        ),
        ("Environment", [_provenance(view), Facts(_environment(view))]),
        ("How to run each cell again", [_suite_command(view), _commands(view)]),
    ]
    sections = []
    for title, blocks in drafts:
        kept = tuple(block for block in blocks if block is not None and block != Facts(()))
        if kept:
            sections.append(Section(title, kept))
    return Content(view.title, view.description, _title_facts(view), tuple(sections))


def _figures(pictures: Mapping[str, Picture], *names: str) -> Figures | None:
    found = tuple(pictures[name] for name in names if name in pictures)
    return Figures(found) if found else None


def _title_facts(view: RunView) -> tuple[tuple[str, str], ...]:
    devices = dict.fromkeys(
        f"{r.provenance.device_name} ({r.provenance.device})" for r in view.records if r.provenance.device_name
    )
    batches = sorted({row.batch for row in view.rows if row.batch is not None})
    facts = (
        ("Suite", view.suite),
        ("Newest record", view.date.strftime("%Y-%m-%d %H:%M UTC") if view.date else ""),
        ("Device", ", ".join(devices)),
        ("Number type", ", ".join(dict.fromkeys(row.spec.dtype for row in view.rows))),
        ("Batch", ", ".join(map(str, batches))),
        ("Baseline", view.baseline or ""),
        ("Quality protocol", view.protocol or ""),
    )
    return tuple((name, text) for name, text in facts if text)


def _samples(view: RunView, grids: Sequence[SampleGrid]) -> Samples | None:
    if not grids:
        return None
    shown = max(grid.shown for grid in grids)
    columns = "column = class" if all(grid.by_class for grid in grids) else "in the order of their indices"
    caption = f"The first samples of each cell (up to {shown}; {columns}). A place has the same seed in every cell."
    if any(grid.wrong is not None for grid in grids):
        caption += " Framed: the reference classifier reads another class than was asked for."
    scored = {row.cell for row in view.rows if row.quantity("quality", "frechet")}
    missing = [row.cell for row in view.rows if row.cell in scored - {grid.cell for grid in grids}]
    if missing:
        caption += f" No preview is stored for {listed(missing)}."
    return Samples(tuple(grids), caption)


def _pending(view: RunView) -> Paragraph | None:
    idle = [row for row in view.rows if row.status == "pending"]
    waiting = [row.cell for row in idle if row.waiting]
    names = [row.cell for row in idle if not row.waiting]
    texts = [f"Not run yet: {listed(names)}."] if names else []
    texts += [f"Waiting for files: {listed(waiting)}."] if waiting else []
    return Paragraph(" ".join(texts)) if texts else None


def _provenance(view: RunView) -> Paragraph | None:
    """Says so when the records do not all come from one state of code, hardware and libraries."""
    texts = []
    for what, values in (
        ("commits", (r.provenance.git for r in view.records)),
        ("machines", (r.provenance.device_name for r in view.records)),
        (
            "sets of library versions",
            (", ".join(map(" ".join, sorted(r.provenance.versions.items()))) for r in view.records),
        ),
    ):
        distinct = sorted({value or "unknown" for value in values})
        if len(distinct) > 1:
            texts.append(f"The records come from {len(distinct)} {what}: {'; '.join(distinct)}.")
    return Paragraph(" ".join(texts)) if texts else None


def _environment(view: RunView) -> tuple[tuple[str, str], ...]:
    entries = list(_flat(view.environment, ""))
    conditions = [row.detail("latency").get("conditions") for row in view.rows]
    timed = [condition for condition in conditions if condition]
    for name in dict.fromkeys(name for condition in timed for name in condition):
        values = dict.fromkeys(_text(condition.get(name)) for condition in timed)
        entries.append((f"timing.{name}", " / ".join(values)))
    return tuple(entries)


def _flat(value: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, str]]:
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _text(inner)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return "–" if value is None else " ".join(str(value).split())


def _suite_command(view: RunView) -> Commands | None:
    return Commands((("The whole suite", view.command),)) if view.command else None


def _commands(view: RunView) -> Commands | None:
    """One command a cell. Made from the plan: two cells may share a record, which names only the first of them."""
    if not view.command:
        return None
    return Commands(tuple((row.cell, f"{view.command} --only {shlex.quote(row.cell)}") for row in view.rows))

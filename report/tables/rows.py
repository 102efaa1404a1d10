"""What rows of several tables share: the columns that name a cell, the words beside it, marks, captions and notes."""

from __future__ import annotations

from collections.abc import Sequence

from ditbench.report.facets import weak_guidance
from ditbench.report.row import Row
from ditbench.report.run_view import RunView
from ditbench.report.tables.table import Column, Mark, Value, number_column, text_column


def setting_columns(rows: Sequence[Row]) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """The cell's name and the settings that differ between rows; the shared ones come back as words."""
    cells = text_column("cell", "Cell", [row.cell for row in rows], tags=[tag_of(row) for row in rows])
    settings: dict[str, tuple[str, list[str]]] = {
        "method": ("Method", [row.spec.method for row in rows]),
        "variant": ("Variant", [row.spec.variant for row in rows]),
        "sampler": ("Sampler", [row.spec.sampler for row in rows]),
        "steps": ("Steps", [str(row.spec.steps or "free") for row in rows]),
        "evaluations": ("Calls", [str(row.evaluations) for row in rows]),
        "guidance": ("Guid.", [f"{row.spec.guidance_scale:g}" for row in rows]),
        "weak_guidance": ("Weak", _weak_guidance(rows)),
        "device": ("Device", [row.spec.device for row in rows]),
        "dtype": ("Type", [row.spec.dtype for row in rows]),
        "mode": ("Mode", [row.spec.mode for row in rows]),
    }
    columns, shared = [cells], []
    for key, (title, texts) in settings.items():
        if len(set(texts)) > 1:
            if key == "steps":
                columns.append(number_column(key, title, "1", [row.spec.steps or None for row in rows], decimals=0))
            elif key == "evaluations":
                if any(row.evaluations != row.spec.steps for row in rows):
                    columns.append(number_column(key, title, "1", [row.evaluations for row in rows], decimals=0))
            elif key == "guidance":
                scales = [row.spec.guidance_scale for row in rows]
                columns.append(number_column(key, title, "1", scales))
            elif key == "weak_guidance":
                # both words in full would take the room of the cells' names
                columns.append(Column(key, title, tuple(Value(t, _SHORT[t]) for t in texts)))
            elif key != "method" or texts != [row.cell for row in rows]:
                columns.append(text_column(key, title, texts))
        elif texts and texts[0] and key != "evaluations":
            shared.append(f"{key} {texts[0]}")
    return tuple(columns), tuple(shared)


_SHORT = {"": "", "conditional": "cond.", "unconditional": "uncond."}


def _weak_guidance(rows: Sequence[Row]) -> list[str]:
    """A word for each cell that it means something for; none at all where those cells have the same."""
    words = [weak_guidance(row) for row in rows]
    return words if len({*words} - {""}) > 1 else [""] * len(rows)


def tag_of(row: Row) -> str:
    """The words that must stand beside a cell's name."""
    tags = ["baseline"] if row.is_baseline else []
    tags += [row.cost_words] if row.cost_words else []
    tags += [row.status] if row.status != "ok" else []
    # No speed without the quality of the same weights beside it, or a word that says there is none.
    timed = row.quantity("latency", "latency_ms") or row.quantity("latency", "image_ms")
    tags += ["no quality"] if timed and not row.spec.cost_only and not row.has_quality else []
    return ", ".join(tags)


def marks_of(rows: Sequence[Row]) -> tuple[Mark, ...]:
    """How each row of a results table is set: the baseline apart, dominated and failed ones grey."""
    return tuple(
        mark if mark != "plain" or not row.dominated else "dominated"
        for row, mark in zip(rows, plain_marks_of(rows), strict=True)
    )


def plain_marks_of(rows: Sequence[Row]) -> tuple[Mark, ...]:
    """The same for tables in which no cell competes with another: nothing is dominated there."""
    grey = ("failed", "pending")
    return tuple("baseline" if row.is_baseline else "failed" if row.status in grey else "plain" for row in rows)


def caption_of(view: RunView, what: str) -> str:
    """``what``, with the baseline and the protocol that its numbers depend on."""
    parts = [what]
    if view.baseline and any(row.flops_ratio is not None for row in view.rows):
        parts.append(f"ratios against {view.baseline}")
    if view.protocol:
        parts.append(f"protocol {view.protocol}")
    return "; ".join(parts) + "."


def notes_of(view: RunView, rows: Sequence[Row], shared: Sequence[str]) -> tuple[str, ...]:
    """Lines under a table: what all rows share, what grey means, what the brackets are."""
    notes = [f"All cells: {', '.join(shared)}."] if shared and len(rows) > 1 else []
    hints = []
    if any(row.status not in ("failed", "pending") and not row.is_baseline and row.dominated for row in rows):
        hints.append("Grey: dominated on every front.")
    if any(row.spec.cost_only for row in rows):
        hints.append("Cost only: the cell's weights make no meaningful samples, so it has no quality figures.")
    for key in dict.fromkeys(row.spec.imposed for row in rows if row.spec.imposed):
        hints.append(f"Imposed {key}: the config says what is on, in place of the learned routers.")
    if any(row.quantity("quality", "frechet") or row.quantity("latency", "latency_ms") for row in rows):
        hints.append("Brackets: 95 % intervals.")
    return (*notes, " ".join(hints)) if hints else tuple(notes)


def whole(value: float | None) -> int | None:
    """A count as the integer that it is."""
    return None if value is None else round(value)

"""The tables of results: ``cells.csv``, the one wide table for papers, and its quality and cost halves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ditbench.harness.store.records import Quantity
from ditbench.report.flexible import weak_guidance
from ditbench.report.fronts import front_columns, front_probabilities
from ditbench.report.numbers import Scale
from ditbench.report.run_view import Row, RunView
from ditbench.report.tables import Column, Mark, Raw, Table, Value, number_column, text_column

QUALITY_FIGURES = ("frechet", "kid", "precision", "recall", "accuracy")
MORE_QUALITY = ("frechet_infinity", "sfid", "inception_score", "rbf_mmd", "density", "coverage")
PAIRED_FIGURES = ("psnr", "ssim", "lpips", "latent_error")
TRAINING_FIGURES = ("trainable", "training_peak_mib", "training_image_ms", "training_ratio")


def cells_table(view: RunView) -> Table:
    """One row a cell of the plan, also failed and not yet run ones; stored units, full precision."""
    fronts = front_probabilities(view)
    readers: dict[str, Callable[[Row], Raw]] = {
        "cell": lambda row: row.cell,
        "method": lambda row: row.spec.method,
        "variant": lambda row: row.spec.variant,
        "sampler": lambda row: row.spec.sampler,
        "steps": lambda row: row.spec.steps,
        "guidance": lambda row: row.spec.guidance_scale,
        "device": lambda row: row.spec.device,
        "dtype": lambda row: row.spec.dtype,
        "batch": lambda row: row.batch,
        "params": lambda row: _whole(row.value("flops", "params")),
        "gmacs_step": lambda row: row.value("flops", "gmacs_step"),
        "gmacs_image": lambda row: row.value("flops", "gmacs_image"),
        "flops_ratio": lambda row: row.flops_ratio,
        "latency_ms": lambda row: row.value("latency", "latency_ms"),
        "latency_low": lambda row: _low(row.quantity("latency", "latency_ms")),
        "latency_high": lambda row: _high(row.quantity("latency", "latency_ms")),
        "images_per_s": lambda row: row.value("latency", "images_per_s"),
        "speedup": lambda row: row.speedup.value if row.speedup else None,
        "realised": lambda row: row.realised,
        "frechet": lambda row: row.value("quality", "frechet"),
        "frechet_low": lambda row: _low(row.quantity("quality", "frechet")),
        "frechet_high": lambda row: _high(row.quantity("quality", "frechet")),
        "kid": lambda row: row.value("quality", "kid"),
        "precision": lambda row: row.value("quality", "precision"),
        "recall": lambda row: row.value("quality", "recall"),
        "protocol": lambda row: view.protocol if has_quality(row) else None,
        "status": lambda row: row.status,
        "accuracy": lambda row: row.value("quality", "accuracy"),
        "image_ms": lambda row: row.value("latency", "image_ms"),
        "image_ms_low": lambda row: _low(row.quantity("latency", "image_ms")),
        "image_ms_high": lambda row: _high(row.quantity("latency", "image_ms")),
        "speedup_low": lambda row: _low(row.speedup),
        "speedup_high": lambda row: _high(row.speedup),
        "peak_mib": lambda row: row.value("memory", "peak_mib"),
        "on_front_gmacs": lambda row: row.on_front_gmacs,
        "on_front_time": lambda row: row.on_front_time,
        "cost_only": lambda row: row.spec.cost_only,
        "imposed_activity": lambda row: bool(row.spec.imposed),
        "reason": lambda row: row.reason,
        "front_probability_gmacs": lambda row: fronts.gmacs.get(row.cell),
        "front_probability_time": lambda row: fronts.time.get(row.cell),
        **{name: partial(_figure, "quality", name) for name in MORE_QUALITY},
        "frechet_infinity_low": lambda row: _low(row.quantity("quality", "frechet_infinity")),
        "frechet_infinity_high": lambda row: _high(row.quantity("quality", "frechet_infinity")),
        **{name: partial(_figure, "paired", name) for name in PAIRED_FIGURES},
        "evaluations": lambda row: row.evaluations or None,
        **{name: partial(_figure, "training", name) for name in TRAINING_FIGURES},
    }
    columns = tuple(Column(key, key, tuple(Value(read(row), "") for row in view.rows)) for key, read in readers.items())
    return Table("cells", "Every cell of the plan", columns, marks_of(view.rows))


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
        (*columns, *status),
        marks_of(view.rows),
        notes_of(view, view.rows, shared),
    )
    return table.without_empty_columns()


def quality_table(view: RunView) -> Table | None:
    """Quality beside the two costs it is bought with; None if the run has no quality figure."""
    rows = tuple(row for row in view.rows if has_quality(row))
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
    leading = settings[:1] if timed and any(has_quality(row) for row in rows) else settings
    notes = notes_of(view, rows, shared if leading == settings else ())
    # images/s says what time/image says; the room goes to the intervals.
    cost = (column for column in _cost_columns(rows) if column.key != "images_per_s")
    table = Table("cost", caption_of(view, "Cost"), (*leading, *cost), marks_of(rows), notes)
    return table.without_empty_columns()


def has_quality(row: Row) -> bool:
    """Whether the row has any quality figure that may be shown."""
    return any(row.quantity("quality", name) is not None for name in QUALITY_FIGURES)


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
    tags += ["no quality"] if timed and not row.spec.cost_only and not has_quality(row) else []
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
    if any(row.spec.imposed for row in rows):
        hints.append("Imposed activity: the config says what is on, in place of the learned routers.")
    if any(row.quantity("quality", "frechet") or row.quantity("latency", "latency_ms") for row in rows):
        hints.append("Brackets: 95 % intervals.")
    return (*notes, " ".join(hints)) if hints else tuple(notes)


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
        number_column("params", "Params", "#", [_whole(row.value("flops", "params")) for row in rows]),
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


def _figure(measurement: str, name: str, row: Row) -> float | None:
    return row.value(measurement, name)


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _low(quantity: Quantity | None) -> float | None:
    return None if quantity is None else quantity.low


def _high(quantity: Quantity | None) -> float | None:
    return None if quantity is None else quantity.high

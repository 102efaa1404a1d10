"""The tables behind the results: operators, timings, recognition by class, failures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ditbench.harness.store.records import Quantity
from ditbench.report.row import Row
from ditbench.report.run_view import RunView
from ditbench.report.tables.alternatives import choices_of
from ditbench.report.tables.rows import plain_marks_of, tag_of
from ditbench.report.tables.table import Column, Table, number_column, text_column
from ditbench.report.words.phrases import preparing


def timing_table(view: RunView) -> Table | None:
    """Every timed level of every cell with its spread and the cold costs; None if nothing was timed."""
    entries: list[tuple[Row, str, dict[str, Any], dict[str, Any]]] = []
    for row in view.rows:
        detail = row.detail("latency")
        for position, (level, figures) in enumerate(detail.get("levels", {}).items()):
            entries.append((row, level, figures, detail if position == 0 else {}))
    if not entries:
        return None
    rows = [row for row, *_ in entries]

    def times(key: str, title: str) -> Column:
        return number_column(key, title, "ms", [_number(figures.get(key)) for _, _, figures, _ in entries])

    firsts = [bool(detail) for *_, detail in entries]
    cold = [detail.get("cold", {}) for *_, detail in entries]
    median = number_column("median_ms", "median", "ms", [_median(figures) for _, _, figures, _ in entries])
    prepare = [row.value("latency", "prepare_ms") if first else None for row, first in zip(rows, firsts, strict=True)]
    gaps = [_number(detail.get("gap_share")) for *_, detail in entries]
    columns = (
        text_column(
            "cell",
            "Cell",
            [row.cell if first else "" for row, first in zip(rows, firsts, strict=True)],
            tags=[_timing_tag(row) if first else "" for row, first in zip(rows, firsts, strict=True)],
        ),
        text_column("level", "Level", [level for _, level, _, _ in entries]),
        number_column("rows", "rows", "1", [_number(f.get("rows")) for _, _, f, _ in entries], decimals=0),
        number_column("n", "n", "1", [_number(f.get("n")) for _, _, f, _ in entries], decimals=0),
        median,
        times("q1_ms", "quartile 1"),
        times("q3_ms", "quartile 3"),
        times("minimum_ms", "least"),
        times("p90_ms", "p90"),
        number_column("load_ms", "load", "ms", [_number(c.get("load_ms")) for c in cold]),
        number_column("first_call_ms", "first call", "ms", [_number(c.get("first_call_ms")) for c in cold]),
        number_column("compile_ms", "compile", "ms", [_number(c.get("compile_ms")) for c in cold]),
        number_column("capture_ms", "capture", "ms", [_number(c.get("capture_ms")) for c in cold]),
        number_column("prepare_ms", "prepare", "ms", prepare if any(prepare) else [None] * len(entries)),
        number_column("gap", "gap", "%", [None if g is None else 100 * g for g in gaps], decimals=1),
        number_column("kernels", "kernels", "1", _of_kernels(entries, "kernels"), decimals=0),
        number_column("kernel_ms", "mean kernel", "ms", _of_kernels(entries, "kernel_ms")),
        number_column(
            "speedup_total",
            "speed-up",
            "1",
            [row.quantity("latency", "speedup_total") if level == "image" else None for row, level, *_ in entries],
        ),
    )
    called = any(c.get("first_call_ms") is not None for c in cold)
    decoded = any(level == "image" for _, level, *_ in entries)
    notes = [
        "step: one denoiser call of the whole batch; sample: the whole sampling loop of the batch"
        f"{'; image: that loop and the decoding of its latents, with the speed-up of both together' * decoded}. "
        f"{'Load and first call are cold costs' if called else 'Load is a cold cost'}, paid once and in no other "
        "figure. Brackets: 95 % interval of the median."
    ]
    if any(map(choices_of, rows)):
        notes.append(
            "Rows are counted as sequences, which may share a row of the call. Where ways to run a step were timed "
            "beforehand, no call was the first."
        )
    if any(prepare):
        notes.append(f"Prepare: {preparing(rows)}, once; sample includes it, step does not.")
    notes += _device_notes(rows)
    batches = sorted({row.batch for row in rows if row.batch is not None})
    batch = f" Batch {', '.join(map(str, batches))}." if batches else ""
    return Table(
        "timing", f"Timings by level.{batch}", columns, plain_marks_of(rows), tuple(notes)
    ).without_empty_columns()


def _of_kernels(entries: Sequence[tuple[Row, str, dict[str, Any], dict[str, Any]]], name: str) -> list[float | None]:
    """A figure of the profile of denoiser calls, on the row of the level that they are."""
    return [row.value("kernels", name) if level == "step" else None for row, level, *_ in entries]


def _device_notes(rows: Sequence[Row]) -> list[str]:
    notes = []
    details = [row.detail("latency") for row in rows]
    if any(detail.get("launch_bound") for detail in details):
        notes.append(
            "Launch-bound: the device waits for its host for more than a fifth of a step, so that operations saved on "
            "it save no time. Captured graphs (mode: graph), compiling or a larger batch may help."
        )
    if any(row.value("kernels", "kernels") for row in rows):
        notes.append("Kernels: launched a step, and their mean duration, in a profiled run.")
    if any(detail.get("cold", {}).get("capture_ms") is not None for detail in details):
        notes.append(
            "Capture: recording the graphs, with the calls before it and the weights that they keep sliced; in no "
            "other figure but the first call. With graphs a sample plans its steps and slices nothing."
        )
    if any(detail.get("throttled") for detail in details):
        notes.append(
            "Throttled: heat or a power brake held the device's clocks back when timing began or ended. Such times say "
            "little: measure again on a cool device."
        )
    return notes


def _timing_tag(row: Row) -> str:
    detail = row.detail("latency")
    tags = [tag_of(row), *(word for word in ("launch-bound", "throttled") if detail.get(word.replace("-", "_")))]
    return ", ".join(tag for tag in tags if tag)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _median(figures: dict[str, Any]) -> Quantity | None:
    if figures.get("median_ms") is None:
        return None
    return Quantity(
        value=figures["median_ms"],
        unit="ms",
        low=figures.get("low_ms"),
        high=figures.get("high_ms"),
        interval="order statistics of the median",
    )

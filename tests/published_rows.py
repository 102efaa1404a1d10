"""Rows of a report with counted and invented figures, beside the printed ones."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ditbench.harness.measure.count_cell import measure_flops
from ditbench.harness.store.records import CellSpec, Provenance, Quantity, Record
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import make_plan
from ditbench.report.row import Row
from ditbench.report.run_view import RunView

# s/image, speed-up, GFLOPs, FID: arXiv 2410.03456, table 8
TABLE_8 = {
    "s": ("0.65", "1.00", "6.07", "21.46"),
    "s-0.9": ("0.63", "1.03", "5.72", "21.06"),
    "s-0.8": ("0.56", "1.16", "4.94", "21.95"),
    "s-0.7": ("0.51", "1.27", "4.34", "23.01"),
    "s-0.5": ("0.42", "1.54", "3.16", "28.75"),
    "s-0.4": ("0.38", "1.71", "2.63", "36.21"),
    "s-0.3": ("0.32", "2.03", "1.96", "59.28"),
    "b": ("2.09", "1.00", "23.02", "9.07"),
    "b-0.9": ("1.97", "1.05", "21.28", "8.78"),
    "b-0.8": ("1.76", "1.18", "18.53", "8.79"),
    "b-0.7": ("1.57", "1.32", "16.28", "9.40"),
    "b-0.5": ("1.22", "1.70", "11.90", "12.92"),
    "b-0.4": ("1.06", "1.95", "9.71", "15.54"),
    "b-0.3": ("0.89", "2.33", "7.51", "23.34"),
    "xl": ("10.22", "1.00", "118.69", "2.27"),
    "xl-0.7": ("7.76", "1.32", "84.33", "2.12"),
    "xl-0.6": ("6.86", "1.49", "67.83", "2.18"),
    "xl-0.5": ("5.91", "1.73", "57.88", "2.07"),
    "xl-0.3": ("4.26", "2.40", "38.85", "3.36"),
}
DIT = {
    "s-2": "6.06",
    "s-4": "1.41",
    "s-8": "0.36",
    "b-2": "23.01",
    "b-4": "5.56",
    "b-8": "1.42",
    "l-2": "80.71",
    "l-4": "19.70",
    "l-8": "5.01",
    "xl-2": "118.64",
    "xl-4": "29.05",
    "xl-8": "7.39",
    "xl-2-512": "524.60",
}
PAPER_SUITES = ("dit-cost", "paper-dydit", "paper-flexidit")


@cache
def specs(suite: str) -> Mapping[str, CellSpec]:
    return {cell.spec.cell: cell.spec for cell in make_plan(load_suite(suite)).cells}


def record(spec: CellSpec, measurement: str, values: Mapping[str, Quantity], **fields: Any) -> Record:
    provenance = Provenance(
        command="ditbench run x", started="2026-01-01T00:00:00+00:00", seconds=1, seed=0, device="cpu",
        device_name="Some CPU", threads=1, versions={}, git=None, weights_sha256=None,
    )  # fmt: skip
    return Record(
        identity=f"{spec.cell}-{measurement}", suite="x", spec=spec, measurement=measurement,
        values=dict(values), provenance=provenance, **{"status": "ok", **fields},
    )  # fmt: skip


@cache
def counted(suite: str, cell: str) -> Record:
    torch.set_num_threads(1)
    result = measure_flops(specs(suite)[cell], prove=False)
    return record(specs(suite)[cell], "flops", result.values(), detail=result.detail())


def row_of(spec: CellSpec, *records: Record, **fields: Any) -> Row:
    return Row(spec.cell, spec, spec.measure, {each.measurement: each for each in records}, **fields)


def view_of(*rows: Row) -> RunView:
    return RunView(Path(), "x", "x", "", "", next((row.cell for row in rows if row.is_baseline), None), rows)


def counted_row(suite: str, cell: str) -> Row:
    return row_of(specs(suite)[cell], counted(suite, cell))

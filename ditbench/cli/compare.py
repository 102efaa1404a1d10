"""``compare``: two runs or two cells, with intervals and thresholds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ditbench.cli.compare_table import table
from ditbench.harness.compare.comparison import ALPHA, Compared, Comparison, compare
from ditbench.harness.compare.runs import Run, open_sides
from ditbench.harness.compare.thresholds import Judged, judge, parse_thresholds
from ditbench.harness.store.records import Record


def show_compare(a: str, b: str, fail_if: Sequence[str], as_json: bool, metrics: str | None = None) -> int:
    """Compare B with A, the reference, and print it. Returns the exit code: 0, or 1 if a threshold is crossed or cannot
    be judged.

    a, b      a run's folder, or FOLDER:CELL
    fail_if   thresholds: 'frechet>+5%', 'precision<-0.02'
    metrics   a glob: only the figures with such a name

    Raises InputError: no such run, cell or figure, a bad threshold, figures of two protocols.
    """
    comparison = compare(open_sides(a, b), metrics)
    judged = [judge(threshold, comparison) for threshold in parse_thresholds(fail_if, comparison)]
    code = int(any(each.failed for each in judged))
    if as_json:
        print(json.dumps(to_json(comparison, judged, code), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        print("\n".join(table(comparison, judged)))
    return code


def to_json(comparison: Comparison, judged: Sequence[Judged], code: int) -> dict[str, Any]:
    """Every number of a comparison, for ``--json``."""
    sides = comparison.sides
    return {
        "a": _run(sides.a),
        "b": _run(sides.b),
        "only_in_a": list(sides.only_a),
        "only_in_b": list(sides.only_b),
        "verdicts": {"method": "Holm", "alpha": ALPHA, "comparisons": comparison.family},
        "comparisons": [_compared(each) for each in comparison.compared],
        "thresholds": [_judged(each) for each in judged],
        "exit_code": code,
    }


def _run(run: Run) -> dict[str, Any]:
    return {
        "folder": str(run.folder),
        "suite": run.plan.get("suite"),
        "command": run.command,
        "baseline": run.plan.get("baseline"),
        "git": run.environment.get("git"),
    }


def _compared(each: Compared) -> dict[str, Any]:
    change, (mine, theirs) = each.change, each.figures
    record = each.a or each.b
    return {
        "cell_a": each.cell_a,
        "cell_b": each.cell_b,
        "metric": each.metric.name,
        "measurement": each.metric.measurement,
        "unit": next((figure.unit for figure in (mine, theirs) if figure is not None), None),
        "better": each.metric.better,
        "protocol": record.protocol if record else None,
        "a": _side(each, each.a),
        "b": _side(each, each.b),
        "change": "ratio" if each.metric.ratio else "difference",
        "value": change.value if change else None,
        "low": change.low if change else None,
        "high": change.high if change else None,
        "p": change.p if change else None,
        "p_holm": each.adjusted,
        "method": change.method if change else None,
        "verdict": each.verdict,
        "reason": each.reason or None,
    }


def _side(each: Compared, record: Record | None) -> dict[str, Any] | None:
    if record is None:
        return None
    figure, made = record.values[each.metric.name], record.provenance
    return {
        "value": figure.value,
        "low": figure.low,
        "high": figure.high,
        "interval": figure.interval,
        "identity": record.identity,
        "command": made.command,
        "git": made.git,
        "device_name": made.device_name,
    }


def _judged(each: Judged) -> dict[str, Any]:
    return {
        "threshold": each.threshold.text,
        "failed": each.failed,
        "cells": [
            {"cell": cell.cell, "state": cell.state, "change": cell.change, "reason": cell.reason or None}
            for cell in each.cells
        ],
    }

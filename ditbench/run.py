"""``run``, ``plan`` and ``report``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.run.runner import check_inputs, run, todo
from harness.store.store import RunStore
from harness.suite.load import load_suite
from harness.suite.plan import Plan, PlannedCell, make_plan
from methods.registry import samplers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def default_folder(plan: Plan) -> Path:
    """Where a suite runs when no folder is given."""
    return Path("runs") / plan.suite.suite


def run_suite(suite: str, out: Path | None, only: str | None, device: str | None, limit: int | None) -> int:
    """Run, report, summarise. Returns the exit code: 0, or 1 if a cell failed."""
    loaded = load_suite(suite)
    whole = make_plan(loaded, device=device, limit=limit)
    plan = make_plan(loaded, only=only, device=device, limit=limit) if only else whole
    folder = out or default_folder(plan)
    done = run(loaded, plan, whole, folder)
    report_folder(folder)
    print(f"{plan.suite.suite}: {done.ran - len(done.failures)} measured, {done.reused} reused", end="")
    if not done.failed_cells:
        print()
        return 0
    print(f", {len(done.failed_cells)} of {len(plan.cells)} cells failed:")
    for failure in done.failures:
        print(f"  {failure}")
    return 1


def report_folder(folder: Path) -> None:
    """Write the report of the run in ``folder`` and say where it is."""
    from report.document import write_report

    files = write_report(folder)
    if files.notice:
        print(files.notice, file=sys.stderr)
    print(f"report: {files.pdf or files.html}")


def show_plan(
    suite: str, out: Path | None, only: str | None, device: str | None, limit: int | None, as_json: bool
) -> None:
    """Cells, what is cached, and the multiply-accumulates of the whole suite's sampling."""
    plan = make_plan(load_suite(suite), only=only, device=device, limit=limit)
    folder = out or default_folder(plan)
    store = RunStore(folder)
    wanted = todo(plan, store)
    check_inputs(plan, wanted)
    missing: dict[str, list[str]] = {cell: [m.name for m in each] for cell, each in wanted.items()}
    costs = _costs(plan, store)
    if as_json:
        planned = plan.to_json()
        cells = [{**c, "missing": missing.get(c["name"], []), **costs[c["name"]]} for c in planned["cells"]]
        print(json.dumps({**planned, "folder": str(folder), "cells": cells}, indent=1))
        return
    _print_plan(plan, folder, missing, costs)


def _print_plan(
    plan: Plan, folder: Path, missing: Mapping[str, list[str]], costs: Mapping[str, Mapping[str, float]]
) -> None:
    rows = [("cell", "method", "sampling", "identity", "GMAC/image", "to run")]
    for cell in plan.cells:
        spec = cell.spec
        star = " *" if plan.baseline and plan.baseline.cell == spec.cell else ""
        guided = f" g{spec.guidance_scale:g}" if spec.guidance_scale != 1.0 else ""
        wanted = missing.get(spec.cell, [])
        rows.append(
            (
                spec.cell + star,
                spec.method,
                f"{spec.sampler} {spec.steps or 'adaptive'}{guided}",
                cell.measurements[0].identity[:8] if cell.measurements else "–",
                _shown_cost(costs[spec.cell]),
                "all" if len(wanted) == len(cell.measurements) else ", ".join(wanted) or "cached",
            )
        )
    print(f"{plan.suite.suite}: {len(plan.cells)} cells, folder {folder}")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        *words, gmacs, run = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        print("  ".join([*words, gmacs.strip().rjust(widths[4]), run]).rstrip())
    count = sum(map(len, missing.values()))
    total = sum(len(cell.measurements) for cell in plan.cells)
    sampling = sum(costs[name]["gmacs_sampling"] or 0.0 for name, wanted in missing.items() if "quality" in wanted)
    print(f"{count} of {total} measurements to run; {total - count} cached.")
    if sampling:
        print(f"Sampling for quality: {sampling:,.4g} GMAC.")
    if any(cost["upper_bound"] for cost in costs.values()):
        print("≤ routers open; what they leave on is counted in the run")
    if plan.baseline:
        print("* baseline; identity: of the first measurement, all of them with --json")


def _shown_cost(cost: Mapping[str, Any]) -> str:
    if cost["gmacs_image"] is None:
        return "by solver"
    return ("≤ " if cost["upper_bound"] else "") + f"{cost['gmacs_image']:,.4g}"


def _costs(plan: Plan, store: RunStore) -> dict[str, dict[str, Any]]:
    """GMACs of one image and of all images that a cell scores: from its record, else counted now; never timed.

    None where an adaptive solver chooses its evaluations and the cell was not counted yet.
    """
    costs: dict[str, dict[str, Any]] = {}
    known: dict[tuple[Any, ...], tuple[float | None, bool]] = {}
    for cell in plan.cells:
        spec = cell.spec
        key = (spec.method, repr(spec.config), spec.weights_sha256, spec.sampler, repr(spec.sampler_options),
               spec.steps, spec.guidance_scale != 1.0, spec.guidance_interval)  # fmt: skip
        if key not in known:
            known[key] = _gmacs_image(cell, store)
        samples = next((m.options["samples"] for m in cell.measurements if m.name == "quality"), 0)
        gmacs, bound = known[key]
        sampling = None if gmacs is None else gmacs * samples
        costs[spec.cell] = {"gmacs_image": gmacs, "gmacs_sampling": sampling, "upper_bound": bound}
    return costs


def _gmacs_image(cell: PlannedCell, store: RunStore) -> tuple[float | None, bool]:
    """And whether it is an upper bound only: what trained routers leave is known when the cell was counted."""
    identity = next((m.identity for m in cell.measurements if m.name == "flops"), None)
    if identity is not None and store.has(identity):
        record = store.load(identity)
        assert record is not None
        return record.values["gmacs_image"].value, False
    if samplers()[cell.spec.sampler].adaptive:
        return None, False
    from harness.measure.count_cell import measure_flops

    result = measure_flops(cell.spec)
    learned = result.activity is not None and not cell.spec.imposed_activity and cell.spec.weights is not None
    return result.gmacs_image, learned

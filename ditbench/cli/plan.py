"""``plan``: what a run will do, what is cached, and about what the rest costs: compute, time, disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ditbench.cli.plan_table import print_plan
from ditbench.cli.run import default_folder
from ditbench.harness.forecast.forecast import Forecast, estimate
from ditbench.harness.forecast.workload import wanted_options
from ditbench.harness.run.runner import check_inputs, todo
from ditbench.harness.store.store import RunStore
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import Plan, make_plan
from ditbench.harness.suite.refusal import refuse_waiting


def show_plan(
    suite: str,
    out: Path | None,
    only: str | None,
    device: str | None,
    limit: int | None,
    as_json: bool,
    timing: bool = True,
) -> None:
    """Cells, what is cached or waits, and what the rest costs. ``timing``: calibrate, a few seconds a kind of work."""
    plan = make_plan(load_suite(suite), only=only, device=device, limit=limit)
    refuse_waiting(plan, expected=False)
    folder = out or default_folder(plan)
    store = RunStore(folder)
    missing = todo(plan, store)
    absent = _devices_absent(plan) if missing or any(cell.waiting for cell in plan.cells) else set()
    here = {cell.spec.cell for cell in plan.cells if cell.spec.device not in absent}
    check_inputs(plan, {name: each for name, each in missing.items() if name in here})
    names: dict[str, list[str]] = {cell: [m.name for m in each] for cell, each in missing.items()}
    wanted = {cell.spec.cell: wanted_options(cell, set(names.get(cell.spec.cell, []))) for cell in plan.cells}
    forecast = estimate(plan, store, wanted, timing, absent)
    if as_json:
        print(json.dumps(_as_json(plan, folder, names, forecast), indent=1))
        return
    cached = sum(store.has(each.identity) for cell in plan.cells for each in cell.measurements)
    print_plan(plan, folder, names, cached, forecast, absent)


def _devices_absent(plan: Plan) -> set[str]:
    if all(cell.spec.device == "cpu" for cell in plan.cells):
        return set()
    import torch

    return set() if torch.cuda.is_available() else {"cuda"}


def _as_json(plan: Plan, folder: Path, missing: Mapping[str, list[str]], forecast: Forecast) -> dict[str, Any]:
    """plan.json with what is missing and the forecast; numbers are unrounded and named with their units."""
    planned = plan.to_json()
    for cell in planned["cells"]:
        cost = forecast.cells[cell["name"]]
        cell |= {
            "missing": missing.get(cell["name"], []),
            "gmacs_image": cost.count.gmacs_image,
            "gmacs_sampling": cost.gmacs_sampling,
            "upper_bound": cost.count.bound,
            "to_make": {key: value for key, value in asdict(cost.work).items() if key != "disk"},
            "disk_bytes": cost.work.disk,
            "estimated_seconds": cost.seconds,
            "not_timed": cost.untimed,
        }
    return {
        **planned,
        "folder": str(folder),
        "totals": {
            "gmacs_sampling": sum(cost.gmacs_sampling or 0.0 for cost in forecast.cells.values()),
            "estimated_seconds": forecast.seconds(),
            "disk_bytes": forecast.disk_bytes,
            "free_bytes": forecast.free_bytes,
        },
        "timed": forecast.timed,
    }

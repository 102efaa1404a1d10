"""``plan``: what a run will do, what is cached, and about what the rest costs: compute, time, disk."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ditbench.cli.run import default_folder
from ditbench.harness.measure.workload import Workload, picture_shape, shape_of, wanted_options, workloads
from ditbench.harness.run.runner import check_inputs, todo
from ditbench.harness.store.store import RunStore
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import BESIDE_BASELINE, Plan, PlannedCell, make_plan
from ditbench.harness.suite.waiting import refuse_waiting
from ditbench.methods.registry import samplers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ditbench.harness.measure.forecast import Calibration

NOT_TIMED = ("agreement", "training")
"""Measurements that do more than sample and are timed nowhere else: their time is left out, and said to be."""


@dataclass(frozen=True)
class Count:
    """GMACs of one image; None where an adaptive solver decides. ``bound``: an upper bound, routers counted as open."""

    gmacs_image: float | None
    bound: bool = False


@dataclass
class CellCost:
    """What the rest of a cell costs. ``seconds`` by kind; a kind that could not be timed is in ``untimed``.

    gmacs_sampling  of all images that are still to be made; None as in ``Count``
    """

    count: Count
    work: Workload
    gmacs_sampling: float | None
    seconds: dict[str, float] = field(default_factory=dict)
    untimed: list[str] = field(default_factory=list)

    @property
    def total_s(self) -> float:
        return sum(self.seconds.values())


@dataclass
class Forecast:
    """All cells' costs, what was timed for them, and the disk under the run's folder."""

    cells: dict[str, CellCost]
    timed: list[str]
    free_bytes: int

    def seconds(self, names: set[str] | None = None) -> float:
        return sum(cost.total_s for name, cost in self.cells.items() if names is None or name in names)

    @property
    def disk_bytes(self) -> int:
        return sum(cost.work.bytes for cost in self.cells.values())


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
    from ditbench.cli.plan_table import print_plan

    cached = sum(store.has(each.identity) for cell in plan.cells for each in cell.measurements)
    print_plan(plan, folder, names, cached, forecast, absent)


def _devices_absent(plan: Plan) -> set[str]:
    if all(cell.spec.device == "cpu" for cell in plan.cells):
        return set()
    import torch

    return set() if torch.cuda.is_available() else {"cuda"}


def estimate(
    plan: Plan,
    store: RunStore,
    wanted: Mapping[str, Mapping[str, Mapping[str, Any]]],
    timing: bool,
    absent: set[str],
) -> Forecast:
    """Costs of what ``wanted`` (cell -> measurement -> options) asks for. ``absent``: devices that cannot be timed."""
    work = workloads(plan, store, wanted)
    counts = _counts(plan, store)
    cells = {}
    for cell in plan.cells:
        name = cell.spec.cell
        images = work[name].images + _watched(wanted[name], counts[name])
        gmacs = counts[name].gmacs_image
        cells[name] = CellCost(counts[name], work[name], None if gmacs is None else gmacs * images)
    found = Forecast(cells, [], _free(store.folder))
    if timing and any(wanted.values()):
        from ditbench.harness.measure.forecast import Calibration

        calibration = Calibration()
        for cell in plan.cells:
            if wanted[cell.spec.cell] and cell.spec.device not in absent:
                _time(cell, plan, cells, wanted[cell.spec.cell], calibration, found.timed)
    return found


def _watched(options: Mapping[str, Mapping[str, Any]], count: Count) -> int:
    """Images that counting makes for itself: where routers decide, it watches samples."""
    return int(options["flops"]["samples"]) if "flops" in options and count.bound else 0


def _time(
    cell: PlannedCell,
    plan: Plan,
    cells: Mapping[str, CellCost],
    options: Mapping[str, Mapping[str, Any]],
    calibration: Calibration,
    timed: list[str],
) -> None:
    """Fill in a cell's seconds; note in ``timed`` what was timed for them, each once."""
    from ditbench.harness.measure.forecast import clock_seconds

    spec, cost = cell.spec, cells[cell.spec.cell]
    work, gmacs = cost.work, cost.count.gmacs_image

    def note(words: str) -> None:
        if words not in timed:
            timed.append(words)

    loop_s = 0.0
    if gmacs is None:
        cost.untimed.append("sampling")
    elif options.keys() - {"flops", "decode"} or cost.gmacs_sampling:
        rate = calibration.sampling(spec, plan.suite.quality.shard)
        note(f"{rate.timed}: {rate.gmacs_per_s:,.3g} GMAC/s")
        loop_s = gmacs / rate.gmacs_per_s
        cost.seconds["sampling"] = (cost.gmacs_sampling or 0.0) / rate.gmacs_per_s
    if spec.decoder is not None and (work.pictures or "decode" in options):
        decoding = calibration.decoding(spec.decoder, shape_of(spec)[1], spec.device, spec.threads)
        note(f"{decoding.timed}: {decoding.seconds:.3g} s an image")
        cost.seconds["decoding"] = decoding.seconds * work.pictures
    if work.features:
        protocol = str(options["quality"]["protocol"])
        each = calibration.features(protocol, picture_shape(spec), spec.device, plan.suite.quality.shard, spec.threads)
        if each is None:
            cost.untimed.append("features")
        else:
            note(f"{each.timed}: {each.seconds:.3g} s an image")
            cost.seconds["features"] = each.seconds * work.features
    other = plan.baseline is not None and plan.baseline.cell != spec.cell
    measuring = 0.0
    for name, chosen in options.items():
        if name in NOT_TIMED:
            cost.untimed.append(name)
        elif name not in ("flops", "quality", "paired"):
            loop = loop_s * chosen.get("batch", 1)
            step = loop / max(1, spec.steps)
            beside = other and name in BESIDE_BASELINE
            measuring += clock_seconds(name, chosen, step, loop, beside, spec.device)
    if measuring:
        cost.seconds["measuring"] = measuring


def _free(folder: Path) -> int:
    here = folder.absolute()
    while not here.exists():
        here = here.parent
    return shutil.disk_usage(here).free


def _counts(plan: Plan, store: RunStore) -> dict[str, Count]:
    """From each cell's record, else counted now; cells of the same work are counted once."""
    counts: dict[str, Count] = {}
    known: dict[tuple[Any, ...], Count] = {}
    for cell in plan.cells:
        spec = cell.spec
        key = (spec.method, repr(spec.config), repr(spec.modifiers), spec.weights, spec.weights_sha256, spec.sampler,
               repr(spec.sampler_options), spec.steps, spec.guidance_scale != 1.0, spec.guidance_interval)  # fmt: skip
        if key not in known:
            known[key] = _count(cell, store)
        counts[spec.cell] = known[key]
    return counts


def _count(cell: PlannedCell, store: RunStore) -> Count:
    """What trained routers leave is known only when the cell was counted; before, they count as open."""
    identity = next((m.identity for m in cell.measurements if m.name == "flops"), None)
    if identity is not None and store.has(identity):
        record = store.load(identity)
        assert record is not None
        return Count(record.values["gmacs_image"].value)
    if samplers()[cell.spec.sampler].adaptive:
        return Count(None)
    from ditbench.harness.measure.count_cell import measure_flops

    result = measure_flops(cell.spec, prove=False)
    return Count(result.gmacs_image, result.routers_open and cell.spec.weights is not None)


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

"""About what the rest of a plan costs: compute, time, disk."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ditbench.harness.forecast.workload import Workload, picture_shape, space_of, workloads
from ditbench.harness.measurements.measurement import Pace
from ditbench.harness.measurements.registry import measurements
from ditbench.harness.store.store import RunStore
from ditbench.harness.suite.plan import Plan, PlannedCell
from ditbench.methods.registry import samplers

if TYPE_CHECKING:
    from ditbench.harness.forecast.calibration import Calibration


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
        from ditbench.harness.forecast.calibration import Calibration

        calibration = Calibration()
        for cell in plan.cells:
            if wanted[cell.spec.cell] and cell.spec.device not in absent:
                _time(cell, plan, cells, wanted[cell.spec.cell], calibration, found.timed)
    return found


def _watched(options: Mapping[str, Mapping[str, Any]], count: Count) -> int:
    """Images that counting makes for itself: where routers decide, it watches samples."""
    return sum(measurements()[name].watched(chosen, count.bound) for name, chosen in options.items())


def _time(
    cell: PlannedCell,
    plan: Plan,
    cells: Mapping[str, CellCost],
    options: Mapping[str, Mapping[str, Any]],
    calibration: Calibration,
    timed: list[str],
) -> None:
    """Fill in a cell's seconds; note in ``timed`` what was timed for them, each once."""
    spec, cost = cell.spec, cells[cell.spec.cell]
    work, gmacs = cost.work, cost.count.gmacs_image

    def note(words: str) -> None:
        if words not in timed:
            timed.append(words)

    shard = int(plan.suite.options("quality").model_dump()["shard"])
    loop_s = 0.0
    if gmacs is None:
        cost.untimed.append("sampling")
    elif cost.gmacs_sampling or any({"weights", "clock"} <= measurements()[name].needs for name in options):
        rate = calibration.sampling(spec, shard)
        note(f"{rate.timed}: {rate.gmacs_per_s:,.3g} GMAC/s")
        loop_s = gmacs / rate.gmacs_per_s
        cost.seconds["sampling"] = (cost.gmacs_sampling or 0.0) / rate.gmacs_per_s
    if spec.decoder is not None and (work.pictures or "decode" in options):
        decoding = calibration.decoding(spec.decoder, max(space_of(spec).size), spec.device, spec.threads)
        note(f"{decoding.timed}: {decoding.seconds:.3g} s an image")
        cost.seconds["decoding"] = decoding.seconds * work.pictures
    if work.features:
        protocol = str(options["quality"]["protocol"])
        each = calibration.features(protocol, picture_shape(spec), spec.device, shard, spec.threads)
        if each is None:
            cost.untimed.append("features")
        else:
            note(f"{each.timed}: {each.seconds:.3g} s an image")
            cost.seconds["features"] = each.seconds * work.features
    other = plan.baseline is not None and plan.baseline.cell != spec.cell
    measuring = 0.0
    for name, chosen in options.items():
        kind, loop = measurements()[name], loop_s * chosen.get("batch", 1)
        pace = Pace(loop / max(1, spec.steps), loop, other and "baseline" in kind.needs, spec.device)
        seconds = kind.seconds(chosen, pace)
        if seconds is None:
            cost.untimed.append(name)
        measuring += seconds or 0.0
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

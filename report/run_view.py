"""A run as the report sees it: the plan's cells joined with records, with ratios and fronts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ditbench.harness.errors import InputError, Position
from ditbench.harness.stats.pareto import Point, pareto_front
from ditbench.harness.store.records import CellSpec, Quantity, Record
from ditbench.harness.store.store import RunStore
from ditbench.report.row import Row


@dataclass(frozen=True)
class RunView:
    """A whole run. ``protocol`` is the quality protocol of all rows, ``date`` the newest record's start."""

    folder: Path
    suite: str
    title: str
    description: str
    command: str
    baseline: str | None
    rows: tuple[Row, ...]
    environment: Mapping[str, Any] = field(default_factory=dict)
    protocol: str | None = None
    date: datetime | None = None

    @property
    def time_axis(self) -> str:
        """Which time the plots and fronts use.

        'time_ratio' where every timed cell was timed in turns with the baseline: a machine's speed drifts between
        cells, and only the ratio is free of that. Otherwise 'image_ms'.
        """
        return _time_axis(self.rows)

    def having(self, measurement: str, name: str) -> tuple[Row, ...]:
        """Rows that have this figure."""
        return tuple(row for row in self.rows if row.quantity(measurement, name) is not None)

    @property
    def records(self) -> tuple[Record, ...]:
        """Every record of the run, in the plan's order."""
        return tuple(record for row in self.rows for record in row.records.values())


def load_run(folder: Path) -> RunView:
    """Read a run's folder.

    Raises InputError if it is not a run, if a stored file is unreadable, or if its quality figures come from
    more than one protocol: those cannot be compared.
    """
    store = RunStore(folder)
    plan, cells = store.plan(), store.cells()
    baseline: str | None = plan.get("baseline")
    rows = [_row(entry, cells[entry["name"]], baseline, folder) for entry in plan["cells"]]
    rows = _with_fronts(_with_ratios(rows, baseline))
    started = [record.provenance.started for row in rows for record in row.records.values()]
    return RunView(
        folder=folder,
        suite=plan.get("suite", ""),
        title=plan.get("title") or plan.get("suite", ""),
        description=" ".join((plan.get("description") or "").split()),
        command=plan.get("command") or "",
        baseline=baseline,
        rows=tuple(rows),
        environment=store.environment(),
        protocol=_one_protocol(rows),
        date=max(map(_moment, started), default=None),
    )


def _row(entry: dict[str, Any], records: dict[str, Record], baseline: str | None, folder: Path) -> Row:
    try:
        stored = entry.get("spec") or next(iter(records.values())).spec
        spec = CellSpec.model_validate(stored)
    except (ValidationError, StopIteration):
        message = f"cell {entry['name']!r} has no readable spec (run the suite again to renew the plan)"
        raise InputError(message, Position(folder / "plan.json")) from None
    waiting = dict(entry.get("waiting", {}))
    planned = (*entry["measurements"], *waiting)
    return Row(entry["name"], spec, planned, records, is_baseline=entry["name"] == baseline, waiting=waiting)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _one_protocol(rows: list[Row]) -> str | None:
    seen: dict[str, str] = {}
    for row in rows:
        record = row.records.get("quality")
        if record is not None and record.status == "ok" and record.protocol and not row.spec.cost_only:
            seen.setdefault(record.protocol, row.cell)
    if len(seen) > 1:
        named = " and ".join(f"{protocol} (cell {cell})" for protocol, cell in seen.items())
        raise InputError(f"quality was measured with different protocols that cannot be compared: {named}")
    return next(iter(seen), None)


def _with_ratios(rows: list[Row], baseline: str | None) -> list[Row]:
    base = next((row for row in rows if row.cell == baseline), None)
    if base is None:
        return rows
    return [_against(row, base) for row in rows]


def _against(row: Row, base: Row) -> Row:
    gmacs, base_gmacs = row.value("flops", "gmacs_image"), base.value("flops", "gmacs_image")
    ratio = gmacs / base_gmacs if gmacs is not None and base_gmacs else None
    speedup = row.quantity("latency", "speedup")
    latency = row.detail("latency")
    if row.is_baseline:
        own = row.quantity("latency", "latency_ms") or row.quantity("latency", "image_ms")
        speedup = Quantity(value=1.0, unit="1", low=None, high=None, interval="the baseline itself") if own else None
    elif latency.get("baseline", base.cell) != base.cell:
        # A ratio against another cell would stand in a column that promises this one.
        speedup = None
    # an adaptive solver's work depends on the batch: counted for one size, timed at another
    fixed = row.spec.steps and base.spec.steps
    realised = speedup.value * ratio if fixed and speedup is not None and ratio is not None else None
    return replace(row, flops_ratio=ratio, speedup=speedup, realised=realised)


def _with_fronts(rows: list[Row]) -> list[Row]:
    gmacs = _membership(rows, "flops", "gmacs_image", by_device=False)
    time = _membership(rows, "latency", _time_axis(rows), by_device=True)
    return [replace(row, on_front_gmacs=gmacs.get(row.cell), on_front_time=time.get(row.cell)) for row in rows]


def _time_axis(rows: Iterable[Row]) -> str:
    timed = [row for row in rows if row.value("latency", "image_ms") is not None]
    return "time_ratio" if timed and all(row.time_ratio is not None for row in timed) else "image_ms"


def _membership(rows: list[Row], measurement: str, name: str, by_device: bool) -> dict[str, bool]:
    """cell -> on the front. Times of two devices are not compared: each device has its own front."""
    clouds: dict[str, list[Point]] = {}
    for row in rows:
        x, y = row.value(measurement, name), row.value("quality", "frechet")
        if x is not None and y is not None:
            clouds.setdefault(row.device_name if by_device else "", []).append(Point(row.cell, x, y))
    placed: dict[str, bool] = {}
    for cloud in clouds.values():
        front = pareto_front(cloud)
        placed |= {point.name: True for point in front.members}
        placed |= {point.name: False for point in front.dominated}
    return placed

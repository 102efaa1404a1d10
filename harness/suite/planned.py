"""The measurements of one cell: options resolved, each with its identity, or with the file that it waits for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ditbench.harness.errors import MissingFileError
from ditbench.harness.measurements.measurement import Address, Measurement, Planning
from ditbench.harness.measurements.registry import measurements
from ditbench.harness.store.records import CellSpec
from ditbench.harness.suite.load import LoadedSuite
from ditbench.harness.suite.positions import Node
from ditbench.harness.suite.waiting import Waiting, Wanting, grouped

Missing = Mapping[str, MissingFileError]
"""'weights', 'decoder' -> why a cell has none yet."""


@dataclass(frozen=True)
class PlannedMeasurement:
    """One measurement of a cell. ``options`` are resolved; ``identity`` is the address of its record."""

    name: str
    identity: str
    options: dict[str, Any]

    @property
    def kind(self) -> Measurement[Any]:
        return measurements()[self.name]


@dataclass(frozen=True)
class PlannedCell:
    """One cell and its measurements, in the order of running; those that wait for a file stand apart."""

    spec: CellSpec
    measurements: tuple[PlannedMeasurement, ...]
    waiting: tuple[Waiting, ...] = ()


def plan_cell(
    loaded: LoadedSuite,
    spec: CellSpec,
    baseline: CellSpec | None,
    limit: int | None,
    found: Mapping[str, Any],
    node: Node,
    missing: Mapping[str, Missing],
) -> PlannedCell:
    """What a cell measures, with resolved options, and what of it waits.

    found    the fingerprint of the machine
    node     the cell's merged fields with their places
    missing  cell -> its files that are not there, the baseline's too

    Raises InputError: a protocol or a reference that nobody knows, a pair that is none.
    """
    planning = Planning(
        spec=spec,
        baseline=baseline,
        options={each.name: _options(loaded, each, spec) for each in measurements()},
        limit=limit,
        here=node.nearest(("measure",)).position,
        place=lambda *path: loaded.position_of(path),
    )
    planned: list[PlannedMeasurement] = []
    waiting: list[Wanting] = []
    for name in spec.measure:
        kind = measurements()[name]
        if "comparison" in kind.needs and baseline is not None and spec.cell == baseline.cell:
            continue
        resolved = kind.resolve(planning)
        waits = _waits(kind, resolved.options, spec, baseline, missing)
        waits += [Wanting(name, resolved.options, error, expected=True) for error in resolved.missing]
        if waits:
            waiting += waits
            continue
        address = Address(spec, resolved.options, found, baseline, resolved.protocol)
        planned.append(PlannedMeasurement(name, kind.address(address), resolved.options))
    return PlannedCell(spec, tuple(planned), grouped(waiting))


def _options(loaded: LoadedSuite, kind: Measurement[Any], spec: CellSpec) -> dict[str, Any]:
    options = loaded.suite.options(kind.name).model_dump()
    return {**options, "batch": spec.batch} if "batch" in options and spec.batch is not None else options


def _waits(
    kind: Measurement[Any],
    options: dict[str, Any],
    spec: CellSpec,
    baseline: CellSpec | None,
    missing: Mapping[str, Missing],
) -> list[Wanting]:
    """Files that a measurement's identity would hold and that are not there, its own and its baseline's."""
    needs = kind.needs_of(options)
    fields = [field for field in ("weights", "decoder") if field in needs]
    cells = [spec] if baseline is None or "baseline" not in needs else [spec, baseline]
    return [
        Wanting(kind.name, options, missing[cell.cell][field], _of_asset(cell, field))
        for cell in cells
        for field in fields
        if field in missing[cell.cell]
    ]


def _of_asset(spec: CellSpec, field: str) -> bool:
    named = spec.weights if field == "weights" else spec.decoder and spec.decoder.weights
    return str(named).startswith("asset:")

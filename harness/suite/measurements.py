"""The measurements of one cell: options resolved, each with its identity, or with the file that it waits for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ditbench.harness.errors import InputError, MissingFileError
from ditbench.harness.store.records import CellSpec
from ditbench.harness.suite.identity import measurement_identity
from ditbench.harness.suite.load import LoadedSuite
from ditbench.harness.suite.positions import Node
from ditbench.harness.suite.schema import MEASUREMENTS, Measurement
from ditbench.harness.suite.waiting import Need, Waiting, grouped
from ditbench.methods.registry import facts_of

BESIDE_BASELINE = ("latency", "training", "paired")

Missing = Mapping[str, MissingFileError]
"""'weights', 'decoder' -> why a cell has none yet."""


@dataclass(frozen=True)
class PlannedMeasurement:
    """One measurement of a cell. ``options`` are resolved; ``identity`` is the address of its record."""

    name: Measurement
    identity: str
    options: dict[str, Any]


@dataclass(frozen=True)
class PlannedCell:
    """One cell and its measurements, in the order of ``MEASUREMENTS``; those that wait for a file stand apart."""

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
    planned: list[PlannedMeasurement] = []
    waiting: list[Need] = []
    for name in MEASUREMENTS:
        if name not in spec.measure:
            continue
        if name == "paired" and baseline is not None and spec.cell == baseline.cell:
            continue
        if name == "paired":
            _check_pair(spec, baseline, node)
        options: dict[str, Any] = getattr(loaded.suite, name).model_dump()
        if "batch" in options and spec.batch is not None:
            options["batch"] = spec.batch
        if name == "decode":
            options["side"] = latent_side(spec)
        if name in ("quality", "paired"):
            options["samples"] = min(loaded.suite.quality.samples, limit or loaded.suite.quality.samples)
        if name == "paired":
            options["shard"] = loaded.suite.quality.shard
        waits = _waits(name, options, spec, baseline, missing)
        protocol = None
        try:
            if name == "quality":
                protocol = _protocol(loaded)
            if name == "paired":
                options["lpips_sha256"] = _lpips_digest(loaded)
        except MissingFileError as error:
            waits += [(name, options, each, True) for each in _all_missing(loaded, name, error)]
        if waits:
            waiting += waits
            continue
        identity = measurement_identity(name, spec, options, fingerprint=found, baseline=baseline, protocol=protocol)
        planned.append(PlannedMeasurement(name, identity, options))
    return PlannedCell(spec, tuple(planned), grouped(waiting))


def _waits(
    name: Measurement,
    options: Mapping[str, Any],
    spec: CellSpec,
    baseline: CellSpec | None,
    missing: Mapping[str, Missing],
) -> list[Need]:
    """Files that a measurement's identity would hold and that are not there, its own and its baseline's."""
    decodes = name in ("decode", "quality", "paired") or "image" in options.get("levels", ())
    fields = [*(("weights",) if name != "decode" else ()), *(("decoder",) if decodes else ())]
    cells = [spec] if baseline is None or name not in BESIDE_BASELINE else [spec, baseline]
    return [
        (name, options, missing[cell.cell][field], _of_asset(cell, field))
        for cell in cells
        for field in fields
        if field in missing[cell.cell]
    ]


def _of_asset(spec: CellSpec, field: str) -> bool:
    named = spec.weights if field == "weights" else spec.decoder and spec.decoder.weights
    return str(named).startswith("asset:")


def _protocol(loaded: LoadedSuite) -> str:
    from ditbench.harness.quality.protocols import protocol  # only a suite that measures quality needs it

    quality = loaded.suite.quality
    try:
        return protocol(quality.protocol, quality.reference).id
    except InputError as error:
        if error.position is not None:  # the fault is in the user's file of assets
            raise
        field = "reference" if "reference" in error.message and quality.reference else "protocol"
        raise type(error)(error.message, loaded.position_of(("quality", field))) from None


def _all_missing(loaded: LoadedSuite, name: Measurement, first: MissingFileError) -> list[MissingFileError]:
    """What a protocol lacks: it tells of its reference only once its extractor is there."""
    from ditbench.harness.quality.protocols import reference_entry

    quality, found = loaded.suite.quality, [first]
    if name == "quality":
        try:
            reference_entry(quality.protocol, quality.reference)
        except InputError as error:
            placed = type(error)(error.message, error.position or loaded.position_of(("quality", "reference")))
            if not isinstance(placed, MissingFileError):
                raise placed from None
            found += [placed] if placed.message != first.message else []
    return found


def _check_pair(spec: CellSpec, baseline: CellSpec | None, node: Node) -> None:
    """A pair is made of the same noise and the same label: what else differs is what is compared."""
    position = node.nearest(("measure",)).position
    if baseline is None:
        raise InputError("paired figures compare with the baseline's samples: the suite names no baseline", position)
    for name in ("seed", "dataset"):
        ours, theirs = getattr(spec, name), getattr(baseline, name)
        if ours != theirs:
            raise InputError(
                f"paired figures need the {name} of the baseline ({theirs}), and {spec.cell} has {ours}", position
            )


def _lpips_digest(loaded: LoadedSuite) -> str | None:
    net = loaded.suite.paired.lpips
    if net is None:
        return None
    from ditbench.harness.assets import digest_of, require
    from ditbench.harness.quality.protocols import LPIPS_ASSETS

    try:
        return digest_of(require(LPIPS_ASSETS[net], f"paired LPIPS ({net})"))
    except InputError as error:
        raise type(error)(error.message, error.position or loaded.position_of(("paired", "lpips"))) from None


def latent_side(spec: CellSpec) -> int:
    """Side of a cell's samples, the longer one."""
    return max(facts_of(spec.method, spec.config).space.size)

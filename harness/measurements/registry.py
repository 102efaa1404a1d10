"""All measurements by name, in the order in which a cell's process makes them. Never imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from ditbench.harness.measurements.agreement import Agreement
from ditbench.harness.measurements.decode import Decode
from ditbench.harness.measurements.energy import Energy
from ditbench.harness.measurements.flops import Flops
from ditbench.harness.measurements.kernels import Kernels
from ditbench.harness.measurements.latency import Latency
from ditbench.harness.measurements.measurement import Address, Measurement
from ditbench.harness.measurements.memory import Memory
from ditbench.harness.measurements.paired import Paired
from ditbench.harness.measurements.quality import Quality
from ditbench.harness.measurements.training import Training
from ditbench.harness.store.records import CellSpec


class Measurements:
    """Names -> measurements, in order of registration."""

    def __init__(self) -> None:
        self._known: dict[str, Measurement[Any]] = {}

    def add(self, measurement: Measurement[Any]) -> None:
        """Raises ValueError when the name is taken."""
        if measurement.name in self._known:
            raise ValueError(f"measurement {measurement.name!r} is registered twice")
        self._known[measurement.name] = measurement

    def __getitem__(self, name: str) -> Measurement[Any]:
        return self._known[name]

    def __iter__(self) -> Iterator[Measurement[Any]]:
        return iter(self._known.values())

    def names(self) -> list[str]:
        return [*self._known]


@cache
def measurements() -> Measurements:
    """Counting first, because it is sure to end and does not touch the cell's model; then the clock, so that loading,
    compiling and the first call are cold."""
    registry = Measurements()
    registry.add(Flops())
    registry.add(Latency())
    registry.add(Kernels())
    registry.add(Memory())
    registry.add(Energy())
    registry.add(Decode())
    registry.add(Training())
    registry.add(Agreement())
    registry.add(Quality())
    registry.add(Paired())
    return registry


def measurement_identity(
    name: str,
    spec: CellSpec,
    options: Mapping[str, Any],
    *,
    fingerprint: Mapping[str, Any],
    baseline: CellSpec | None = None,
    protocol: str | None = None,
) -> str:
    """The address of one measurement on one cell; see ``Address``."""
    return measurements()[name].address(Address(spec, options, fingerprint, baseline, protocol))

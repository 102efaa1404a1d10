"""``energy``: joules of an image, by the device's own counter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ditbench.harness.measure.options import EnergyOptions
from ditbench.harness.measurements.bench import Finding, Turn
from ditbench.harness.measurements.measurement import Measurement, Pace


class Energy(Measurement[EnergyOptions]):
    name = "energy"
    summary = "energy an image and mean power, by the device's own counter"
    options = EnergyOptions
    needs = frozenset({"weights", "clock"})

    def run(self, turn: Turn) -> Finding:
        from ditbench.harness.measure.energy import measure_energy

        result = measure_energy(turn.bench.cell(), turn.options(EnergyOptions))
        return Finding(result.values, result.detail)

    def seconds(self, options: Mapping[str, Any], pace: Pace) -> float | None:
        return float(options["idle_s"] + max(options["window_s"], pace.loop_s))

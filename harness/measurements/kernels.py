"""``kernels``: where the time of a step goes, by operator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ditbench.harness.measure.options import KernelsOptions
from ditbench.harness.measurements.bench import Finding, Turn
from ditbench.harness.measurements.measurement import Measurement, Pace


class Kernels(Measurement[KernelsOptions]):
    name = "kernels"
    version = 3
    summary = "time by operator class and the gaps between operators"
    options = KernelsOptions
    needs = frozenset({"weights", "clock"})
    preload = ("ditbench.harness.measure.kernels",)

    def run(self, turn: Turn) -> Finding:
        from ditbench.harness.measure.kernels import measure_kernels

        result = measure_kernels(turn.bench.cell(), turn.options(KernelsOptions))
        return Finding(result.values, result.detail)

    def seconds(self, options: Mapping[str, Any], pace: Pace) -> float | None:
        return float((options["steps"] + 4) * pace.step_s)

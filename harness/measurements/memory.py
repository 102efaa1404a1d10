"""``memory``: the most that a denoiser call's tensors hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ditbench.harness.measure.options import MemoryOptions
from ditbench.harness.measurements.bench import Finding, Turn
from ditbench.harness.measurements.measurement import Measurement, Pace


class Memory(Measurement[MemoryOptions]):
    name = "memory"
    version = 2
    summary = "peak tensor memory of a denoiser call"
    options = MemoryOptions
    needs = frozenset({"weights", "clock"})
    preload = ("ditbench.harness.measure.memory",)

    def run(self, turn: Turn) -> Finding:
        from ditbench.harness.measure.memory import measure_memory

        result = measure_memory(turn.bench.cell(), turn.options(MemoryOptions))
        return Finding(result.values, result.detail)

    def seconds(self, options: Mapping[str, Any], pace: Pace) -> float | None:
        return 20 * pace.step_s

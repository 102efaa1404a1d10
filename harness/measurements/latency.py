"""``latency``: time of a step, of a loop and of a picture, in turns with the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ditbench.harness.errors import InputError
from ditbench.harness.measure.options import LatencyOptions
from ditbench.harness.measurements.bench import Finding, Turn
from ditbench.harness.measurements.measurement import Asked, Measurement, Need, Pace, seconds_in_turns


class Latency(Measurement[LatencyOptions]):
    name = "latency"
    version = 4
    summary = "milliseconds of a step and of the whole loop, in turns with the baseline"
    options = LatencyOptions
    needs = frozenset({"weights", "baseline", "clock"})
    preload = ("ditbench.harness.measure.compare_times",)

    def needs_of(self, options: Mapping[str, Any]) -> frozenset[Need]:
        return self.needs | {"decoder"} if "image" in options.get("levels", ()) else self.needs

    def check(self, asked: Asked[LatencyOptions]) -> None:
        super().check(asked)
        if "image" in asked.options.levels and not asked.decodes:
            raise InputError(
                "latency level image decodes, and the cell has no decoder: give it one (decoder: {} has random "
                "weights), or take image out of latency.levels",
                asked.here,
            )

    def run(self, turn: Turn) -> Finding:
        from ditbench.harness.measure.compare_times import measure_latency

        options, bench = turn.options(LatencyOptions), turn.bench
        bound, baseline = bench.cell(), bench.baseline()
        decoders = None
        if "image" in options.levels and turn.spec.decoder is not None:
            decoders = bench.decoder(), None if baseline is None else bench.baseline_decoder()
        result = measure_latency(bound, baseline, options, bench.load_ms, decoders)
        return Finding(result.values, result.detail)

    def seconds(self, options: Mapping[str, Any], pace: Pace) -> float | None:
        levels = [pace.step_s if level == "step" else pace.loop_s for level in options["levels"]]
        return seconds_in_turns(levels, options, pace)

"""``flops``: multiply-accumulates of a step and of an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ditbench.harness.measure.options import FlopsOptions
from ditbench.harness.measurements.bench import Finding, Turn
from ditbench.harness.measurements.measurement import Address, Measurement, Pace
from ditbench.harness.store.identity import Payload, work


class Flops(Measurement[FlopsOptions]):
    name = "flops"
    version = 2
    summary = "multiply-accumulates by operator, of a step and of an image"
    options = FlopsOptions
    preload = ("ditbench.harness.measure.count_cell",)

    def identity(self, at: Address) -> Payload:
        """The work; with weights also the samples that routers may be watched on."""
        what: Payload = {"work": work(at.spec), "options": dict(at.options)}
        if at.spec.weights_sha256 is not None:
            what["samples"] = at.samples(at.options["samples"])
        return what

    def run(self, turn: Turn) -> Finding:
        from ditbench.harness.measure.count_cell import measure_flops

        result = measure_flops(turn.spec, turn.job.weights, turn.options(FlopsOptions), turn.folder)
        return Finding(result.values(), result.detail())

    def seconds(self, options: Mapping[str, Any], pace: Pace) -> float | None:
        return 0.0

    def watched(self, options: Mapping[str, Any], routed: bool) -> int:
        return int(options["samples"]) if routed else 0

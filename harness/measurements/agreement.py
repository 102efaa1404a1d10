"""``agreement``: how far a step's other ways of computing it are from the full one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ditbench.harness.measure.options import AgreementOptions
from ditbench.harness.measurements.bench import Finding, Turn
from ditbench.harness.measurements.measurement import Address, Measurement
from ditbench.harness.store.identity import Payload
from ditbench.harness.store.records import CellSpec

if TYPE_CHECKING:
    from ditbench.methods.plans import StepPlan
    from ditbench.methods.protocols import Denoiser


class Agreement(Measurement[AgreementOptions]):
    name = "agreement"
    summary = "how far the predictions of a method's cheaper ways are from its fullest one's, by timestep"
    options = AgreementOptions
    needs = frozenset({"weights", "trained"})

    def misfit(self, spec: CellSpec, model: Denoiser, first: StepPlan) -> str:
        if model.remembers:
            return f"agreement asks for steps one by one, and {spec.method} reuses what a loop kept"
        if len(model.alternatives(first)) > 1:
            return ""
        return f"agreement compares a method's ways of computing a step, and {spec.method} has one"

    def identity(self, at: Address) -> Payload:
        """The samples along whose making it compares: their number is the shard's."""
        return {"samples": at.samples(at.options["samples"]), "options": dict(at.options)}

    def run(self, turn: Turn) -> Finding:
        from ditbench.harness.measure.agreement import measure_agreement

        result = measure_agreement(turn.bench.cell(), turn.options(AgreementOptions))
        return Finding(result.values, result.detail)

"""A measurement that ditbench does not ship, as its author would write it: one module."""

from __future__ import annotations

from pydantic import Field

from ditbench.harness.measurements.bench import Finding, Turn
from ditbench.harness.measurements.measurement import Measurement
from ditbench.harness.store.records import Column, Quantity
from ditbench.harness.strict import Strict


class NormOptions(Strict):
    order: int = Field(default=2, ge=1, description="of the norm")


class WeightNorm(Measurement[NormOptions]):
    name = "weight-norm"
    summary = "the norm of all weights"
    options = NormOptions
    columns = (Column(name="norm", title="norm of the weights", digits=3),)

    def run(self, turn: Turn) -> Finding:
        import torch

        order = turn.options(NormOptions).order
        found = [each.detach().flatten() for each in turn.bench.cell().model.parameters()]
        norm = torch.linalg.vector_norm(torch.cat(found), order).item()
        return Finding({"norm": Quantity(value=norm, unit="1", interval="exact")})

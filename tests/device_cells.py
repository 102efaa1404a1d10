"""Cells whose calls are measured on a device."""

from __future__ import annotations

from ditbench.harness.measure.options import LatencyOptions
from ditbench.harness.store.records import CellSpec

QUICK = LatencyOptions(batch=2, budget_s=0.1, warmup_s=0.0)


def spec(**fields: object) -> CellSpec:
    return CellSpec(**{"cell": "c", "method": "dit-testing", "sampler": "ddim", "steps": 6, **fields})

"""Peak memory of a denoiser call, in a pass of its own: weights, prepared slices of them, what the loop
remembers between its steps, and the most that its tensors held at once.

Tensor bytes are counted, on both devices, as the allocator hands them out: on CUDA by its peak counter, on the CPU by
the profiler's allocation events. Interpreter, libraries and the allocator's slack are not in the figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from ditbench.harness.measure.allocations import held_at_once
from ditbench.harness.measure.latency import check_finite, step_call
from ditbench.harness.measure.options import MemoryOptions
from ditbench.harness.sample.generate import BoundCell
from ditbench.harness.store.records import Quantity

MIB = 2**20


@dataclass(frozen=True)
class MemoryResult:
    """values: peak_mib = weights_mib + prepared_mib + remembered_mib + activations_mib."""

    values: dict[str, Quantity]
    detail: dict[str, Any]


def measure_memory(cell: BoundCell, options: MemoryOptions) -> MemoryResult:
    """Peak over one cycle of denoiser calls (every distinct kind of step)."""
    call, cycle = step_call(cell, options.batch)
    check_finite(call(0))
    for plan in cell.plans(options.batch):
        cell.model.prepare(plan)
    prepared = cell.model.prepared_bytes
    weights = sum(p.numel() * p.element_size() for p in cast(torch.nn.Module, cell.model).parameters())

    cell.execution.forget()  # a replay allocates nothing: what a graph needs is seen while it is captured

    def pass_over() -> None:
        for index in range(len(cycle)):
            call(index)

    activations = held_at_once(pass_over, cell.spec.device)
    remembered = most_remembered(cell, options.batch)

    def quantity(size: int) -> Quantity:
        return Quantity(value=size / MIB, unit="MiB", low=None, high=None, interval="peak of one pass; no interval")

    return MemoryResult(
        values={
            "peak_mib": quantity(weights + prepared + remembered + activations),
            "weights_mib": quantity(weights),
            "prepared_mib": quantity(prepared),
            **({"remembered_mib": quantity(remembered)} if remembered else {}),
            "activations_mib": quantity(activations),
        },
        detail={"batch": options.batch, "counted": "tensor bytes; interpreter and libraries apart"},
    )


def most_remembered(cell: BoundCell, batch: int) -> int:
    """Bytes of what a loop of ``batch`` images keeps from step to step, at its most."""
    if not cell.model.remembers:
        return 0
    streams, most = cell.streams(range(batch)), 0
    guided = cell.denoiser(streams.conditions)

    def see(x: Tensor, step: int) -> None:
        nonlocal most
        most = max(most, guided.memory.bytes)

    cell.loop(guided, streams.noise(), streams.noise, see)
    return max(most, guided.memory.bytes)

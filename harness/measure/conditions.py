"""The circumstances of a timing: what the device was set to and what else it was doing, before and after."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import psutil
import torch

from ditbench.harness.measure.nvml import BRAKES, gpu_state, torch_gpu
from ditbench.harness.store.records import CellSpec

_FUSED = "torch scaled_dot_product_attention, "
_BY_CHOICE = "fused where the device has a kernel"


def timing_conditions(device: str, spec: CellSpec | None = None) -> dict[str, Any]:
    """Flat, for a record's ``conditions``. What cannot be read is left out or None. ``spec``: whose calls they are."""
    kernel = None if spec is None or spec.attention == "auto" else spec.attention
    conditions: dict[str, Any] = {"attention": _FUSED + (f"{kernel} only" if kernel else _BY_CHOICE)}
    if device == "cuda":
        allowed = torch.backends.cuda.matmul.allow_tf32
        conditions["tf32"] = allowed if spec is None else spec.dtype == "tf32"
        conditions["cuda"] = torch.version.cuda
        conditions["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return conditions | _state(device)


def conditions_after(device: str) -> dict[str, Any]:
    """What moves, read again at the end: the same keys with 'end_' before them."""
    return {f"end_{name}": value for name, value in _state(device).items()}


def throttled(conditions: Mapping[str, Any]) -> bool | None:
    """Whether heat or a power brake held the clocks back at either end; None where the device does not tell."""
    told = [conditions.get(name) for name in ("throttle", "end_throttle")]
    if all(reasons is None for reasons in told):
        return None
    return any(reason in BRAKES for reasons in told for reason in reasons or ())


def _state(device: str) -> dict[str, Any]:
    state: dict[str, Any] = {"load_1min": round(os.getloadavg()[0], 2), "busy_processes": _other_processes()}
    if device == "cuda":
        return state | gpu_state(torch_gpu())
    frequency = psutil.cpu_freq()
    return state | {"cpu_mhz": round(frequency.current) if frequency else None}


def _other_processes() -> int:
    """Busy processes besides this one: above 20 % of a core over a tenth of a second."""
    others = [p for p in psutil.process_iter() if p.pid != os.getpid()]
    for process in others:
        _percent(process)
    psutil.cpu_percent(interval=0.1)
    return sum(_percent(process) > 20 for process in others)


def _percent(process: psutil.Process) -> float:
    try:
        return float(process.cpu_percent())
    except psutil.Error:
        return 0.0

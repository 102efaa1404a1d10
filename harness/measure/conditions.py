"""The circumstances of a timing: what the device was set to and what else it was doing."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import psutil
import torch

_QUERY = "clocks.sm,clocks.mem,power.draw,temperature.gpu,clocks_throttle_reasons.active,compute_mode,persistence_mode"


def timing_conditions(device: str) -> dict[str, Any]:
    """Flat, for a record's ``conditions``. What cannot be read is left out or None."""
    conditions: dict[str, Any] = {
        "attention": "torch scaled_dot_product_attention, fused where the device has a kernel",
        "load_1min": round(os.getloadavg()[0], 2),
        "busy_processes": _other_processes(),
    }
    if device == "cuda":
        conditions["tf32"] = torch.backends.cuda.matmul.allow_tf32
        conditions["cuda"] = torch.version.cuda
        conditions |= _gpu_state()
        return conditions
    frequency = psutil.cpu_freq()
    conditions["cpu_mhz"] = round(frequency.current) if frequency else None
    return conditions


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


def _gpu_state() -> dict[str, Any]:
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    processes = ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
        apps = subprocess.run(processes, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {"gpu_state": "nvidia-smi tells nothing"}
    values = [value.strip() for value in answer.splitlines()[0].split(",")]
    state: dict[str, Any] = dict(zip((name.replace(".", "_") for name in _QUERY.split(",")), values, strict=False))
    state["gpu_processes"] = len(apps.split())
    return state

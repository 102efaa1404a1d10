"""What the NVIDIA driver tells about the very GPU that torch uses: energy, clocks, power, what holds its clocks back.

torch counts only the GPUs that CUDA_VISIBLE_DEVICES shows and the driver counts all: they meet by UUID, else by place
on the PCI bus, never by number.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import torch

# NVML's bits of what limits the clocks (nvml.h, nvmlClocksEventReasons).
_REASONS = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "thermal slowdown by software",
    0x40: "thermal slowdown by hardware",
    0x80: "power brake",
    0x100: "display clocks",
}
# A power cap is how large GPUs run under load, and idling is no brake: neither spoils a timing.
BRAKES = frozenset(_REASONS[bit] for bit in (0x8, 0x20, 0x40, 0x80))
_QUERY = "clocks.sm,clocks.mem,power.draw,power.limit,temperature.gpu,clocks_throttle_reasons.active"
_KEYS = ("clocks_sm_mhz", "clocks_mem_mhz", "power_w", "power_limit_w", "temperature_c")


class NotAvailableError(RuntimeError):
    """The driver or the device does not tell; the message says why."""


@dataclass(frozen=True)
class Gpu:
    """What names one GPU: its UUID as NVML writes it ('GPU-…'), and its place on the bus ('00000000:65:00.0')."""

    uuid: str
    bus: str


def torch_gpu() -> Gpu:
    """The current CUDA device."""
    found: Any = torch.cuda.get_device_properties(torch.cuda.current_device())
    uuid = str(found.uuid)
    bus = f"{found.pci_domain_id:08X}:{found.pci_bus_id:02X}:{found.pci_device_id:02X}.0"
    return Gpu(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}", bus)


class Nvml:
    """NVML's handle of one GPU. ``module``: pynvml, or what stands in for it."""

    def __init__(self, gpu: Gpu, module: Any = None) -> None:
        """Raises NotAvailableError."""
        self._nvml = module = import_module("pynvml") if module is None else module
        try:
            module.nvmlInit()
        except module.NVMLError as error:
            raise NotAvailableError(f"NVML: {error}") from None
        try:
            self._handle = module.nvmlDeviceGetHandleByUUID(gpu.uuid)
        except module.NVMLError:
            try:
                self._handle = module.nvmlDeviceGetHandleByPciBusId(gpu.bus)
            except module.NVMLError as error:
                raise NotAvailableError(f"NVML does not know the GPU {gpu.uuid} at {gpu.bus}: {error}") from None

    def joules(self) -> float:
        """Energy of the whole board since its driver was loaded. Raises NotAvailableError."""
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3
        except self._nvml.NVMLError as error:
            raise NotAvailableError(f"NVML: this GPU counts no energy ({error})") from None

    def state(self) -> dict[str, Any]:
        """Clocks (MHz), power (W), temperature (°C), what limits the clocks, and how many processes compute; a value is
        None where the driver does not tell."""
        nvml, handle = self._nvml, self._handle
        watts = (nvml.nvmlDeviceGetPowerUsage, nvml.nvmlDeviceGetEnforcedPowerLimit)
        clocks = (nvml.NVML_CLOCK_SM, nvml.NVML_CLOCK_MEM)
        numbers = [self._read(partial(nvml.nvmlDeviceGetClockInfo, handle, kind)) for kind in clocks]
        milliwatts = [self._read(partial(read, handle)) for read in watts]
        numbers += [None if value is None else value / 1e3 for value in milliwatts]
        numbers.append(self._read(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)))
        bits = self._read(lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
        processes = self._read(lambda: len(nvml.nvmlDeviceGetComputeRunningProcesses(handle)))
        return {
            **dict(zip(_KEYS, numbers, strict=True)),
            "throttle": None if bits is None else reasons(bits),
            "gpu_processes": processes,
        }

    def _read(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except self._nvml.NVMLError:
            return None


def reasons(bits: int) -> list[str]:
    """What limits the clocks, in words; bits without a name by their number."""
    known = [word for bit, word in _REASONS.items() if bits & bit]
    rest = bits & ~sum(_REASONS)
    return [*known, f"0x{rest:x}"] if rest else known


def gpu_state(gpu: Gpu, module: Any = None) -> dict[str, Any]:
    """``Nvml.state`` of ``gpu``; by nvidia-smi where NVML cannot be loaded; else the reason why there is none."""
    try:
        return Nvml(gpu, module).state()
    except NotAvailableError as error:
        return _by_tool(gpu) or {"gpu_state": f"{error}; nvidia-smi tells nothing"}


def _by_tool(gpu: Gpu) -> dict[str, Any] | None:
    one = ["nvidia-smi", f"--id={gpu.uuid}", "--format=csv,noheader,nounits"]
    try:
        answers = [
            subprocess.run([*one, query], capture_output=True, text=True, timeout=10, check=True).stdout
            for query in (f"--query-gpu={_QUERY}", "--query-compute-apps=pid")
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_table(*answers)


def parse_table(table: str, processes: str) -> dict[str, Any] | None:
    """nvidia-smi's answers to ``_QUERY`` and for the processes, as ``Nvml.state`` has them; None for an empty one."""
    values = [value.strip() for value in table.split("\n")[0].split(",")]
    if len(values) != len(_KEYS) + 1:
        return None
    try:
        throttle: list[str] | None = reasons(int(values[-1], 16))
    except ValueError:
        throttle = None
    numbers = {name: _float(value) for name, value in zip(_KEYS, values[:-1], strict=True)}
    return {**numbers, "throttle": throttle, "gpu_processes": len(processes.split())}


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None

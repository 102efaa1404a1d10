"""Energy of whole sampling loops, by the device's own counter, in a pass of its own.

A GPU's board is counted by NVML, CPU packages by RAPL with everything that runs on them. Where neither can be read the
record says why and holds no figure.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from ditbench.harness.measure.conditions import conditions_after, throttled, timing_conditions
from ditbench.harness.measure.latency import Call, check_finite, sample_call
from ditbench.harness.measure.nvml import NotAvailableError, Nvml, torch_gpu
from ditbench.harness.measure.options import EnergyOptions
from ditbench.harness.sample.generate import BoundCell
from ditbench.harness.stats.intervals import Estimate, mean_interval
from ditbench.harness.store.records import Quantity

WINDOWS = 3
POWERCAP = Path("/sys/class/powercap")


class EnergyCounter(Protocol):
    """A device's energy since some time in the past."""

    @property
    def counts(self) -> str:
        """What is counted, for readers."""
        ...

    def joules(self) -> float:
        """Never falls. Raises NotAvailableError."""
        ...


class GpuCounter:
    """The board of the GPU that torch uses."""

    counts = "the whole board of this GPU, by NVML's total energy counter"

    def __init__(self) -> None:
        self._nvml = Nvml(torch_gpu())

    def joules(self) -> float:
        return self._nvml.joules()


class PackageCounter:
    """All CPU packages, by the counters of Linux's powercap (µJ, beginning anew at max_energy_range_uj).

    A counter that begins anew twice between two readings would lose a range (hours at most, minutes at least).
    """

    def __init__(self, root: Path = POWERCAP) -> None:
        """Raises NotAvailableError."""
        zones = [zone for zone in sorted(root.glob("*-rapl:*")) if zone.name.count(":") == 1]
        self._zones = [zone for zone in zones if _text(zone / "name").startswith("package")]
        if not self._zones:
            raise NotAvailableError(f"no CPU package counts its energy under {root}")
        self._ranges = [_microjoules(zone / "max_energy_range_uj") for zone in self._zones]
        self._last = [_microjoules(zone / "energy_uj") for zone in self._zones]
        self._sum = 0

    @property
    def counts(self) -> str:
        return f"{len(self._zones)} CPU package{'s' * (len(self._zones) > 1)} by RAPL, all that runs on them included"

    def joules(self) -> float:
        now = [_microjoules(zone / "energy_uj") for zone in self._zones]
        for before, after, wrap in zip(self._last, now, self._ranges, strict=True):
            self._sum += after - before if after >= before else after - before + wrap
        self._last = now
        return self._sum / 1e6


def find_counter(device: str) -> EnergyCounter:
    """The counter of 'cpu' or 'cuda'. Raises NotAvailableError."""
    counter: EnergyCounter = GpuCounter() if device == "cuda" else PackageCounter()
    counter.joules()  # some devices have the call and not the counter
    return counter


@dataclass(frozen=True)
class EnergyResult:
    """values: see ``measure_energy``; detail: windows, what is counted, conditions, or why it is not available."""

    values: dict[str, Quantity]
    detail: dict[str, Any]


@dataclass(frozen=True)
class Window:
    """Whole loops back to back: how many, their seconds and joules."""

    loops: int
    seconds: float
    joules: float


def measure_energy(
    cell: BoundCell,
    options: EnergyOptions,
    find: Callable[[str], EnergyCounter] = find_counter,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> EnergyResult:
    """Repeat the cell's loops of ``options.batch`` images for three windows of ``options.window_s`` or longer.

    energy_image_j        J an image, idle power included: mean of the windows with a t interval
    energy_above_idle_j   the same less what the device takes when idle
    power_w, idle_w       while the loops run, and before them, with the model loaded, over ``options.idle_s``

    Without a counter the values are empty and ``detail["not_available"]`` says why. Raises NotFiniteError.
    """
    try:
        counter = find(cell.spec.device)
    except NotAvailableError as error:
        return EnergyResult({}, {"batch": options.batch, "not_available": str(error)})
    around = timing_conditions(cell.spec.device, cell.spec)
    idle_w = _idle(counter, options.idle_s, clock, sleep)
    call = _whole(sample_call(cell, options.batch), cell.spec.device)
    check_finite(call(0))  # also what compiles or captures
    windows = [_window(call, counter, options.window_s, clock) for _ in range(WINDOWS)]
    conditions = {**around, **conditions_after(cell.spec.device)}
    return EnergyResult(
        _values(windows, idle_w, options),
        {
            "batch": options.batch,
            "counts": counter.counts,
            "windows": [vars(window) for window in windows],
            "throttled": throttled(conditions),
            "conditions": {"mode": cell.spec.mode, "dtype": cell.spec.dtype, **conditions},
        },
    )


def _whole(call: Call, device: str) -> Call:
    """``call`` until the device has done it."""

    def run(index: int) -> Any:
        answer = call(index)
        if device == "cuda":
            torch.cuda.synchronize()
        return answer

    return run


def _idle(counter: EnergyCounter, seconds: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> float:
    begin, before = clock(), counter.joules()
    sleep(seconds)
    return (counter.joules() - before) / (clock() - begin)


def _window(call: Call, counter: EnergyCounter, least_s: float, clock: Callable[[], float]) -> Window:
    loops, begin, before = 0, clock(), counter.joules()
    while clock() - begin < least_s:
        call(loops)
        loops += 1
    after = counter.joules()
    return Window(loops, clock() - begin, after - before)


def _values(windows: list[Window], idle_w: float, options: EnergyOptions) -> dict[str, Quantity]:
    images = [window.loops * options.batch for window in windows]
    pairs = list(zip(windows, images, strict=True))
    return {
        "energy_image_j": _quantity(mean_interval([w.joules / n for w, n in pairs]), "J"),
        "energy_above_idle_j": _quantity(mean_interval([(w.joules - idle_w * w.seconds) / n for w, n in pairs]), "J"),
        "power_w": _quantity(mean_interval([w.joules / w.seconds for w in windows]), "W"),
        "idle_w": Quantity(value=idle_w, unit="W", interval=f"one reading over {options.idle_s:g} s; no interval"),
    }


def _quantity(estimate: Estimate, unit: str) -> Quantity:
    method = estimate.method.replace("samples", "windows")
    return Quantity(value=estimate.value, unit=unit, low=estimate.low, high=estimate.high, interval=method)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _microjoules(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no number"
        raise NotAvailableError(f"{path} cannot be read ({reason})") from None

"""What the driver tells of a GPU, stood in for by fakes: its name, its state, its throttling."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from device_cells import spec

from ditbench.harness.measure import nvml
from ditbench.harness.measure.conditions import throttled, timing_conditions
from ditbench.harness.measure.nvml import Gpu, NotAvailableError, Nvml, gpu_state, parse_table, reasons


class FakeError(Exception):
    """NVML's."""


class FakeNvml(SimpleNamespace):
    """Two GPUs; the driver counts them the other way round than CUDA shows them."""

    NVMLError = FakeError
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    boards = {  # noqa: RUF012
        "GPU-aaaa": ("00000000:65:00.0", 7_000_000, 0x4),
        "GPU-bbbb": ("00000000:B3:00.0", 9_500_000, 0x4 | 0x40),
    }

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid not in self.boards:
            raise FakeError("not found")
        return uuid

    def nvmlDeviceGetHandleByPciBusId(self, bus: str) -> str:
        for uuid, board in self.boards.items():
            if board[0] == bus:
                return uuid
        raise FakeError("not found")

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        return self.boards[handle][1]

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:
        return {1: 1410, 2: 2619}[kind]

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        return 312_500

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: str) -> int:
        raise FakeError("not supported")

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
        return 81

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:
        return self.boards[handle][2]

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[object]:
        return [object(), object()]


def test_the_gpu_that_torch_uses_is_found_by_its_uuid_and_else_by_its_place():
    assert Nvml(Gpu("GPU-bbbb", "00000000:65:00.0"), FakeNvml()).joules() == 9500.0, "mJ in J; the UUID counts"
    assert Nvml(Gpu("MIG-x", "00000000:65:00.0"), FakeNvml()).joules() == 7000.0
    with pytest.raises(NotAvailableError, match="does not know the GPU GPU-x at nowhere"):
        Nvml(Gpu("GPU-x", "nowhere"), FakeNvml())


def test_torchs_gpu_is_named_as_the_driver_names_it(monkeypatch):
    found = SimpleNamespace(uuid="1b2c", pci_domain_id=0, pci_bus_id=0xB3, pci_device_id=0)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: found if index == 1 else None)
    assert nvml.torch_gpu() == Gpu("GPU-1b2c", "00000000:B3:00.0")


def test_a_gpu_without_an_energy_counter_says_so(monkeypatch):
    def refuse(self, handle: str) -> int:
        raise FakeError("Not Supported")

    monkeypatch.setattr(FakeNvml, "nvmlDeviceGetTotalEnergyConsumption", refuse)
    with pytest.raises(NotAvailableError, match=r"counts no energy \(Not Supported\)"):
        Nvml(Gpu("GPU-aaaa", ""), FakeNvml()).joules()


def test_the_state_of_a_gpu_is_in_whole_units_and_words():
    assert gpu_state(Gpu("GPU-bbbb", ""), FakeNvml()) == {
        "clocks_sm_mhz": 1410,
        "clocks_mem_mhz": 2619,
        "power_w": 312.5,
        "power_limit_w": None,
        "temperature_c": 81,
        "throttle": ["power cap", "thermal slowdown by hardware"],
        "gpu_processes": 2,
    }


def test_nvidia_smi_tells_the_same_where_nvml_is_not_there():
    state = parse_table("1410, 2619, 312.50, 700.00, 81, 0x0000000000000044\n", "4711\n4712\n")
    assert state == gpu_state(Gpu("GPU-bbbb", ""), FakeNvml()) | {"power_limit_w": 700.0}
    assert parse_table("1410, 2619, [N/A], 700.00, 81, [N/A]", "")["power_w"] is None


def test_throttle_reasons_are_told_by_name_and_unknown_ones_by_number():
    assert reasons(0) == [] and reasons(0x1) == ["idle"]
    assert reasons(0x20 | 0x80) == ["thermal slowdown by software", "power brake"]
    assert reasons(0x4 | 0x1000) == ["power cap", "0x1000"]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ([], [], False),
        (["idle", "power cap"], ["power cap"], False),
        ([], ["thermal slowdown by hardware"], True),
        (["power brake"], [], True),
        (None, ["thermal slowdown by software"], True),
        (None, None, None),
    ],
)
def test_heat_and_power_brakes_at_either_end_throttle_and_a_power_cap_does_not(start, end, expected):
    assert throttled({"throttle": start, "end_throttle": end}) is expected


def test_conditions_name_what_the_cell_asked_for(monkeypatch):
    monkeypatch.setattr("ditbench.harness.measure.conditions.torch_gpu", lambda: Gpu("GPU-aaaa", ""))
    monkeypatch.setattr("ditbench.harness.measure.conditions.gpu_state", lambda gpu: gpu_state(gpu, FakeNvml()))
    found = timing_conditions("cuda", spec(dtype="tf32", device="cuda", attention="cudnn"))
    assert found["tf32"] is True and found["attention"].endswith("cudnn only") and "cudnn" in found
    assert timing_conditions("cuda", spec(device="cuda"))["tf32"] is False
    assert found["throttle"] == ["power cap"] and found["power_w"] == 312.5

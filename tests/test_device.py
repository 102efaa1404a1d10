"""How a cell's calls run on a device, and what the device tells: attention kernels, number types, captured graphs,
energy, throttling. What only a GPU has is stood in for by fakes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from ditbench.harness.errors import InputError
from ditbench.harness.measure import nvml
from ditbench.harness.measure.compare_times import measure_latency
from ditbench.harness.measure.conditions import throttled, timing_conditions
from ditbench.harness.measure.energy import PackageCounter, measure_energy
from ditbench.harness.measure.latency import sample_call, step_call
from ditbench.harness.measure.memory import measure_memory
from ditbench.harness.measure.nvml import Gpu, NotAvailableError, Nvml, gpu_state, parse_table, reasons
from ditbench.harness.sample.execution import Execution, graph_problem, tf32
from ditbench.harness.sample.generate import BoundCell, bind, checkpoint_problem
from ditbench.harness.sample.graphs import CaptureError, Graphs, NoKernelError, Recorded, tensors_read
from ditbench.harness.store.records import CellSpec, Provenance, Quantity, Record
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import Plan, make_plan
from ditbench.harness.suite.schema import EnergyOptions, LatencyOptions, MemoryOptions
from ditbench.report.row import Row
from ditbench.report.run_view import RunView
from ditbench.report.tables.energy import energy_table
from ditbench.report.tables.table import Table
from ditbench.report.tables.timing import timing_table

QUICK = LatencyOptions(batch=2, budget_s=0.1, warmup_s=0.0)


def spec(**fields: object) -> CellSpec:
    return CellSpec(**{"cell": "c", "method": "dit-testing", "sampler": "ddim", "steps": 6, **fields})


def operators(call) -> set[str]:
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        call()
    return {event.name for event in profiler.events() if "_attention_" in event.name}


# Attention kernels

FLASH, MATH = "aten::_scaled_dot_product_flash_attention_for_cpu", "aten::_scaled_dot_product_attention_math"


@pytest.mark.parametrize(("attention", "expected"), [("math", MATH), ("flash", FLASH)])
def test_the_kernel_that_a_cell_asks_for_runs_wherever_its_denoiser_does(attention, expected):
    cell = bind(spec(attention=attention, guidance_scale=2.0), None)
    for call in (
        lambda: cell.generate(range(2)),
        lambda: step_call(cell, 2)[0](0),
        lambda: sample_call(cell, 2)(0),
    ):
        assert operators(call) == {expected}


def test_the_kernel_of_a_cell_is_nobody_elses():
    math, auto = bind(spec(attention="math"), None), bind(spec(), None)
    math.generate(range(1))
    assert operators(lambda: auto.generate(range(1))) == {FLASH}
    q = torch.zeros(1, 1, 4, 8)
    assert operators(lambda: F.scaled_dot_product_attention(q, q, q)) == {FLASH}


def test_a_speedup_over_a_baseline_of_another_kernel_times_each_in_its_own(monkeypatch):
    seen: dict[str, set[str]] = {}
    original = Execution.__call__

    def watched(self, key, run, tensors):
        if self._spec.cell not in seen:
            with profile(activities=[ProfilerActivity.CPU]) as profiler:
                answer = original(self, key, run, tensors)
            seen[self._spec.cell] = {each.name for each in profiler.events() if "_attention_" in each.name}
            return answer
        return original(self, key, run, tensors)

    monkeypatch.setattr(Execution, "__call__", watched)
    baseline = bind(spec(cell="base", attention="math"), None)
    result = measure_latency(bind(spec(attention="flash"), None), baseline, QUICK, 1.0)
    assert seen == {"c": {FLASH}, "base": {MATH}}
    assert result.values["speedup"].value > 0
    assert result.detail["conditions"]["attention"].endswith("flash only")


def test_kernels_compute_the_same_samples():
    one, other = (bind(spec(attention=name), None).generate(range(2))[0] for name in ("math", "flash"))
    assert torch.allclose(one, other, atol=1e-5) and not torch.equal(one, torch.zeros_like(one))


def test_a_kernel_that_cannot_run_fails_with_what_was_asked_of_it():
    cell = bind(spec(attention="cudnn"), None)  # a plan for a CPU would refuse it
    with pytest.raises(NoKernelError, match=r"cudnn attention cannot run float32 and heads of 16 channels on this CPU"):
        cell.generate(range(1))


def test_other_errors_of_a_call_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes") as caught, Execution(spec(attention="math"), None).around():
        raise RuntimeError("shapes do not fit")
    assert not isinstance(caught.value, NoKernelError)


# Number types


@pytest.mark.parametrize(("dtype", "on"), [("tf32", True), ("float32", False)])
def test_tf32_is_on_for_the_calls_of_its_own_cell_alone_and_off_for_float32(dtype, on):
    places = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [place.allow_tf32 for place in places]
    execution = Execution(spec(device="cuda", dtype=dtype), None)
    execution("key", lambda: [place.allow_tf32 for place in places] == [on, on] or pytest.fail("not set"), ())
    assert [place.allow_tf32 for place in places] == before


def test_number_types_are_put_back_after_an_error():
    before = torch.backends.cudnn.allow_tf32
    with pytest.raises(ValueError, match="x"), tf32(not before):
        raise ValueError("x")
    assert torch.backends.cudnn.allow_tf32 == before


# What a plan refuses


def planned(tmp_path: Path, line: str, device: str | None = None, more: str = "") -> Plan:
    path = tmp_path / "s.yaml"
    path.write_text(
        f"suite: s\ncells:\n  - name: a\n    method: dit-testing\n    {line}\n    measure: [latency]\n{more}"
    )
    return make_plan(load_suite(path), device=device)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("dtype: tf32", "dtype: tf32 rounds float32 on a GPU only"),
        ("mode: graph", "mode: graph captures CUDA graphs"),
        ("attention: efficient", "attention: efficient is a GPU's kernel"),
        ("attention: cudnn", "attention: cudnn is a GPU's kernel"),
    ],
)
def test_what_a_cpu_has_not_is_refused_where_it_is_written(tmp_path, line, message):
    with pytest.raises(InputError, match=message) as caught:
        planned(tmp_path, line)
    assert (caught.value.position.line, caught.value.position.column) == (5, 5 + len(line.split()[0]) + 1)
    assert planned(tmp_path, line, device="cuda").cells[0].spec.device == "cuda"


@pytest.mark.parametrize("line", ["mode: graph", "attention: efficient"])
def test_the_device_that_counts_is_the_one_that_the_command_line_gives(tmp_path, line):
    with pytest.raises(InputError, match=line):
        planned(tmp_path, f"{line}\n    device: cuda", device="cpu")


@pytest.mark.parametrize("line", ["attention: math", "attention: flash", "mode: compiled"])
def test_what_a_cpu_has_is_planned(tmp_path, line):
    assert planned(tmp_path, line).cells


def test_compiled_code_and_a_chosen_kernel_are_refused_together(tmp_path):
    with pytest.raises(InputError, match="attention: math with mode compiled"):
        planned(tmp_path, "attention: math\n    mode: compiled")


def test_the_image_level_without_a_decoder_is_refused_at_planning(tmp_path):
    levels = "latency: {levels: [sample, image]}\n"
    with pytest.raises(InputError, match="the cell has no decoder"):
        planned(tmp_path, "seed: 1", more=levels)
    assert planned(tmp_path, "decoder: {}\n    config: {in_channels: 4}", more=levels).cells


# Captured graphs


class FakeRecorder:
    """Replays by calling again, so that a test sees which tensors a graph would read and write."""

    def __init__(self) -> None:
        self.captures = 0

    def __call__(self, call) -> Recorded:
        self.captures += 1
        output = call().clone()

        def replay() -> None:
            output.copy_(call())

        return Recorded(replay, output)


def graphed(**fields: object) -> tuple[BoundCell, FakeRecorder]:
    eager = bind(spec(**fields), None)
    cell = BoundCell(eager.spec.model_copy(update={"mode": "graph"}), eager.model, eager.sampler, eager.rule)
    recorder = FakeRecorder()
    cell.__dict__["execution"] = Execution(cell.spec, cell.model, recorder)
    return cell, recorder


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_replayed_samples_are_those_of_plain_calls(sampler):
    fields = {"sampler": sampler, "guidance_scale": 2.0, "guidance_interval": (300, 700)}
    cell, _ = graphed(**fields)
    plain = bind(spec(**fields), None)
    assert torch.equal(cell.generate(range(2))[0], plain.generate(range(2))[0])
    assert torch.equal(cell.generate(range(2, 4))[0], plain.generate(range(2, 4))[0]), "other labels, other noise"


def test_a_solver_that_keeps_several_outputs_gets_each_its_own():
    fields = {"method": "sit-testing", "sampler": "heun", "steps": 4}
    assert torch.equal(graphed(**fields)[0].generate(range(2))[0], bind(spec(**fields), None).generate(range(2))[0])


def test_equal_work_is_captured_once_and_other_work_and_row_counts_apart():
    cell, recorder = graphed()
    cell.generate(range(2))
    assert recorder.captures == 1, "six steps of one plan"
    cell.generate(range(2, 4))
    assert recorder.captures == 1
    cell.generate(range(3))
    assert recorder.captures == 2
    partly, recorder = graphed(guidance_scale=2.0, guidance_interval=(300, 700))
    partly.generate(range(2))
    assert recorder.captures == 2, "guided steps and others"
    flexible, recorder = graphed(method="flexidit-testing", config={"schedule": {"fractions": {4: 0.5, 2: 0.5}}})
    flexible.generate(range(2))
    assert recorder.captures == 2, "one a patch size"


def test_what_is_forgotten_is_captured_anew_and_what_capturing_takes_is_told():
    cell, recorder = graphed()
    cell.generate(range(2))
    cell.execution.forget()
    cell.generate(range(2))
    assert recorder.captures == 2 == cell.execution.graphs.captures and cell.execution.graphs.capture_ms > 0


def test_a_ledger_sees_every_call_of_a_graphed_cell():
    from ditbench.methods.protocols import WorkLedger

    cell, ledger = graphed()[0], WorkLedger()
    cell.generate(range(2), ledger)
    assert len(ledger.entries) == 6


def test_capture_is_a_cold_cost_of_its_own():
    cold = measure_latency(graphed()[0], None, QUICK, 1.0).detail["cold"]
    assert cold["capture_ms"] > 0 and cold["captures"] == 1 and cold["compile_ms"] is None
    assert measure_latency(bind(spec(), None), None, QUICK, 1.0).detail["cold"]["capture_ms"] is None


def test_inputs_are_copied_in_and_an_answer_is_not_overwritten():
    graphs = Graphs(FakeRecorder())
    x, times, labels = torch.ones(2), torch.zeros(2), torch.zeros(2, dtype=torch.long)

    def run(x: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        return x + 10 * times + 100 * labels

    first = graphs("a", run, (x, times, labels))
    x.add_(1)  # a sampler may write to its state
    second = graphs("a", run, (x, times, labels))
    third = graphs("a", run, (x, torch.ones(2), labels + 1))
    assert [answer[0].item() for answer in (first, second, third)] == [1, 2, 112]


def test_a_call_that_cannot_be_captured_says_so():
    def refuses(call) -> Recorded:
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might …")

    cell = graphed()[0]
    cell.__dict__["execution"] = Execution(cell.spec, cell.model, refuses)
    with pytest.raises(CaptureError, match=r"cannot be captured \(operation not permitted when stream is capturing\)"):
        cell.generate(range(1))


def test_a_graph_keeps_what_it_reads_and_not_what_it_makes():
    weight, other = torch.ones(3, 3), torch.ones(3)

    def call() -> Tensor:
        made = weight.view(9)[:3] * other
        return made + made.view(3, 1).sum()

    read = tensors_read(call)
    places = {tensor.untyped_storage().data_ptr() for tensor in read}
    assert places == {weight.untyped_storage().data_ptr(), other.untyped_storage().data_ptr()}


def test_a_graph_keeps_the_slices_that_a_model_may_drop():
    cell = bind(spec(method="dydit-testing", config={"activity": 0.5, "sdt": False}), None)
    call, _ = step_call(cell, 2)
    call(0)
    slices = [vars(value) for _, value, _ in cell.model.prepared._kept.values()]
    places = {each.untyped_storage().data_ptr() for value in slices for each in value.values() if torch.is_tensor(each)}
    read = {tensor.untyped_storage().data_ptr() for tensor in tensors_read(lambda: call(0))}
    assert len(places) > 4 and places <= read


def test_memory_of_a_graphed_cell_is_that_of_capturing():
    cell, recorder = graphed()
    measured = measure_memory(cell, MemoryOptions(batch=2)).values["activations_mib"].value
    assert recorder.captures == 2, "for the first call and again in the measured pass"
    assert measured >= measure_memory(bind(spec(), None), MemoryOptions(batch=2)).values["activations_mib"].value


@pytest.mark.parametrize("config", [{}, {"activity": 0.5}])
def test_token_selection_is_refused_in_graph_mode_also_where_it_is_imposed(config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = checkpoint_problem(spec(method="dydit-testing", mode="graph", device="cuda", config=config), None)
    assert found is not None and found.field == "mode" and "gathers tokens" in found.message
    narrow = spec(method="dydit-testing", mode="graph", device="cuda", config={**config, "sdt": False})
    assert checkpoint_problem(narrow, None) is None


def test_layouts_chosen_by_the_clock_are_refused_in_graph_mode():
    config = {"schedule": {"fractions": {4: 0.5, 2: 0.5}, "guidance": {"fractions": {4: 1.0}}}}
    cell = bind(spec(method="flexidit-testing", config=config, guidance_scale=2.0), None)
    field, message = graph_problem(cell.spec, cell.model, cell.plans())
    assert field == "config.schedule" and "config.layout" in message
    settled = bind(spec(method="flexidit-testing", config={**config, "layout": "packed"}, guidance_scale=2.0), None)
    assert graph_problem(settled.spec, settled.model, settled.plans()) is None


# Energy


class Clock:
    """Time that passes only in loops and sleep; a meter that takes 100 W while loops run and 20 W when idle."""

    counts = "a fake board"

    def __init__(self, loop_s: float = 3.0) -> None:
        self.now, self.spent, self.loop_s = 0.0, 1e6, loop_s

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.spent += 20 * seconds

    def joules(self) -> float:
        return self.spent


def energy(clock: Clock, monkeypatch, watts=lambda loop: 100.0, **options: float):
    loops: list[int] = []

    def call(index: int) -> Tensor:
        loops.append(index)
        clock.now += clock.loop_s
        clock.spent += watts(len(loops)) * clock.loop_s
        return torch.zeros(1)

    monkeypatch.setattr("ditbench.harness.measure.energy.sample_call", lambda cell, batch: call)
    chosen = EnergyOptions(batch=4, **options)
    return measure_energy(bind(spec(), None), chosen, lambda device: clock, clock, clock.sleep), loops


def test_energy_of_an_image_and_what_of_it_is_above_idle(monkeypatch):
    result, _ = energy(Clock(), monkeypatch)
    values = {name: (quantity.value, quantity.unit) for name, quantity in result.values.items()}
    assert values["energy_image_j"] == (pytest.approx(100 * 3 / 4), "J")
    assert values["energy_above_idle_j"] == (pytest.approx(80 * 3 / 4), "J")
    assert values["power_w"] == (pytest.approx(100), "W") and values["idle_w"] == (pytest.approx(20), "W")


def test_windows_hold_whole_loops_and_are_no_shorter_than_asked(monkeypatch):
    result, loops = energy(Clock(), monkeypatch, window_s=20.0)
    windows = result.detail["windows"]
    assert [window["loops"] for window in windows] == [7, 7, 7]
    assert all(window["seconds"] >= 20 for window in windows) and len(loops) == 22, "one before the windows"


def test_the_spread_of_windows_makes_the_interval(monkeypatch):
    result, _ = energy(Clock(), monkeypatch, watts=lambda loop: 100.0 + loop)
    image = result.values["energy_image_j"]
    assert image.low < image.value < image.high and "t interval over 3 windows" in image.interval
    equal = energy(Clock(), monkeypatch)[0].values["energy_image_j"]
    assert equal.low is None and "equal" in equal.interval


def test_energy_that_no_device_counts_is_a_record_with_the_reason():
    def none(device: str):
        raise NotAvailableError("this machine counts nothing")

    result = measure_energy(bind(spec(), None), EnergyOptions(), none)
    assert not result.values and result.detail["not_available"] == "this machine counts nothing"


def zone(root: Path, name: str, label: str, microjoules: int, wrap: int = 1_000_000) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(label + "\n")
    (folder / "max_energy_range_uj").write_text(f"{wrap}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    return folder


def test_packages_add_up_and_a_counter_that_begins_anew_loses_nothing(tmp_path):
    first = zone(tmp_path, "intel-rapl:0", "package-0", 900_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 100_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 5)
    zone(tmp_path, "intel-rapl:2", "psys", 5)
    counter = PackageCounter(tmp_path)
    assert counter.joules() == 0 and "2 CPU packages" in counter.counts
    (first / "energy_uj").write_text("200000")
    (second / "energy_uj").write_text("150000")
    assert counter.joules() == pytest.approx(0.3 + 0.05)
    assert counter.joules() == pytest.approx(0.35)


def test_packages_that_nobody_may_read_are_not_available(tmp_path):
    with pytest.raises(NotAvailableError, match="no CPU package counts its energy"):
        PackageCounter(tmp_path / "nothing")
    (zone(tmp_path, "intel-rapl:0", "package-0", 1) / "energy_uj").unlink()
    with pytest.raises(NotAvailableError, match="energy_uj cannot be read"):
        PackageCounter(tmp_path)


# What the driver tells


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


# The report


def record(measurement: str, values: dict[str, Quantity], detail: dict[str, object]) -> Record:
    made = Provenance(
        command="", started="2026-01-01T00:00:00Z", seconds=1.0, seed=0, device="cuda", device_name="GPU", threads=1,
        versions={}, git=None, weights_sha256=None,
    )  # fmt: skip
    return Record(
        identity="0" * 64, suite="s", spec=spec(), measurement=measurement, status="ok", values=values, detail=detail,
        provenance=made,
    )  # fmt: skip


def view_of(**records: Record) -> RunView:
    return RunView(Path(), "s", "", "", "", None, (Row("c", spec(), tuple(records), records),))


def shown(table: Table | None, key: str) -> list[str]:
    assert table is not None
    return next([value.shown for value in column.values] for column in table.columns if column.key == key)


def test_the_energy_table_has_figures_or_the_reason_why_there_are_none(monkeypatch):
    measured, _ = energy(Clock(), monkeypatch, watts=lambda loop: 100.0 + loop)
    table = energy_table(view_of(energy=record("energy", measured.values, measured.detail)))
    assert shown(table, "idle_w") == ["20.0"] and "Counted: a fake board." in table.notes[0]
    assert "not_available" not in {column.key for column in table.columns}
    table = energy_table(view_of(energy=record("energy", {}, {"batch": 8, "not_available": "no counter here"})))
    assert shown(table, "not_available") == ["no counter here"]
    assert energy_table(view_of()) is None


def test_the_timing_table_marks_what_heat_and_launching_did_and_says_what_to_try():
    level = {"rows": 16, "n": 20, "median_ms": 5.0}
    detail = {
        "batch": 8,
        "levels": {"step": level, "image": level},
        "cold": {"load_ms": 1.0, "capture_ms": 12.5},
        "gap_share": 0.4,
        "launch_bound": True,
        "throttled": True,
    }
    values = {"speedup_total": Quantity(value=1.25, unit="1", interval="")}
    counts = {
        "kernels": Quantity(value=560, unit="1", interval=""),
        "kernel_ms": Quantity(value=0.01, unit="ms", interval=""),
    }
    rows = {"latency": record("latency", values, detail), "kernels": record("kernels", counts, {})}
    table = timing_table(view_of(**rows))
    assert table is not None and "launch-bound, throttled" in table.columns[0].values[0].tag
    notes = " ".join(table.notes)
    assert "mode: graph" in notes and "cool device" in notes and "the decoding of its latents" in notes
    assert shown(table, "kernels") == ["560", ""] and shown(table, "speedup_total") == ["", "1.25"]
    assert shown(table, "capture_ms") == ["12.5", ""]
    cool = {**detail, "launch_bound": False, "throttled": False}
    quiet = timing_table(view_of(latency=record("latency", {}, cool)))
    assert quiet is not None and "Throttled" not in " ".join(quiet.notes)


# Shipped suites


def test_the_cost_suites_compare_within_a_mode_and_at_the_cells_own_batch():
    for name, mode in (("cost-xl", "eager"), ("cost-xl-compiled", "compiled"), ("cost-xl-graph", "graph")):
        plan = make_plan(load_suite(name))
        assert plan.baseline.mode == mode and {cell.spec.mode for cell in plan.cells} == {mode}
        assert all(cell.spec.cost_only for cell in plan.cells)
        batches = {cell.spec.batch for cell in plan.cells if cell.spec.method == "dydit-xl-2"}
        assert batches == {1, 8, 32, 128}

"""How a cell's calls run on a device: attention kernels, number types, and what a plan refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from device_cells import QUICK, spec
from torch.profiler import ProfilerActivity, profile

from ditbench.harness.errors import InputError
from ditbench.harness.measure.compare_times import measure_latency
from ditbench.harness.measure.latency import sample_call, step_call
from ditbench.harness.sample.execution import Execution, tf32
from ditbench.harness.sample.generate import bind
from ditbench.harness.sample.graphs import NoKernelError
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import Plan, make_plan


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


# Shipped suites


def test_the_cost_suites_compare_within_a_mode_and_at_the_cells_own_batch():
    for name, mode in (("cost-xl", "eager"), ("cost-xl-compiled", "compiled"), ("cost-xl-graph", "graph")):
        plan = make_plan(load_suite(name))
        assert plan.baseline.mode == mode and {cell.spec.mode for cell in plan.cells} == {mode}
        assert all(cell.spec.cost_only for cell in plan.cells)
        batches = {cell.spec.batch for cell in plan.cells if cell.spec.method == "dydit-xl-2"}
        assert batches == {1, 8, 32, 128}

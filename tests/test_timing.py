"""Timing, profiling and memory: order, warm-up, stopping, and figures that follow from known work."""

import time

import pytest
import torch

from harness.measure.compare_times import measure_latency
from harness.measure.kernels import measure_kernels, operator_class
from harness.measure.latency import WHOLE, Series, Timing, interleave, sample_call, step_call, warm_up
from harness.measure.memory import measure_memory
from harness.sample.generate import bind
from harness.sample.making import NotFiniteError
from harness.store.records import CellSpec
from harness.suite.schema import KernelsOptions, LatencyOptions, MemoryOptions


def cell(**fields: object):
    return bind(CellSpec(**{"cell": "c", "method": "dit-testing", "sampler": "ddim", "steps": 6, **fields}), None)


QUICK = LatencyOptions(batch=2, budget_s=0.2, warmup_s=0.0)


def recorded(log: list[str], name: str, seconds: float):
    def call(index: int) -> torch.Tensor:
        log.append(name)
        time.sleep(seconds)
        return torch.zeros(1)

    return call


def test_rounds_run_a_b_b_a():
    log: list[str] = []
    calls = [(recorded(log, "A", 0.021), WHOLE), (recorded(log, "B", 0.021), WHOLE)]
    interleave(calls, [Series(0.0), Series(0.0)], "cpu", QUICK)
    assert "".join(log) == "ABBA" * (len(log) // 4) and len(log) >= 12


def test_a_planted_ratio_is_found():
    log: list[str] = []
    series = [Series(0.0), Series(0.0)]
    options = LatencyOptions(rounds=5, budget_s=0.5, precision=0.5)
    interleave([(recorded(log, "A", 0.01), WHOLE), (recorded(log, "B", 0.02), WHOLE)], series, "cpu", options)
    ratio = series[1].summary().median / series[0].summary().median
    assert 1.7 < ratio < 2.2


def test_measuring_ends_with_its_budget_and_never_before_three_rounds():
    log: list[str] = []
    series = [Series(0.0)]
    begin = time.perf_counter()
    options = LatencyOptions(rounds=3, budget_s=0.01, precision=1e-9)
    interleave([(recorded(log, "A", 0.03), WHOLE)], series, "cpu", options)
    assert len(series[0].rounds) == 3 and time.perf_counter() - begin < 1.0


def test_warm_up_visits_every_step_of_a_cycle_and_keeps_the_cold_call_apart():
    seen: list[int] = []

    def call(index: int) -> torch.Tensor:
        seen.append(index)
        time.sleep(0.05 if index == 0 else 0.001)
        return torch.zeros(1)

    series = warm_up(call, 9, "cpu", 0.0)
    assert set(range(9)) <= set(seen)
    assert series.first_ms > 40 and series.warmup_calls >= 9 and not series.rounds


def test_steps_that_differ_are_timed_in_a_cycle_over_all_of_them():
    assert step_call(cell(), 2)[1] == (1.0,)
    call, weights = step_call(cell(guidance_scale=2.0, guidance_interval=(300, 700)), 2)
    assert weights == (4 / 6, 2 / 6), "one call of each kind stands for as many steps as are like it"
    assert {tuple(call(index).shape) for index in range(2)} == {(2, 2, 8, 8)}


def test_a_cycle_weighs_its_calls_by_the_steps_that_they_stand_for_and_never_loses_step():
    def call(index: int) -> None:
        time.sleep((0.03, 0.01)[index % 2])

    series = [Series(0.0), Series(0.0)]
    options = LatencyOptions(rounds=3, budget_s=0.1, precision=0.5)
    interleave([(call, (0.25, 0.75)), (lambda index: time.sleep(0.03), WHOLE)], series, "cpu", options)
    assert 14.5 < series[0].summary().median < 17 and 29 < series[1].summary().median < 33


def test_a_step_guided_has_twice_the_rows_and_a_sample_ends_at_the_batch():
    result = measure_latency(cell(guidance_scale=2.0), None, QUICK, 1.0)
    assert result.detail["levels"]["step"]["rows"] == 4 and result.detail["levels"]["step"]["guided"]
    assert sample_call(cell(), 3)(0).shape == (3, 1, 8, 8)


def test_figures_of_a_latency_record_hang_together():
    result = measure_latency(cell(), cell(cell="base", steps=12), QUICK, 1.0)
    values = {name: quantity.value for name, quantity in result.values.items()}
    assert values["image_ms"] == pytest.approx(values["sample_ms"] / 2)
    assert values["images_per_s"] == pytest.approx(1e3 / values["image_ms"])
    assert result.detail["baseline"] == "base" and result.detail["speedup_level"] == "sample"
    assert values["speedup"] > 1.3, "twice the steps take longer"


def test_a_speedup_from_steps_alone_still_counts_the_steps():
    options = LatencyOptions(batch=2, levels=["step"], budget_s=0.2, warmup_s=0.0)
    result = measure_latency(cell(), cell(cell="base", steps=12), options, 1.0)
    assert 1.3 < result.values["speedup"].value < 3.0
    assert "ratio of steps" in result.values["speedup"].interval and "sample_ms" not in result.values


def test_a_model_that_gives_nan_is_not_timed():
    broken = cell()
    with torch.no_grad():
        broken.model.final_layer.linear.bias[0] = torch.nan
    for measure in (
        lambda: measure_latency(broken, None, QUICK, 1.0),
        lambda: measure_kernels(broken, KernelsOptions(batch=1)),
        lambda: measure_memory(broken, MemoryOptions(batch=1)),
    ):
        with pytest.raises(NotFiniteError):
            measure()


def test_the_gap_is_what_the_device_did_not_work():
    series = Series(0.0, rounds=[[Timing(10.0, 7.0), Timing(10.0, 8.0), Timing(10.0, 9.0)]])
    assert series.gap_share() == pytest.approx(0.2)
    assert Series(0.0, rounds=[[Timing(1.0, None)]]).gap_share() is None


def test_profiled_classes_and_gap_fill_the_wall_clock():
    result = measure_kernels(cell(), KernelsOptions(batch=8, steps=4))
    classes = {entry["class"]: entry for entry in result.detail["classes"]}
    assert {"linear", "attention", "norm", "elementwise", "gap"} <= set(classes)
    assert sum(entry["share"] for entry in classes.values()) == pytest.approx(1.0, abs=0.02)
    # two blocks: qkv, proj, fc1, fc2 and modulation each; two for time, two at the end; embeddings apart
    assert next(top for top in result.detail["top"] if top["name"] == "aten::addmm")["calls"] == 14


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("aten::addmm", "linear"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("aten::native_layer_norm", "norm"),
        ("aten::gelu", "elementwise"),
        ("aten::mkldnn_convolution", "conv"),
        ("aten::copy_", "copy"),
        ("aten::as_strided", "other"),
        ("void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_bf16_128x128_32x5_tn_align8>", "linear"),
        ("void pytorch_flash::flash_fwd_kernel<...>", "attention"),
        ("void at::native::vectorized_elementwise_kernel<4, GeluCUDAKernelImpl>", "elementwise"),
    ],
)
def test_operators_and_kernels_fall_into_the_class_of_their_work(name, label):
    assert operator_class(name) == label


def test_memory_counts_weights_exactly_and_grows_with_the_batch():
    small, large = (measure_memory(cell(), MemoryOptions(batch=batch)).values for batch in (1, 16))
    weights = sum(p.numel() * 4 for p in cell().model.parameters()) / 2**20
    assert small["weights_mib"].value == pytest.approx(weights)
    assert large["activations_mib"].value > 10 * small["activations_mib"].value
    assert large["peak_mib"].value == pytest.approx(weights + large["activations_mib"].value)
    # the widest moment holds at least one MLP hidden layer: 16 rows x 16 tokens x 128 channels
    assert large["activations_mib"].value * 2**20 > 16 * 16 * 128 * 4

"""Timing, profiling and memory: order, warm-up, stopping, and figures that follow from known work."""

import time
from types import SimpleNamespace

import pytest
import torch

from ditbench.harness.errors import InputError
from ditbench.harness.measure.compare_times import measure_latency
from ditbench.harness.measure.kernels import Kernels, device_events, measure_kernels, operator_class
from ditbench.harness.measure.latency import (
    WHOLE,
    Series,
    Timing,
    image_call,
    interleave,
    sample_call,
    step_call,
    warm_up,
)
from ditbench.harness.measure.memory import measure_memory
from ditbench.harness.measure.options import KernelsOptions, LatencyOptions, MemoryOptions
from ditbench.harness.sample.generate import bind
from ditbench.harness.sample.shards import NotFiniteError
from ditbench.harness.store.records import CellSpec


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


def test_the_gap_is_what_the_device_did_not_work_of_the_median_call():
    series = Series(0.0, rounds=[[Timing(9.0, 8.9), Timing(10.0, 9.9), Timing(20.0, 19.9)]])
    assert series.gap_share(busy_ms=8.0) == pytest.approx(0.2), "events around a call do not see waits between kernels"
    assert series.gap_share(busy_ms=11.0) == 0.0


def event(name: str, kind: str, microseconds: float, marks: bool = False):
    span = SimpleNamespace(elapsed_us=lambda: microseconds)
    device = SimpleNamespace(name=kind)
    return SimpleNamespace(name=name, device_type=device, time_range=span, is_user_annotation=marks)


def test_kernels_are_counted_on_the_device_alone_and_copies_are_work_but_no_kernels():
    events = [
        event("aten::addmm", "CPU", 500.0),
        event("ampere_sgemm", "CUDA", 30.0),
        event("elementwise_kernel", "CUDA", 10.0),
        event("Memcpy DtoD (Device -> Device)", "CUDA", 5.0),
        event("ditbench::router", "CUDA", 40.0, marks=True),
    ]
    launched = Kernels()
    launched.add(device_events(events), weight=0.5)
    assert launched.count == 1.0
    assert launched.kernel_ms == pytest.approx(0.020) and launched.busy_ms == pytest.approx(0.0225)


class Decoder:
    """Doubles the sides and takes its time."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.seen = seconds, 0

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        self.seen += 1
        return latents.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_the_image_level_is_the_loop_and_the_decoder():
    decoder = Decoder(0.05)
    assert image_call(cell(), 2, decoder)(0).shape == (2, 1, 16, 16)
    options = LatencyOptions(batch=2, levels=["sample", "image"], budget_s=0.2, warmup_s=0.0)
    values = measure_latency(cell(), None, options, 1.0, (decoder, None)).values
    assert values["image_total_ms"].value >= (values["sample_ms"].value * 0.5 + 50) / 2
    assert "decoder included" in values["image_total_ms"].interval
    assert values["image_ms"].value == pytest.approx(values["sample_ms"].value / 2), "that one stays without decoder"


def test_a_decoder_that_both_pay_for_shrinks_the_speed_up():
    options = LatencyOptions(batch=2, levels=["sample", "image"], budget_s=0.2, warmup_s=0.0)
    slow = cell(cell="base", steps=24)
    result = measure_latency(cell(), slow, options, 1.0, (Decoder(0.1), Decoder(0.1)))
    assert 1.0 < result.values["speedup_total"].value < 0.8 * result.values["speedup"].value
    assert set(result.detail["baseline_levels"]) == {"sample", "image"}


def test_a_baseline_without_decoder_is_not_timed_with_one():
    options = LatencyOptions(batch=2, levels=["sample", "image"], budget_s=0.2, warmup_s=0.0)
    result = measure_latency(cell(), cell(cell="base"), options, 1.0, (Decoder(0.0), None))
    assert "speedup_total" not in result.values and "speedup" in result.values
    assert set(result.detail["baseline_levels"]) == {"sample"}


def test_the_image_level_alone_claims_no_latent_time():
    options = LatencyOptions(batch=2, levels=["image"], budget_s=0.2, warmup_s=0.0)
    values = measure_latency(cell(), None, options, 1.0, (Decoder(0.0), None)).values
    assert set(values) == {"image_total_ms", "prepare_ms"}


def test_the_image_level_needs_a_decoder():
    with pytest.raises(InputError, match="c has no decoder"):
        measure_latency(cell(), None, LatencyOptions(batch=2, levels=["image"]), 1.0)


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

"""The latency measurement: a cell, beside its baseline, at the levels that the suite asks for."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import Any

from ditbench.harness.errors import InputError
from ditbench.harness.measure.conditions import conditions_after, throttled, timing_conditions
from ditbench.harness.measure.kernels import busy_ms
from ditbench.harness.measure.latency import (
    LAUNCH_BOUND_GAP,
    WHOLE,
    Call,
    Decodes,
    Series,
    Weights,
    image_call,
    interleave,
    prepare_call,
    sample_call,
    step_call,
    timed,
    warm_up,
)
from ditbench.harness.measure.options import LatencyOptions
from ditbench.harness.sample.generate import BoundCell
from ditbench.harness.stats.intervals import Estimate, paired_ratio_interval, summary
from ditbench.harness.store.records import Quantity

PREPARATIONS = 7


@dataclass(frozen=True)
class LatencyResult:
    """values: see ``Record``; detail: levels, rounds and conditions behind them."""

    values: dict[str, Quantity]
    detail: dict[str, Any]


Decoders = tuple[Decodes | None, Decodes | None]
"""Of the cell and of its baseline."""


def measure_latency(
    cell: BoundCell,
    baseline: BoundCell | None,
    options: LatencyOptions,
    load_ms: float,
    decoders: Decoders | None = None,
) -> LatencyResult:
    """Time ``cell``, in rounds of A B B A with ``baseline`` unless that is None or the cell itself.

    ``decoders``: for the level 'image'; a baseline without one is not timed at it. Raises InputError where the level is
    asked for and the cell has none.
    """
    batch, device = options.batch, cell.spec.device
    own, other = decoders or (None, None)
    if "image" in options.levels and own is None:
        raise InputError(f"latency level 'image' decodes, and {cell.spec.cell} has no decoder: give the cell one")
    around = timing_conditions(device, cell.spec)
    series: dict[str, list[Series]] = {}
    gap: float | None = None
    compiled_before, compile_ms = _compile_ms(), 0.0
    for level in dict.fromkeys(options.levels):
        calls = [_call(cell, level, batch, own)]
        warm = [warm_up(calls[0][0], len(calls[0][1]), device, options.warmup_s)]
        if not series:
            compile_ms = _compile_ms() - compiled_before
        if baseline is not None and not (level == "image" and other is None):
            calls.append(_call(baseline, level, batch, other))
            warm.append(warm_up(calls[1][0], len(calls[1][1]), device, options.warmup_s))
        interleave(calls, warm, device, options)
        series[level] = warm
        if level == "step" and device == "cuda":
            gap = warm[0].gap_share(busy_ms(*calls[0]))
    values = _values(cell, baseline, options, series)
    values["prepare_ms"] = _preparation(cell, batch)
    around |= conditions_after(device)
    cold = {"load_ms": load_ms, "compile_ms": compile_ms if cell.spec.mode == "compiled" else None}
    return LatencyResult(values, _detail(cell, baseline, options, series, cold, gap, around))


def _call(cell: BoundCell, level: str, batch: int, decoder: Decodes | None) -> tuple[Call, Weights]:
    if level == "step":
        return step_call(cell, batch)
    if level == "sample":
        return sample_call(cell, batch), WHOLE
    assert decoder is not None, "checked above"
    return image_call(cell, batch, decoder), WHOLE


def _compile_ms() -> float:
    """What torch's compiler took in this process so far."""
    compiler = sys.modules.get("torch._dynamo.utils")  # importing it takes seconds, and not importing it is telling
    return 0.0 if compiler is None else compiler.cumulative_time_spent_ns.get("entire_frame_compile", 0.0) / 1e6


def _preparation(cell: BoundCell, batch: int) -> Quantity:
    """Planning and slicing for the cell's whole grid: what the "step" level leaves out and "sample" holds."""
    call = prepare_call(cell, batch)
    spent = summary([timed(call, index, cell.spec.device).wall_ms for index in range(PREPARATIONS)])
    return Quantity(
        value=spent.median, unit="ms", low=spent.low, high=spent.high, interval=f"planned anew; {spent.interval}"
    )


def _values(
    cell: BoundCell, baseline: BoundCell | None, options: LatencyOptions, series: dict[str, list[Series]]
) -> dict[str, Quantity]:
    values: dict[str, Quantity] = {}
    steps = len(cell.times(options.batch))
    if "step" in series:
        values["latency_ms"] = _median(series["step"][0], "ms")
    if "image" in series:
        how = f"decoder included; {series['image'][0].summary().interval}"
        values["image_total_ms"] = _scaled(_median(series["image"][0], "ms"), 1 / options.batch, "ms", how)
        if len(series["image"]) == 2:
            ratio = paired_ratio_interval(series["image"][1].wall(), series["image"][0].wall())
            values["speedup_total"] = _scaled(_quantity(ratio, "1"), 1.0, "1", f"decoder included; {ratio.method}")
    if "sample" in series:
        loop = _median(series["sample"][0], "ms")
        values["sample_ms"], how = loop, loop.interval
        image = _scaled(loop, 1 / options.batch, "ms", how)
    elif "step" in series:
        how = f"{steps} times the step's median, not timed as a loop; {values['latency_ms'].interval}"
        image = _scaled(values["latency_ms"], steps / options.batch, "ms", how)
    else:
        return values
    values["image_ms"] = image
    low, high = image.low, image.high
    values["images_per_s"] = Quantity(
        value=1e3 / image.value,
        unit="images/s",
        low=None if high is None else 1e3 / high,
        high=None if low is None else 1e3 / low,
        interval=how,
    )
    if baseline is not None:
        level = "sample" if "sample" in series else "step"
        ratio = paired_ratio_interval(series[level][1].wall(), series[level][0].wall())
        # a speed-up is always for an image: where only steps were timed, their numbers count too
        factor = 1.0 if level == "sample" else len(baseline.times(options.batch)) / steps
        how = ratio.method if level == "sample" else f"{ratio.method}; a step's ratio times the ratio of steps"
        values["speedup"] = _scaled(_quantity(ratio, "1"), factor, "1", how)
    return values


def _detail(
    cell: BoundCell,
    baseline: BoundCell | None,
    options: LatencyOptions,
    series: dict[str, list[Series]],
    cold: dict[str, float | None],
    gap: float | None,
    around: dict[str, Any],
) -> dict[str, Any]:
    first, chosen, graphs = next(iter(series.values()))[0], cell.tune(options.batch), cell.execution.graphs
    timed = [level for level in ("sample", "step") if level in series]
    return {
        "batch": options.batch,
        "baseline": baseline.spec.cell if baseline else None,
        "order": "A B B A" if baseline else "A",
        "speedup_level": timed[0] if baseline and timed else None,
        "levels": {level: _level(each[0], cell, options.batch) for level, each in series.items()},
        "baseline_levels": {
            level: _level(each[1], baseline, options.batch)
            for level, each in series.items()
            if baseline is not None and len(each) == 2
        },
        "cold": {
            **cold,
            # where ways to run were measured before, no call of the clock is the first
            "first_call_ms": None if chosen else first.first_ms,
            "capture_ms": None if graphs is None else graphs.capture_ms,
            "captures": None if graphs is None else graphs.captures,
        },
        "gap_share": gap,
        "choices_ms": chosen,
        **({"choices_about": cell.model.tuning_about} if chosen else {}),
        "launch_bound": None if gap is None else gap > LAUNCH_BOUND_GAP,
        "throttled": throttled(around),
        "conditions": {
            "mode": cell.spec.mode,
            "dtype": cell.spec.dtype,
            "threads": cell.spec.threads,
            "precision": options.precision,
            "budget_s": options.budget_s,
            "inputs": "4 in rotation; noise drawn before the clock starts; latent space; level image decodes",
            **around,
        },
    }


def _level(series: Series, cell: BoundCell, batch: int) -> dict[str, Any]:
    guided = any(cell.rule.guides(t) for t in cell.times(batch))
    summary = asdict(series.summary())
    renamed = {(name if name in ("n", "interval") else f"{name}_ms"): value for name, value in summary.items()}
    return {
        "rows": batch * (2 if guided else 1),
        "guided": guided,
        **renamed,
        "warmup_calls": series.warmup_calls,
        "rounds_ms": [[round(ms, 4) for ms in timings] for timings in series.wall()],
    }


def _median(series: Series, unit: str) -> Quantity:
    timing = series.summary()
    return Quantity(value=timing.median, unit=unit, low=timing.low, high=timing.high, interval=timing.interval)


def _quantity(estimate: Estimate, unit: str) -> Quantity:
    return Quantity(value=estimate.value, unit=unit, low=estimate.low, high=estimate.high, interval=estimate.method)


def _scaled(quantity: Quantity, factor: float, unit: str, interval: str) -> Quantity:
    def scale(value: float | None) -> float | None:
        return None if value is None else value * factor

    return Quantity(
        value=quantity.value * factor,
        unit=unit,
        low=scale(quantity.low),
        high=scale(quantity.high),
        interval=interval,
    )

"""The latency measurement: a cell, beside its baseline, at the levels that the suite asks for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from harness.measure.conditions import timing_conditions
from harness.measure.latency import (
    LAUNCH_BOUND_GAP,
    WHOLE,
    Series,
    interleave,
    prepare_call,
    sample_call,
    step_call,
    timed,
    warm_up,
)
from harness.sample.generate import BoundCell
from harness.stats.intervals import Estimate, paired_ratio_interval, summary
from harness.store.records import Quantity
from harness.suite.schema import LatencyOptions

PREPARATIONS = 7


@dataclass(frozen=True)
class LatencyResult:
    """values: see ``Record``; detail: levels, rounds and conditions behind them."""

    values: dict[str, Quantity]
    detail: dict[str, Any]


def measure_latency(
    cell: BoundCell,
    baseline: BoundCell | None,
    options: LatencyOptions,
    load_ms: float,
) -> LatencyResult:
    """Time ``cell``, in rounds of A B B A with ``baseline`` unless that is None or the cell itself."""
    batch, device = options.batch, cell.spec.device
    around = timing_conditions(device)
    cells = [cell] if baseline is None else [cell, baseline]
    series: dict[str, list[Series]] = {}
    for level in dict.fromkeys(options.levels):
        calls = [step_call(c, batch) if level == "step" else (sample_call(c, batch), WHOLE) for c in cells]
        warm = [warm_up(call, len(weights), device, options.warmup_s) for call, weights in calls]
        interleave(calls, warm, device, options)
        series[level] = warm
    values = _values(cell, baseline, options, series)
    values["prepare_ms"] = _preparation(cell, batch)
    return LatencyResult(values, _detail(cell, baseline, options, series, load_ms, around))


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
    if "sample" in series:
        loop = _median(series["sample"][0], "ms")
        values["sample_ms"], how = loop, loop.interval
        image = _scaled(loop, 1 / options.batch, "ms", how)
    else:
        how = f"{steps} times the step's median, not timed as a loop; {values['latency_ms'].interval}"
        image = _scaled(values["latency_ms"], steps / options.batch, "ms", how)
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
    load_ms: float,
    around: dict[str, Any],
) -> dict[str, Any]:
    first, layouts = next(iter(series.values()))[0], cell.tune(options.batch)
    gap = series["step"][0].gap_share() if "step" in series else None
    return {
        "batch": options.batch,
        "baseline": baseline.spec.cell if baseline else None,
        "order": "A B B A" if baseline else "A",
        "speedup_level": ("sample" if "sample" in series else "step") if baseline else None,
        "levels": {level: _level(pair[0], cell, options.batch) for level, pair in series.items()},
        "baseline_levels": (
            {level: _level(pair[1], baseline, options.batch) for level, pair in series.items()} if baseline else {}
        ),
        # where layouts were measured before, no call of the clock is the first
        "cold": {"load_ms": load_ms, "first_call_ms": None if layouts else first.first_ms},
        "gap_share": gap,
        "layouts_ms": layouts,
        "launch_bound": None if gap is None else gap > LAUNCH_BOUND_GAP,
        "conditions": {
            "mode": cell.spec.mode,
            "dtype": cell.spec.dtype,
            "threads": cell.spec.threads,
            "precision": options.precision,
            "budget_s": options.budget_s,
            "inputs": "4 in rotation; noise drawn before the clock starts; latent space, no decoder",
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

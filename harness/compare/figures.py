"""One figure of two records: how far B is from A, or why the two cannot be set beside each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ditbench.harness.compare.metrics import Metric
from ditbench.harness.compare.runs import Run, baselines_differ, same_noise, surroundings_differ
from ditbench.harness.stats.compare import (
    MIN_REPETITIONS,
    Change,
    Draws,
    Time,
    difference_of_intervals,
    exact,
    paired,
    pseudo_values,
    ratio_of_intervals,
    ratio_of_times,
    same,
    unpaired,
)
from ditbench.harness.stats.intervals import Estimate
from ditbench.harness.store.records import Quantity, Record

# Behind a recorded interval of samples: a 10-block jackknife has nine, the others have more.
_FREEDOM = 9
_MIN_SEEDS = 3


def missing(metric: Metric, record: Record | None, side: str) -> str | None:
    """Why the record of a side ('A', 'B') does not hold a figure; None if it does."""
    if record is None:
        return f"not run in {side}"
    if record.status != "ok":
        return f"failed in {side}: {record.failure.message if record.failure else 'unknown'}"
    if metric.name in record.values:
        return None
    why = (record.detail.get("not_available") or {}).get(metric.name)
    return f"not available in {side}: {why}" if why else f"not measured in {side}"


def incomparable(metric: Metric, a: Run, b: Run, one: Record, two: Record) -> str | None:
    """Why a figure of two complete records means two different things; None if it means the same."""
    reason = None
    if metric.measurement == "latency":
        reason = surroundings_differ(a, b, one, two)
    if reason is None and metric.measurement in ("latency", "memory"):
        reason = _differs("batch", one.detail.get("batch"), two.detail.get("batch"))
    if reason is None and metric.name in ("image_ms", "speedup"):
        reason = _differs("timed level", _image_level(one), _image_level(two))
    if reason is None and (metric.kind == "speed-up" or metric.measurement == "paired"):
        reason = baselines_differ(a, b)
    if reason is None and metric.name == "lpips":
        reason = _differs("LPIPS weights", one.detail.get("lpips_sha256"), two.detail.get("lpips_sha256"))
    return reason


def change_of(metric: Metric, a: Run, b: Run, one: Record, two: Record) -> Change:
    """From A to B, of two complete records that both hold the figure and that ``incomparable`` has nothing against."""
    mine, theirs = one.values[metric.name], two.values[metric.name]
    # Only together do equal values say that nothing varied: a share of 1000 samples may agree by chance.
    if one.values == two.values:
        return same("equal, and so is all that was measured with it", 1.0 if metric.ratio else 0.0)
    if metric.kind == "time":
        return _time(metric, a, b, one, two)
    if metric.kind == "speed-up":
        freedom = sum(_rounds(record) - 1 for record in (one, two))
        return ratio_of_intervals(_estimate(mine), _estimate(theirs), max(1, freedom))
    if metric.kind == "count":
        if mine.low is None and theirs.low is None:
            return exact(mine.value, theirs.value)
        return difference_of_intervals(_estimate(mine), _estimate(theirs), _FREEDOM)
    return _sampled(metric.name, one, two)


def _sampled(name: str, one: Record, two: Record) -> Change:
    (kind_a, draws_a), (kind_b, draws_b) = _draws(name, one), _draws(name, two)
    if draws_a is None or draws_b is None:
        estimates = _estimate(one.values[name]), _estimate(two.values[name])
        change = difference_of_intervals(*estimates, _FREEDOM)
        lacking = " and ".join(side for side, draws in (("A", draws_a), ("B", draws_b)) if draws is None)
        return replace(change, method=f"{change.method}; no leave-one-outs in {lacking}")
    if _paired(name, one, two) and kind_a == kind_b and len(draws_a.draws) == len(draws_b.draws):
        return paired(draws_a, draws_b, kind_a)
    return unpaired(draws_a, draws_b, kind_a if kind_a == kind_b else f"{kind_a} and {kind_b}")


def _draws(name: str, record: Record) -> tuple[str, Draws | None]:
    value = record.values[name].value
    seeds: list[float] = (record.detail.get("by_seed") or {}).get(name, [])
    if len(seeds) >= _MIN_SEEDS:
        return "seeds", Draws(value, tuple(seeds))
    without: list[float] = (record.detail.get("leave_one_out") or {}).get(name, [])
    return "blocks", pseudo_values(value, without) if len(without) >= 2 else None


def _paired(name: str, one: Record, two: Record) -> bool:
    """Whether block i of both holds the same sample indices and the same noise."""
    alike = same_noise(one.spec, two.spec) and one.detail.get("samples") == two.detail.get("samples")
    # equal images have no PSNR and are left out of its blocks
    return alike and not (name == "psnr" and (one.detail.get("identical") or two.detail.get("identical")))


def _time(metric: Metric, a: Run, b: Run, one: Record, two: Record) -> Change:
    mine, theirs = one.values[metric.name], two.values[metric.name]
    level = _image_level(one) if metric.name == "image_ms" else metric.level
    spread_a, spread_b = a.spread(level), b.spread(level)
    if spread_a is None or spread_b is None:
        lacking = "A" if spread_a is None else "B"
        why = f"the baseline of {lacking} was timed in fewer than {MIN_REPETITIONS} processes"
        return Change(theirs.value / mine.value, None, None, None, f"no interval: {why}")
    times = (
        Time(quantity.value, quantity.low, quantity.high, spread)
        for quantity, spread in ((mine, spread_a), (theirs, spread_b))
    )
    return ratio_of_times(*times, one_run=a.folder.resolve() == b.folder.resolve())


def _image_level(record: Record) -> str:
    return "sample" if "sample" in (record.detail.get("levels") or {}) else "step"


def _rounds(record: Record) -> int:
    level: dict[str, Any] = (record.detail.get("levels") or {}).get(_image_level(record), {})
    return len(level.get("rounds_ms") or [])


def _differs(what: str, one: object, two: object) -> str | None:
    return None if one == two else f"{what} {one} in A, {two} in B"


def _estimate(quantity: Quantity) -> Estimate:
    return Estimate(quantity.value, quantity.low, quantity.high, quantity.interval)

"""What a flexible model's records say: which patch size runs at each sampling step, and how far the sizes differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ditbench.report.row import Row
from ditbench.report.run_view import RunView

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Schedule:
    """Patch size a step, noisiest step first.

    ``guide`` is the guidance branch's, None where it is the same or there is none. ``sizes`` are the model's, the
    pre-trained one first. ``fraction``: counted MACs of the loop / those of the same loop at the pre-trained size;
    ``fractions``: (convention, the same share by it).
    """

    patch: Sizes
    guide: Sizes | None
    sizes: Sizes
    fraction: float
    fractions: tuple[tuple[str, float], ...] = ()

    @property
    def pretrained(self) -> int:
        return self.sizes[0]


@dataclass(frozen=True)
class Curve:
    """Mean absolute difference per element to the pre-trained size's prediction, and its 95 % ends: one a timestep.

    ``low`` and ``high`` are empty where there is no interval, as with a single sample.
    """

    size: int
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Agreement:
    """``timesteps`` from noise to image; ``powerful`` is the patch size that every curve is compared with."""

    timesteps: tuple[float, ...]
    powerful: int
    samples: int
    curves: tuple[Curve, ...]


def schedule_of(row: Row) -> Schedule | None:
    """What the cell's record says; None for a cell of one patch size, and for a record without the figures."""
    stored = row.detail("flops").get("schedule")
    if not isinstance(stored, Mapping) or stored.get("fraction") is None:
        return None
    patch, sizes = _whole(stored.get("patch")), _whole(stored.get("sizes"))
    guide = _whole(stored.get("guide"))
    if not patch or not sizes or len(guide) not in (0, len(patch)):
        return None
    fractions = tuple((str(name), float(share)) for name, share in (stored.get("fractions") or {}).items())
    return Schedule(patch, None if guide in ((), patch) else guide, sizes, float(stored["fraction"]), fractions)


def agreement_of(row: Row) -> Agreement | None:
    """What the cell's record says; None where it was not measured."""
    detail = row.detail("agreement")
    timesteps, stored = _numbers(detail.get("timesteps")), (detail.get("sizes") or {}).items()
    found = (_curve(int(size), figures, len(timesteps)) for size, figures in stored)
    curves = tuple(sorted((curve for curve in found if curve), key=lambda curve: curve.size))
    if not timesteps or not curves:
        return None
    return Agreement(timesteps, int(detail["powerful"]), int(detail["samples"]), curves)


def weak_guidance(row: Row) -> str:
    """'conditional' or 'unconditional': what a guidance branch of other patches predicts; '' where there is none."""
    schedule = schedule_of(row)
    return row.spec.guidance_weak if schedule is not None and schedule.guide else ""


def layouts_of(row: Row) -> dict[str, dict[str, float]]:
    """Branches of unequal length ('patch 2, guidance 4') -> layout -> ms; empty where none were timed."""
    stored = row.detail("latency").get("layouts_ms") or {}
    return {
        str(branches): {str(layout): float(ms) for layout, ms in times.items()} for branches, times in stored.items()
    }


def _curve(size: int, stored: Mapping[str, Any], steps: int) -> Curve | None:
    mean = _numbers(stored.get("mean"))
    low, high = (tuple(stored.get(end) or ()) for end in ("low", "high"))
    if len(mean) != steps or not len(low) == len(high) == steps:
        return None
    if all(end is None for end in (*low, *high)):
        return Curve(size, mean, (), ())
    # where all samples are equal there is no interval: its ends meet
    low, high = (tuple(m if e is None else float(e) for m, e in zip(mean, ends, strict=True)) for ends in (low, high))
    return Curve(size, mean, low, high)


def _whole(stored: Any) -> Sizes:
    return tuple(int(size) for size in stored or ())


def _numbers(stored: Any) -> tuple[float, ...]:
    return tuple(float(number) for number in stored or ())


def is_flexible(view: RunView) -> bool:
    """Whether any cell of the run chooses its patch size by the step."""
    return any(schedule_of(row) for row in view.rows)


def in_words(patch: Sequence[int]) -> str:
    """'24 × patch 4, then 26 × patch 2'; with many changes 'interleaved: 24 × patch 4, 26 × patch 2'."""
    runs = [(size, len(list(steps))) for size, steps in groupby(patch)]
    if len(runs) <= max(3, len(set(patch))):
        return ", then ".join(f"{count} × patch {size}" for size, count in runs)
    counts = sorted(Counter(patch).items(), reverse=True)
    return "interleaved: " + ", ".join(f"{count} × patch {size}" for size, count in counts)

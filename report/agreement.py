"""How far the predictions of a model's cheaper variants are from those of its fullest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ditbench.report.row import Row


@dataclass(frozen=True)
class Curve:
    """Mean absolute difference per element to the reference's prediction, and its 95 % ends: one a timestep.

    ``low`` and ``high`` are empty where there is no interval, as with a single sample.
    """

    variant: str
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Agreement:
    """``timesteps`` from noise to image; ``reference`` is the variant that every curve is compared with."""

    timesteps: tuple[float, ...]
    reference: str
    samples: int
    curves: tuple[Curve, ...]


def agreement_of(row: Row) -> Agreement | None:
    """What the cell's record says; None where it was not measured."""
    detail = row.detail("agreement")
    timesteps, stored = _numbers(detail.get("timesteps")), (detail.get("variants") or {}).items()
    curves = tuple(curve for name, figures in stored if (curve := _curve(str(name), figures, len(timesteps))))
    if not timesteps or not curves:
        return None
    return Agreement(timesteps, str(detail["reference"]), int(detail["samples"]), curves)


def _curve(variant: str, stored: Mapping[str, Any], steps: int) -> Curve | None:
    mean = _numbers(stored.get("mean"))
    low, high = (tuple(stored.get(end) or ()) for end in ("low", "high"))
    if len(mean) != steps or not len(low) == len(high) == steps:
        return None
    if all(end is None for end in (*low, *high)):
        return Curve(variant, mean, (), ())
    # where all samples are equal there is no interval: its ends meet
    low, high = (tuple(m if e is None else float(e) for m, e in zip(mean, ends, strict=True)) for ends in (low, high))
    return Curve(variant, mean, low, high)


def _numbers(stored: Any) -> tuple[float, ...]:
    return tuple(float(number) for number in stored or ())

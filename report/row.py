"""One cell of the plan with everything that its records say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ditbench.harness.store.records import CellSpec, Quantity, Record

QUALITY_FIGURES = ("frechet", "kid", "precision", "recall", "accuracy")

Status = Literal["ok", "failed", "partial", "pending"]


@dataclass(frozen=True)
class Row:
    """One cell of the plan with everything that its records say.

    ``flops_ratio`` (compute an image / the baseline's), ``speedup`` and ``realised`` are pure numbers,
    None where there is no baseline or no measurement. ``on_front_*`` is None for a cell that has no place in that plot.
    """

    cell: str
    spec: CellSpec
    planned: tuple[str, ...]
    records: Mapping[str, Record]
    is_baseline: bool = False
    flops_ratio: float | None = None
    speedup: Quantity | None = None
    realised: float | None = None
    on_front_gmacs: bool | None = None
    on_front_time: bool | None = None
    waiting: Mapping[str, str] = field(default_factory=dict)  # planned, but a file is missing -> which

    def quantity(self, measurement: str, name: str) -> Quantity | None:
        """A measured figure, or None. A cost-only cell has no quality, whatever its records hold."""
        if name == "time_ratio":
            return self.time_ratio
        record = self.records.get(measurement)
        if record is None or record.status != "ok" or (measurement in ("quality", "paired") and self.spec.cost_only):
            return None
        return record.values.get(name)

    @property
    def time_ratio(self) -> Quantity | None:
        """Time an image as a share of the baseline's, both timed in turns; None without such a pair."""
        speedup = self.speedup
        if speedup is None:
            return None
        low = None if speedup.high is None else 1 / speedup.high
        high = None if speedup.low is None else 1 / speedup.low
        return Quantity(value=1 / speedup.value, unit="1", low=low, high=high, interval=speedup.interval)

    def value(self, measurement: str, name: str) -> float | None:
        """The bare number of ``quantity``."""
        quantity = self.quantity(measurement, name)
        return None if quantity is None else quantity.value

    def detail(self, measurement: str) -> dict[str, Any]:
        """The structured data behind a complete measurement; empty if there is none."""
        record = self.records.get(measurement)
        return record.detail if record is not None and record.status == "ok" else {}

    @property
    def has_quality(self) -> bool:
        """Whether the cell has any quality figure that may be shown."""
        return any(self.quantity("quality", name) is not None for name in QUALITY_FIGURES)

    @property
    def failures(self) -> dict[str, Record]:
        """Measurements that failed, in the plan's order."""
        return {name: record for name, record in self.records.items() if record.status == "failed"}

    @property
    def status(self) -> Status:
        """'failed' if any measurement failed, else 'ok' all measured, 'pending' nothing tried, 'partial' in between."""
        if self.failures:
            return "failed"
        if not self.records:
            return "pending"
        return "ok" if len(self.records) == len(self.planned) else "partial"

    @property
    def reason(self) -> str:
        """One line on every measurement that has no value; empty if all is well."""
        parts = []
        for name in self.planned:
            record = self.records.get(name)
            if record is None and name in self.waiting:
                parts.append(f"{name}: waits for a file: {self.waiting[name]}")
            elif record is None:
                parts.append(f"{name}: not run yet")
            elif record.failure is not None:
                parts.append(f"{name}: {record.failure.kind}: {' '.join(record.failure.message.split())}")
            elif record.status == "failed":
                parts.append(f"{name}: failed")
        return "; ".join(parts)

    @property
    def cost_words(self) -> str:
        """What stands beside the name of a cell whose samples mean nothing: 'cost only', and of which kind."""
        words = ["cost only"] if self.spec.cost_only else []
        words += [f"imposed {self.spec.imposed}"] if self.spec.imposed else []
        return ", ".join(words)

    def named(self, words: str) -> str:
        """``words``, a name for figures, with ``cost_words``: appended last, so that no shortening takes them."""
        return f"{words} ({self.cost_words})" if self.cost_words else words

    @property
    def evaluations(self) -> int:
        """Denoiser calls a sampling loop, the two branches of guidance as one: as counted, else as many as steps."""
        return len(self.detail("flops").get("profile", ())) or self.spec.steps

    @property
    def dominated(self) -> bool:
        """Whether the cell stands in a Pareto plot and is on the front of none."""
        places = [place for place in (self.on_front_gmacs, self.on_front_time) if place is not None]
        return bool(places) and not any(places)

    @property
    def batch(self) -> int | None:
        """Images a call in the timings, else in the other measured passes."""
        for name in ("latency", "kernels", "memory"):
            record = self.records.get(name)
            if record is not None and record.status == "ok":
                batch = record.detail.get("batch", record.options.get("batch"))
                if batch is not None:
                    return int(batch)
        return None

    @property
    def device_name(self) -> str:
        """The hardware that the timings ran on, else that of any record; empty if nothing ran."""
        record = self.records.get("latency") or next(iter(self.records.values()), None)
        return record.provenance.device_name if record is not None else ""

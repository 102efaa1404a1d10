"""What two runs are compared in: the figures' names, where their records hold them, and which way is better."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from ditbench.harness.errors import InputError, did_you_mean
from ditbench.harness.store.records import Record

Better = Literal["lower", "higher"]
Kind = Literal["sampled", "time", "speed-up", "count"]


@dataclass(frozen=True)
class Metric:
    """A figure of a record.

    kind    sampled: a statistic of samples; time: of one process; speed-up: against the baseline in turns;
            count: exact, unless its record has an interval
    better  None: not known, a difference is then neither better nor worse
    level   of the loop that a time was taken at
    """

    name: str
    measurement: str
    better: Better | None
    kind: Kind
    level: str = ""

    @property
    def ratio(self) -> bool:
        """Whether B / A is shown, and not B − A."""
        return self.kind in ("time", "speed-up")


def _sampled(measurement: str, better: Better, *names: str) -> list[Metric]:
    return [Metric(name, measurement, better, "sampled") for name in names]


# images_per_s is 1000 / image_ms, so that comparing it would say nothing new.
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        *_sampled("quality", "lower", "frechet", "frechet_infinity", "sfid", "kid", "rbf_mmd"),
        *_sampled("quality", "higher", "precision", "recall", "density", "coverage", "inception_score", "accuracy"),
        *_sampled("paired", "higher", "psnr", "ssim"),
        *_sampled("paired", "lower", "latent_error", "lpips"),
        Metric("latency_ms", "latency", "lower", "time", "step"),
        Metric("sample_ms", "latency", "lower", "time", "sample"),
        Metric("image_ms", "latency", "lower", "time", "sample"),
        Metric("speedup", "latency", "higher", "speed-up"),
        Metric("peak_mib", "memory", "lower", "count"),
        Metric("gmacs_image", "flops", "lower", "count"),
        Metric("params", "flops", "lower", "count"),
    )
}


def metrics_of(records: Iterable[Record], glob: str | None) -> tuple[Metric, ...]:
    """The known metrics, then what else quality and paired records hold; those whose name ``glob`` matches.

    Raises InputError if none does.
    """
    found = dict(METRICS)
    for record in records:
        if record.measurement in ("quality", "paired"):
            for name in record.values:
                found.setdefault(name, Metric(name, record.measurement, None, "sampled"))
    chosen = tuple(metric for metric in found.values() if glob is None or fnmatchcase(metric.name, glob))
    if not chosen:
        hint = did_you_mean(glob or "", found) or f" (known: {', '.join(found)})"
        raise InputError(f"--metrics {glob}: no figure has such a name{hint}")
    return chosen

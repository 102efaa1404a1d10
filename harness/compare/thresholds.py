"""Thresholds on what B may differ from A by: 'frechet>+5%', 'precision<-0.02'; and whether they are crossed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ditbench.harness.compare.comparison import Compared, Comparison
from ditbench.harness.compare.figures import missing
from ditbench.harness.compare.metrics import METRICS
from ditbench.harness.errors import InputError, did_you_mean

_SYNTAX = re.compile(
    r"(?P<name>\w+)\s*(?P<sign>[<>])\s*(?P<size>[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)\s*(?P<percent>%?)", re.I
)

State = Literal["held", "crossed", "within noise", "not judged"]


@dataclass(frozen=True)
class Threshold:
    """``metric`` may not change by more than ``size`` (a fall: by less); ``size`` is a share of A if ``relative``."""

    text: str
    metric: str
    rise: bool
    size: float
    relative: bool

    def passed(self, change: float) -> bool:
        """Whether a change (B − A, or its share of A) is past the threshold."""
        return change > self.size if self.rise else change < self.size


@dataclass(frozen=True)
class Judgement:
    """A threshold in one cell. change: B − A, or its share of A, or None; reason: why it was not judged."""

    cell: str
    state: State
    change: float | None = None
    reason: str = ""
    compared: Compared | None = None


@dataclass(frozen=True)
class Judged:
    """A threshold in all cells that have the figure. One crossed cell fails, and one that cannot be judged."""

    threshold: Threshold
    cells: tuple[Judgement, ...]

    def of(self, state: State) -> tuple[Judgement, ...]:
        return tuple(cell for cell in self.cells if cell.state == state)

    @property
    def failed(self) -> bool:
        return any(cell.state in ("crossed", "not judged") for cell in self.cells)


def parse_threshold(text: str) -> Threshold:
    """Read ``METRIC>+SIZE``, ``METRIC<-SIZE``, either with ``%``. Raises InputError."""
    match = _SYNTAX.fullmatch(text.strip())
    if match is None:
        raise InputError(f"--fail-if {text!r}: not a threshold; write 'frechet>+5%' or 'precision<-0.02'")
    rise, size = match["sign"] == ">", float(match["size"])
    if (size < 0) if rise else (size > 0):
        way = (
            f"'>' goes with a rise, as in {match['name']}>+5%"
            if rise
            else f"'<' goes with a fall, as in {match['name']}<-5%"
        )
        raise InputError(f"--fail-if {text!r}: {way}")
    relative = match["percent"] == "%"
    return Threshold(text.strip(), match["name"], rise, size / 100 if relative else size, relative)


def parse_thresholds(texts: Sequence[str], comparison: Comparison) -> tuple[Threshold, ...]:
    """Read thresholds on metrics of ``comparison``. Raises InputError, also for a metric that is not compared."""
    thresholds = tuple(parse_threshold(text) for text in texts)
    compared = [metric.name for metric in comparison.metrics]
    for threshold in thresholds:
        if threshold.metric in compared:
            continue
        if threshold.metric in METRICS:
            raise InputError(f"--fail-if {threshold.text!r}: --metrics leaves {threshold.metric} out")
        hint = did_you_mean(threshold.metric, compared) or f" (known: {', '.join(compared)})"
        raise InputError(f"--fail-if {threshold.text!r}: unknown figure {threshold.metric!r}{hint}")
    return thresholds


def judge(threshold: Threshold, comparison: Comparison) -> Judged:
    """Apply a threshold to every cell that has, or should have, its figure. Cells of B alone are held to nothing."""
    sides = comparison.sides
    metric = next(metric for metric in comparison.metrics if metric.name == threshold.metric)
    cells = [_judge(threshold, each) for each in comparison.compared if each.metric == metric]
    gone = [name for name in sides.only_a if not missing(metric, sides.a.cells[name].get(metric.measurement), "A")]
    cells += [Judgement(name, "not judged", reason="no such cell in B") for name in gone]
    if not cells:
        cells = [Judgement("all cells", "not judged", reason=f"none has {metric.name}")]
    return Judged(threshold, tuple(cells))


def _judge(threshold: Threshold, compared: Compared) -> Judgement:
    mine, theirs = compared.figures
    if compared.change is None or mine is None or theirs is None:
        return Judgement(compared.cell, "not judged", reason=compared.reason, compared=compared)
    change = 0.0 if compared.change.identical else theirs.value - mine.value
    if threshold.relative and change:
        if mine.value == 0.0:
            return Judgement(compared.cell, "not judged", reason="A is 0: there is no share of it", compared=compared)
        change /= abs(mine.value)
    if not threshold.passed(change):
        return Judgement(compared.cell, "held", change, compared=compared)
    if compared.apart:
        return Judgement(compared.cell, "crossed", change, compared=compared)
    if compared.change.low is None:
        return Judgement(compared.cell, "not judged", change, f"past it, but {compared.reason}", compared)
    return Judgement(compared.cell, "within noise", change, compared=compared)

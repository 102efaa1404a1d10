"""Every figure of every pair of cells, with one family of verdicts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ditbench.harness.compare.figures import change_of, incomparable, missing
from ditbench.harness.compare.metrics import Metric, metrics_of
from ditbench.harness.compare.runs import Sides
from ditbench.harness.errors import InputError
from ditbench.harness.stats.compare import Change, holm
from ditbench.harness.store.records import Quantity, Record

ALPHA = 0.05
Verdict = Literal["worse", "better", "different", "no difference", "identical", "cannot tell"]
VERDICTS: tuple[Verdict, ...] = ("worse", "better", "different", "no difference", "identical", "cannot tell")


@dataclass(frozen=True)
class Compared:
    """A figure of a pair of cells.

    a, b      the records that hold it; None where a side has none
    change    None if the figures cannot be set beside each other
    reason    of the verdict 'cannot tell'; empty otherwise
    adjusted  Holm's p-value in the family of all comparisons of the call that have an uncertainty; else None
    """

    cell_a: str
    cell_b: str
    metric: Metric
    a: Record | None
    b: Record | None
    change: Change | None
    reason: str = ""
    adjusted: float | None = None
    verdict: Verdict = "cannot tell"

    @property
    def cell(self) -> str:
        """What the pair is called: one name, or two where cells of different names were chosen."""
        return self.cell_a if self.cell_a == self.cell_b else f"{self.cell_a} against {self.cell_b}"

    @property
    def exact(self) -> bool:
        """Whether the figures have no uncertainty, so that any difference is one."""
        return self.change is not None and self.change.method == "exact"

    @property
    def apart(self) -> bool:
        """Whether the two differ, by the ordinary 95 % interval of this comparison alone."""
        change = self.change
        if change is None or change.identical:
            return False
        none = 1.0 if self.metric.ratio else 0.0
        return self.exact or (
            change.low is not None and change.high is not None and not change.low <= none <= change.high
        )

    @property
    def figures(self) -> tuple[Quantity | None, Quantity | None]:
        """The figure of A and of B."""
        return self._figure(self.a), self._figure(self.b)

    def _figure(self, record: Record | None) -> Quantity | None:
        return None if record is None else record.values[self.metric.name]


@dataclass(frozen=True)
class Comparison:
    """All comparisons of a call, cell by cell; ``family``: how many of them share the family-wise error."""

    sides: Sides
    metrics: tuple[Metric, ...]
    compared: tuple[Compared, ...]
    family: int


def compare(sides: Sides, glob: str | None = None) -> Comparison:
    """Compare two runs in the figures whose name ``glob`` matches (None: in all).

    Raises InputError where quality figures of two protocols would stand side by side.
    """
    records = [*sides.a.records(), *sides.b.records()]
    metrics = metrics_of(records, glob)
    seen = {name for record in records for name in record.values}
    present = [metric for metric in metrics if metric.name in seen]
    drafts = [
        draft for names in sides.pairs for metric in present if (draft := _compared(sides, *names, metric)) is not None
    ]
    p_values = {index: p for index, draft in enumerate(drafts) if (p := _p(draft)) is not None}
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    compared = tuple(_judged(draft, adjusted.get(index)) for index, draft in enumerate(drafts))
    return Comparison(sides, metrics, compared, len(p_values))


def _compared(sides: Sides, cell_a: str, cell_b: str, metric: Metric) -> Compared | None:
    """None where neither cell was to have the figure."""
    one = sides.a.cells[cell_a].get(metric.measurement)
    two = sides.b.cells[cell_b].get(metric.measurement)
    _check_protocols(cell_a, cell_b, metric, one, two)
    lack_a, lack_b = missing(metric, one, "A"), missing(metric, two, "B")
    lost = sides.a.lost(cell_a, metric.measurement) or sides.b.lost(cell_b, metric.measurement)
    if lack_a and lack_b and not lost:
        return None
    found = Compared(cell_a, cell_b, metric, None if lack_a else one, None if lack_b else two, None)
    if lack_a or lack_b:
        return replace(found, reason="; ".join(filter(None, (lack_a, lack_b))))
    assert one is not None and two is not None
    if (why := incomparable(metric, sides.a, sides.b, one, two)) is not None:
        return replace(found, reason=why)
    change = change_of(metric, sides.a, sides.b, one, two)
    return replace(found, change=change)


def _check_protocols(cell_a: str, cell_b: str, metric: Metric, one: Record | None, two: Record | None) -> None:
    if one is None or two is None or "failed" in (one.status, two.status) or one.protocol == two.protocol:
        return
    raise InputError(
        f"cannot be compared: A's {cell_a} has {metric.measurement} by {one.protocol}, B's {cell_b} by {two.protocol}; "
        "figures of two protocols mean different things (--metrics leaves them out)"
    )


def _p(draft: Compared) -> float | None:
    return None if draft.change is None else draft.change.p


def _judged(draft: Compared, adjusted: float | None) -> Compared:
    change = draft.change
    if change is None:
        return draft
    if change.identical:
        return replace(draft, verdict="identical")
    if not draft.exact and adjusted is None:
        return replace(draft, reason=change.method)
    if adjusted is not None and adjusted > ALPHA:
        return replace(draft, adjusted=adjusted, verdict="no difference")
    return replace(draft, adjusted=adjusted, verdict=_direction(draft.metric, change))


def _direction(metric: Metric, change: Change) -> Verdict:
    if metric.better is None:
        return "different"
    fell = change.value < (1.0 if metric.ratio else 0.0)
    return "better" if fell == (metric.better == "lower") else "worse"

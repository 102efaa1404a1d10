"""How sure each cell's place on the fronts is: in numbers, table entries and words.

Quality errs by blocks where the record keeps its leave-one-outs (or its figures by seed): cells of the same seeds are
then drawn together. Otherwise a cell's 95 % interval is an error of its own. Times have an error of their own each,
on a logarithmic scale; MACs have one where tokens are selected by content.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ditbench.harness.stats.front_probability import (
    Uncertain,
    UncertainPoint,
    front_probability,
    of_interval,
    of_leave_one_out,
    of_repeats,
)
from ditbench.report.row import Row
from ditbench.report.run_view import RunView

SETTLED = 0.95  # from here on a place is taken as sure, as the intervals are


@dataclass(frozen=True)
class FrontProbabilities:
    """Cell -> probability in [0, 1] that it is on the front; ``ditbench.harness.stats.front_probability`` defines it.

    Cells without a place in that plot are left out, and so is a whole front on which no quality has an interval.

    paired      cells whose quality errors are drawn by blocks or seeds, together with those of the same seeds
    exact       cells whose quality has no interval and was taken as exact
    exact_time  the same for the time, the baseline's own share of 1 apart
    """

    gmacs: Mapping[str, float]
    time: Mapping[str, float]
    paired: tuple[str, ...] = ()
    exact: tuple[str, ...] = ()
    exact_time: tuple[str, ...] = ()


def front_probabilities(view: RunView) -> FrontProbabilities:
    """Probabilities for the fronts of ``view``: one against compute, one a device against time."""
    counted = [row for row in view.rows if row.on_front_gmacs is not None]
    timed = [row for row in view.rows if row.on_front_time is not None]
    quality = {row.cell: _quality(row) for row in (*counted, *timed)}
    times = {row.cell: _time(row, view.time_axis) for row in timed}
    by_time: dict[str, float] = {}
    for device in dict.fromkeys(row.device_name for row in timed):
        by_time |= _probabilities({r.cell: times[r.cell] for r in timed if r.device_name == device}, quality)
    return FrontProbabilities(
        gmacs=_probabilities({row.cell: _gmacs(row) for row in counted}, quality),
        time=by_time,
        paired=tuple(cell for cell, each in quality.items() if each.freedom is not None),
        exact=tuple(cell for cell, each in quality.items() if each.exact),
        exact_time=tuple(row.cell for row in timed if times[row.cell].exact and not row.is_baseline),
    )


def _probabilities(costs: Mapping[str, Uncertain], quality: Mapping[str, Uncertain]) -> dict[str, float]:
    """Nothing where no quality has an error: certainty for want of an interval is none."""
    if all(quality[cell].exact for cell in costs):
        return {}
    return front_probability([UncertainPoint(cell, cost, quality[cell]) for cell, cost in costs.items()])


def unsettled(on_front: bool | None, probability: float | None) -> bool:
    """Whether a cell's place, on or off the measured front, is held with less than 95 % probability."""
    if on_front is None or probability is None:
        return False
    return (probability if on_front else 1 - probability) < SETTLED


def percent(probability: float) -> str:
    """'62 %'; what rounds to an end without being it is '>99 %' or '<1 %'."""
    if 0 < probability < 0.005:
        return "<1 %"
    if 0.995 <= probability < 1:
        return ">99 %"
    return f"{100 * probability:.0f} %"


def _quality(row: Row) -> Uncertain:
    """The Fréchet distance with the error that its record allows; exact if it has no interval."""
    figure, detail, record = row.quantity("quality", "frechet"), row.detail("quality"), row.records["quality"]
    assert figure is not None
    blocks = detail.get("leave_one_out", {}).get("frechet")
    repeats = detail.get("by_seed", {}).get("frechet")
    if figure.low is None or figure.high is None:
        return Uncertain(figure.value)
    # Block i of two cells holds the same noise and labels only where seeds and counts agree.
    samples = f"seeds {detail.get('seeds', [record.spec.seed])}, {detail.get('samples')} samples"
    if blocks:
        return of_leave_one_out(figure.value, blocks, f"{samples}, {len(blocks)} blocks")
    if repeats:
        return replace(of_repeats(repeats, samples), value=figure.value)
    return of_interval(figure.value, figure.low, figure.high, record.identity)


def _gmacs(row: Row) -> Uncertain:
    """Exact but where tokens are selected by content. Cells that share a record share its error."""
    figure = row.quantity("flops", "gmacs_image")
    assert figure is not None
    return of_interval(figure.value, figure.low, figure.high, row.records["flops"].identity)


def _time(row: Row, axis: str) -> Uncertain:
    figure = row.quantity("latency", axis)
    assert figure is not None
    return of_interval(figure.value, figure.low, figure.high, row.records["latency"].identity, log=True)

"""What a run says of schedules in a few sentences: how cheap one can be at the same quality, and in which order."""

from __future__ import annotations

import json

from ditbench.harness.store.records import Quantity
from ditbench.report.flexible import Schedule, schedule_of
from ditbench.report.row import Row
from ditbench.report.run_view import RunView
from ditbench.report.words.phrases import listed, overlap, sampled_alike, spread

MOST_ORDERS = 3


def cheapest_schedule(view: RunView) -> str:
    """Of the flexible cells that save compute, the cheapest that is as good as the baseline's interval asks.

    Cells that sample as the baseline does go before all others: only there is all that is saved the schedule's.
    """
    base = next((row for row in view.rows if row.is_baseline), None)
    usual = base.quantity("quality", "frechet") if base is not None else None
    if base is None or usual is None or usual.low is None or usual.high is None:
        return ""
    found = [
        (row, figure, row.flops_ratio)
        for row in view.rows
        if schedule_of(row) and not row.is_baseline and row.flops_ratio and row.flops_ratio < 0.9995
        if (figure := row.quantity("quality", "frechet"))
    ]
    found = [entry for entry in found if sampled_alike(entry[0], base)] or found
    if not found:
        return ""
    others = "" if sampled_alike(found[0][0], base) else ", its other sampling included"
    good = [entry for entry in found if entry[1].value <= usual.high]
    if good:
        row, figure, ratio = min(good, key=lambda entry: entry[2])
        reach = figure.high is not None and figure.high > usual.high
        return (
            f"Of the schedules whose Fréchet distance is not above the interval of {base.cell}, {spread(usual)}, that "
            f"of {row.cell} is the cheapest: {spread(figure)} at {100 * ratio:.1f} % of its compute{others}"
            f"{'; its own interval reaches higher' * reach}."
        )
    row, figure, ratio = min(found, key=lambda entry: entry[1].value)
    text = (
        f"No schedule that saves compute has a Fréchet distance within the interval of {base.cell}, {spread(usual)}; "
        f"the nearest is {row.cell} with {spread(figure)} at {100 * ratio:.1f} % of its compute{others}"
    )
    return text + (" (the intervals overlap)." if overlap(figure, usual) else ".")


def orders(view: RunView) -> tuple[str, ...]:
    """A sentence for every group of cells that run the same steps in other orders, the best order first."""
    groups: dict[str, list[tuple[Row, Schedule, Quantity]]] = {}
    for row in view.rows:
        schedule, figure = schedule_of(row), row.quantity("quality", "frechet")
        if schedule is not None and figure is not None:
            groups.setdefault(_but_for_order(row, schedule), []).append((row, schedule, figure))
    told = [
        _order_sentence(sorted(group, key=lambda entry: entry[2].value))
        for group in groups.values()
        if len({(schedule.patch, schedule.guide) for _, schedule, _ in group}) > 1
    ]
    more = len(told) - MOST_ORDERS
    return (*told[:MOST_ORDERS], *[f"{more} further groups differ in their order alone."] * (more > 0))


def _but_for_order(row: Row, schedule: Schedule) -> str:
    """Equal for cells that differ in the order of their steps alone, at equal compute."""
    names = {"cell", "variant", "measure", "batch", "timeout_s"}
    spec = row.spec.model_dump(mode="json", exclude=names)
    config = {name: value for name, value in row.spec.config.items() if name != "schedule"}
    counts = [sorted(sizes) if sizes else None for sizes in (schedule.patch, schedule.guide)]
    gmacs = f"{row.value('flops', 'gmacs_image') or 0.0:.6g}"
    return json.dumps([spec | {"config": config}, counts, schedule.sizes, gmacs], sort_keys=True)


def _order_sentence(group: list[tuple[Row, Schedule, Quantity]]) -> str:
    best, lowest = group[0][0], group[0][2]
    figures = listed(f"{spread(figure)} {_order(schedule)} ({row.cell})" for row, schedule, figure in group)
    share = group[0][1].fraction
    text = (
        f"The same steps in other orders, at {100 * share:.1f} % of the pre-trained size's compute: "
        f"Fréchet distance {figures}"
    )
    if any(figure.low is None or figure.high is None for *_, figure in group):
        return text + "."
    alike = [row.cell for row, _, figure in group[1:] if overlap(lowest, figure)]
    if not alike:
        return f"{text}; {best.cell} is the best of them (the intervals do not overlap)."
    verb = "is" if len(alike) == 1 else "are"
    return f"{text}; {listed(alike)} {verb} not told apart from {best.cell} (the intervals overlap)."


def _order(schedule: Schedule) -> str:
    coarse_first = tuple(sorted(schedule.patch, reverse=True))
    words = {coarse_first: "with coarse patches first", coarse_first[::-1]: "with coarse patches last"}
    return words.get(schedule.patch, "in mixed order")

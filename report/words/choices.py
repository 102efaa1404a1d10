"""What a run says of its choices by step: how cheap they can be at the same quality, and in which order."""

from __future__ import annotations

import json
from collections.abc import Iterable

from ditbench.harness.store.records import Quantity
from ditbench.report.facets import Compute, Labels, compute_of, facets_of, rank, sampled_alike
from ditbench.report.row import Row
from ditbench.report.run_view import RunView
from ditbench.report.words.phrases import listed, overlap, spread

MOST_ORDERS = 3


def cheapest_choice(view: RunView) -> str:
    """Of the cells that choose by the step and save compute, the cheapest that is as good as the baseline's interval
    asks.

    Cells that sample as the baseline does go before all others: only there is all that is saved the choice's.
    """
    base = next((row for row in view.rows if row.is_baseline), None)
    usual = base.quantity("quality", "frechet") if base is not None else None
    if base is None or usual is None or usual.low is None or usual.high is None:
        return ""
    found = [
        (row, figure, row.flops_ratio)
        for row in view.rows
        if facets_of(row).labels and not row.is_baseline and row.flops_ratio and row.flops_ratio < 0.9995
        if (figure := row.quantity("quality", "frechet"))
    ]
    found = [entry for entry in found if sampled_alike(entry[0], base)] or found
    if not found:
        return ""
    others = "" if sampled_alike(found[0][0], base) else ", its other sampling included"
    what = _choice(row for row, *_ in found)
    good = [entry for entry in found if entry[1].value <= usual.high]
    if good:
        row, figure, ratio = min(good, key=lambda entry: entry[2])
        reach = figure.high is not None and figure.high > usual.high
        return (
            f"Of the cells with a {what} by step whose Fréchet distance is not above the interval of {base.cell}, "
            f"{spread(usual)}, {row.cell} is the cheapest: {spread(figure)} at {100 * ratio:.1f} % of its "
            f"compute{others}{'; its own interval reaches higher' * reach}."
        )
    row, figure, ratio = min(found, key=lambda entry: entry[1].value)
    text = (
        f"No cell with a {what} by step that saves compute has a Fréchet distance within the interval of {base.cell}, "
        f"{spread(usual)}; the nearest is {row.cell} with {spread(figure)} at {100 * ratio:.1f} % of its compute"
        f"{others}"
    )
    return text + (" (the intervals overlap)." if overlap(figure, usual) else ".")


def _choice(rows: Iterable[Row]) -> str:
    """Their names."""
    return " or ".join(dict.fromkeys(labels.name for row in rows for labels in facets_of(row).labels))


def orders(view: RunView) -> tuple[str, ...]:
    """A sentence for every group of cells that run the same steps in other orders, the best order first."""
    groups: dict[str, list[tuple[Row, Quantity]]] = {}
    for row in view.rows:
        figure = row.quantity("quality", "frechet")
        if facets_of(row).labels and figure is not None:
            groups.setdefault(_but_for_order(row), []).append((row, figure))
    told = [
        _order_sentence(sorted(group, key=lambda entry: entry[1].value))
        for group in groups.values()
        if len({tuple((each.values, each.guidance) for each in facets_of(row).labels) for row, _ in group}) > 1
    ]
    more = len(told) - MOST_ORDERS
    return (*told[:MOST_ORDERS], *[f"{more} further groups differ in their order alone."] * (more > 0))


def _but_for_order(row: Row) -> str:
    """Equal for cells of one model that differ in the order of their steps alone, at equal compute."""
    names = {"cell", "variant", "config", "measure", "batch", "timeout_s"}
    counts = [
        [each.name, each.levels, sorted(map(str, each.values)), sorted(map(str, each.guidance or ()))]
        for each in facets_of(row).labels
    ]
    gmacs, params = f"{row.value('flops', 'gmacs_image') or 0.0:.6g}", row.value("flops", "params")
    return json.dumps([row.spec.model_dump(mode="json", exclude=names), counts, gmacs, params], sort_keys=True)


def _order_sentence(group: list[tuple[Row, Quantity]]) -> str:
    (best, lowest), compute = group[0], compute_of(group[0][0])
    figures = listed(f"{spread(figure)} {_order(row)} ({row.cell})" for row, figure in group)
    text = f"The same steps in other orders{_at(compute)}: Fréchet distance {figures}"
    if any(figure.low is None or figure.high is None for _, figure in group):
        return text + "."
    alike = [row.cell for row, figure in group[1:] if overlap(lowest, figure)]
    if not alike:
        return f"{text}; {best.cell} is the best of them (the intervals do not overlap)."
    verb = "is" if len(alike) == 1 else "are"
    return f"{text}; {listed(alike)} {verb} not told apart from {best.cell} (the intervals overlap)."


def _at(compute: Compute | None) -> str:
    return f", at {100 * compute.share:.1f} % of the compute of {compute.of}" if compute else ""


def _order(row: Row) -> str:
    ways = {_direction(labels) for labels in facets_of(row).labels}
    return ways.pop() if len(ways) == 1 else "in mixed order"


def _direction(labels: Labels) -> str:
    ranks = [rank(labels, label) for label in labels.values]
    falling = sorted(ranks, reverse=True)
    words = {tuple(falling): "with cheap steps first", tuple(falling[::-1]): "with cheap steps last"}
    return words.get(tuple(ranks), "in mixed order")

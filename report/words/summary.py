"""The run in a few sentences, each made from its figures. What was not measured is not mentioned."""

from __future__ import annotations

from collections import Counter

from ditbench.harness.stats.pareto import Point, pareto_front
from ditbench.report.facets import facets_of, sampled_alike, weak_guidance
from ditbench.report.fronts import front_probabilities
from ditbench.report.numbers import short, with_unit
from ditbench.report.row import Row, Status
from ditbench.report.run_view import RunView
from ditbench.report.words.choices import cheapest_choice, orders
from ditbench.report.words.fronts import front_certainty
from ditbench.report.words.phrases import listed, overlap, spread


def summary(view: RunView) -> tuple[str, ...]:
    """Paragraphs: what ran, the best quality, the fronts, the choices, the savings, the warnings."""
    paragraphs = (
        " ".join(filter(None, (_what_ran(view), _best_quality(view)))),
        " ".join(filter(None, (_compute_front(view), _time_front(view), _certainty(view)))),
        " ".join(filter(None, (cheapest_choice(view), *orders(view)))),
        " ".join(filter(None, (_saving(view), _dynamic(view), _launch_bound(view), _sizes(view)))),
    )
    return tuple(paragraph for paragraph in paragraphs if paragraph)


def _what_ran(view: RunView) -> str:
    counts = Counter(row.status for row in view.rows)
    names: dict[Status, str] = {
        "ok": "complete",
        "partial": "partial",
        "failed": "failed",
        "pending": "not run yet",
    }
    parts = [f"{counts[status]} {name}" for status, name in names.items() if counts[status]]
    cells = "1 cell" if len(view.rows) == 1 else f"{len(view.rows)} cells"
    return f"{cells}: {listed(parts)}." if parts else "The plan has no cells."


def _best_quality(view: RunView) -> str:
    scored = [(row, quantity) for row in view.rows if (quantity := row.quantity("quality", "frechet"))]
    if not scored:
        return ""
    best, figure = min(scored, key=lambda pair: pair[1].value)
    text = f"The lowest Fréchet distance is {spread(figure)}, of {best.cell}"
    alike = [row.cell for row, other in scored if row is not best and overlap(figure, other)]
    if not alike:
        return text + "."
    verb = "is" if len(alike) == 1 else "are"
    return f"{text}; {listed(alike)} {verb} not told apart from it (the intervals overlap)."


def _certainty(view: RunView) -> str:
    return front_certainty(view, front_probabilities(view))


def _compute_front(view: RunView) -> str:
    front = _front(view, [row for row in view.rows if row.on_front_gmacs], "flops", "gmacs_image")
    if not front:
        return ""
    cheapest = front[0]
    gmacs = cheapest.value("flops", "gmacs_image") or 0.0
    text = (
        f"On the front of quality against compute, from the cheapest: {listed(row.cell for row in front)}. "
        f"{cheapest.cell} needs {with_unit(gmacs, 'GMAC')} an image"
    )
    if cheapest.flops_ratio is not None and not cheapest.is_baseline:
        text += f", {short(cheapest.flops_ratio)} of the baseline's compute"
    return f"{text}, at a Fréchet distance of {short(cheapest.value('quality', 'frechet') or 0.0)}."


def _time_front(view: RunView) -> str:
    on_front = [row for row in view.rows if row.on_front_time]
    devices = dict.fromkeys(row.device_name for row in on_front)
    texts = []
    for device in devices:
        rows = [row for row in on_front if row.device_name == device]
        names = listed(row.cell for row in _front(view, rows, "latency", view.time_axis))
        where = f" on {device}" if len(devices) > 1 else ""
        texts.append(f"On the front of quality against measured time{where}: {names}.")
    return " ".join(texts)


def _front(view: RunView, rows: list[Row], measurement: str, name: str) -> list[Row]:
    points = [
        Point(row.cell, row.value(measurement, name) or 0.0, row.value("quality", "frechet") or 0.0) for row in rows
    ]
    by_name = {row.cell: row for row in view.rows}
    return [by_name[cell] for cell in pareto_front(points).names]


def _saving(view: RunView) -> str:
    timed = [row for row in view.rows if row.realised is not None and row.speedup and not row.is_baseline]
    if not timed:
        return ""
    # A speed that nobody would buy is no headline: cells without quality count only where no cell has any.
    rows = [row for row in timed if row.has_quality] or timed
    fastest = max(rows, key=lambda row: row.speedup.value if row.speedup else 0.0)
    speedup, ratio, realised = fastest.speedup, fastest.flops_ratio, fastest.realised
    if speedup is None or not ratio or realised is None:
        return ""
    note = f" ({fastest.cost_words})" if fastest.cost_words else ""
    text = (
        f"The largest speed-up over {view.baseline} is {spread(speedup)}×, of {fastest.cell}{note}, "
        f"for {short(1 / ratio)}× fewer operations: a realised share of {realised:.2f}."
    )
    least = min(rows, key=lambda row: row.realised or 0.0)
    if least is not fastest and (least.realised or 1.0) < 0.8:
        text += f" The lowest realised share is {least.realised:.2f}, of {least.cell}."
    return text


def _dynamic(view: RunView) -> str:
    """The dynamic cell with the best realised share, or, where none was timed, the one that saves most compute.

    Cells with quality go before those without, and cells that sample as the baseline does before all others: only
    there is all that is saved the method's.
    """
    base = next((row for row in view.rows if row.is_baseline), None)
    rows = [row for row in view.rows if facets_of(row).shares and row.flops_ratio is not None and not row.is_baseline]
    if base is None or not rows:
        return ""
    everyone = rows
    rows = [row for row in rows if row.quantity("quality", "frechet")] or rows
    rows = [row for row in rows if sampled_alike(row, base)] or rows
    rows = [row for row in rows if row.realised is not None] or rows
    best = max(rows, key=lambda row: (row.realised or 0.0, -(row.flops_ratio or 0.0)))
    ratio = best.flops_ratio or 0.0
    note = f" ({best.cost_words})" if best.cost_words else ""
    others = "" if sampled_alike(best, base) else ", its other sampling included"
    change = f"{100 * (1 - ratio):.0f} % less" if ratio <= 1 else f"{100 * (ratio - 1):.0f} % more"
    text = "The dynamic cell" if len(everyone) == 1 else f"Of {len(everyone)} dynamic cells,"
    text += f" {best.cell}{note} computes {change} an image than {base.cell}{others}"
    text += _quality_change(best, base)
    if best.realised is None:
        return text + "."
    first = all(row is best or row.realised is None or row.realised < best.realised for row in everyone)
    rank = ", the best of them" if first and len(everyone) > 1 else ""
    return f"{text}; its realised share is {best.realised:.2f}{rank}."


def _quality_change(row: Row, base: Row) -> str:
    own, usual = row.quantity("quality", "frechet"), base.quantity("quality", "frechet")
    if own is None or usual is None:
        return ""
    change = own.value - usual.value
    size = "the same" if change == 0 else f"{short(abs(change))} {'higher' if change > 0 else 'lower'}"
    within = ", within the interval" if overlap(own, usual) else ""
    return f", at a Fréchet distance of {short(own.value)} ({size}{within})"


def _launch_bound(view: RunView) -> str:
    names = [row.cell for row in view.rows if row.detail("latency").get("launch_bound")]
    if not names:
        return ""
    verb = "is" if len(names) == 1 else "are"
    return f"{listed(names)} {verb} launch-bound: more than a fifth of the time the device only waits."


def _sizes(view: RunView) -> str:
    """For runs that only count: from the smallest to the largest."""
    counted = view.having("flops", "gmacs_step")
    if not counted or any(
        row.quantity("quality", "frechet") or row.quantity("latency", "latency_ms") for row in counted
    ):
        return ""
    low = min(counted, key=lambda row: row.value("flops", "gmacs_step") or 0.0)
    high = max(counted, key=lambda row: row.value("flops", "gmacs_step") or 0.0)
    least, most = (with_unit(row.value("flops", "gmacs_step") or 0.0, "GMAC") for row in (low, high))
    means = ["; the mean over its steps" if _uneven(row) else "" for row in (low, high)]
    if low is high:
        return f"One forward of {low.cell} takes {least}{means[0].replace(';', ',')}."
    return f"One forward takes from {least} ({low.cell}{means[0]}) to {most} ({high.cell}{means[1]})."


def _uneven(row: Row) -> bool:
    """Whether the cell's forwards cost more in some steps, or in one branch of guidance, than in others."""
    if weak_guidance(row):
        return True
    profile = row.detail("flops").get("profile") or ()
    costs = [float(step["gmacs"]) / (step.get("rows") or 1) for step in profile]
    return bool(costs) and max(costs) > 1.001 * min(costs)

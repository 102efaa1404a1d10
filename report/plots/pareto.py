"""Quality against a cost, with the Pareto front: lower left is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from ditbench.harness.stats.pareto import Point, pareto_front
from ditbench.harness.store.records import Quantity
from ditbench.report.fronts import front_probabilities, percent, unsettled
from ditbench.report.numbers import Scale, decimals_for, fixed, scale_for, with_unit
from ditbench.report.plots.labels import Label, Segment, place_labels
from ditbench.report.plots.scales import scale_cost, scale_quality
from ditbench.report.plots.style import (
    BLUE,
    COLUMN_WIDTH,
    DARK,
    GREY,
    PAGE_WIDTH,
    VERMILION,
    Picture,
    picture,
    shortened,
    styled,
)
from ditbench.report.row import Row
from ditbench.report.run_view import RunView

MOST_LABELS = 24
LEAST_SHOWN = 0.2  # below, the probability of a cell off the front is left to the tables: the names need the room
_MARKERS = "osD^v"


@dataclass(frozen=True)
class _Spot:
    """``member``: on the front by its values; ``probability`` that it is, None where nothing can be said."""

    row: Row
    x: Quantity
    y: Quantity
    member: bool
    probability: float | None

    @property
    def unsettled(self) -> bool:
        return unsettled(self.member, self.probability)

    @property
    def chance(self) -> str:
        """'62 %' where it is worth its room beside a name, else nothing."""
        shown = self.unsettled and (self.member or (self.probability or 0.0) >= LEAST_SHOWN)
        return percent(self.probability) if shown and self.probability is not None else ""


def pareto_picture(view: RunView, measurement: str, name: str, title: str, what: str) -> Picture | None:
    """Fréchet distance against ``measurement.name``; None with fewer than two cells to compare.

    ``title`` labels the axis and ``what`` is the word that the caption uses ('compute', 'time').
    """
    by_device = measurement == "latency"
    fronts = front_probabilities(view)
    spots = _spots(view.rows, measurement, name, fronts.time if by_device else fronts.gmacs)
    if len(spots) < 2:
        return None
    scale = scale_for([spot.x.value for spot in spots], spots[0].x.unit)
    devices = sorted({spot.row.device_name for spot in spots}) if by_device else [""]
    with styled():
        wide = len(spots) > 8 or max(len(spot.row.cell) for spot in spots) > 22
        size = (PAGE_WIDTH, 4.2) if wide else (COLUMN_WIDTH, 3.0)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        for index, device in enumerate(devices):
            cloud = [spot for spot in spots if not by_device or spot.row.device_name == device]
            _draw(axes, cloud, scale, _MARKERS[index % len(_MARKERS)])
        cheap = [row for row in view.rows if row.spec.cost_only and row.value(measurement, name) is not None]
        _scale_axes(axes, spots, cheap, measurement, name, scale)
        axes.set_xlabel(f"{title} [{scale.unit}]" if scale.unit else title)
        axes.set_ylabel("Fréchet distance (lower is better)")
        _legend(axes, spots, devices, bool(cheap))
        figure.draw_without_rendering()
        _label(axes, spots, cheap, measurement, name, scale)
        # The labels have their places now: a second pass would move the axes under them.
        figure.set_layout_engine("none")
        return picture(figure, *_words(view, spots, cheap, name, what))


def _spots(rows: Sequence[Row], measurement: str, name: str, probabilities: Mapping[str, float]) -> list[_Spot]:
    spots = []
    for row in rows:
        x, y = row.quantity(measurement, name), row.quantity("quality", "frechet")
        member = row.on_front_time if measurement == "latency" else row.on_front_gmacs
        if x is not None and y is not None:
            spots.append(_Spot(row, x, y, bool(member), probabilities.get(row.cell)))
    return spots


def _front(spots: Sequence[_Spot]) -> tuple[str, ...]:
    return pareto_front([Point(spot.row.cell, spot.x.value, spot.y.value) for spot in spots]).names


def _draw(axes: Axes, spots: Sequence[_Spot], scale: Scale, marker: str) -> None:
    for spot in spots:
        colour = BLUE if spot.member else GREY
        x, y = spot.x.value / scale.divisor, spot.y.value
        axes.errorbar(
            x,
            y,
            xerr=_error(spot.x, scale.divisor),
            yerr=_error(spot.y, 1.0),
            fmt="none",
            ecolor=colour,
            elinewidth=0.7,
            capsize=1.5,
            capthick=0.7,
            alpha=0.8,
            zorder=3,
        )
        (mark,) = axes.plot(x, y, marker, color=colour, markersize=4.5 if spot.member else 3.5, zorder=4)
        if spot.unsettled:
            mark.set_markerfacecolor("white")
        if spot.row.is_baseline:
            axes.plot(x, y, "o", markersize=9, markerfacecolor="none", markeredgecolor=VERMILION, zorder=5)
    by_name = {spot.row.cell: spot for spot in spots}
    line = [(by_name[name].x.value / scale.divisor, by_name[name].y.value) for name in _front(spots)]
    axes.plot(*zip(*line, strict=True), drawstyle="steps-post", color=BLUE, linewidth=1.0, zorder=2)


def _error(quantity: Quantity, divisor: float) -> Any:
    if quantity.low is None or quantity.high is None:
        return None
    ends = (quantity.value - quantity.low, quantity.high - quantity.value)
    return [[max(end, 0.0) / divisor] for end in ends]


def _scale_axes(
    axes: Axes, spots: Sequence[_Spot], cheap: Sequence[Row], measurement: str, name: str, scale: Scale
) -> None:
    xs = [end / scale.divisor for spot in spots for end in (spot.x.low, spot.x.high, spot.x.value) if end is not None]
    xs += [(row.value(measurement, name) or 0.0) / scale.divisor for row in cheap]
    scale_cost(axes, xs)
    scale_quality(axes, [end for spot in spots for end in (spot.y.low, spot.y.high, spot.y.value) if end is not None])


def _legend(axes: Axes, spots: Sequence[_Spot], devices: Sequence[str], cost_only: bool) -> None:
    handles = [Line2D([], [], color=BLUE, marker="o", markersize=4.5, linewidth=1.0, label="Pareto front")]
    if not all(spot.member for spot in spots):
        handles.append(Line2D([], [], color=GREY, marker="o", markersize=3.5, linestyle="none", label="dominated"))
    if any(spot.unsettled for spot in spots):
        handles.append(Line2D([], [], color=DARK, marker="o", markersize=4, linestyle="none", label="not settled"))
        handles[-1].set_markerfacecolor("white")
    if any(spot.row.is_baseline for spot in spots):
        ring = Line2D([], [], marker="o", markersize=7, linestyle="none", label="baseline")
        ring.set_markerfacecolor("none")
        ring.set_markeredgecolor(VERMILION)
        handles.append(ring)
    if cost_only:
        handles.append(Line2D([], [], color=DARK, marker="|", markersize=7, linestyle="none", label="cost only"))
    if len(devices) > 1:
        handles += [
            Line2D([], [], color=GREY, marker=marker, linestyle="none", markersize=4, label=device[:40])
            for marker, device in zip(_MARKERS * len(devices), devices, strict=False)
        ]
    axes.legend(
        handles=handles,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=len(handles) if len(handles) <= 4 else 3,
        handletextpad=0.4,
        columnspacing=1.2,
    )


def _label(axes: Axes, spots: Sequence[_Spot], cheap: Sequence[Row], measurement: str, name: str, scale: Scale) -> None:
    """Names for the points. Very full plots name only the front and the baseline."""
    words = shortened([row.cell for row in (*(spot.row for spot in spots), *cheap)])
    labels = []
    for spot in spots:
        chosen = spot.member or spot.row.is_baseline
        if chosen or len(spots) <= MOST_LABELS:
            x, y = spot.x.value / scale.divisor, spot.y.value
            named = f"{words[spot.row.cell]}, {spot.chance}".removesuffix(", ")
            labels.append(Label(named, x, y, DARK if chosen else "#6E6E6E"))
    floor = axes.get_ylim()[0]
    for row in cheap:
        x = (row.value(measurement, name) or 0.0) / scale.divisor
        axes.plot(x, floor, "|", color=DARK, markersize=10, clip_on=False, zorder=5)
        if len(cheap) <= 4:
            labels.append(Label(f"{words[row.cell]} ({row.cost_words})", x, floor, DARK, italic=True))
    place_labels(axes, labels, _segments(axes, spots, _fronts(spots, measurement), scale))
    for text in axes.texts:
        text.set_path_effects([withStroke(linewidth=1.4, foreground="white")])


def _fronts(spots: Sequence[_Spot], measurement: str) -> list[tuple[str, ...]]:
    """One front for counts, one a device for times."""
    if measurement != "latency":
        return [_front(spots)]
    devices = dict.fromkeys(spot.row.device_name for spot in spots)
    return [_front([spot for spot in spots if spot.row.device_name == device]) for device in devices]


def _segments(axes: Axes, spots: Sequence[_Spot], fronts: Sequence[tuple[str, ...]], scale: Scale) -> list[Segment]:
    """Every drawn line: both axes, interval bars and the steps of the fronts."""
    (left, right), (foot, top) = axes.get_xlim(), axes.get_ylim()
    segments: list[Segment] = [((left, foot), (left, top)), ((left, foot), (right, foot))]
    at = {spot.row.cell: (spot.x.value / scale.divisor, spot.y.value) for spot in spots}
    for spot in spots:
        x, y = at[spot.row.cell]
        if spot.x.low is not None and spot.x.high is not None:
            segments.append(((spot.x.low / scale.divisor, y), (spot.x.high / scale.divisor, y)))
        if spot.y.low is not None and spot.y.high is not None:
            segments.append(((x, spot.y.low), (x, spot.y.high)))
    for front in fronts:
        for one, other in pairwise(front):
            corner = (at[other][0], at[one][1])
            segments += [(at[one], corner), (corner, at[other])]
    return segments


def _words(view: RunView, spots: Sequence[_Spot], cheap: Sequence[Row], name: str, what: str) -> tuple[str, str, str]:
    caption = f"Quality against {what}; lower left is better. Bars: 95 % intervals."
    if any(spot.unsettled for spot in spots):
        caption += " Open: on or off the front with less than 95 % probability."
        if any(spot.chance for spot in spots):
            caption += f" Beside the name: that of being on it (off it, from {percent(LEAST_SHOWN)} on)."
    if any(spot.row.is_baseline for spot in spots):
        caption += f" Ring: the baseline {view.baseline}."
    if name == "time_ratio":
        caption += " Each cell was timed in turns with the baseline, so the machine's drift cancels."
    if cheap:
        names = ", ".join(row.cell + (f" (imposed {row.spec.imposed})" if row.spec.imposed else "") for row in cheap)
        caption += f" Cost only, at the foot of the plot: {names}."
    left_out = [row for row in view.rows if row.cell not in {s.row.cell for s in spots} and row not in cheap]
    if left_out:
        caption += f" Not shown, for want of figures: {', '.join(row.cell for row in left_out)}."
    listed = "; ".join(
        f"{s.row.cell} {with_unit(s.x.value, s.x.unit)}, {fixed(s.y.value, decimals_for([s.y.value]))}"
        + (f" (on the front with {s.chance})" if s.chance else "")
        for s in spots
    )
    stem = "pareto_gmacs" if name == "gmacs_image" else "pareto_time"
    return stem, caption, f"Scatter plot of Fréchet distance against {what}: {listed}."

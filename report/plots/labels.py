"""Names beside points, placed so that they cover neither points, bars, lines nor each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from ditbench.report.plots.style import DARK

_LEADER = "#9A9A9A"
# Where a name may start: eight directions at growing distances in points, the usual upper right first.
_DIRECTIONS = ((1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))
_DISTANCES = (3.0, 6.0, 10.0, 15.0, 21.0, 28.0, 36.0, 46.0, 58.0)


@dataclass(frozen=True)
class Label:
    """A name for the point (x, y), in data coordinates."""

    words: str
    x: float
    y: float
    colour: str = DARK
    italic: bool = False


Segment = tuple[tuple[float, float], tuple[float, float]]


def place_labels(axes: Axes, labels: Sequence[Label], segments: Sequence[Segment], fontsize: float = 6.2) -> None:
    """Write ``labels`` into ``axes``, whose limits and size must be final; ``segments`` are lines to avoid.

    Every name takes the free place nearest to its point; a far one gets a thin leader. The most crowded
    points choose first. No chance and no clock are involved: the same points give the same picture.
    """
    if not labels:
        return
    unit = axes.figure.dpi / 72
    anchors = [tuple(axes.transData.transform((label.x, label.y))) for label in labels]
    taken = [_around(anchor, 3.5 * unit) for anchor in anchors]
    for start, end in segments:
        taken += _boxes(axes.transData.transform(start), axes.transData.transform(end), unit)
    room = axes.get_window_extent()
    for index in sorted(range(len(labels)), key=lambda i: (-_crowd(anchors[i], anchors), i)):
        label, anchor = labels[index], anchors[index]
        text = axes.text(
            label.x,
            label.y,
            label.words,
            fontsize=fontsize,
            color=label.colour,
            style="italic" if label.italic else "normal",
            zorder=6,
        )
        size = text.get_window_extent()
        others = [other for place, other in enumerate(anchors) if place != index]
        box, distance = _best(anchor, others, size.width, size.height, unit, room, taken)
        text.set_position(tuple(axes.transData.inverted().transform((box.x0, box.y0))))
        text.set_verticalalignment("bottom")
        taken.append(box)
        if distance > 8:
            _leader(axes, anchor, box)


def _around(point: tuple[float, ...], radius: float) -> Bbox:
    return Bbox.from_extents(point[0] - radius, point[1] - radius, point[0] + radius, point[1] + radius)


def _boxes(start: Any, end: Any, unit: float) -> list[Bbox]:
    """A drawn line, horizontal or upright, as one thin box."""
    (x0, y0), (x1, y1) = start, end
    half = 0.8 * unit
    return [Bbox.from_extents(min(x0, x1) - half, min(y0, y1) - half, max(x0, x1) + half, max(y0, y1) + half)]


def _crowd(anchor: tuple[float, ...], anchors: Sequence[tuple[float, ...]]) -> float:
    """Large where many points are near."""
    return round(sum(1 / (20 + math.dist(anchor, other)) for other in anchors), 6)


def _best(
    anchor: tuple[float, ...],
    others: Sequence[tuple[float, ...]],
    width: float,
    height: float,
    unit: float,
    room: Bbox,
    taken: Sequence[Bbox],
) -> tuple[Bbox, float]:
    """The cheapest box: what it covers weighs most, then its distance, then leaving the axes."""
    choices = []
    for distance in _DISTANCES:
        for order, (across, up) in enumerate(_DIRECTIONS):
            reach = distance * unit
            left = anchor[0] + across * reach - (width if across < 0 else width / 2 if across == 0 else 0)
            foot = anchor[1] + up * reach - (height if up < 0 else height / 2 if up == 0 else 0)
            box = Bbox.from_bounds(left, foot, width, height)
            cost = 20 * sum(_shared(box, other) for other in taken) / height**2
            cost += 50 * (1 - _shared(box, room) / (width * height))
            # A name that is nearer to another point is read as that point's.
            own = _gap(box, anchor)
            cost += 2 * any(_gap(box, other) <= own for other in others)
            choices.append((round(cost + distance / 10 + order / 100, 6), distance, order, box))
    _, distance, _, box = min(choices, key=lambda choice: choice[:3])
    return box, distance


def _gap(box: Bbox, point: tuple[float, ...]) -> float:
    """Distance from a point to a box, in pixels; 0 inside."""
    across = max(box.x0 - point[0], 0.0, point[0] - box.x1)
    return math.hypot(across, max(box.y0 - point[1], 0.0, point[1] - box.y1))


def _shared(a: Bbox, b: Bbox) -> float:
    """Area that two boxes share, in pixels."""
    across = min(a.x1, b.x1) - max(a.x0, b.x0)
    up = min(a.y1, b.y1) - max(a.y0, b.y0)
    return across * up if across > 0 and up > 0 else 0.0


def _leader(axes: Axes, anchor: tuple[float, ...], box: Bbox) -> None:
    near = (min(max(anchor[0], box.x0), box.x1), min(max(anchor[1], box.y0), box.y1))
    ends = axes.transData.inverted().transform([anchor, near])
    axes.plot(ends[:, 0], ends[:, 1], color=_LEADER, linewidth=0.5, zorder=1.5, scalex=False, scaley=False)

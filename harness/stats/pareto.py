"""Which points are worth choosing when both coordinates are costs: the Pareto front of a cloud of points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """A named point; lower is better on both axes (``x``: cost, ``y``: distance to the data)."""

    name: str
    x: float
    y: float


@dataclass(frozen=True)
class Front:
    """The front of a cloud.

    ``members`` runs from the smallest x to the largest (so y falls); ``dominated`` keeps the input's order.
    Together they hold every input point once.
    """

    members: tuple[Point, ...]
    dominated: tuple[Point, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the members, from the smallest x to the largest."""
        return tuple(point.name for point in self.members)


def dominates(a: Point, b: Point) -> bool:
    """Whether ``a`` is at least as good as ``b`` on both axes and better on one. Equal points: neither."""
    return a.x <= b.x and a.y <= b.y and (a.x < b.x or a.y < b.y)


def pareto_front(points: Sequence[Point]) -> Front:
    """The points that no other point dominates.

    Ties: equal points are all members or all dominated; of points that share one coordinate only the best in
    the other stays. Raises ValueError for a coordinate that is not finite: it cannot be compared.
    """
    for point in points:
        if not (math.isfinite(point.x) and math.isfinite(point.y)):
            raise ValueError(f"point {point.name!r} is not finite: ({point.x}, {point.y})")
    beaten = [any(dominates(other, point) for other in points) for point in points]
    members = sorted(
        (point for point, lost in zip(points, beaten, strict=True) if not lost),
        key=lambda point: (point.x, point.y),
    )
    dominated = tuple(point for point, lost in zip(points, beaten, strict=True) if lost)
    return Front(tuple(members), dominated)

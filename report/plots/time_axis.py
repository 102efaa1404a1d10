"""The time axis of plots by sampling step: noise on the left, the image on the right, whatever the model's own time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

TIMESTEPS = 1000


@dataclass(frozen=True)
class Timeline:
    """limits are those of the axis, from noise to image; ``label`` says what it shows."""

    limits: tuple[float, float]
    label: str
    mixed: bool = False

    def places(self, times: Sequence[float]) -> list[float]:
        """Where a cell's times stand on the axis, in the order given; times that a solver tried beyond 1, at 1."""
        if not is_flow(times):
            return list(times)
        inside = [min(t, 1.0) for t in times]
        return [(TIMESTEPS - 1) * (1 - t) for t in inside] if self.mixed else inside

    @property
    def falling(self) -> bool:
        return self.limits[0] > self.limits[1]


def is_flow(times: Sequence[float]) -> bool:
    """Whether these times, in the order of sampling, are a flow's, which rise; timesteps fall."""
    return len(times) > 1 and times[0] < times[-1]


def timeline(cells: Iterable[Sequence[float]]) -> Timeline:
    """The axis for cells with these times, each in the order of sampling."""
    every = [times for times in cells if times]
    kinds = {is_flow(times) for times in every if len(times) > 1}
    if kinds == {True}:
        return Timeline((0.0, 1.0), "flow time (0 noise, 1 image)")
    mixed, label = len(kinds) > 1, "timestep (sampling runs from left to right"
    last = max(max(Timeline((0, 0), "", mixed).places(times)) for times in every)
    return Timeline((last, 0.0), label + ("; flow time t stands at 999 (1 − t))" if mixed else ")"), mixed)


def in_order(places: Sequence[float], falling: bool) -> list[int]:
    """Indices that sort places from noise to image: an adaptive solver steps back when it tries anew."""
    return sorted(range(len(places)), key=lambda k: -places[k] if falling else places[k])

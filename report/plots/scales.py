"""Limits and ticks of axes that hold a cost or a quality: logarithmic where figures differ by more than tenfold."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

_LOG = 10.0


def scale_cost(axes: Axes, xs: Sequence[float]) -> None:
    """The x axis around ``xs``, with room for names at its sides; it never begins below 0."""
    low, high = min(xs), max(xs)
    if low > 0 and high / low > _LOG:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.8, high * 1.8)
        _plain(axes.xaxis, low, high)
    else:
        room = 0.12 * (high - low or high or 1.0)
        axes.set_xlim(max(low - 1.5 * room, 0.0), high + 1.5 * room)


def scale_quality(axes: Axes, ys: Sequence[float]) -> None:
    """The y axis around ``ys``, with room for marks at its foot."""
    low, high = min(ys), max(ys)
    if low > 0 and high / low > _LOG:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.6, high * 1.5)
        _plain(axes.yaxis, low, high)
    else:
        room = high - low or abs(high) or 1.0
        axes.set_ylim(low - 0.2 * room, high + 0.12 * room)


def _plain(axis: Axis, low: float, high: float) -> None:
    """Ticks at 1, 2, 5 (1 alone over three decades) with plain numbers: 10^0.3 is nobody's latency."""
    steps = (1.0,) if high / low > 1000 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(base=10, subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())

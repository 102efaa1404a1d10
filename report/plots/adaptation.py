"""Quality against what training takes: trainable parameters, peak memory, time an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ditbench.harness.store.records import Quantity
from ditbench.report.adaptation import FULL, Group, groups_of
from ditbench.report.numbers import scale_for, short
from ditbench.report.plots.labels import Label, Segment, place_labels
from ditbench.report.plots.style import (
    BLUE,
    BROWN,
    DARK,
    GREEN,
    ORANGE,
    PAGE_WIDTH,
    PURPLE,
    VERMILION,
    Picture,
    picture,
    styled,
)
from ditbench.report.run_view import RunView

_MARKERS = "s^Dv<>"  # of all weights: a circle
_COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, BROWN)
_LOG = 8.0


def adaptation_picture(view: RunView) -> Picture | None:
    """Three panels with a common axis of quality; None with fewer than two recipes that have both."""
    groups = [group for group in groups_of(view) if group.frechet is not None]
    if len(groups) < 2:
        return None
    related = all(group.cost("training_ratio") is not None for group in groups)
    axes_of = (
        ("trainable parameters", [_exact(group.trainable) for group in groups], "#"),
        ("peak training memory", [_memory(group) for group in groups], "MiB"),
        (
            "training time an image" + " [× the baseline's]" * related,
            [group.cost("training_ratio" if related else "training_image_ms") for group in groups],
            "1" if related else "ms",
        ),
    )
    methods = list(dict.fromkeys(group.method for group in groups))
    colours = {method: _COLOURS[index % len(_COLOURS)] for index, method in enumerate(methods)}
    with styled():
        figure = Figure(figsize=(PAGE_WIDTH, 2.7), layout="constrained")
        panels = figure.subplots(1, 3, sharey=True)
        for axes, (title, costs, unit) in zip(panels, axes_of, strict=True):
            _draw(axes, groups, costs, colours, title, unit)
        panels[0].set_ylabel("Fréchet distance (lower is better)")
        handles = _legend(groups, colours)
        figure.legend(handles=handles, loc="outside upper left", ncols=min(len(handles), 7))
        figure.draw_without_rendering()
        for axes, (_, costs, unit) in zip(panels, axes_of, strict=True):
            _label(axes, groups, costs, unit)
        # The labels have their places now: a second pass would move the axes under them.
        figure.set_layout_engine("none")
        return picture(figure, "adaptation", _caption(groups, view.baseline if related else None), _alt(groups))


def _draw(
    axes: Axes,
    groups: Sequence[Group],
    costs: Sequence[Quantity | None],
    colours: Mapping[str, str],
    title: str,
    unit: str,
) -> None:
    scale, markers = scale_for([cost.value for cost in costs if cost], unit), _markers(groups)
    shown = []
    for group, cost in zip(groups, costs, strict=True):
        quality = group.frechet
        if cost is None or quality is None:
            continue
        x = cost.value / scale.divisor
        shown.append(x)
        axes.errorbar(
            x,
            quality.value,
            xerr=_error(cost, scale.divisor),
            yerr=_error(quality, 1.0),
            fmt=markers[group.kind],
            color=colours[group.method],
            markersize=4.5,
            markerfacecolor=colours[group.method] if group.recipe.get("base") else "white",
            elinewidth=0.7,
            capsize=1.5,
            capthick=0.7,
            zorder=3,
        )
    if shown and min(shown) > 0 and max(shown) / min(shown) > _LOG:
        axes.set_xscale("log")
        axes.set_xlim(min(shown) / 1.8, max(shown) * 1.8)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if max(shown) / min(shown) < 1e3 else (1.0,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.margins(x=0.15)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(f"{title} [{scale.unit}]" if scale.unit else title)


def _label(axes: Axes, groups: Sequence[Group], costs: Sequence[Quantity | None], unit: str) -> None:
    """How large each is; colour and marker say the rest."""
    scale = scale_for([cost.value for cost in costs if cost], unit)
    labels: list[Label] = []
    bars: list[Segment] = []
    for group, cost in zip(groups, costs, strict=True):
        quality = group.frechet
        if cost is None or quality is None:
            continue
        x, y = cost.value / scale.divisor, quality.value
        if group.size:
            labels.append(Label(group.size, x, y))
        if quality.low is not None and quality.high is not None:
            bars.append(((x, quality.low), (x, quality.high)))
        if cost.low is not None and cost.high is not None:
            bars.append(((cost.low / scale.divisor, y), (cost.high / scale.divisor, y)))
    place_labels(axes, labels, bars)


def _markers(groups: Sequence[Group]) -> dict[str, str]:
    """Kind -> marker, of all weights first."""
    kinds = dict.fromkeys(sorted((group.kind for group in groups), key=lambda kind: kind != FULL))
    others = cycle(_MARKERS)
    return {kind: "o" if kind == FULL else next(others) for kind in kinds}


def _error(quantity: Quantity, divisor: float) -> Any:
    if quantity.low is None or quantity.high is None:
        return None
    ends = (quantity.value - quantity.low, quantity.high - quantity.value)
    return [[max(end, 0.0) / divisor] for end in ends]


def _exact(value: float | None) -> Quantity | None:
    return None if value is None else Quantity(value=value, unit="1", interval="exact count")


def _memory(group: Group) -> Quantity | None:
    peak = group.cost("training_peak_mib")
    return None if peak is None else _exact(peak.value)


def _legend(groups: Sequence[Group], colours: Mapping[str, str]) -> list[Line2D]:
    handles = [
        Line2D([], [], linestyle="", marker=marker, color=DARK, markersize=4.5, label=kind)
        for kind, marker in (("all weights" if k == FULL else k, marker) for k, marker in _markers(groups).items())
    ]
    if any(not group.recipe.get("base") for group in groups):
        hollow = Line2D([], [], linestyle="", marker="o", color=DARK, markerfacecolor="white", markersize=4.5)
        hollow.set_label("from scratch")
        handles.append(hollow)
    return handles + [
        Line2D([], [], linestyle="", marker="D", color=colour, markersize=4.0, label=method)
        for method, colour in colours.items()
    ]


def _caption(groups: Sequence[Group], baseline: str | None) -> str:
    counts = sorted({len(group.draws) for group in groups})
    text = "Quality against what training takes; lower left is better. "
    text += f"Times are multiples of {baseline}'s. " if baseline else ""
    several = [str(count) for count in counts if count > 1]
    if several:
        text += f"Bars: 95 % intervals; of the quality over {' or '.join(several)} training seeds."
    return text + (" Without an upright bar: one seed." if counts[0] == 1 else "")


def _alt(groups: Sequence[Group]) -> str:
    words = []
    for group in groups:
        quality, trainable = group.frechet, group.trainable or 0.0
        assert quality is not None
        words.append(f"{group.name} ({group.how}) {short(quality.value)} with {trainable:,.0f} trained parameters")
    return "Fréchet distance against trainable parameters, memory and time of training: " + "; ".join(words)

"""How far the predictions of cheaper variants are from the reference's, from noise (left) to image (right)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ditbench.report.agreement import Agreement, agreement_of
from ditbench.report.facets import named
from ditbench.report.numbers import short
from ditbench.report.plots.choices import level_colours
from ditbench.report.plots.style import (
    BROWN,
    COLUMN_WIDTH,
    GREEN,
    ORANGE,
    PAGE_WIDTH,
    PURPLE,
    VERMILION,
    Picture,
    picture,
    shortened,
    styled,
)
from ditbench.report.plots.time_axis import Timeline, in_order, timeline
from ditbench.report.run_view import RunView

MOST_PANELS = 4


@dataclass(frozen=True)
class _Panel:
    """Cells with the same figures; ``cost_words`` are those of all of them."""

    cells: tuple[str, ...]
    agreement: Agreement
    cost_words: str

    @property
    def name(self) -> str:
        return ", ".join(self.cells) if len(self.cells) <= 2 else f"{self.cells[0]} and {len(self.cells) - 1} more"

    @property
    def figures(self) -> list[float]:
        """What a logarithmic axis can show: differences above 0, with their ends."""
        lines = (line for curve in self.agreement.curves for line in (curve.mean, curve.low, curve.high))
        return [figure for line in lines for figure in line if figure > 0]


def agreement_picture(view: RunView) -> Picture | None:
    """A panel a cell, a curve a variant; None if no cell was measured so."""
    panels = _panels(view)
    if not panels:
        return None
    left_out, panels = panels[MOST_PANELS:], panels[:MOST_PANELS]
    line = timeline([panel.agreement.timesteps for panel in panels])
    colours = _colours(view, panels)
    columns = min(len(panels), 3) if len(panels) != 4 else 2
    rows = -(-len(panels) // columns)
    figures = [figure for panel in panels for figure in panel.figures]
    limits = min(figures) / 1.1, max(figures) * 1.1
    names = shortened([panel.name for panel in panels], 80 // columns)
    with styled():
        width = COLUMN_WIDTH if columns == 1 else PAGE_WIDTH
        figure = Figure(figsize=(width, 0.35 + 1.75 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axes, panel in zip(grid.flat, panels, strict=True):
            _draw(axes, panel.agreement, colours, limits, line)
            words = names[panel.name] + (f" ({panel.cost_words})" if panel.cost_words else "")
            axes.set_title(words, fontsize=7, loc="left", pad=3)
        _ticks(grid[0, 0], limits)
        figure.supxlabel(line.label, fontsize=7.5)
        figure.supylabel("mean absolute difference", fontsize=7.5)
        figure.legend(handles=_legend(panels, colours), loc="outside upper left", ncols=4)
        return picture(figure, "agreement", _caption(panels, left_out), _alt(panels))


def _panels(view: RunView) -> list[_Panel]:
    cells: dict[tuple[Agreement, str], list[str]] = {}
    for row in view.rows:
        agreement = agreement_of(row)
        if agreement is not None:
            cells.setdefault((agreement, row.cost_words), []).append(row.cell)
    panels = [_Panel(tuple(names), agreement, words) for (agreement, words), names in cells.items()]
    return [panel for panel in panels if panel.figures]


def _colours(view: RunView, panels: Sequence[_Panel]) -> dict[str, str]:
    """A variant has the colour of the label that it is named by; others have one of their own."""
    known = {named(facet, level): c for facet, levels in level_colours(view).items() for level, c in levels.items()}
    variants = dict.fromkeys(curve.variant for panel in panels for curve in panel.agreement.curves)
    spare = cycle((VERMILION, ORANGE, PURPLE, GREEN, BROWN))
    return {variant: known.get(variant) or next(spare) for variant in variants}


def _draw(
    axes: Axes, agreement: Agreement, colours: Mapping[str, str], limits: tuple[float, float], line: Timeline
) -> None:
    places = line.places(agreement.timesteps)
    order = in_order(places, line.falling)
    times = [places[k] for k in order]
    axes.set_yscale("log")
    for curve in agreement.curves:
        if curve.low:
            # An interval may reach below 0, where a logarithmic axis ends.
            low, high = [max(curve.low[k], limits[0]) for k in order], [curve.high[k] for k in order]
            axes.fill_between(times, low, high, color=colours[curve.variant], alpha=0.3, linewidth=0)
        shown = [curve.mean[k] if curve.mean[k] > 0 else float("nan") for k in order]
        marker = "o" if len(times) <= 20 else ""
        axes.plot(times, shown, color=colours[curve.variant], linewidth=1.1, marker=marker, markersize=2.2)
    noise, image = line.limits
    reach = 0.02 * (noise - image) or 1.0
    axes.set_xlim(noise + reach, image - reach)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_ylim(limits)


def _ticks(axes: Axes, limits: tuple[float, float]) -> None:
    """Plain numbers, as many as the range of the axis bears; the panels share them."""
    ratio = limits[1] / limits[0]
    few = MaxNLocator(4) if ratio < 4 else LogLocator(subs=(1.0, 2.0, 5.0)) if ratio < 300 else LogLocator()
    axes.yaxis.set_major_locator(few)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _legend(panels: Sequence[_Panel], colours: Mapping[str, str]) -> list[Line2D]:
    pairs = dict.fromkeys((curve.variant, p.agreement.reference) for p in panels for curve in p.agreement.curves)
    return [
        Line2D([], [], color=colours[variant], linewidth=1.5, label=f"{variant} against {reference}")
        for variant, reference in pairs
    ]


def _caption(panels: Sequence[_Panel], left_out: Sequence[_Panel]) -> str:
    samples = sorted({p.agreement.samples for p in panels if any(curve.low for curve in p.agreement.curves)})
    caption = (
        "How far the predictions of cheaper variants are from the reference's: mean absolute difference per element, "
        "both from the same noisy sample, taken from the cell's own sampling."
    )
    caption += f" Band: 95 % interval over {', '.join(map(str, samples))} samples." if samples else ""
    groups = [panel.cells for panel in panels if len(panel.cells) > 2]
    caption += "".join(f" The same figures: {', '.join(cells)}." for cells in groups)
    return caption + (f" Not drawn: {', '.join(panel.name for panel in left_out)}." if left_out else "")


def _alt(panels: Sequence[_Panel]) -> str:
    return "Difference to the reference's prediction by timestep; means: " + "; ".join(
        f"{', '.join(panel.cells)} "
        + ", ".join(
            f"{curve.variant} {short(fmean(curve.mean))} ({short(curve.mean[0])} at the noise, "
            f"{short(curve.mean[-1])} at the image)"
            for curve in panel.agreement.curves
        )
        for panel in panels
    )

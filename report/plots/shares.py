"""How much of each part is computed: layer × timestep, from noise (left) to image (right)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from ditbench.report.facets import Layers, Shares, facets_of
from ditbench.report.plots.style import BLUE, DARK, FAINT, GREY, OPEN, PAGE_WIDTH, Picture, picture, shortened, styled
from ditbench.report.plots.time_axis import Timeline, in_order, timeline
from ditbench.report.run_view import RunView

MOST_ROWS, MOST_COLUMNS = 8, 4
# Inches: the sides, a row's name, its curve, its map, and the room to the next row.
_LEFT, _RIGHT, _HEAD, _FOOT, _BETWEEN = 0.42, 0.08, 0.22, 0.6, 0.26
_NAME, _CURVE, _GAP, _ROW_GAP = 0.19, 0.26, 0.03, 0.14
_WIDEST = 4.9  # a lone panel need not fill the page


@dataclass(frozen=True)
class _Strip:
    """Cells with the same shares; ``cost_words`` are those of all of them."""

    cells: tuple[str, ...]
    timesteps: tuple[float, ...]
    shares: tuple[Shares, ...]
    cost_words: str

    @property
    def name(self) -> str:
        return ", ".join(self.cells) if len(self.cells) <= 3 else f"{self.cells[0]} and {len(self.cells) - 1} more"

    def of(self, part: str) -> Layers | None:
        """None if the cell computes the whole part."""
        return next((shares.values for shares in self.shares if shares.name == part), None)

    @property
    def edges(self) -> list[float]:
        """Where the steps begin and end: half-way between their timesteps."""
        times = self.timesteps
        middles = [(a + b) / 2 for a, b in pairwise(times)]
        reach = (times[0] - times[-1]) / (2 * (len(times) - 1)) if len(times) > 1 else max(abs(times[0]), 1.0) / 2
        return [times[0] + reach, *middles, times[-1] - reach]


def shares_picture(view: RunView) -> Picture | None:
    """A row for every distinct set of shares, a column for every part; None where no cell has any."""
    strips = _strips(view)
    if not strips:
        return None
    left_out, strips = strips[MOST_ROWS:], strips[:MOST_ROWS]
    line = timeline([strip.timesteps for strip in strips])
    strips = [_placed(strip, line) for strip in strips]
    every = list(dict.fromkeys(shares.name for strip in strips for shares in strip.shares))
    parts, hidden = every[:MOST_COLUMNS], every[MOST_COLUMNS:]
    map_height = 0.72 if len(strips) <= 3 else 0.5
    row_height = _NAME + _CURVE + _GAP + map_height + _ROW_GAP
    alike = _alike(strips)
    row_height += 0.0 if alike else 0.16
    height = _HEAD + len(strips) * row_height + _FOOT
    panel = min((PAGE_WIDTH - _LEFT - _RIGHT - _BETWEEN * (len(parts) - 1)) / len(parts), _WIDEST)
    width = _LEFT + _RIGHT + len(parts) * panel + _BETWEEN * (len(parts) - 1)
    names = shortened([strip.name for strip in strips], 60)
    lowest = {part: row for row, strip in enumerate(strips) for part in parts if strip.of(part)}
    with styled():
        figure = Figure(figsize=(width, height))
        for row, strip in enumerate(strips):
            top = height - _HEAD - row * row_height
            words = names[strip.name] + (f" ({strip.cost_words})" if strip.cost_words else "")
            figure.text(_LEFT / width, (top - 0.11) / height, words, fontsize=7, color=DARK, va="center")
            layered = [column for column, part in enumerate(parts) if len((strip.of(part) or ((),))[0]) > 1]
            for column, part in enumerate(parts):
                left = _LEFT + column * (panel + _BETWEEN)
                shares = strip.of(part)
                if shares is None:
                    continue
                foot = top - _NAME - _CURVE
                curve = figure.add_axes((left / width, foot / height, panel / width, _CURVE / height))
                foot -= _GAP + map_height
                layers = figure.add_axes((left / width, foot / height, panel / width, map_height / height))
                limits = (strips[0].edges[0], strips[0].edges[-1]) if alike else (strip.edges[0], strip.edges[-1])
                _draw(curve, layers, strip.edges, shares, limits)
                _ticks(layers, first=column in layered[:1], last=not alike or row == lowest[part])
        for column, part in enumerate(parts):
            middle = (_LEFT + column * (panel + _BETWEEN) + panel / 2) / width
            figure.text(middle, 1 - 0.1 / height, part, ha="center", va="center", fontsize=7.5, weight="bold")
        _foot(figure, width, height, line.label)
        return picture(figure, "shares", _caption(strips, left_out, parts, hidden), _alt(strips))


def _strips(view: RunView) -> list[_Strip]:
    cells: dict[tuple[tuple[float, ...], tuple[Shares, ...], str], list[str]] = {}
    for row in view.rows:
        facets = facets_of(row)
        if facets.shares:
            cells.setdefault((facets.timesteps, facets.shares, row.cost_words), []).append(row.cell)
    return [_Strip(tuple(names), *same) for same, names in cells.items()]


def _alike(strips: Sequence[_Strip]) -> bool:
    """Whether the rows share a time axis."""
    spans = [abs(strip.edges[0] - strip.edges[-1]) for strip in strips]
    return max(spans) <= 1.5 * min(spans)


def _placed(strip: _Strip, line: Timeline) -> _Strip:
    places = line.places(strip.timesteps)
    order = in_order(places, line.falling)
    shares = tuple(replace(each, values=tuple(each.values[k] for k in order)) for each in strip.shares)
    return replace(strip, timesteps=tuple(places[k] for k in order), shares=shares)


def _draw(curve: Axes, layers: Axes, edges: Sequence[float], shares: Layers, limits: tuple[float, float]) -> None:
    """The mean over the layers above, every layer below, the first layer at the foot."""
    means = [fmean(step) for step in shares]
    curve.stairs(means, edges, baseline=0.0, fill=True, color=BLUE, alpha=0.25)
    curve.stairs(means, edges, baseline=None, color=BLUE, linewidth=0.9)
    curve.set_ylim(0, 1.08)
    curve.set_yticks([0, 1], [])
    curve.tick_params(axis="y", length=0)
    curve.set_xlim(limits)
    curve.set_xticks([])
    curve.spines[["bottom", "left"]].set_color(FAINT)
    curve.axhline(1.0, color=FAINT, linewidth=0.5, zorder=0)
    side, foot = _free_corner(means)
    text = curve.text(
        0.99 if side == "right" else 0.01,
        foot,
        f"mean {100 * fmean(means):.0f} %",
        transform=curve.transAxes,
        ha=side,
        va="bottom",
        fontsize=6.2,
        color=DARK,
    )
    text.set_path_effects([withStroke(linewidth=1.6, foreground="white")])
    rows = [list(layer) for layer in zip(*shares, strict=True)]
    floors = [place + 0.5 for place in range(len(rows) + 1)]
    # As pixels: hundreds of steps times dozens of layers would make a file of a hundred thousand shapes.
    layers.pcolormesh(edges, floors, rows, cmap=OPEN, vmin=0.0, vmax=1.0, rasterized=True)
    layers.set_xlim(limits)
    layers.set_ylim(0.5, len(rows) + 0.5)
    layers.grid(visible=False)
    layers.spines[["top", "right"]].set_visible(True)
    layers.spines[:].set_color(GREY)
    layers.spines[:].set_linewidth(0.5)


def _free_corner(means: Sequence[float]) -> tuple[str, float]:
    """Side and height in axes of the corner that the curve stays away from; the lower right one where it may."""
    near = max(1, len(means) // 3)
    for side, ends in (("right", means[-near:]), ("left", means[:near])):
        for foot, low, high in ((0.08, -1.0, 0.5), (0.56, 0.55, 0.98)):
            if not any(low < mean < high for mean in ends):
                return side, foot
    return "right", 0.08


def _ticks(layers: Axes, first: bool, last: bool) -> None:
    layers.xaxis.set_major_locator(MaxNLocator(5))
    layers.tick_params(length=2, pad=1.5, labelbottom=last, labelleft=first)
    top = round(layers.get_ylim()[1] - 0.5)
    if top == 1:
        layers.set_yticks([])  # of the whole model
        return
    layers.set_yticks([1, top])
    if first:
        layers.set_ylabel("layer", labelpad=1 if top > 9 else 3)


def _foot(figure: Figure, width: float, height: float, label: str) -> None:
    """The label that all time axes share, and the colour bar."""
    figure.text(_LEFT / width, 0.3 / height, label, fontsize=7.5, va="center")
    bar_width = min(1.7, 0.5 * width)
    bar = figure.add_axes(((width - _RIGHT - bar_width - 0.1) / width, 0.25 / height, bar_width / width, 0.1 / height))
    scale = figure.colorbar(
        ScalarMappable(Normalize(0, 100), OPEN), cax=bar, orientation="horizontal", ticks=[0, 50, 100]
    )
    scale.ax.set_xticklabels(["0 %", "50 %", "100 %"])
    scale.ax.tick_params(length=2, pad=1.5)
    scale.outline.set_linewidth(0.5)  # type: ignore[operator]
    figure.text(
        (width - _RIGHT - bar_width - 0.22) / width, 0.3 / height, "active share", fontsize=7.5, ha="right", va="center"
    )


def _caption(strips: Sequence[_Strip], left_out: Sequence[_Strip], parts: Sequence[str], hidden: Sequence[str]) -> str:
    caption = f"Active share by timestep, of all {'; of all '.join(parts)}; where data decide, mean over the samples. "
    caption += "Map: every layer; curve and number: mean over the layers, from 0 to 100 %. "
    caption += "White: nothing is on; dark blue: all of it. A part that a cell computes whole is left out."
    groups = [strip.cells for strip in strips if len(strip.cells) > 3]
    caption += "".join(f" The same shares: {', '.join(cells)}." for cells in groups)
    not_drawn = [*(strip.name for strip in left_out), *hidden]
    return caption + (f" Not drawn: {', '.join(not_drawn)}." if not_drawn else "")


def _alt(strips: Sequence[_Strip]) -> str:
    return "Active share by layer and timestep; means: " + "; ".join(
        f"{strip.name} " + ", ".join(f"{shares.name} {100 * shares.mean:.0f} %" for shares in strip.shares)
        for strip in strips
    )

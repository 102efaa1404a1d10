"""What each cell computes in every sampling step: one ridge a cell, from noise (left) to image (right)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ditbench.report.numbers import decimals_for, fixed, scale_for
from ditbench.report.plots.style import BLUE, DARK, FAINT, GREY, PAGE_WIDTH, Picture, picture, shortened, styled
from ditbench.report.plots.time_axis import Timeline, in_order, timeline
from ditbench.report.run_view import RunView

MOST_RIDGES = 40


@dataclass(frozen=True)
class _Ridge:
    """Cells that compute the same in the same steps. ``steps`` holds (timestep, GMAC an image).

    ``cost_words`` are those of all its cells.
    """

    cells: tuple[str, ...]
    steps: tuple[tuple[float, float], ...]
    cost_words: str = ""

    @property
    def top(self) -> float:
        return max(gmacs for _, gmacs in self.steps)


def profile_picture(view: RunView) -> Picture | None:
    """The compute profile of every counted cell; None if there is none."""
    ridges = _ridges(view)
    if not ridges:
        return None
    left_out = ridges[MOST_RIDGES:]
    line = timeline([[time for time, _ in ridge.steps] for ridge in ridges])
    ridges = [replace(ridge, steps=_placed(ridge.steps, line)) for ridge in ridges[:MOST_RIDGES]]
    scale = scale_for([ridge.top for ridge in ridges], "GMAC")
    shared = max(ridge.top for ridge in ridges) <= 12 * min(ridge.top for ridge in ridges)
    tallest = max(ridge.top for ridge in ridges)
    with styled():
        figure = Figure(figsize=(PAGE_WIDTH, 0.55 + 0.27 * len(ridges)), layout="constrained")
        axes = figure.add_subplot()
        for place, ridge in enumerate(reversed(ridges)):
            _draw(axes, ridge, place, tallest if shared else ridge.top, scale.divisor, scale.unit, line.limits[1])
        names = shortened([_name(ridge) for ridge in reversed(ridges)], 44)
        axes.set_yticks(
            [place + 0.4 for place in range(len(ridges))],
            [_tagged(names[_name(ridge)], ridge) for ridge in reversed(ridges)],
        )
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="y", visible=False)
        noise, image = line.limits
        axes.set_xlim(noise + 0.01 * (noise - image), image + 0.01 * (image - noise))
        axes.set_ylim(-0.1, len(ridges))
        axes.set_xlabel(line.label)
        return picture(figure, "profile", _caption(ridges, left_out, shared), _alt(ridges))


def _ridges(view: RunView) -> list[_Ridge]:
    cells: dict[tuple[str, tuple[tuple[float, float], ...]], list[str]] = {}
    for row in view.rows:
        steps = tuple(
            (float(step["timestep"]), float(step["gmacs"])) for step in row.detail("flops").get("profile", ())
        )
        if steps and max(gmacs for _, gmacs in steps) > 0:
            cells.setdefault((row.cost_words, steps), []).append(row.cell)
    return [_Ridge(tuple(names), steps, words) for (words, steps), names in cells.items()]


def _placed(steps: tuple[tuple[float, float], ...], line: Timeline) -> tuple[tuple[float, float], ...]:
    places = line.places([time for time, _ in steps])
    return tuple((places[k], steps[k][1]) for k in in_order(places, line.falling))


def _name(ridge: _Ridge) -> str:
    if len(ridge.cells) <= 2:
        return ", ".join(ridge.cells)
    return f"{ridge.cells[0]} and {len(ridge.cells) - 1} more"


def _tagged(words: str, ridge: _Ridge) -> str:
    return f"{words} ({ridge.cost_words})" if ridge.cost_words else words


def _draw(axes: Axes, ridge: _Ridge, place: int, full: float, divisor: float, unit: str, image: float) -> None:
    timesteps = [timestep for timestep, _ in ridge.steps]
    edges = [*timesteps, image]
    heights = [0.8 * gmacs / full for _, gmacs in ridge.steps]
    axes.stairs([place + height for height in heights], edges, baseline=place, fill=True, color=BLUE, alpha=0.3)
    axes.stairs([place + height for height in heights], edges, baseline=None, color=BLUE, linewidth=0.9)
    axes.plot([edges[0], edges[-1]], [place, place], color=FAINT, linewidth=0.5, zorder=1)
    if len(timesteps) <= 60:
        axes.plot(timesteps, [place] * len(timesteps), "|", color=GREY, markersize=2.5, markeredgewidth=0.5)
    amounts = [gmacs / divisor for _, gmacs in ridge.steps]
    decimals = decimals_for([max(amounts)])
    low, high = fixed(min(amounts), decimals), fixed(max(amounts), decimals)
    words = f"{len(amounts)} × {high}" if low == high else f"{len(amounts)} × {low} to {high}"
    axes.annotate(
        f"{words} {unit}",
        (1.01, place + 0.4),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=6.5,
        color=DARK,
    )


def _caption(ridges: Sequence[_Ridge], left_out: Sequence[_Ridge], shared: bool) -> str:
    caption = "Compute an image in every sampling step, guidance counted; ticks mark the steps. "
    caption += "All heights share one scale." if shared else "Each row has its own scale; numbers at the right."
    groups = [ridge.cells for ridge in ridges if len(ridge.cells) > 2]
    caption += "".join(f" The same profile: {', '.join(cells)}." for cells in groups)
    return caption + (f" {len(left_out)} further profiles are not drawn." if left_out else "")


def _alt(ridges: Sequence[_Ridge]) -> str:
    return "Compute by timestep for " + "; ".join(
        f"{', '.join(ridge.cells)}: {len(ridge.steps)} steps, at most {ridge.top:.4g} GMAC" for ridge in ridges
    )

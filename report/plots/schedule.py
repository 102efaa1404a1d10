"""Which patch size runs at each sampling step: a strip a schedule, from noise (left) to image (right)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ditbench.report.flexible import Schedule, agreement_of, in_words, schedule_of
from ditbench.report.plots.style import DARK, PAGE_WIDTH, Picture, picture, shortened, styled
from ditbench.report.run_view import RunView

MOST_ROWS = 16
_INCHES = 0.23  # a row of one strip; with two strips it is _TWO times as high
_TWO = 1.5
# Fine to coarse: lightness rises all the way, so it reads in grey print, and the lightest still shows as a line.
_FINE_TO_COARSE = LinearSegmentedColormap.from_list("patches", ["#002C50", "#1B7EBB", "#84BFE7"])


@dataclass(frozen=True)
class _Strip:
    """Cells with the same schedule; ``cost_words`` are those of all of them."""

    cells: tuple[str, ...]
    schedule: Schedule
    cost_words: str

    @property
    def name(self) -> str:
        return ", ".join(self.cells) if len(self.cells) <= 2 else f"{self.cells[0]} and {len(self.cells) - 1} more"

    @property
    def height(self) -> float:
        return _TWO if self.schedule.guide else 1.0


def schedule_picture(view: RunView) -> Picture | None:
    """A row for every distinct schedule; None for runs without flexible cells."""
    strips = _strips(view)
    if not strips:
        return None
    left_out, strips = strips[MOST_ROWS:], strips[:MOST_ROWS]
    colours = size_colours(view)
    total = sum(strip.height for strip in strips)
    names = shortened([strip.name for strip in strips], 40)
    counted = len({len(strip.schedule.patch) for strip in strips}) > 1
    guided = any(strip.schedule.guide for strip in strips)
    with styled():
        figure = Figure(figsize=(PAGE_WIDTH, 0.62 + _INCHES * total), layout="constrained")
        axes = figure.add_subplot()
        foot, middles = total, []
        for strip in strips:
            foot -= strip.height
            middles.append(foot + strip.height / 2)
            _draw(axes, strip.schedule, middles[-1], colours)
            text = _share(strip.schedule).rjust(len("100.0 %"), "\N{FIGURE SPACE}") + (_steps(strip) if counted else "")
            axes.annotate(text, (1.0, middles[-1]), **_at_right(guided), va="center", fontsize=6.5, color=DARK)
        words = [names[strip.name] + (f" ({strip.cost_words})" if strip.cost_words else "") for strip in strips]
        axes.set_yticks(middles, words)
        axes.tick_params(axis="y", length=0)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.grid(visible=False)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, total)
        axes.set_xlabel("share of the sampling loop [%], from noise (left) to image (right)")
        axes.annotate("compute", (1.0, total), **_at_right(guided), va="bottom", fontsize=6.2, color=DARK)
        axes.legend(handles=_legend(strips, colours), loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=6, borderpad=0)
        return picture(figure, "schedule", _caption(strips, left_out), _alt(strips))


def size_colours(view: RunView) -> dict[int, str]:
    """A colour for every patch size of the run, the same in every figure; the finest is the darkest."""
    schedules = [schedule for row in view.rows if (schedule := schedule_of(row))]
    agreements = [agreement for row in view.rows if (agreement := agreement_of(row))]
    sizes = {size for schedule in schedules for size in (*schedule.sizes, *schedule.patch, *(schedule.guide or ()))}
    sizes |= {size for each in agreements for size in (each.powerful, *(curve.size for curve in each.curves))}
    last = max(len(sizes) - 1, 1)
    return {size: to_hex(_FINE_TO_COARSE(place / last)) for place, size in enumerate(sorted(sizes))}


def _strips(view: RunView) -> list[_Strip]:
    """What looks the same is the same row: a share of compute counts as far as it is shown."""
    groups: dict[tuple[object, ...], list[tuple[str, Schedule, str]]] = {}
    for row in view.rows:
        schedule = schedule_of(row)
        if schedule is not None:
            key = (schedule.patch, schedule.guide, schedule.pretrained, _share(schedule), row.cost_words)
            groups.setdefault(key, []).append((row.cell, schedule, row.cost_words))
    return [_Strip(tuple(cell for cell, _, _ in group), *group[0][1:]) for group in groups.values()]


def _share(schedule: Schedule) -> str:
    return f"{100 * schedule.fraction:.1f} %"


def _steps(strip: _Strip) -> str:
    steps = len(strip.schedule.patch)
    return " (1 step)" if steps == 1 else f" ({steps} steps)"


def _draw(axes: Axes, schedule: Schedule, middle: float, colours: Mapping[int, str]) -> None:
    """One strip, or two for the two branches."""
    if schedule.guide is None:
        _blocks(axes, schedule.patch, (middle - 0.33, 0.66), colours)
        return
    branches = (("conditional", schedule.patch, middle + 0.03), ("guidance", schedule.guide, middle - 0.6))
    for name, sizes, foot in branches:
        _blocks(axes, sizes, (foot, 0.57), colours)
        axes.annotate(name, (1.0, foot + 0.28), **_at_right(False), va="center", fontsize=5.6, color=DARK)


def _at_right(guided: bool) -> dict[str, Any]:
    """Beside the strips; further out where the names of branches stand between."""
    return {
        "xycoords": ("axes fraction", "data"),
        "xytext": (44 if guided else 4, 0),
        "textcoords": "offset points",
        "annotation_clip": False,
    }


def _blocks(axes: Axes, sizes: Sequence[int], span: tuple[float, float], colours: Mapping[int, str]) -> None:
    """``sizes`` a step over the whole width; ``span``: foot and height. Steps of one size that follow are one shape."""
    wide, start = 100 / len(sizes), 0
    for size, steps in groupby(sizes):
        count = len(list(steps))
        axes.broken_barh([(start * wide, count * wide)], span, color=colours[size], linewidth=0)
        start += count
    if len(sizes) <= 60:
        borders = [step * wide for step in range(1, len(sizes))]
        axes.vlines(borders, span[0], span[0] + span[1], colors="white", linewidth=0.4)


def _legend(strips: Sequence[_Strip], colours: Mapping[int, str]) -> list[Patch]:
    """The sizes that are drawn. With one model, the pre-trained size is named as such."""
    drawn = {size for strip in strips for size in (*strip.schedule.patch, *(strip.schedule.guide or ()))}
    trained = {strip.schedule.pretrained for strip in strips}
    words = {size: f"patch {size}" + (" (pre-trained)" if trained == {size} else "") for size in drawn}
    return [Patch(color=colours[size], label=words[size]) for size in sorted(drawn)]


def _caption(strips: Sequence[_Strip], left_out: Sequence[_Strip]) -> str:
    caption = "Patch size at every sampling step. Each row spans the whole loop, however many steps it has"
    caption += "; white lines part the steps. " if any(len(s.schedule.patch) <= 60 for s in strips) else ". "
    caption += "At the right: compute as a share of the same loop at the pre-trained patch size."
    if any(strip.schedule.guide for strip in strips):
        caption += " Two strips: the conditional branch, and the guidance branch where its sizes differ."
    groups = [strip.cells for strip in strips if len(strip.cells) > 2]
    caption += "".join(f" The same schedule: {', '.join(cells)}." for cells in groups)
    return caption + (f" {len(left_out)} further schedules are not drawn." if left_out else "")


def _alt(strips: Sequence[_Strip]) -> str:
    return "Patch size by sampling step: " + "; ".join(
        f"{', '.join(strip.cells)}: {in_words(strip.schedule.patch)}"
        + (f" (guidance {in_words(strip.schedule.guide)})" if strip.schedule.guide else "")
        + f", {_share(strip.schedule)} of the compute"
        for strip in strips
    )

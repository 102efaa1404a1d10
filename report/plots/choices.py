"""Which way each sampling step runs: a strip a cell, from noise (left) to image (right), a panel for every choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ditbench.report.facets import Label, Labels, compute_of, facets_of, in_words, levels_of, named
from ditbench.report.plots.style import DARK, PAGE_WIDTH, Picture, picture, shortened, styled
from ditbench.report.run_view import RunView

MOST_ROWS = 16
_INCHES = 0.23  # a row of one strip; with two strips it is _TWO times as high
_TWO = 1.5
_DEEP = 3.0  # where the layers of a step run in ways of their own
# Full to cheap: lightness rises all the way, so it reads in grey print, and the lightest still shows as a line.
_FULL_TO_CHEAP = LinearSegmentedColormap.from_list("choices", ["#002C50", "#1B7EBB", "#84BFE7"])

Colours = Mapping[str, str]


@dataclass(frozen=True)
class _Strip:
    """Cells with the same choices; ``share``: their compute in words; ``cost_words`` are those of all of them."""

    cells: tuple[str, ...]
    labels: Labels
    share: str
    cost_words: str

    @property
    def name(self) -> str:
        return ", ".join(self.cells) if len(self.cells) <= 2 else f"{self.cells[0]} and {len(self.cells) - 1} more"

    @property
    def height(self) -> float:
        layered = any(not isinstance(label, str) for label in self.labels.values)
        return _DEEP if layered else _TWO if self.labels.guidance else 1.0

    @property
    def branches(self) -> tuple[tuple[str, tuple[Label, ...]], ...]:
        """(name, labels), the conditional branch first; one without a name where both are alike."""
        if self.labels.guidance is None:
            return (("", self.labels.values),)
        return ("conditional", self.labels.values), ("guidance", self.labels.guidance)

    @property
    def shown(self) -> tuple[str, ...]:
        """Every label that is drawn."""
        used = [*self.labels.values, *(self.labels.guidance or ())]
        return tuple(one for label in used for one in ((label,) if isinstance(label, str) else label))


def choices_picture(view: RunView) -> Picture | None:
    """A row for every distinct sequence of labels; None for runs in which all steps run alike."""
    panels = _panels(view)
    if not panels:
        return None
    left_out = sum(len(strips[MOST_ROWS:]) for strips in panels.values())
    panels = {name: strips[:MOST_ROWS] for name, strips in panels.items()}
    colours = level_colours(view)
    totals = [sum(strip.height for strip in strips) for strips in panels.values()]
    with styled():
        # a panel's inches without its strips: legend, ticks, label
        inches = 0.62 * len(panels) + _INCHES * sum(totals)
        figure = Figure(figsize=(PAGE_WIDTH, inches), layout="constrained")
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=totals)
        for axes, (name, strips) in zip(grid.flat, panels.items(), strict=True):
            _panel(axes, name, strips, colours[name])
            if len(panels) > 1:
                axes.set_ylabel(name, fontsize=7.5, weight="bold")
        grid[-1, 0].set_xlabel("share of the sampling loop [%], from noise (left) to image (right)")
        return picture(figure, "choices", _caption(view, panels, left_out), _alt(panels))


def level_colours(view: RunView) -> dict[str, dict[str, str]]:
    """Facet -> label -> colour, the same in every figure; the fullest is the darkest."""
    return {name: _colours(levels) for name, levels in levels_of(view.rows).items()}


def _colours(levels: Sequence[str]) -> dict[str, str]:
    last = max(len(levels) - 1, 1)
    return {level: to_hex(_FULL_TO_CHEAP(place / last)) for place, level in enumerate(levels)}


def _panels(view: RunView) -> dict[str, list[_Strip]]:
    """What looks the same is the same row: a share of compute counts as far as it is shown."""
    groups: dict[str, dict[tuple[object, ...], list[str]]] = {}
    firsts: dict[tuple[str, tuple[object, ...]], Labels] = {}
    for row in view.rows:
        compute = compute_of(row)
        share = f"{100 * compute.share:.1f} %" if compute else ""
        for labels in facets_of(row).labels:
            key = (labels.values, labels.guidance, labels.reference, share, row.cost_words)
            firsts.setdefault((labels.name, key), labels)
            groups.setdefault(labels.name, {}).setdefault(key, []).append(row.cell)
    return {
        name: [_Strip(tuple(cells), firsts[name, key], str(key[-2]), str(key[-1])) for key, cells in same.items()]
        for name, same in groups.items()
    }


def _panel(axes: Axes, name: str, strips: Sequence[_Strip], colours: Colours) -> None:
    total = sum(strip.height for strip in strips)
    names = shortened([strip.name for strip in strips], 40)
    counted = len({len(strip.labels.values) for strip in strips}) > 1
    branched = any(strip.labels.guidance for strip in strips)
    foot, middles = total, []
    for strip in strips:
        foot -= strip.height
        middles.append(foot + strip.height / 2)
        _draw(axes, strip, middles[-1], colours)
        text = strip.share.rjust(len("100.0 %"), "\N{FIGURE SPACE}") + (_steps(strip) if counted else "")
        axes.annotate(text, (1.0, middles[-1]), **_at_right(branched), va="center", fontsize=6.5, color=DARK)
    words = [names[strip.name] + (f" ({strip.cost_words})" if strip.cost_words else "") for strip in strips]
    axes.set_yticks(middles, words)
    axes.tick_params(axis="y", length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.grid(visible=False)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, total)
    if any(strip.share for strip in strips):
        axes.annotate("compute", (1.0, total), **_at_right(branched), va="bottom", fontsize=6.2, color=DARK)
    handles = _legend(name, strips, colours)
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=6, borderpad=0)


def _steps(strip: _Strip) -> str:
    steps = len(strip.labels.values)
    return " (1 step)" if steps == 1 else f" ({steps} steps)"


def _draw(axes: Axes, strip: _Strip, middle: float, colours: Colours) -> None:
    """One strip, or two for the two branches; layers stand in it from the first at the foot."""
    room = strip.height - 0.34
    each = (room - 0.06 * (len(strip.branches) - 1)) / len(strip.branches)
    top = middle + room / 2
    for name, labels in strip.branches:
        _branch(axes, labels, (top - each, each), colours)
        axes.annotate(name, (1.0, top - each / 2), **_at_right(False), va="center", fontsize=5.6, color=DARK)
        top -= each + 0.06


def _at_right(branched: bool) -> dict[str, Any]:
    """Beside the strips; further out where the names of branches stand between."""
    return {
        "xycoords": ("axes fraction", "data"),
        "xytext": (44 if branched else 4, 0),
        "textcoords": "offset points",
        "annotation_clip": False,
    }


def _branch(axes: Axes, labels: Sequence[Label], span: tuple[float, float], colours: Colours) -> None:
    """``labels`` a step over the whole width; ``span``: foot and height."""
    depth = max(1 if isinstance(label, str) else len(label) for label in labels)
    for layer in range(depth):
        alone = [label if isinstance(label, str) else label[layer] for label in labels]
        _blocks(axes, alone, (span[0] + layer * span[1] / depth, span[1] / depth), colours)
    if len(labels) <= 60:
        borders = [step * 100 / len(labels) for step in range(1, len(labels))]
        axes.vlines(borders, span[0], span[0] + span[1], colors="white", linewidth=0.4)


def _blocks(axes: Axes, labels: Sequence[str], span: tuple[float, float], colours: Colours) -> None:
    """Steps of one label that follow are one shape."""
    wide, start = 100 / len(labels), 0
    for label, steps in groupby(labels):
        count = len(list(steps))
        axes.broken_barh([(start * wide, count * wide)], span, color=colours[label], linewidth=0)
        start += count


def _legend(name: str, strips: Sequence[_Strip], colours: Colours) -> list[Patch]:
    """The labels that are drawn. Where all cells have one reference, it is named as such."""
    drawn = {label for strip in strips for label in strip.shown}
    references = {strip.labels.reference for strip in strips}
    words = {label: named(name, label) + " (reference)" * (references == {label}) for label in drawn}
    return [Patch(color=colours[label], label=words[label]) for label in colours if label in drawn]


def _caption(view: RunView, panels: Mapping[str, Sequence[_Strip]], left_out: int) -> str:
    strips = [strip for each in panels.values() for strip in each]
    caption = f"How every sampling step runs: {', '.join(panels)}. "
    caption += "Each row spans the whole loop, however many steps it has"
    caption += "; white lines part the steps. " if any(len(s.labels.values) <= 60 for s in strips) else ". "
    of = dict.fromkeys(compute.of for row in view.rows if (compute := compute_of(row)))
    caption += f"At the right: compute as a share of the same loop with {' or '.join(of)}." if of else ""
    if any(strip.labels.guidance for strip in strips):
        caption += " Two strips: the conditional branch, and the guidance branch where it runs otherwise."
    if any(strip.height == _DEEP for strip in strips):
        caption += " Lines within a strip: the layers, the first at its foot."
    groups = [strip.cells for strip in strips if len(strip.cells) > 2]
    caption += "".join(f" The same choices: {', '.join(cells)}." for cells in groups)
    return caption + (f" {left_out} further rows are not drawn." if left_out else "")


def _alt(panels: Mapping[str, Sequence[_Strip]]) -> str:
    return "By sampling step: " + "; ".join(
        f"{', '.join(strip.cells)}: {in_words(strip.labels, strip.labels.values)}"
        + (f" (guidance {in_words(strip.labels, strip.labels.guidance)})" if strip.labels.guidance else "")
        + (f", {strip.share} of the compute" if strip.share else "")
        for strips in panels.values()
        for strip in strips
    )

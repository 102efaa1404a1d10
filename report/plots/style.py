"""How every figure looks, and how it becomes bytes that depend on the records alone."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import matplotlib

matplotlib.use("Agg")

from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

# Okabe and Ito's palette: apart for every common kind of colour blindness, and in grey print by lightness.
BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
VERMILION, SKY, PURPLE, YELLOW = "#D55E00", "#56B4E9", "#CC79A7", "#F0E442"
BROWN = "#7A4A21"  # not theirs: dark enough to stand apart from their orange in every case
GREY, DARK, FAINT = "#8C8C8C", "#222222", "#D9D9D9"

# Closed to open: lightness falls all the way, so it reads in grey print too.
OPEN = LinearSegmentedColormap.from_list("open", ["#FFFFFF", "#A9CFE8", BLUE, "#00365E"])

COLUMN_WIDTH = 3.5  # inches; one column of a two-column paper
PAGE_WIDTH = 7.1

_SETTINGS: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#444444",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E8E8E8",
    "grid.linewidth": 0.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "hatch.linewidth": 0.5,
    "svg.fonttype": "path",  # the reader, and typst, need no font of ours
    "svg.hashsalt": "ditbench",  # else element names are drawn at random
    "figure.dpi": 100,
    "savefig.dpi": 300,
}


@dataclass(frozen=True)
class Picture:
    """A finished figure: ``name`` without ending, both renderings, a caption, and its width in points."""

    name: str
    svg: bytes
    png: bytes
    caption: str
    alt: str
    width_pt: float


@contextmanager
def styled() -> Iterator[None]:
    """Our settings inside, the caller's outside."""
    with matplotlib.rc_context(cast(Any, _SETTINGS)):
        yield


def picture(figure: Figure, name: str, caption: str, alt: str) -> Picture:
    """Render a figure. Neither file carries a date or a program's version."""
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    figure.savefig(png, format="png", metadata={"Software": None})
    return Picture(name, svg.getvalue(), png.getvalue(), caption, alt, figure.get_figwidth() * 72)


def shortened(names: Sequence[str], most: int = 26) -> dict[str, str]:
    """name -> a name that fits a plot, still apart from every other.

    If any is too long, what all of them share at their ends goes first, then the middle of what is still too long.
    Names that would become the same stay whole.
    """
    if all(len(name) <= most for name in names):
        return {name: name for name in names}
    head = _shared_start(names)
    tail = _shared_start([name[head:][::-1] for name in names])
    short = {name: _without_middle(_without_ends(name, head, tail), most) for name in names}
    counts = Counter(short.values())
    return {name: text if counts[text] == 1 else name for name, text in short.items()}


def _shared_start(names: Sequence[str]) -> int:
    """How many first characters several names have in common; 0 for a lone name."""
    if len(names) < 2:
        return 0
    # The least and the greatest differ earliest.
    first, last = min(names), max(names)
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))


def _without_ends(name: str, head: int, tail: int) -> str:
    # An ellipsis for a few characters hides more than it saves.
    head, tail = (head if head > 4 else 0), (tail if tail > 4 else 0)
    kept = name[head : len(name) - tail]
    return f"{'…' if head else ''}{kept}{'…' if tail else ''}" if kept else name


def _without_middle(name: str, most: int) -> str:
    if len(name) <= most:
        return name
    tail = (most - 1) // 2
    return f"{name[: most - 1 - tail]}…{name[-tail:]}"

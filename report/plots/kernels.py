"""Where a denoiser call's time goes, by class of kernel, with the time in which the device only waits."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from ditbench.report.facets import chooses
from ditbench.report.plots.style import (
    BLUE,
    BROWN,
    DARK,
    FAINT,
    GREEN,
    GREY,
    ORANGE,
    PAGE_WIDTH,
    PURPLE,
    SKY,
    VERMILION,
    YELLOW,
    Picture,
    picture,
    shortened,
    styled,
)
from ditbench.report.row import Row
from ditbench.report.run_view import RunView

# Fixed order and colours: the same class looks the same in every report.
_COLOURS = {
    "linear": BLUE,
    "attention": ORANGE,
    "norm": GREEN,
    "elementwise": SKY,
    "conv": PURPLE,
    "router": VERMILION,
    "gather": BROWN,
    "copy": YELLOW,
    "other": GREY,
    "gap": "white",
}
MOST_BARS = 40


def kernels_picture(view: RunView) -> Picture | None:
    """Stacked bars, ms a denoiser call; shares of each call where the calls differ more than twentyfold."""
    rows = [row for row in view.rows if _times(row)]
    if not rows:
        return None
    left_out, rows = rows[MOST_BARS:], rows[:MOST_BARS]
    totals = [sum(_times(row).values()) for row in rows]
    as_share = max(totals) > 20 * min(totals)
    classes = [name for name in _COLOURS if any(_times(row).get(name) for row in rows)]
    with styled():
        figure = Figure(figsize=(PAGE_WIDTH, 0.85 + 0.13 * (len(classes) > 8) + 0.21 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        places = list(range(len(rows)))[::-1]
        left = [0.0] * len(rows)
        for name in classes:
            widths = [_times(row).get(name, 0.0) for row in rows]
            if as_share:
                widths = [100 * width / total for width, total in zip(widths, totals, strict=True)]
            axes.barh(
                places,
                widths,
                left=left,
                height=0.66,
                color=_COLOURS[name],
                edgecolor="#555555" if name == "gap" else "white",
                hatch="//////" if name == "gap" else None,
                linewidth=0.4,
                label="gap (device waits)" if name == "gap" else name,
            )
            left = [start + width for start, width in zip(left, widths, strict=True)]
        for place, end, row, total in zip(places, left, rows, totals, strict=True):
            gap = 100 * _times(row).get("gap", 0.0) / total
            axes.annotate(
                f"{total:.3g} ms, gap {gap:.0f} %",
                (end, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=6.2,
                color=DARK,
            )
        words = shortened([row.cell for row in rows], 40)
        axes.set_yticks(places, [row.named(words[row.cell]) for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_color(FAINT)
        axes.set_xlim(0, max(left) * 1.2)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel("share of a denoiser call [%]" if as_share else "time of a denoiser call [ms]")
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            ncols=8 if len(classes) <= 8 else 5,
            handlelength=1.2,
            handletextpad=0.4,
            columnspacing=1.2,
        )
        return picture(figure, "kernels", _caption(rows, left_out), _alt(rows, totals))


def _times(row: Row) -> dict[str, float]:
    """class -> ms a denoiser call; classes unknown to the legend are added to 'other'."""
    times: dict[str, float] = {}
    for entry in row.detail("kernels").get("classes", ()):
        name = entry["class"] if entry["class"] in _COLOURS else "other"
        times[name] = times.get(name, 0.0) + max(float(entry["ms"]), 0.0)
    return times if sum(times.values()) > 0 else {}


def _caption(rows: Sequence[Row], left_out: Sequence[Row]) -> str:
    batches = sorted({int(batch) for row in rows if (batch := row.detail("kernels").get("batch"))})
    batch = f" of batch {', '.join(map(str, batches))}" if batches else ""
    mean = "; where steps run in different ways, the mean over the steps" if any(map(chooses, rows)) else ""
    caption = (
        f"Where the time of one denoiser call{batch} goes, from the profiler's own pass{mean}. "
        "Gap: wall clock minus device time."
    )
    return caption + (f" {len(left_out)} further cells are not drawn." if left_out else "")


def _alt(rows: Sequence[Row], totals: Sequence[float]) -> str:
    return "Time by kernel class: " + "; ".join(
        f"{row.cell} {total:.4g} ms ("
        + ", ".join(f"{name} {100 * ms / total:.0f} %" for name, ms in _times(row).items())
        + ")"
        for row, total in zip(rows, totals, strict=True)
    )

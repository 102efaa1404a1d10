"""How sure each cell's place on the fronts is, in words."""

from __future__ import annotations

from collections.abc import Mapping

from ditbench.report.fronts import FrontProbabilities, unsettled
from ditbench.report.run_view import RunView
from ditbench.report.words.phrases import listed


def front_certainty(view: RunView, fronts: FrontProbabilities) -> str:
    """For the summary: which cells are sure of their place on each front, and how many others may belong there."""
    return " ".join(
        filter(
            None,
            (
                _certainty("compute", {row.cell: row.on_front_gmacs for row in view.rows}, fronts.gmacs),
                _certainty("time", {row.cell: row.on_front_time for row in view.rows}, fronts.time),
            ),
        )
    )


def _certainty(axis: str, on_front: Mapping[str, bool | None], probabilities: Mapping[str, float]) -> str:
    members = [cell for cell in probabilities if on_front[cell]]
    sure = [cell for cell in members if not unsettled(True, probabilities[cell])]
    maybe = [cell for cell, each in probabilities.items() if unsettled(on_front[cell], each) and not on_front[cell]]
    if not members or (len(sure) == len(members) and not maybe):
        return ""
    front = f"the front of quality against {axis}"
    if sure:
        text = f"Only {listed(sure)} {'is' if len(sure) == 1 else 'are'} on {front} with at least 95 % probability"
        text = text if len(sure) < len(members) else text.removeprefix("Only ")
    else:
        text = f"No cell is on {front} with 95 % probability"
    others = f"; {len(maybe)} {'cell' if len(maybe) == 1 else 'cells'} off it may belong there (more than 5 %)"
    return f"{text}{others if maybe else ''}."


_FRONT = """A cell is on the front if no other is at least as good in both directions and better in one, by the measured
values."""


_SHARE = (
    "P(front) is how often the cell is on it when all figures are moved, at random, by errors as large as their own."
)


_NONE = "How sure that is cannot be said: no Fréchet distance has an interval."


_PAIRED = """Cells that were sampled from the same seeds err together, and are drawn so, from the blocks behind their
intervals."""


_ALONE = """Each Fréchet distance is drawn from its own 95 % interval, as if no two cells shared their seeds: where they
do, the order of two cells is mostly surer than it looks."""


_DOUBT = """The draws believe the measured values: among cells that are closer than their errors, high figures are too
high and low ones too low, and cells that each give a little quality for a little cost all come out too low."""


def about_fronts(fronts: FrontProbabilities) -> str:
    """For the notes on reading: what a front is, and what its probabilities are and are not."""
    if not fronts.gmacs and not fronts.time:
        return " ".join(f"{_FRONT} {_NONE}".split())
    alone = {*fronts.gmacs, *fronts.time} - {*fronts.paired, *fronts.exact}
    texts = [_FRONT, _SHARE, _PAIRED if fronts.paired else "", _ALONE if alone else "", _DOUBT]
    for what, cells in (("quality", fronts.exact), ("time", fronts.exact_time)):
        texts.append(f"Without an interval, and taken as exact: the {what} of {listed(cells)}." if cells else "")
    return " ".join(" ".join(texts).split())

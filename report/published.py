"""Printed figures joined with what the run counted: each count by the convention of the paper that prints it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ditbench.harness.published.conventions import CONVENTIONS, Convention, Count, NotHeldError, at_digits
from ditbench.harness.published.load import library
from ditbench.harness.published.schema import COST, Figure, Published
from ditbench.report.facets import compute_of
from ditbench.report.numbers import MINUS
from ditbench.report.row import Row
from ditbench.report.run_view import RunView


@dataclass(frozen=True)
class Match:
    """A printed cost and a cell that names its row.

    value    the cell's count by the figure's convention, in the figure's unit; None where ``problem`` says why not
    """

    row: Row
    entry: Published
    figure: Figure
    value: float | None
    problem: str = ""

    @property
    def by(self) -> str | None:
        """Name of the convention. A share that routers learned, or that the cell says, is not taken from the print."""
        name = self.figure.convention
        if name is not None and CONVENTIONS[name].from_print and not self.row.spec.imposed:
            return "without-routers"
        return name

    @property
    def convention(self) -> Convention | None:
        return None if self.by is None else CONVENTIONS[self.by]

    @property
    def counted(self) -> str:
        """The count with the digits of the printed figure; '' where there is none."""
        return "" if self.value is None else at_digits(self.value, self.figure.printed, self.figure.cut)

    @property
    def reproduced(self) -> bool:
        """Whether the count comes out to the printed digits."""
        return self.counted == self.figure.printed

    @property
    def verdict(self) -> str:
        """'=', '= cut off', '+0.01', or why there is no count."""
        if self.value is None:
            return self.problem
        if self.reproduced:
            return "= cut off" if self.figure.cut else "="
        decimals = len(self.figure.printed.partition(".")[2])
        difference = float(self.counted) - float(self.figure.printed)
        return f"{difference:+.{decimals}f}".replace("-", MINUS)

    @property
    def ours(self) -> float | None:
        """The same by this harness' own convention, in the figure's unit; None for parameters."""
        if self.figure.quantity == "gflops":
            return self.row.value("flops", "gmacs_step")
        if self.figure.quantity == "tflops_image":
            image = self.row.value("flops", "gmacs_image")
            return None if image is None else image / 1e3
        compute = compute_of(self.row) if self.figure.quantity == "flops_percent" else None
        return None if compute is None else 100 * compute.share


def entries(view: RunView) -> list[tuple[Row, Published]]:
    """Cells with the printed rows that they name, a paper's table together; keys that are not known are left out."""
    found = [(row, library()[key]) for row in view.rows for key in row.spec.published if key in library()]
    order = list(dict.fromkeys(entry.source for _, entry in found))
    return sorted(found, key=lambda pair: order.index(pair[1].source))


def matches(view: RunView) -> list[Match]:
    """Every printed cost of the rows that cells name."""
    return [_match(row, entry, figure) for row, entry in entries(view) for figure in entry.of(*COST)]


def _match(row: Row, entry: Published, figure: Figure) -> Match:
    bare = Match(row, entry, figure, None)
    if bare.convention is None:
        return replace(bare, problem="not counted")
    count = count_of(row)
    if count is None:
        return replace(bare, problem="failed" if "flops" in row.failures else "not run yet")
    try:
        return replace(bare, value=bare.convention.counted(count))
    except NotHeldError as missing:
        return replace(bare, problem=str(missing))


def count_of(row: Row) -> Count | None:
    """What the cell's flops record says; None without one."""
    params, step, image = (row.value("flops", name) for name in ("params", "gmacs_step", "gmacs_image"))
    if params is None or step is None or image is None:
        return None
    detail, compute = row.detail("flops"), compute_of(row)
    return Count(
        params=params,
        gmacs_step=step,
        gmacs_image=image,
        evaluations=row.evaluations,
        guided=row.spec.guidance_scale != 1.0,
        by_operator=detail.get("by_operator") or {},
        parts=detail.get("parts") or {},
        shares=dict(compute.by_convention) if compute else {},
        positions=detail.get("positions"),
    )


@dataclass(frozen=True)
class Unfollowed:
    """Printed costs that do not follow from the architecture, for one reason. ``rows``: (label, as printed)."""

    source: str
    rows: tuple[tuple[str, str], ...]
    reason: str


def unfollowed(view: RunView) -> list[Unfollowed]:
    """Those of the papers that the run names rows of, named or not; rows of one table and one reason together."""
    papers = dict.fromkeys(entry.paper for _, entry in entries(view))
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for entry in (each for paper in papers for each in library().values() if each.paper == paper):
        for figure in entry.of(*COST):
            if figure.reason is not None:
                groups.setdefault((entry.source, figure.reason), []).append((entry.label, figure.shown))
    return [Unfollowed(source, tuple(rows), reason) for (source, reason), rows in groups.items()]


def summary_of(view: RunView) -> str:
    """How many printed costs came out to their digits, in a few sentences; '' where no cell names any."""
    found = matches(view)
    if not found:
        return ""
    good = [match for match in found if match.reproduced]
    text = f"{len(good)} of {len(found)} printed costs are reproduced to their digits"
    asides = list(_asides(good))
    text += f" ({'; '.join(asides)})." if asides else "."
    left = [match for match in found if not match.reproduced]
    explained = sum(match.figure.reason is not None for match in left)
    missing = sum(match.figure.reason is None and match.value is None for match in left)
    wrong = len(left) - explained - missing
    for number, what in (
        (explained, "not follow from the architecture, for the reasons below"),
        (wrong, "not come out, and no reason is known"),
    ):
        text += f" {number} {'does' if number == 1 else 'do'} {what}." if number else ""
    return text + (f" {missing} {'is' if missing == 1 else 'are'} not counted." if missing else "")


def _asides(good: Sequence[Match]) -> Iterator[str]:
    cut = [match for match in good if match.figure.cut]
    taken = [match for match in good if match.convention and match.convention.from_print]
    if cut:
        yield f"{len(cut)} of them printed with digits cut off, not rounded"
    if taken:
        yield f"for {len(taken)} the share of the blocks' work is itself taken from the printed figure"

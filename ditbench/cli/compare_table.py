"""A comparison as text of about 100 columns: a block a cell, a line a figure, and what it comes to."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence

from ditbench.harness.compare.comparison import ALPHA, VERDICTS, Compared, Comparison
from ditbench.harness.compare.runs import Run
from ditbench.harness.compare.thresholds import Judged, Judgement, State
from ditbench.report.numbers import MINUS, fixed

WIDTH = 100
HEADS = ("", "A", "B", "change", "95 % interval", "verdict")
Row = tuple[str, ...]
_GLUE = "\N{NO-BREAK SPACE}"  # a space at which no line ends
_STATES: dict[State, str] = {
    "crossed": "crossed",
    "not judged": "cannot be judged",
    "within noise": "past the threshold, within the noise",
}


def table(comparison: Comparison, judged: Sequence[Judged]) -> list[str]:
    """The lines. Names are never cut; a line is longer than 100 columns only where one name is."""
    notes: dict[str, int] = {}
    blocks = {cell: _rows(each, notes) for cell, each in _by_cell(comparison.compared).items()}
    rows = [HEADS, *(row for block in blocks.values() for row in block)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
    lines = [*_head(comparison), "", *([_line(HEADS, widths)] if len(rows) > 1 else [])]
    for cell, block in blocks.items():
        lines += [cell, *(_line(row, widths) for row in block), *_same(comparison, cell)]
    lines += ["", *_summary(comparison)]
    lines += [text for note, number in notes.items() for text in _wrapped(f"({number}) {note}", "    ")]
    for each in judged:
        lines += ["", *_threshold(each)]
    return lines


def _head(comparison: Comparison) -> Iterator[str]:
    sides = comparison.sides
    folders = [str(run.folder) for run in (sides.a, sides.b)]
    width = max(map(len, folders))
    for side, run, folder in zip("AB", (sides.a, sides.b), folders, strict=True):
        yield f"{side}  {folder:<{width}}  {run.command}  ({_git(run)})"
    for side, names in (("A", sides.only_a), ("B", sides.only_b)):
        if names:
            yield from _wrapped(f"only in {side}: {', '.join(names)}", "    ")
    protocols = dict.fromkeys(
        record.protocol for each in comparison.compared if (record := each.a or each.b) is not None and record.protocol
    )
    if protocols:
        yield f"quality: {', '.join(protocols)}"
    hidden: dict[str, list[str]] = {}
    for each in comparison.compared:
        if _hidden(each):
            hidden.setdefault(each.reason, []).append(each.metric.name)
    for reason, metrics in hidden.items():
        yield from _wrapped(f"not compared: {', '.join(dict.fromkeys(metrics))}: {reason}", "    ")


def _git(run: Run) -> str:
    commit, plus, dirty = str(run.environment.get("git") or "").partition("+")
    return f"git {commit[:10]}{plus}{dirty}" if commit else "no commit known"


def _by_cell(compared: Sequence[Compared]) -> dict[str, list[Compared]]:
    cells: dict[str, list[Compared]] = {}
    for each in compared:
        cells.setdefault(each.cell, []).append(each)
    return cells


def _hidden(each: Compared) -> bool:
    """Times of two machines side by side would be compared by the reader: their reason stands once, above."""
    return each.change is None and each.metric.ratio and None not in each.figures


def _rows(compared: Sequence[Compared], notes: dict[str, int]) -> list[Row]:
    rows: list[Row] = []
    for each in compared:
        if each.verdict == "identical" or _hidden(each):
            continue
        mark = f" ({notes.setdefault(each.reason, len(notes) + 1)})" if each.reason else ""
        rows.append((f"  {each.metric.name}", *_numbers(each), f"{each.verdict}{mark}"))
    return rows


def _numbers(each: Compared) -> tuple[str, str, str, str]:
    change, values = each.change, [None if figure is None else figure.value for figure in each.figures]
    reach = None
    if change is not None and not each.metric.ratio:
        reach = (
            (change.high - change.low) / 2 if change.low is not None and change.high is not None else abs(change.value)
        )
    decimals = _decimals([value for value in values if value is not None], reach)
    a, b = ("–" if value is None else fixed(value, decimals) for value in values)
    if change is None:
        return a, b, "", ""

    def shown(value: float) -> str:
        return f"×{_ratio(value)}" if each.metric.ratio else _signed(value, decimals)

    ends = "" if change.low is None or change.high is None else f"{shown(change.low)} to {shown(change.high)}"
    return a, b, shown(change.value), ends


def _decimals(values: Sequence[float], reach: float | None) -> int:
    """Four digits of the larger value, and two of what it is known to."""
    wanted = [3 - math.floor(math.log10(size)) for size in [max(map(abs, values), default=0.0)] if size > 0]
    if reach:
        wanted.append(1 - math.floor(math.log10(reach)))
    return min(8, max([0, *wanted]))


def _ratio(value: float) -> str:
    return f"{value:.3f}" if 0.1 <= value < 100 else f"{value:.3g}"


def _signed(value: float, decimals: int) -> str:
    text = fixed(value, decimals)
    return text if text.startswith(MINUS) or float(text) == 0 else f"+{text}"


def _line(row: Row, widths: Sequence[int]) -> str:
    name, a, b, change, interval, verdict = row
    numbers = [text.rjust(width) for text, width in zip((a, b, change), widths[1:4], strict=True)]
    return "  ".join([name.ljust(widths[0]), *numbers, interval.ljust(widths[4]), verdict]).rstrip()


def _same(comparison: Comparison, cell: str) -> list[str]:
    """What is identical, in lines of their own; with its values, unless all is."""
    here = [each for each in comparison.compared if each.cell == cell]
    figures = [
        f"{each.metric.name}{_GLUE}{fixed(figure.value, _decimals([figure.value], None))}"
        for each in here
        if each.verdict == "identical" and (figure := each.figures[0]) is not None
    ]
    if here and len(figures) == len(here):
        return [f"  all {len(here)} figures identical"]
    return _wrapped(f"  identical: {', '.join(figures)}", "    ") if figures else []


def _summary(comparison: Comparison) -> Iterator[str]:
    for metric in comparison.metrics if len(comparison.sides.pairs) > 1 else ():
        compared = [each for each in comparison.compared if each.metric == metric]
        if not compared:
            continue
        parts: list[str] = []
        for verdict in VERDICTS:
            cells = [each.cell for each in compared if each.verdict == verdict]
            if cells:
                where = f" ({', '.join(cells)})" if verdict in ("worse", "better", "different") else ""
                total = "" if parts else f" of {len(compared)} cells"
                parts.append(f"{verdict} in {len(cells)}{total}{where}")
        yield from _wrapped(f"{metric.name}: {', '.join(parts)}", "    ")
    if comparison.family > 1:
        yield from _wrapped(
            "Each interval is a 95 % one of its own line. The verdicts allow for the number of lines: among all "
            f"{comparison.family} with an interval, the chance of even one false 'better' or 'worse' is at most "
            f"{ALPHA:.0%} (Holm).",
            "",
        )


def _threshold(judged: Judged) -> Iterator[str]:
    word = "FAILED" if judged.failed else "passed"
    yield f"fail if {judged.threshold.text}: {word}, held in {len(judged.of('held'))} of {len(judged.cells)} cells"
    for state, words in _STATES.items():
        by_reason: dict[str, list[str]] = {}
        for cell in judged.of(state):
            by_reason.setdefault(cell.reason, []).append(f"{cell.cell}{_change(judged, cell)}")
        for reason, cells in by_reason.items():
            why = f": {reason}" if reason else ""
            yield from _wrapped(f"  {words}: {', '.join(cells)}{why}", "    ")


def _change(judged: Judged, cell: Judgement) -> str:
    if cell.change is None:
        return ""
    number = f"{cell.change:+.1%}" if judged.threshold.relative else f"{cell.change:+.4g}"
    return f"{_GLUE}({number.replace('-', MINUS)})"


def _wrapped(text: str, indent: str) -> list[str]:
    lines = textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return [line.replace(_GLUE, " ") for line in lines]

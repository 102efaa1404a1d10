"""The table model: columns that know their unit and how their numbers are shown, and a mark a row.

Each entry keeps the stored value (for CSV) beside the shown text (for everything that people read).
``ditbench.report.tables.formats`` renders a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ditbench.harness.store.records import Quantity
from ditbench.report.numbers import Scale, decimals_for, fixed, scale_for

Mark = Literal["plain", "baseline", "dominated", "failed"]
Raw = float | int | str | bool | None


@dataclass(frozen=True)
class Value:
    """One entry. ``interval`` is the shown '[low, high]'; ``tag`` a word beside the text ('cost only')."""

    raw: Raw = None
    shown: str = ""
    low: float | None = None
    high: float | None = None
    interval: str = ""
    tag: str = ""


EMPTY = Value()


@dataclass(frozen=True)
class Column:
    """A column. ``unit`` is the shown one; CSV stores ``raw`` in the record's own unit."""

    key: str
    title: str
    values: tuple[Value, ...]
    unit: str = ""
    numeric: bool = False
    wide: bool = False

    @property
    def empty(self) -> bool:
        return all(value.raw is None or value.raw == "" for value in self.values)

    @property
    def has_ends(self) -> bool:
        """Whether CSV needs the interval's ends."""
        return any(value.low is not None for value in self.values)

    @property
    def has_intervals(self) -> bool:
        """Whether an interval is shown."""
        return any(value.interval for value in self.values)


@dataclass(frozen=True)
class Table:
    """``marks`` holds one mark a row; ``notes`` are lines set under the table."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    marks: tuple[Mark, ...]
    notes: tuple[str, ...] = ()

    def without_empty_columns(self) -> Table:
        """The same table with only the columns that say something."""
        return replace(self, columns=tuple(column for column in self.columns if not column.empty))


def text_column(
    key: str, title: str, texts: Sequence[str], *, tags: Sequence[str] | None = None, wide: bool = False
) -> Column:
    """A column of words. ``wide`` columns take the room that is left and wrap."""
    tags = tags if tags is not None else [""] * len(texts)
    values = tuple(Value(text, text, tag=tag) for text, tag in zip(texts, tags, strict=True))
    return Column(key, title, values, wide=wide)


def number_column(
    key: str,
    title: str,
    unit: str,
    entries: Sequence[Quantity | float | int | None],
    *,
    decimals: int | None = None,
    scale: Scale | None = None,
    show_interval: bool = True,
) -> Column:
    """A column of numbers in one readable unit with one count of decimals, so that the points stand in line.

    ``unit`` is the stored one ('GMAC', 'ms', '1', '#' for a count, …); ``decimals`` fixes the rounding and
    ``scale`` the shown unit, for columns that must share them. Without ``show_interval`` only CSV has the
    ends.
    """
    quantities = [entry if isinstance(entry, Quantity | None) else _bare(entry) for entry in entries]
    scale = scale or scale_for((quantity.value for quantity in quantities if quantity), unit)
    if decimals is None:
        # Counts are exact and papers quote them to five digits; times are not.
        most = 6 if unit == "GMAC" else 5
        decimals = decimals_for((quantity.value / scale.divisor for quantity in quantities if quantity), most)
        if all(float(quantity.value).is_integer() for quantity in quantities if quantity) and unit == "1":
            decimals = 0
    raw = [entry.value if isinstance(entry, Quantity) else entry for entry in entries]
    values = tuple(_number(*pair, scale, decimals, show_interval) for pair in zip(raw, quantities, strict=True))
    return Column(key, title, values, scale.unit, numeric=True)


def _bare(value: float | int) -> Quantity:
    return Quantity(value=value, unit="1", low=None, high=None, interval="")


def _number(raw: Raw, quantity: Quantity | None, scale: Scale, decimals: int, show_interval: bool) -> Value:
    if quantity is None:
        return EMPTY
    shown = fixed(quantity.value / scale.divisor, decimals)
    low, high = quantity.low, quantity.high
    if low is None or high is None:
        return Value(raw, shown)
    ends = (fixed(end / scale.divisor, decimals) for end in (low, high))
    return Value(raw, shown, low, high, f"[{', '.join(ends)}]" if show_interval else "")

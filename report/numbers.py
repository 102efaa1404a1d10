"""How numbers are shown: units that suit their size, and one count of decimals a column so points line up."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Scale:
    """``shown = stored / divisor``, in ``unit``."""

    divisor: float
    unit: str


def scale_for(values: Iterable[float], unit: str) -> Scale:
    """A unit in which all ``values`` are pleasant to read.

    Knows GMAC (MMAC, TMAC), ms (s) and '#' (a count: k, M, G); any other unit stays; '1' is shown as no unit.
    """
    sizes = [abs(value) for value in values if value]
    least, most = (min(sizes), max(sizes)) if sizes else (1.0, 1.0)
    if unit == "GMAC" and most < 0.5:
        return Scale(1e-3, "MMAC")
    if unit == "GMAC" and least >= 1e4:
        return Scale(1e3, "TMAC")
    if unit == "ms" and least >= 1e4:
        return Scale(1e3, "s")
    if unit == "#":
        for divisor, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if most >= divisor:
                return Scale(divisor, name)
        return Scale(1.0, "")
    return Scale(1.0, "" if unit == "1" else unit)


def decimals_for(values: Iterable[float], most: int = 5) -> int:
    """Decimals that give the smallest value three significant digits, the largest no more than ``most``."""
    sizes = [abs(value) for value in values if value and math.isfinite(value)]
    if not sizes:
        return 0
    wanted = 2 - math.floor(math.log10(min(sizes)))
    bearable = most - 1 - math.floor(math.log10(max(sizes)))
    return max(0, min(wanted, bearable))


def fixed(value: float, decimals: int) -> str:
    """``value`` with so many decimals and a real minus sign; no '−0.00'."""
    text = f"{value:.{decimals}f}"
    if text.startswith("-"):
        text = text[1:] if float(text) == 0 else MINUS + text[1:]
    return text


def short(value: float) -> str:
    """A lone number in running text: three significant digits, four from 1000 on."""
    return fixed(value, decimals_for([value]))


def with_unit(value: float, unit: str) -> str:
    """A lone number with the unit that suits it, e.g. '3.21 MMAC'."""
    scale = scale_for([value], unit)
    return f"{short(value / scale.divisor)} {scale.unit}".strip()

"""What a plan waits for: files that the user must bring, told once and never taken for random weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ditbench.harness.errors import MissingFileError, Position


@dataclass(frozen=True)
class Waiting:
    """Measurements of a cell that have no identity yet, because a file is missing that would be part of it.

    measurements  name -> resolved options, in the order of running
    reason        one line: which file, and where it is to be named
    position      where the suite, or the file of assets, asks for it
    expected      whether it is a file that ditbench knows of (an asset, a reference); else a path of the suite's own
    """

    measurements: Mapping[str, Mapping[str, Any]]
    reason: str
    position: Position | None
    expected: bool


@dataclass(frozen=True)
class Wanting:
    """One measurement that lacks one file; ``expected`` as in ``Waiting``."""

    measurement: str
    options: Mapping[str, Any]
    error: MissingFileError
    expected: bool


def grouped(wanting: Iterable[Wanting]) -> tuple[Waiting, ...]:
    """One ``Waiting`` a missing file, in the order of first mention."""
    found: dict[str, tuple[dict[str, Mapping[str, Any]], MissingFileError, bool]] = {}
    for each in wanting:
        found.setdefault(str(each.error), ({}, each.error, each.expected))[0][each.measurement] = each.options
    return tuple(
        Waiting(measurements, error.message, error.position, expected)
        for measurements, error, expected in found.values()
    )

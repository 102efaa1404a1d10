"""Figures of a set that other distributions add, by entry points of the group ``ditbench.metrics``.

An entry point names a function (SampleSet) -> Quantity, or -> mapping from names to quantities, or a ``MetricEntry`` in
a module that may do without torch. Each quantity has an interval or says why there is none; a ValueError says why there
is no figure at all. A suite asks for it by name: ``quality: {metrics: [NAME]}``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ditbench.harness.errors import InputError
from ditbench.harness.quality.images.source import ImageSource
from ditbench.harness.stats.intervals import mean_interval
from ditbench.harness.store.records import Column, Quantity
from ditbench.methods.entries import Entry, Registry, UnknownNameError


@dataclass(frozen=True)
class MetricEntry(Entry):
    """version  raised when it reports something else for the same input
    columns  how its values are shown; empty: each under its name
    """

    version: str = "1"
    columns: tuple[Column, ...] = ()

    @property
    def stamp(self) -> str:
        """What of it stands in protocol ids."""
        return f"{self.name} {self.version}: {self.code}"


@cache
def metrics() -> Registry[MetricEntry]:
    """Metrics of other distributions; the shipped ones belong to every protocol."""
    return Registry("metrics", MetricEntry)


def metric_of(name: str) -> MetricEntry:
    """Raises InputError: nobody knows the name, or its module cannot be imported."""
    try:
        return metrics()[name]
    except UnknownNameError as error:
        raise InputError(str(error)) from None


@dataclass(frozen=True)
class SampleSet:
    """What a metric gets: a set of samples and what it is compared with.

    features            (n, d) float32, in the samples' order, by the protocol's extractor
    labels              (n,) the classes that the samples were made for
    images              the samples as the extractor saw them: (n, H, W, C) uint8, in batches
    reference_features  (m, d) float32; None with the reason in ``without``
    reference_images    None where the reference is statistics
    device              where to compute
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    images: ImageSource
    reference_features: NDArray[np.float32] | None
    reference_images: ImageSource | None
    without: str
    device: str


@dataclass(frozen=True)
class Measured:
    """Figures by name, and reasons why some metrics have none."""

    values: dict[str, Quantity]
    missing: dict[str, str]


def measured(names: Sequence[str], given: SampleSet, taken: Sequence[str]) -> Measured:
    """All of ``names`` on one set. Raises InputError where one breaks, or gives a figure a name that is ``taken``."""
    values: dict[str, Quantity] = {}
    missing: dict[str, str] = {}
    for name in names:
        entry = metric_of(name)
        what = f"metric {name!r} of {entry.origin}"
        try:
            found = entry.load()(given)
        except ValueError as error:
            missing[name] = " ".join(str(error).split())
            continue
        except Exception as error:
            raise InputError(f"{what}: {type(error).__name__}: {error}") from error
        named = dict(found) if isinstance(found, Mapping) else {name: found}
        for figure, quantity in named.items():
            if not isinstance(quantity, Quantity):
                raise InputError(f"{what} gives {type(quantity).__name__} for {figure}, not a Quantity")
            if figure in taken or figure in values:
                raise InputError(f"{what} gives a figure called {figure}, and there is one already")
            values[figure] = quantity
    return Measured(values, missing)


def mean_of_blocks(found: Sequence[Measured], least: int) -> Measured:
    """Means over seed blocks, with Student's t from ``least`` on; of one block its figures as they are."""
    if len(found) == 1:
        return found[0]
    missing = {name: why for each in found for name, why in each.missing.items()}
    values = {}
    for name, first in found[0].values.items():
        if not all(name in each.values for each in found):
            missing[name] = "not every seed block has it"
            continue
        mean = mean_interval([each.values[name].value for each in found])
        if len(found) < least:
            why = f"no interval: {len(found)} seeds, Student's t needs {least}"
            values[name] = Quantity(value=mean.value, unit=first.unit, interval=why)
        else:
            how = mean.method.replace("samples", "seed blocks")
            values[name] = Quantity(value=mean.value, unit=first.unit, low=mean.low, high=mean.high, interval=how)
    return Measured(values, missing)


def columns_of(names: Sequence[str], found: Measured) -> list[Column]:
    """How the figures are shown."""
    declared = {column.name: column for name in names for column in metric_of(name).columns}
    return [declared.get(name) or Column(name=name, title=name) for name in found.values]

"""A metric: figures of a set of samples, each with its interval or the reason why there is none."""

from __future__ import annotations

import numpy as np
from ditbench.harness.quality.images.source import ImageSource
from ditbench.harness.quality.metrics import SampleSet
from ditbench.harness.stats.intervals import mean_interval
from ditbench.harness.store.records import Quantity
from numpy.typing import NDArray


def measured(given: SampleSet) -> dict[str, Quantity]:
    """Edges of the samples, and of the reference where it has pictures.

    ``given`` also has features (n, d) by the protocol's extractor and labels (n,). Raise ValueError with the reason
    where there is no figure: the report shows it in its place.
    """
    if len(given.features) < 2:
        raise ValueError("one sample has no interval")
    found = mean_interval(edges(given.images))
    values = {"edges": Quantity(value=found.value, unit="1", low=found.low, high=found.high, interval=found.method)}
    if given.reference_images is not None:
        real = mean_interval(edges(given.reference_images))
        values["edges_reference"] = Quantity(
            value=real.value, unit="1", low=real.low, high=real.high, interval=real.method
        )
    return values


def edges(images: ImageSource, batch: int = 500) -> NDArray[np.float64]:
    """Mean absolute difference between pixels side by side, 0 to 255, of each picture: (n,)."""
    found = []
    for pictures in images.batches(batch):  # (b, H, W, C) uint8
        steps = np.abs(np.diff(pictures.astype(np.float64), axis=2))
        found.append(steps.mean((1, 2, 3)))
    return np.concatenate(found)

"""Improved precision and recall: the share of samples inside the other set's k-nearest-neighbour balls.

Source: Kynkäänniemi et al. 2019, Improved Precision and Recall Metric, section 2 (k = 3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.quality.statistics import as_features
from harness.stats.intervals import Estimate, jackknife_interval

Floats = NDArray[np.float64]
_CHUNK_ELEMENTS = 2**22  # distances held at once: 32 MiB


@dataclass(frozen=True)
class PrecisionRecall:
    """Shares in [0, 1]. Precision: of generated samples that look real. Recall: of real ones covered."""

    precision: Estimate
    recall: Estimate
    k: int


def precision_recall(features: ArrayLike, reference: ArrayLike, k: int = 3, blocks: int = 10) -> PrecisionRecall:
    """Precision and recall of (n, d) generated features against (m, d) reference features.

    A sample is inside a ball when its distance to the ball's centre is at most the centre's distance to its
    k-th nearest neighbour in its own set, the centre itself not counted. Both figures depend on n and m:
    compare them at equal counts only. The intervals leave out one contiguous block of generated samples at
    a time, with new balls around the rest, and hold the reference fixed. Distances come in chunks of 32
    MiB; time grows as (n^2 + 2nm + m^2) d. ValueError unless n and m are above k.
    """
    x, y = as_features(features), as_features(reference)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"{x.shape[1]} against {y.shape[1]} feature dimensions")
    if k < 1 or blocks < 2:
        raise ValueError("k must be at least 1, and a jackknife needs two blocks")
    if min(len(x), len(y)) <= k:
        raise ValueError(f"{len(x)} and {len(y)} samples are too few for k = {k}")
    # Distances do not depend on the origin, their rounding does.
    centre = y.mean(axis=0)
    x, y = x - centre, y - centre
    # Equal distances must compare equal though they were rounded in different products.
    slack = 64 * np.finfo(np.float64).eps * max(_norms(x).max(), _norms(y).max())

    parts = [np.arange(0)]
    if len(x) >= 2 * blocks and len(x) - -(-len(x) // blocks) > k:
        parts += np.array_split(np.arange(len(x)), blocks)
    balls = _radii_without(x, k, parts) + slack
    precise = _covered(x, y, _radii_without(y, k, parts[:1]) + slack)[:, 0]
    recalled = _covered(y, x, balls)

    recall = recalled.mean(axis=0)
    precision = np.array([np.delete(precise, part).mean() for part in parts])
    return PrecisionRecall(_estimate(precision, len(x), blocks), _estimate(recall, len(x), blocks), k)


def _estimate(values: Floats, n: int, blocks: int) -> Estimate:
    full = float(values[0])
    if len(values) == 1:
        return Estimate(full, None, None, f"no interval: {n} samples are too few for {blocks} blocks")
    return jackknife_interval(full, values[1:], lower=0.0, upper=1.0)


def _radii_without(x: Floats, k: int, parts: list[NDArray[np.int64]]) -> Floats:
    """(n, parts) squared distances to the k-th neighbour among the samples outside each part.

    Samples of a part have no ball without it: -infinity. All but the first part together cover every
    sample, or there is only the first part, which is empty.
    """
    n = len(x)
    groups = parts[1:] or [np.arange(n)]
    radii = np.empty((n, len(parts)))
    for rows, squared in _squared_distances(x, x):
        squared[np.arange(len(squared)), np.arange(rows.start, rows.stop)] = -np.inf
        # The k + 1 nearest (the sample itself is one) are among each group's k + 1 nearest.
        nearest = [_smallest(squared[:, group], k + 1) for group in groups]
        radii[rows, 0] = np.partition(np.hstack(nearest), k, axis=1)[:, k]
        for column in range(1, len(parts)):
            others = np.hstack(nearest[: column - 1] + nearest[column:])
            radii[rows, column] = np.partition(others, k, axis=1)[:, k]
    for column, part in enumerate(parts):
        radii[part, column] = -np.inf
    return radii


def _covered(points: Floats, centres: Floats, radii: Floats) -> NDArray[np.bool_]:
    """(points, columns): is the point inside any ball of the column?"""
    inside = np.empty((len(points), radii.shape[1]), dtype=np.bool_)
    for rows, squared in _squared_distances(points, centres):
        for column in range(radii.shape[1]):
            inside[rows, column] = (squared <= radii[:, column]).any(axis=1)
    return inside


def _squared_distances(x: Floats, y: Floats) -> Iterator[tuple[slice, Floats]]:
    norms_x, norms_y = _norms(x), _norms(y)
    step = max(1, _CHUNK_ELEMENTS // len(y))
    for start in range(0, len(x), step):
        rows = slice(start, min(start + step, len(x)))
        yield rows, norms_x[rows, None] + norms_y - 2.0 * (x[rows] @ y.T)


def _smallest(values: Floats, count: int) -> Floats:
    if values.shape[1] <= count:
        return values
    smallest: Floats = np.partition(values, count - 1, axis=1)[:, :count]
    return smallest


def _norms(x: Floats) -> Floats:
    norms: Floats = np.einsum("id,id->i", x, x)
    return norms

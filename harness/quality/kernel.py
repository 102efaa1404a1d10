"""Kernel distance (KID): unbiased squared MMD with the cubic polynomial kernel k(x, y) = (x.y/d + 1)^3.

Source: Bińkowski et al. 2018, Demystifying MMD GANs, section 4; the unbiased estimator is Gretton et al.
2012, eq. 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.quality.statistics import as_features
from harness.stats.intervals import Estimate, jackknife_interval

Floats = NDArray[np.float64]
SUBSET_SEED = 2020  # torch-fidelity's; the same seed draws the same subsets
_CHUNK_ELEMENTS = 2**22  # kernel values held at once: 32 MiB


@dataclass(frozen=True)
class KernelDistance:
    """KID in kernel units; slightly negative values are valid and mean "no difference seen".

    mean, subset_std: over the subsets, as published. The std is not a standard error: the subsets overlap.
    estimate: the unbiased squared MMD of all samples, with a jackknife interval over the samples.
    """

    mean: float
    subset_std: float
    subsets: int
    subset_size: int
    estimate: Estimate


def kernel_distance(
    features: ArrayLike,
    reference: ArrayLike,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = SUBSET_SEED,
    blocks: int = 10,
) -> KernelDistance:
    """KID between (n, d) features and (m, d) reference features.

    Subsets are drawn as torch-fidelity draws them: from one RandomState(seed), without replacement,
    features first. The interval leaves out one contiguous block of ``features`` at a time and holds the
    reference fixed, so it does not know of the reference's own sampling error. Time grows as (n^2 + nm +
    m^2) d; memory beside the inputs is O((n + m)(subsets + blocks)) + 32 MiB. ValueError if a subset is
    larger than a set or smaller than 2.
    """
    x, y = as_features(features), as_features(reference)
    if subsets < 1 or blocks < 2:
        raise ValueError("KID needs at least one subset and two blocks")
    if not 2 <= subset_size <= min(len(x), len(y)):
        raise ValueError(f"a KID subset of {subset_size} does not fit {len(x)} and {len(y)} samples (2 is the least)")
    rng = np.random.RandomState(seed)
    chosen_x = np.zeros((len(x), subsets))
    chosen_y = np.zeros((len(y), subsets))
    for column in range(subsets):
        chosen_x[rng.choice(len(x), subset_size, replace=False), column] = 1.0
        chosen_y[rng.choice(len(y), subset_size, replace=False), column] = 1.0
    kept = _leave_out(len(x), blocks)
    columns_x = np.hstack([chosen_x, np.ones((len(x), 1)), kept])
    columns_y = np.hstack([chosen_y, np.ones((len(y), 1 + kept.shape[1]))])
    values = _mmd2(x, y, columns_x, columns_y)
    drawn, full, rest = values[:subsets], float(values[subsets]), values[subsets + 1 :]
    return KernelDistance(
        mean=float(drawn.mean()),
        subset_std=float(drawn.std()),
        subsets=subsets,
        subset_size=subset_size,
        estimate=_interval(full, rest, len(x), blocks),
    )


def kernel_jackknife(features: ArrayLike, reference: ArrayLike, blocks: int = 10) -> Estimate:
    """``KernelDistance.estimate`` alone: unbiased squared MMD of all samples, at least 2 a set."""
    x, y = as_features(features), as_features(reference)
    if blocks < 2 or min(len(x), len(y)) < 2:
        raise ValueError("an unbiased MMD needs at least two samples a set, and its jackknife two blocks")
    kept = _leave_out(len(x), blocks)
    columns_x = np.hstack([np.ones((len(x), 1)), kept])
    values = _mmd2(x, y, columns_x, np.ones((len(y), columns_x.shape[1])))
    return _interval(float(values[0]), values[1:], len(x), blocks)


def _leave_out(n: int, blocks: int) -> Floats:
    """(n, blocks) indicators of all samples but those of one block; (n, 0) when n is too small."""
    if n < 2 * blocks:
        return np.empty((n, 0))
    kept = np.ones((n, blocks))
    for column, block in enumerate(np.array_split(np.arange(n), blocks)):
        kept[block, column] = 0.0
    return kept


def _interval(full: float, rest: Floats, n: int, blocks: int) -> Estimate:
    if len(rest) == 0:
        return Estimate(full, None, None, f"no interval: {n} samples are too few for {blocks} blocks")
    return jackknife_interval(full, rest)


def _mmd2(x: Floats, y: Floats, columns_x: Floats, columns_y: Floats) -> Floats:
    """The unbiased squared MMD of many subsets at once, one a column of 0/1 indicators.

    A subset's kernel sum is the quadratic form s^T K s, so K is made once and never held whole.
    """
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"{x.shape[1]} against {y.shape[1]} feature dimensions")
    size_x, size_y = columns_x.sum(axis=0), columns_y.sum(axis=0)
    inside_x = (_sums(x, x, columns_x, columns_x) - _diagonal(x) @ columns_x) / (size_x * (size_x - 1))
    inside_y = (_sums(y, y, columns_y, columns_y) - _diagonal(y) @ columns_y) / (size_y * (size_y - 1))
    between = _sums(x, y, columns_x, columns_y) / (size_x * size_y)
    result: Floats = inside_x + inside_y - 2.0 * between
    return result


def _sums(x: Floats, y: Floats, columns_x: Floats, columns_y: Floats) -> Floats:
    total = np.zeros(columns_x.shape[1])
    rows = max(1, _CHUNK_ELEMENTS // len(y))
    for start in range(0, len(x), rows):
        kernel = _cubic(x[start : start + rows] @ y.T, x.shape[1])
        total += np.einsum("ic,ic->c", columns_x[start : start + rows], kernel @ columns_y)
    return total


def _diagonal(x: Floats) -> Floats:
    return _cubic(np.einsum("id,id->i", x, x), x.shape[1])


def _cubic(products: Floats, dim: int) -> Floats:
    base = products / dim + 1.0
    return base * base * base

"""Mean and covariance of features, accumulated in float64 and mergeable across shards and processes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Finished statistics: count, mean (d,) and unbiased covariance (d, d), read-only float64."""

    n: int
    mean: Floats
    covariance: Floats


class FeatureStatistics:
    """An accumulator of n, sum and outer sum of features, in float64.

    Raw outer sums lose every digit of the variance once the mean is large against it. So both sums are
    taken about an origin: the mean of the first features seen, or of the first accumulator merged. Merging
    moves the sums of one origin to the other exactly, up to rounding; the order of updates and merges does
    not matter beyond that (about 1e-15 relative).
    """

    def __init__(self, dim: int) -> None:
        """dim: number of features a sample, at least 1."""
        if dim < 1:
            raise ValueError("features have at least one dimension")
        self.dim = dim
        self.n = 0
        self._origin: Floats | None = None
        self._sum: Floats = np.zeros(dim)
        self._outer: Floats = np.zeros((dim, dim))

    @classmethod
    def of(cls, features: ArrayLike) -> FeatureStatistics:
        """The statistics of one (n, d) array."""
        array = as_features(features)
        statistics = cls(array.shape[1])
        statistics.update(array)
        return statistics

    def update(self, features: ArrayLike) -> None:
        """Adds (n, d) features of any float type; n may be 0. ValueError on a wrong d, NaN or infinity."""
        array = as_features(features)
        if array.shape[1] != self.dim:
            raise ValueError(f"features have {array.shape[1]} dimensions, the statistics {self.dim}")
        if len(array) == 0:
            return
        if self._origin is None:
            self._origin = array.mean(axis=0)
        shifted = array - self._origin
        self.n += len(array)
        self._sum += shifted.sum(axis=0)
        self._outer += shifted.T @ shifted

    def merge(self, other: FeatureStatistics) -> None:
        """Adds all that ``other`` has seen; ``other`` stays as it is. ValueError on a different dimension."""
        self._add(other, 1)

    def without(self, other: FeatureStatistics) -> FeatureStatistics:
        """New statistics of what is left when ``other``'s samples, all of them seen here, are taken out.

        Subtracting costs digits when little is left; meant for leaving out a small share of the samples.
        """
        if other.n > self.n:
            raise ValueError(f"cannot take {other.n} samples out of {self.n}")
        rest = FeatureStatistics(self.dim)
        rest._add(self, 1)
        rest._add(other, -1)
        return rest

    @property
    def mean(self) -> Floats:
        """(d,) mean. ValueError without samples."""
        if self._origin is None or self.n < 1:
            raise ValueError("no features, no mean")
        return self._origin + self._sum / self.n

    @property
    def covariance(self) -> Floats:
        """(d, d) unbiased covariance, divided by n - 1. ValueError below two samples."""
        if self.n < 2:
            raise ValueError(f"a covariance needs at least two samples, not {self.n}")
        return (self._outer - np.outer(self._sum, self._sum) / self.n) / (self.n - 1)

    def moments(self) -> Moments:
        """The finished, read-only result. ValueError below two samples."""
        mean, covariance = self.mean, self.covariance
        mean.flags.writeable = False
        covariance.flags.writeable = False
        return Moments(self.n, mean, covariance)

    def _add(self, other: FeatureStatistics, sign: int) -> None:
        if other.dim != self.dim:
            raise ValueError(f"statistics of {other.dim} and {self.dim} dimensions do not merge")
        if other._origin is None:
            return
        if self._origin is None:
            self._origin = other._origin
        shift = other._origin - self._origin
        cross = np.outer(other._sum, shift)
        self.n += sign * other.n
        self._sum += sign * (other._sum + other.n * shift)
        self._outer += sign * (other._outer + cross + cross.T + other.n * np.outer(shift, shift))


def as_features(features: ArrayLike) -> Floats:
    """Features as a float64 (n, d) array. ValueError on another shape, NaN or infinity."""
    array = np.asarray(features, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] < 1:
        raise ValueError(f"features must have the shape (n, d), not {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("features contain NaN or infinity")
    return array

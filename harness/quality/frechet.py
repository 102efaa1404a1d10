"""Fréchet distance of features to a reference, each taken as a Gaussian; its limit for infinitely many samples.

Source: Dowson and Landau, Journal of Multivariate Analysis 12 (1982); Heusel et al. 2017 (FID), section 3:
    |mu_1 - mu_2|^2 + tr(S_1) + tr(S_2) - 2 tr((S_1^1/2 S_2 S_1^1/2)^1/2).
Every interval holds the reference fixed. How often they cover a known truth: docs/coverage.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg.lapack import dpstrf

from ditbench.harness.quality.statistics import FeatureStatistics
from ditbench.harness.stats.intervals import Estimate, jackknife_interval, mean_interval, student_reach

Floats = NDArray[np.float64]

MIN_SEEDS = 3
MOST_BIAS_LEFT = 0.75  # in standard errors


def frechet_distance(mu_1: ArrayLike, sigma_1: ArrayLike, mu_2: ArrayLike, sigma_2: ArrayLike) -> float:
    """The squared Fréchet distance (what is published as FID), at least 0, in squared feature units.

    mu: (d,) means; sigma: (d, d) symmetric covariances, of any rank. ValueError on other shapes, NaN or
    infinity, and on covariances that are clearly not symmetric or not positive semi-definite.
    """
    mean_1, covariance_1 = _gaussian(mu_1, sigma_1)
    mean_2, covariance_2 = _gaussian(mu_2, sigma_2)
    if mean_1.shape != mean_2.shape:
        raise ValueError(f"{len(mean_1)} against {len(mean_2)} feature dimensions")
    return _distance(mean_1, covariance_1, mean_2, covariance_2, _root(covariance_2))


def frechet_from_features(features: ArrayLike, reference: ArrayLike) -> float:
    """The Fréchet distance between (n, d) features and (m, d) reference features; n and m at least 2."""
    one = FeatureStatistics.of(features)
    two = FeatureStatistics.of(reference)
    return frechet_distance(one.mean, one.covariance, two.mean, two.covariance)


@dataclass(frozen=True)
class FrechetResult:
    """The distance of one set of samples to a fixed reference, in squared feature units.

    frechet        at the set's own count n; its expectation is above the limit by about c/n
    infinity       the limit for infinitely many samples (FID-infinity); may be negative where the limit is near zero
    bias_left      what of the bias ``infinity`` is thought to keep; NaN where that cannot be told
    leave_one_out  the distance without one block each, in order; empty without intervals
    """

    frechet: Estimate
    infinity: Estimate
    bias_left: float
    leave_one_out: tuple[float, ...]


def frechet_of_blocks(
    blocks: Sequence[FeatureStatistics], reference_mu: ArrayLike, reference_sigma: ArrayLike
) -> FrechetResult:
    """The distance and its limit from the statistics of contiguous blocks, equal to within one sample; 10 of them.

    Samples must be in no order that matters (by index, not sorted by class). An even number of blocks, at least 4; at
    least three samples; else ValueError. Below two samples a block there is no interval. Time: 1.6 distances a block,
    nearly all of it singular values of d x d (2048 dimensions: less than half a minute on two idle cores).

    ``frechet`` has the jackknife around the plain value: how far it would move with other samples of the same model,
    at the same n. Values at different n are not compared through it. (A naive bootstrap is worse: its duplicates add
    the bias a second time.) ``infinity``: see ``limit_of``.
    """
    counts = [block.n for block in blocks]
    if len(blocks) < 4 or len(blocks) % 2 or max(counts) - min(counts) > 1:
        raise ValueError(f"blocks must be equal and an even number, at least 4, not {len(blocks)} of {counts} samples")
    mu, sigma = _gaussian(reference_mu, reference_sigma)
    total = _merged(blocks)
    if total.dim != len(mu):
        raise ValueError(f"{total.dim} feature dimensions against {len(mu)} of the reference")
    if total.n < 3:
        raise ValueError(f"a limit needs at least three samples, not {total.n}")
    root = _root(sigma)

    def distance(statistics: FeatureStatistics) -> float:
        return _distance(statistics.mean, statistics.covariance, mu, sigma, root)

    full = distance(total)
    without = [distance(total.without(block)) for block in blocks if block.n]
    if min(counts) < 2:
        why = f"no interval: {total.n} samples are too few for {len(blocks)} blocks"
        limit = len(without) * full - (len(without) - 1) * float(np.mean(without))
        return FrechetResult(Estimate(full, None, None, why), Estimate(limit, None, None, why), math.nan, ())
    pairs = [_merged(pair) for pair in zip(blocks[::2], blocks[1::2], strict=True)]
    infinity, bias_left = limit_of(full, without, [distance(pair) for pair in pairs])
    fewest, rank = min(pair.n for pair in pairs), root.shape[1]
    if 2 * fewest < rank:  # so singular that the curvature is no longer seen
        why = f"no interval: few samples, two blocks hold {fewest}, less than half of {rank} dimensions"
        infinity, bias_left = Estimate(infinity.value, None, None, why), math.nan
    return FrechetResult(jackknife_interval(full, without, lower=0.0), infinity, bias_left, tuple(without))


def frechet_of_seeds(results: Sequence[FrechetResult]) -> tuple[Estimate, Estimate]:
    """(distance at one seed's count, limit) of independent sets of equal count: means with Student's t over the sets.

    No intervals below three sets: with two, t has one degree of freedom and reaches 12.7 standard errors. None around
    the limit for the reasons of ``limit_of``; here the value is told apart from zero from a tenth of the reach on,
    because nothing of the sets' spread is counted twice. ValueError without sets.
    """
    plain = mean_interval([result.frechet.value for result in results])
    limit = mean_interval([result.infinity.value for result in results])
    if len(results) < MIN_SEEDS:
        why = f"no interval: {len(results)} seeds, Student's t needs {MIN_SEEDS}"
        return Estimate(plain.value, None, None, why), Estimate(limit.value, None, None, why)
    if limit.high is None:
        return plain, limit
    reach = limit.high - limit.value
    error = reach / student_reach(len(results) - 1)
    bias_left = float(np.mean([result.bias_left for result in results]))
    return plain, _unless_refused(limit, error, bias_left, least=reach / 10)


def limit_of(full: float, without: Sequence[float], pairs: Sequence[float]) -> tuple[Estimate, float]:
    """The limit for infinitely many samples with an interval, and what it is thought to keep of the bias.

    full: the distance of all n samples; without: with one of b equal blocks left out each; pairs: of two blocks alone
    each: the first and second, the third and fourth, ...

    **Value.** The distance's expectation is F + c/n + ...: the line through it at n and at n - n/b meets 1/n = 0 at
    b full - (b - 1) mean(without). That is Quenouille's estimate: the mean of the pseudo-values
    b full - (b - 1) without_i. (Chong and Forsyth fit a line through 15 counts.)

    **Interval.** Student's t of the pseudo-values, b - 1 degrees of freedom; it ends at zero. The error grows with the
    value, so values that are too low would miss more often than others: the upper end is that of the square root's
    interval, (sqrt(value) + reach / (2 sqrt(value)))^2. The pseudo-values' squared standard error counts twice what of
    the variance is quadratic in the samples' scatter; at no distance that is nearly all. The amounts by which pairs
    are above their own pseudo-values hold this part alone; by their spread a third of the excess is taken out (the
    spread has few degrees of freedom), but never more than half of the squared error.

    **No interval.** (1) Few samples: the line through the counts n and 2n/b meets zero so far away that the value
    keeps a bias of more than 0.75 standard errors. (2) Not told apart from zero: the value is below a third of what
    the interval would reach. At no distance intervals without (2) would hold too often, and those of a rule that asks
    for more would be printed almost only where they miss.

    Sources: Quenouille, Biometrika 43 (1956); Chong and Forsyth 2020, Effectively Unbiased FID, section 3; Efron and
    Stein, Annals of Statistics 9 (1981) (the excess).
    """
    b, halved = len(without), len(pairs)
    pseudo = b * full - (b - 1) * np.asarray(without)
    value = float(pseudo.mean())
    squared = float(pseudo.var(ddof=1)) / b
    above = np.asarray(pairs) - pseudo.reshape(halved, 2).mean(axis=1)
    twice = counted_twice(b) * float(above.var(ddof=1))
    error = math.sqrt(max(squared - twice / 3, squared / 2))
    # With F + c/n + e/n^2 the two lines miss F by -e/n^2 b/(b - 1) and by -e/n^2 b/2.
    steeper = (halved * full - float(np.mean(pairs))) / (halved - 1)
    own = b / (b - 1)
    bias_left = (steeper - value) * own / (halved - own)
    reach = student_reach(b - 1) * error
    rooted = reach**2 / (4 * value) if value > 0 else 0.0
    limit = Estimate(value, value - reach, value + reach + rooted, f"95% t interval over {b} pseudo-values")
    return _unless_refused(limit, error, bias_left, least=reach / 3), bias_left


def counted_twice(blocks: int) -> float:
    """What the pseudo-values' squared error is too much, over the variance of what pairs are above their own.

    Both are multiples of the variance of Q(x_i, x_j), for a statistic Q(mean, mean) of ``blocks`` independent normal
    x_i with any quadratic form Q.
    """
    b = blocks
    too_much = 4 / b**2 + 2 * (b - 2) / (b * (b - 1)) ** 2 - 2 / (b * (b - 1))
    return too_much * (b - 1) ** 2 / (2 * (b / 2 - 1) ** 2 - 1.5)


def _unless_refused(limit: Estimate, error: float, bias_left: float, least: float) -> Estimate:
    assert limit.low is not None
    if not abs(bias_left) <= MOST_BIAS_LEFT * error:
        left = "" if math.isnan(bias_left) else f", about {bias_left:.2g} of the bias is left"
        return Estimate(limit.value, None, None, f"no interval: few samples{left}; standard error {error:.2g}")
    if limit.value <= least:
        return Estimate(limit.value, None, None, f"no interval: not told apart from zero; standard error {error:.2g}")
    return Estimate(limit.value, max(0.0, limit.low), limit.high, limit.method)


def _merged(parts: Sequence[FeatureStatistics]) -> FeatureStatistics:
    total = FeatureStatistics(parts[0].dim)
    for part in parts:
        total.merge(part)
    return total


def _distance(mu_1: Floats, sigma_1: Floats, mu_2: Floats, sigma_2: Floats, root_2: Floats) -> float:
    # tr((S_1^1/2 S_2 S_1^1/2)^1/2) is the nuclear norm of R_1^T R_2 for any R R^T = S. Singular values keep
    # the digits that square roots of the product's eigenvalues lose (1e-16 instead of 1e-8 of the largest).
    overlap = np.linalg.svd(_root(sigma_1).T @ root_2, compute_uv=False).sum()
    offset = mu_1 - mu_2
    value = offset @ offset + np.trace(sigma_1) + np.trace(sigma_2) - 2.0 * overlap
    return max(0.0, float(value))


def _root(sigma: Floats) -> Floats:
    """R of shape (d, rank) with R R^T = sigma; directions at rounding level are left out.

    By Cholesky with pivots: twenty times faster than eigenvectors at 2048 dimensions, and as exact.
    """
    largest = float(np.abs(sigma).max())
    tolerance = len(sigma) * np.finfo(np.float64).eps * largest
    factor, pivots, rank, _ = dpstrf(sigma, tol=tolerance, lower=1)
    root: Floats = np.empty((len(sigma), rank))
    root[pivots - 1] = np.tril(factor)[:, :rank]
    left = 0.0 if rank == len(sigma) else float(np.abs(sigma - root @ root.T).max())
    if left > 1e-6 * largest:
        raise ValueError(f"a covariance is not positive semi-definite: no root comes nearer to it than {left:.3g}")
    return root


def _gaussian(mu: ArrayLike, sigma: ArrayLike) -> tuple[Floats, Floats]:
    mean = np.asarray(mu, dtype=np.float64)
    covariance = np.asarray(sigma, dtype=np.float64)
    if mean.ndim != 1 or len(mean) == 0 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(f"mean {mean.shape} and covariance {covariance.shape} are not (d,) and (d, d)")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError("statistics contain NaN or infinity")
    if np.abs(covariance - covariance.T).max() > 1e-6 * np.abs(covariance).max():
        raise ValueError("a covariance is not symmetric")
    return mean, (covariance + covariance.T) / 2

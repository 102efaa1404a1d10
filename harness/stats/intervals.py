"""Intervals for medians, ratios, proportions and jackknifed metrics.

Pure functions of numbers. Every one returns an interval or says why there is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, stdtrit

Floats = NDArray[np.float64]

# The smallest n for which at least two samples lie beyond the quantile with 99 % probability (binomial).
P90_MIN_SAMPLES = 64
P99_MIN_SAMPLES = 662

# With two rounds, Student's t has one degree of freedom and reaches 12.7 standard errors.
MIN_ROUNDS = 3


@dataclass(frozen=True)
class Estimate:
    """A value with its interval, in the value's own unit.

    ``low`` and ``high`` are both numbers or both None; ``method`` says how they were made or why they are
    absent.
    """

    value: float
    low: float | None
    high: float | None
    method: str


@dataclass(frozen=True)
class TimingSummary:
    """What one series of timings says, in milliseconds.

    ``low`` and ``high`` bound the median and are None when ``interval`` says why. ``p90`` and ``p99`` are
    None below 64 and 662 samples: too few samples would lie beyond them.
    """

    n: int
    median: float
    q1: float
    q3: float
    minimum: float
    low: float | None
    high: float | None
    p90: float | None
    p99: float | None
    interval: str


def median_interval(samples: ArrayLike, confidence: float = 0.95) -> Estimate:
    """The median with a distribution-free interval by order statistics.

    samples: (n,) numbers, n >= 1, taken as independent draws; slow drift makes the interval too narrow. The
    ends are the k-th smallest and k-th largest samples with the largest k for which 1 - 2 P(Binomial(n,
    1/2) < k) reaches ``confidence``; at 0.95 that takes at least 6 samples. Source: David and Nagaraja,
    Order Statistics, section 7.1. ValueError if ``samples`` is empty or not finite.
    """
    ordered = np.sort(_series(samples, "samples"))
    _check_confidence(confidence)
    n = len(ordered)
    median = float(np.median(ordered))
    k = _order_statistic(n, confidence)
    if k == 0:
        needed = _samples_for_order_statistics(confidence)
        return Estimate(median, None, None, f"no interval: {n} samples, {confidence:.0%} needs {needed}")
    method = f"{confidence:.0%} order statistics {k} and {n - k + 1} of {n}"
    return Estimate(median, float(ordered[k - 1]), float(ordered[n - k]), method)


def mean_interval(samples: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Student's t interval of the mean of independent samples; none below two, or where all are equal."""
    _check_confidence(confidence)
    values = _series(samples, "samples")
    mean = float(values.mean())
    if len(values) < 2:
        return Estimate(mean, None, None, "no interval: one sample")
    if float(np.ptp(values)) == 0.0:
        return Estimate(mean, None, None, f"no interval: all {len(values)} samples are equal")
    half = student_reach(len(values) - 1, confidence) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half, f"{confidence:.0%} t interval over {len(values)} samples")


def jackknife_interval(
    full: float,
    leave_one_out: ArrayLike,
    confidence: float = 0.95,
    lower: float = -math.inf,
    upper: float = math.inf,
) -> Estimate:
    """An interval around ``full`` from the values with one block of samples left out each.

    leave_one_out: (blocks,) values, blocks >= 2, of blocks of equal size (to within one sample). The
    standard error is sqrt((b - 1)/b * sum (value - mean)^2), times Student's t with b - 1 degrees of
    freedom. ``lower`` and ``upper`` are the range that the statistic can take; the ends are cut to it. The
    interval is centred on ``full``: the statistic's bias is neither removed nor covered. Source: Efron and
    Tibshirani, An Introduction to the Bootstrap, chapter 11.
    """
    values = _series(leave_one_out, "leave_one_out")
    _check_confidence(confidence)
    blocks = len(values)
    if blocks < 2:
        raise ValueError("a jackknife needs at least two blocks")
    error = math.sqrt((blocks - 1) / blocks * float(np.sum((values - values.mean()) ** 2)))
    reach = student_reach(blocks - 1, confidence) * error
    method = f"{confidence:.0%} jackknife, {blocks} blocks, Student t"
    return Estimate(full, max(lower, full - reach), min(upper, full + reach), method)


def proportion_interval(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """A proportion in [0, 1] with Wilson's score interval for ``successes`` of ``n`` independent trials.

    Source: Wilson, Journal of the American Statistical Association 22 (1927). ValueError unless
    0 <= successes <= n and n >= 1.
    """
    _check_confidence(confidence)
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials is not a proportion")
    z2 = NormalDist().inv_cdf(0.5 + confidence / 2) ** 2
    share = successes / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    reach = math.sqrt(z2 * (share * (1 - share) + z2 / (4 * n)) / n) / (1 + z2 / n)
    low = 0.0 if successes == 0 else centre - reach
    high = 1.0 if successes == n else centre + reach
    return Estimate(share, low, high, f"{confidence:.0%} Wilson score, n = {n}")


def paired_ratio_interval(
    a_rounds: Sequence[ArrayLike], b_rounds: Sequence[ArrayLike], confidence: float = 0.95
) -> Estimate:
    """How many times b's time a takes: the median over rounds of the rounds' own ratios of medians.

    a_rounds, b_rounds: one (n_i,) array of positive timings a round, any unit, as many rounds for a as for
    b. Round i of both was measured side by side, so what moved both cancels in its ratio. A ratio above 1
    means that a takes longer; exchanging a and b gives the reciprocal.

    The rounds are the independent draws, however many calls each holds: the ratio itself changes from round
    to round. From 6 rounds on (at 0.95) the interval is the median's by order statistics, interpolated
    between two of them; it needs no shape of the noise and bears slow outliers. With 3 to 5 rounds it is
    Student's t of the ratios' logarithms. There is none below 3 rounds. The ratio of the medians over all
    rounds, which the two latencies printed apart would give, is not used: where the machine drifts it
    compares rounds that were not side by side. Sources: Hettmansperger and Sheather, Statistics and
    Probability Letters 4 (1986) (the interpolation); docs/coverage.md (how often these intervals hold).

    ValueError on unequal or missing rounds and on timings that are not positive.
    """
    _check_confidence(confidence)
    if len(a_rounds) != len(b_rounds) or not a_rounds:
        raise ValueError(f"rounds must come in pairs, not {len(a_rounds)} against {len(b_rounds)}")
    logs = np.sort(
        [math.log(np.median(_timings(a)) / np.median(_timings(b))) for a, b in zip(a_rounds, b_rounds, strict=True)]
    )
    rounds = len(logs)
    value = math.exp(float(np.median(logs)))
    if rounds < MIN_ROUNDS:
        return Estimate(value, None, None, f"no interval: {rounds} rounds, a ratio needs {MIN_ROUNDS}")
    if rounds < _samples_for_order_statistics(confidence):
        mean = mean_interval(logs, confidence)
        if mean.low is None or mean.high is None:
            return Estimate(value, None, None, f"no interval: the ratio is the same in all {rounds} rounds")
        how = f"{confidence:.0%} t interval of the logarithms of {rounds} rounds' ratios"
        return Estimate(value, math.exp(mean.low), math.exp(mean.high), how)
    depth = _interpolated_depth(rounds, confidence)
    places = np.arange(1, rounds + 1)
    low, high = np.interp([depth, rounds + 1 - depth], places, logs)
    how = f"{confidence:.0%} interpolated order statistics of {rounds} rounds' ratios"
    return Estimate(value, math.exp(low), math.exp(high), how)


def summary(samples_ms: ArrayLike) -> TimingSummary:
    """The summary of a series of timings.

    samples_ms: (n,) milliseconds, n >= 1, positive. Quantiles interpolate linearly. ValueError if empty,
    not finite or not positive.
    """
    samples = _timings(samples_ms)
    n = len(samples)
    middle = median_interval(samples)
    q1, q3, p90, p99 = (float(q) for q in np.quantile(samples, [0.25, 0.75, 0.9, 0.99]))
    return TimingSummary(
        n=n,
        median=middle.value,
        q1=q1,
        q3=q3,
        minimum=float(samples.min()),
        low=middle.low,
        high=middle.high,
        p90=p90 if n >= P90_MIN_SAMPLES else None,
        p99=p99 if n >= P99_MIN_SAMPLES else None,
        interval=middle.method,
    )


def student_reach(freedom: int, confidence: float = 0.95) -> float:
    """How many standard errors a two-sided t interval with ``freedom`` degrees of freedom reaches to each side."""
    return float(stdtrit(freedom, 0.5 + confidence / 2))


def _samples_for_order_statistics(confidence: float) -> int:
    return math.ceil(1.0 - math.log2(1.0 - confidence))


def _order_statistic(n: int, confidence: float) -> int:
    """The largest k whose k-th smallest and k-th largest hold the median with ``confidence``; 0 if none does."""
    tails = 2.0 * bdtr(np.arange((n + 1) // 2), n, 0.5)
    return int(np.searchsorted(tails, 1.0 - confidence, side="right"))


def _interpolated_depth(n: int, confidence: float) -> float:
    """Between which two order statistics the ends lie, as a fractional rank from outside."""
    k = _order_statistic(n, confidence)
    wide, narrow = 1.0 - 2.0 * bdtr(np.array([k - 1, k]), n, 0.5)
    share = (wide - confidence) / (wide - narrow)
    return k + float((n - k) * share / (k + (n - 2 * k) * share))


def _series(values: ArrayLike, name: str) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0 or not np.isfinite(array).all():
        raise ValueError(f"{name} must be a non-empty series of finite numbers")
    return array


def _timings(values: ArrayLike) -> Floats:
    array = _series(values, "timings")
    if array.min() <= 0:
        raise ValueError("timings must be positive")
    return array


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")

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

# Below this many rounds the rounds alone are too few distinct resamples to carry an interval.
MIN_ROUNDS = 6


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
    tails = 2.0 * bdtr(np.arange((n + 1) // 2), n, 0.5)
    k = int(np.searchsorted(tails, 1.0 - confidence, side="right"))
    if k == 0:
        needed = math.ceil(1.0 - math.log2(1.0 - confidence))
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
    half = float(stdtrit(len(values) - 1, 0.5 + confidence / 2) * values.std(ddof=1) / math.sqrt(len(values)))
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
    reach = float(stdtrit(blocks - 1, 0.5 + confidence / 2)) * error
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
    a_rounds: Sequence[ArrayLike],
    b_rounds: Sequence[ArrayLike],
    seed: int,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> Estimate:
    """median(a) / median(b) over all rounds, with a paired percentile bootstrap over rounds.

    a_rounds, b_rounds: one (n_i,) array of positive timings a round, any unit, as many rounds for a as for
    b. Round i of both was measured side by side, so whole pairs are drawn and what moved both cancels. With
    fewer than 6 rounds the timings inside each drawn round are drawn again too, and ``method`` says so. A
    ratio above 1 means that a takes longer. ``seed`` fixes the interval.

    Few rounds know little of how the ratio itself changes from round to round. Simulated, with such changes
    as large as the noise inside a round, the interval of few rounds covers less than it says:
    prefer many rounds. Source: Davison and Hinkley, Bootstrap Methods, section 3.8.

    ValueError on unequal or missing rounds and on timings that are not positive.
    """
    _check_confidence(confidence)
    if resamples < 1:
        raise ValueError("resamples must be at least 1")
    if len(a_rounds) != len(b_rounds) or not a_rounds:
        raise ValueError(f"rounds must come in pairs, not {len(a_rounds)} against {len(b_rounds)}")
    a = [_timings(values) for values in a_rounds]
    b = [_timings(values) for values in b_rounds]
    rounds = len(a)
    inside = rounds < MIN_ROUNDS
    rng = np.random.default_rng(seed)
    ratios = np.empty(resamples)
    for index in range(resamples):
        drawn = rng.integers(rounds, size=rounds)
        ratios[index] = _resampled_median(a, drawn, inside, rng) / _resampled_median(b, drawn, inside, rng)
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(ratios, [tail, 1.0 - tail])
    value = float(np.median(np.concatenate(a)) / np.median(np.concatenate(b)))
    drawing = "rounds, and inside rounds (fewer than 6)" if inside else "rounds"
    noun = "round" if rounds == 1 else "rounds"
    method = f"{confidence:.0%} paired bootstrap over {drawing}; {rounds} {noun}, {resamples} resamples"
    return Estimate(value, float(low), float(high), method)


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


def _resampled_median(rounds: list[Floats], drawn: NDArray[np.int64], inside: bool, rng: np.random.Generator) -> float:
    picked = [rounds[i] for i in drawn]
    if inside:
        picked = [values[rng.integers(len(values), size=len(values))] for values in picked]
    return float(np.median(np.concatenate(picked)))


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

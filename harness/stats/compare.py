"""How far two measurements are apart: differences and ratios with 95 % intervals and p-values, and Holm's verdicts.

Pure functions of numbers. B is compared with A, the reference: a difference is B − A, a ratio B / A.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from ditbench.harness.stats.intervals import Estimate

CONFIDENCE = 0.95
# Below this share of the larger value two figures differ by the order of additions, not by what was measured.
ROUNDING = 1e-9
# The fewest repetitions of a timing whose spread is worth a number: two degrees of freedom.
MIN_REPETITIONS = 3
_NORMAL_95 = float(stdtrit(math.inf, 0.975))


@dataclass(frozen=True)
class Change:
    """From A to B.

    value      B − A, or B / A
    low, high  ends of the 95 % interval, or both None
    p          two-sided, of no difference (0, or a ratio of 1); None where there is no interval
    method     how low, high and p were made, or why there are none
    identical  A and B are equal to nine digits, and so are the parts that their uncertainty comes from
    """

    value: float
    low: float | None
    high: float | None
    p: float | None
    method: str
    identical: bool = False


@dataclass(frozen=True)
class Draws:
    """A figure and n >= 1 numbers that scatter as n independent draws of it do: seeds, or pseudo-values of blocks."""

    value: float
    draws: tuple[float, ...]


@dataclass(frozen=True)
class Spread:
    """Standard deviation of the log of a time from process to process, and its degrees of freedom (>= 2)."""

    sd: float
    freedom: int


@dataclass(frozen=True)
class Time:
    """A median time with the interval that one process gave it (or None), and how much processes differ."""

    value: float
    low: float | None
    high: float | None
    spread: Spread


def pseudo_values(value: float, leave_one_out: Sequence[float]) -> Draws:
    """b·value − (b − 1)·loo_i for b >= 2 blocks. Source: Efron and Tibshirani, section 11.5."""
    blocks = len(leave_one_out)
    if blocks < 2:
        raise ValueError("pseudo-values need at least two blocks")
    return Draws(value, tuple(blocks * value - (blocks - 1) * each for each in leave_one_out))


def paired(a: Draws, b: Draws, of: str) -> Change:
    """B − A where draw i of both was made from the same noise: Student's t over the differences of the draws.

    ``of`` names the draws in ``method`` ('blocks', 'seeds'). What moves both sides alike cancels. ValueError on
    unequal numbers of draws.
    """
    if len(a.draws) != len(b.draws):
        raise ValueError(f"{len(a.draws)} draws cannot be paired with {len(b.draws)}")
    if _same(a, b):
        return same(f"equal in all {len(a.draws)} {of}")
    n, value = len(a.draws), b.value - a.value
    differences = np.subtract(b.draws, a.draws)
    if n < 2 or float(np.ptp(differences)) == 0.0:
        return Change(value, None, None, None, f"no interval: the differences of the {n} {of} do not vary")
    error = float(differences.std(ddof=1)) / math.sqrt(n)
    return _student(value, error, n - 1, f"paired by {n} {of}, Student t")


def unpaired(a: Draws, b: Draws, of: str) -> Change:
    """B − A of independent draws, with Welch's t. Source: Welch, Biometrika 34 (1947)."""
    if _same(a, b):
        return same(f"equal in all {len(a.draws)} {of}")
    value = b.value - a.value
    if min(len(a.draws), len(b.draws)) < 2:
        return Change(value, None, None, None, f"no interval: fewer than two {of}")
    parts = [(float(np.var(each.draws, ddof=1)) / len(each.draws), len(each.draws) - 1.0) for each in (a, b)]
    error, freedom = _satterthwaite(parts)
    if error == 0.0:
        return Change(value, None, None, None, f"no interval: the {of} do not vary")
    return _student(value, error, freedom, f"{len(a.draws)} and {len(b.draws)} independent {of}, Welch t")


def difference_of_intervals(a: Estimate, b: Estimate, freedom: float) -> Change:
    """B − A from two 95 % intervals alone, taken as independent: too wide where both came from the same noise.

    ``freedom``: Student's degrees of freedom behind the intervals; it shapes p alone. Source of the ends (for
    intervals that may be lopsided): Zou and Donner, Statistics in Medicine 27 (2008), eq. 4. Without both intervals
    there is none.
    """
    value = b.value - a.value
    if a.low is None or a.high is None or b.low is None or b.high is None:
        lacking = "A" if a.low is None else "B"
        return Change(value, None, None, None, f"no interval: {lacking} has none")
    down = math.hypot(b.value - b.low, a.high - a.value)
    up = math.hypot(b.high - b.value, a.value - a.low)
    towards = down if value > 0 else up
    if towards <= 0.0:
        return Change(value, None, None, None, "no interval: those of A and B have no width")
    p = _two_sided(abs(value) / towards * float(stdtrit(freedom, 0.975)), freedom)
    return Change(value, value - down, value + up, p, "intervals of A and B combined as independent")


def ratio_of_intervals(a: Estimate, b: Estimate, freedom: float) -> Change:
    """B / A of positive values from two 95 % intervals, combined on the log scale as ``difference_of_intervals``."""
    change = difference_of_intervals(_log(a), _log(b), freedom)
    return _exp(change, b.value / a.value)


def spread_of(groups: Sequence[Sequence[float]]) -> Spread | None:
    """How much the log of one and the same time differs from process to process.

    groups: positive times of several processes each, any unit; levels of groups may differ, spreads are pooled. None
    with fewer than two degrees of freedom (three times in one group).
    """
    logs = [np.log(group) for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in logs)
    if freedom < MIN_REPETITIONS - 1:
        return None
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in logs)
    return Spread(math.sqrt(squares / freedom), freedom)


def ratio_of_times(a: Time, b: Time, *, one_run: bool = False) -> Change:
    """B / A of times that two processes measured at different moments.

    The variance of the log ratio is that of process to process, of either side, plus that inside either process, from
    its own 95 % interval; Student's t with Satterthwaite's degrees of freedom. ``one_run``: both spreads are the same
    estimate, which then counts once. Where a process gave no interval, the spread stands for it: it holds
    the noise inside the processes that it was made from.
    """
    parts = [(a.spread.sd**2, float(a.spread.freedom)), (b.spread.sd**2, float(b.spread.freedom))]
    if one_run:
        parts = [(parts[0][0] + parts[1][0], parts[0][1])]
    for time in (a, b):
        if time.low is not None and time.high is not None:
            parts.append(((math.log(time.high / time.low) / (2 * _NORMAL_95)) ** 2, math.inf))
    error, freedom = _satterthwaite(parts)
    ratio = b.value / a.value
    if error == 0.0:
        return Change(ratio, None, None, None, "no interval: the repetitions do not vary")
    how = f"spread over processes (A {a.spread.sd:.1%}, B {b.spread.sd:.1%}) and inside them, Student t"
    return _exp(_student(math.log(ratio), error, freedom, how), ratio)


def exact(a: float, b: float) -> Change:
    """B − A of counts: no uncertainty, so any difference is one."""
    if math.isclose(a, b, rel_tol=1e-12):
        return same("exact")
    return Change(b - a, None, None, None, "exact")


def same(method: str, value: float = 0.0) -> Change:
    """No difference at all; ``value`` is 1 for a ratio."""
    return Change(value, value, value, None, method, identical=True)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p-values, in the order given: those up to α may be called different, erring anywhere with at most α.

    Holds for p-values that depend on each other in any way. Source: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, reached = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        reached = max(reached, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = reached
    return tuple(adjusted)


def _same(a: Draws, b: Draws) -> bool:
    pairs = [(a.value, b.value), *zip(a.draws, b.draws, strict=False)]
    scale = max(abs(number) for pair in pairs for number in pair)
    return len(a.draws) == len(b.draws) and all(abs(x - y) <= ROUNDING * scale for x, y in pairs)


def _student(value: float, error: float, freedom: float, method: str) -> Change:
    reach = float(stdtrit(freedom, 0.5 + CONFIDENCE / 2)) * error
    return Change(value, value - reach, value + reach, _two_sided(abs(value) / error, freedom), f"95% {method}")


def _two_sided(t: float, freedom: float) -> float:
    return 2.0 * float(stdtr(freedom, -t))


def _satterthwaite(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Standard error and degrees of freedom of a sum of independent (variance, freedom). Source: Satterthwaite 1946."""
    total = sum(variance for variance, _ in parts)
    squares = sum(variance**2 / freedom for variance, freedom in parts)
    return math.sqrt(total), total**2 / squares if squares > 0 else math.inf


def _log(estimate: Estimate) -> Estimate:
    low, high = (None if end is None else math.log(end) for end in (estimate.low, estimate.high))
    return Estimate(math.log(estimate.value), low, high, estimate.method)


def _exp(change: Change, ratio: float) -> Change:
    low, high = (None if end is None else math.exp(end) for end in (change.low, change.high))
    return Change(ratio, low, high, change.p, change.method)

"""Scenarios of timings: planted ratios of two methods' latencies, and medians of one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ditbench.harness.stats.intervals import Estimate, median_interval, paired_ratio_interval
from studies.scenario import Rng, Scenario

PLANTED = 1.4


@dataclass(frozen=True)
class Timing:
    """How two methods' calls are drawn; spreads are standard deviations of logarithms.

    rounds, calls    rounds, and calls of each method in a round
    change           of the ratio itself from round to round, in units of ``within``
    slow, slow_b     shares of calls that take 1.5 to 3 times as long, of the first method and the second
    drift            from round to round, of both methods alike
    lasting          correlation of the ratio's changes from one round to the next
    """

    rounds: int
    calls: int
    change: float
    slow: float = 0.02
    slow_b: float = 0.02
    drift: float = 0.1
    within: float = 0.03
    lasting: float = 0.0

    def draw(self, rng: Rng, ratio: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(rounds, calls) timings of each method."""
        level = np.exp(rng.normal(0.0, self.drift, (self.rounds, 1)))
        changes = rng.normal(0.0, self.change * self.within, (self.rounds, 1))
        for before, after in pairwise(range(self.rounds)):
            changes[after] = self.lasting * changes[before] + math.sqrt(1 - self.lasting**2) * changes[after]
        planted = ratio * np.exp(changes)
        return planted * level * self._noise(rng, self.slow), level * self._noise(rng, self.slow_b)

    def truth(self, ratio: float) -> float:
        """The planted ratio, times that of the noises' medians (1 where both methods have as many slow calls)."""
        a, b = (np.exp(self.within * NormalDist().inv_cdf(0.5 / (1 - share))) for share in (self.slow, self.slow_b))
        return float(ratio * a / b)

    def _noise(self, rng: Rng, slow: float) -> NDArray[np.float64]:
        shape = (self.rounds, self.calls)
        noise = np.exp(rng.normal(0.0, self.within, shape))
        return np.where(rng.random(shape) < slow, noise * rng.uniform(1.5, 3.0, shape), noise)


def ratio(timing: Timing, note: str = "") -> Scenario:
    """A planted ratio of latencies."""

    def estimate(rng: Rng) -> Estimate:
        a, b = timing.draw(rng, PLANTED)
        return paired_ratio_interval(list(a), list(b))

    name = f"{timing.rounds} rounds of {timing.calls}, ratio changes {timing.change:g}{note and ', '}{note}"
    return Scenario(name, lambda: timing.truth(PLANTED), estimate, repetitions=5)


def ratios() -> list[Scenario]:
    """The grid of rounds, calls and changes of the ratio; then what else may differ."""
    grid = [
        ratio(Timing(rounds, calls, change))
        for rounds in (3, 4, 6, 10, 30)
        for calls in (2, 4, 10)
        for change in (0.0, 0.5, 1.0)
    ]
    others = [
        ratio(Timing(2, 10, 0.5), "too few"),
        *(ratio(Timing(rounds, 4, 0.5)) for rounds in (5, 7, 8, 100)),
        *(ratio(Timing(rounds, 4, 0.5, slow=0, slow_b=0), "no slow calls") for rounds in (3, 10)),
        *(ratio(Timing(rounds, 2, 0.5, slow=0.05, slow_b=0.05), "5 % slow calls") for rounds in (4, 10)),
        *(ratio(Timing(rounds, 4, 0.5, slow=0.05, slow_b=0), "only one method has slow calls") for rounds in (4, 30)),
        *(ratio(Timing(rounds, 4, 0.5, drift=0.3), "drift 30 %") for rounds in (4, 10)),
        *(ratio(Timing(rounds, 4, 0.5, within=0.15), "noise 15 %") for rounds in (4, 10)),
        *(ratio(Timing(rounds, 4, 3.0)) for rounds in (4, 10)),
    ]
    return grid + others


def median(count: int, note: str = "", drift: float = 0.0) -> Scenario:
    """The median of ``count`` calls, ten a round where rounds drift."""
    timing = Timing(count // 10 if drift else 1, 10 if drift else count, 0.0, slow=0.05, slow_b=0.0, drift=drift)
    truth = timing.truth(1.0)

    def estimate(rng: Rng) -> Estimate:
        return median_interval(timing.draw(rng, 1.0)[0].ravel())

    return Scenario(f"{count} calls, 5 % slow{note and ', '}{note}", lambda: truth, estimate, repetitions=5)


def medians() -> list[Scenario]:
    """The interval of a latency's median, where calls are independent."""
    return [median(count) for count in (5, 6, 10, 30, 100)]


def limits() -> list[Scenario]:
    """Where neighbouring rounds or calls are not independent, which the intervals take them to be."""
    return [
        ratio(Timing(10, 4, 1.0, lasting=0.9), "lasting over rounds"),
        median(100, "rounds of 10 drift by 10 %", drift=0.1),
    ]

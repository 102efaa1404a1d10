"""What every part of the coverage study has: something that is drawn, a known truth, an interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ditbench.harness.stats.intervals import Estimate

Rng = np.random.Generator


@dataclass(frozen=True)
class Scenario:
    """repetitions: how many for each one that is asked for; more where one is cheap or few intervals are printed."""

    name: str
    truth: Callable[[], float]
    estimate: Callable[[Rng], Estimate]
    repetitions: int = 1

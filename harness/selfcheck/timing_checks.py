"""Self-check of the clock, by the functions that time methods: is a known time measured, and twice the work as twice?

Other programs may disturb a shared machine, so that a timing is repeated up to three times before it counts as failed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from ditbench.harness.selfcheck.checks import Case, Outcome, Vector, between, cases_of, exactly

ATTEMPTS = 3
READINGS = 20_000
SLEEPS = 7
# a product of 2.1 million multiply-accumulates, and how many make the shorter chain: calls far shorter than a slice of
# the scheduler, so that other programs interrupt only few of them
WIDTH, PRODUCTS = 128, 4


def timing() -> list[Case]:
    """The clock, a sleep, a doubled chain of products, threads, and whether the machine is busy."""
    checks: dict[str, Callable[[Vector], Outcome]] = {
        "backward": _backward,
        "resolution": _resolution,
        "sleep": partial(_repeated, _sleep),
        "doubling": partial(_repeated, _doubled),
        "threads": _threads,
        "load": _load,
    }
    return cases_of("timing", checks)


def _backward(vector: Vector) -> Outcome:
    return exactly(sum(step < 0 for step in _steps()), vector["expected"])


def _resolution(vector: Vector) -> Outcome:
    finest = min(step for step in _steps() if step > 0)
    return between(finest * 1e6, vector["low"], vector["high"], "µs")


def _steps() -> list[float]:
    """Differences of successive readings in seconds, of the clock that timings use."""
    readings = [time.perf_counter() for _ in range(READINGS)]
    return [after - before for before, after in pairwise(readings)]


def _repeated(attempt: Callable[[Vector], Outcome], vector: Vector) -> Outcome:
    """The first passed attempt of three, or the last one."""
    number, found = 1, attempt(vector)
    while found.status != "ok" and number < ATTEMPTS:
        number, found = number + 1, attempt(vector)
    if number == 1:
        return found
    return replace(found, note=f"attempt {number} of {ATTEMPTS}; {_running():.1f} running processes a core")


def _sleep(vector: Vector) -> Outcome:
    from ditbench.harness.measure.latency import timed
    from ditbench.harness.stats.intervals import summary

    taken = [timed(lambda _: time.sleep(0.02), index, "cpu").wall_ms for index in range(SLEEPS)]
    return between(summary(taken).median, vector["low"], vector["high"], "ms")


def _doubled(vector: Vector) -> Outcome:
    """Ratio of medians of two chains, one twice as long, warmed up and interleaved like a method and its baseline."""
    from ditbench.harness.measure.latency import WHOLE, interleave, warm_up
    from ditbench.harness.measure.options import LatencyOptions

    matrix = torch.full((WIDTH, WIDTH), 1.0 / WIDTH)

    def chain(products: int, _: int) -> Tensor:
        x = matrix
        for _ in range(products):
            x = x @ matrix
        return x

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        calls = [(partial(chain, products), WHOLE) for products in (PRODUCTS, 2 * PRODUCTS)]
        series = [warm_up(call, 1, "cpu", 0.1) for call, _ in calls]
        interleave(calls, series, "cpu", LatencyOptions(rounds=6, budget_s=0.5))
    finally:
        torch.set_num_threads(before)
    shorter, longer = (each.summary().median for each in series)
    return between(longer / shorter, vector["low"], vector["high"])


def _threads(vector: Vector) -> Outcome:
    """Does torch run on as many threads as a timing asks for (all physical cores)?"""
    from ditbench.harness.environment import resolve_threads

    cores, before = resolve_threads(0), torch.get_num_threads()
    torch.set_num_threads(cores)
    try:
        found = exactly(torch.get_num_threads(), cores)
    finally:
        torch.set_num_threads(before)
    return replace(found, result=f"{cores} of {cores}") if found.status == "ok" else found


def _load(vector: Vector) -> Outcome:
    """A warning only: other programs make timings wide, not wrong."""
    found = between(_running(), vector["low"], vector["high"])
    if found.status == "ok":
        return found
    return replace(found, status="warning", note="busy machine: timings would have wide intervals")


def _running() -> float:
    """Running processes a physical core, mean of the last minute."""
    from ditbench.harness.environment import physical_cores

    return os.getloadavg()[0] / physical_cores()

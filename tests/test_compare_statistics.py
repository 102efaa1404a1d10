"""Comparing two runs: what the intervals cover and when a difference counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from compare_runs import BLOCKS, width
from scipy import stats

from ditbench.harness.quality.frechet import frechet_from_features
from ditbench.harness.stats.compare import (
    Change,
    Draws,
    Spread,
    Time,
    difference_of_intervals,
    holm,
    paired,
    pseudo_values,
    ratio_of_intervals,
    ratio_of_times,
    spread_of,
    unpaired,
)
from ditbench.harness.stats.intervals import Estimate, proportion_interval

NULLS = 300
Rng = np.random.Generator


def most(rate: float, n: int) -> int:
    """More than so many of n happen by chance once in a thousand."""
    return int(stats.binom.ppf(0.999, n, rate))


def covers(change: Change, truth: float) -> bool:
    assert change.low is not None and change.high is not None
    return change.low <= truth <= change.high


def twins(rng: Rng, alike: float, n: int = BLOCKS) -> tuple[Draws, Draws]:
    """Two sides of n draws with the same mean; ``alike``: their correlation."""
    shared, own = rng.standard_normal(n), rng.standard_normal((2, n))
    a, b = math.sqrt(alike) * shared + math.sqrt(1 - alike) * own
    return Draws(float(a.mean()), tuple(a)), Draws(float(b.mean()), tuple(b))


def test_paired_and_unpaired_are_the_t_tests_of_scipy() -> None:
    for seed in range(20):
        a, b = twins(np.random.default_rng(seed), 0.5)
        for ours, theirs in (
            (paired(a, b, "blocks"), stats.ttest_rel(b.draws, a.draws)),
            (unpaired(a, b, "blocks"), stats.ttest_ind(b.draws, a.draws, equal_var=False)),
        ):
            interval = theirs.confidence_interval()
            assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)
            assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_pseudo_values_of_a_mean_are_its_blocks() -> None:
    blocks = np.random.default_rng(0).standard_normal(BLOCKS)
    made = pseudo_values(float(blocks.mean()), list((blocks.sum() - blocks) / (BLOCKS - 1)))
    assert made.draws == pytest.approx(tuple(blocks))


def leave_one_out(features: np.ndarray, reference: np.ndarray) -> Draws:
    parts = np.array_split(np.arange(len(features)), BLOCKS)
    without = [frechet_from_features(np.delete(features, part, axis=0), reference) for part in parts]
    return pseudo_values(frechet_from_features(features, reference), without)


def test_the_paired_interval_of_a_frechet_distance_covers_zero_as_often_as_it_says_and_pairing_narrows_it() -> None:
    rng = np.random.default_rng(1)
    reference = rng.standard_normal((2000, 4))
    missed, narrower, tries = 0, [], 120
    for _ in range(tries):
        shared = rng.standard_normal((300, 4))
        sides = [0.9 * shared + math.sqrt(1 - 0.81) * rng.standard_normal((300, 4)) + 0.3 for _ in range(2)]
        a, b = (leave_one_out(side, reference) for side in sides)
        change = paired(a, b, "blocks")
        missed += not covers(change, 0.0)
        narrower.append(width(change) / width(unpaired(a, b, "blocks")))
    assert missed <= most(0.05, tries)
    assert np.median(narrower) < 0.75


def test_a_whole_family_of_null_comparisons_is_rarely_called_different_and_hardly_ever_without_holm_called_equal() -> (
    None
):
    rng, family = np.random.default_rng(2), 60
    wrong, wrong_alone = 0, 0
    for _ in range(NULLS):
        p_values = [change.p or 1.0 for change in (paired(*twins(rng, 0.7), "blocks") for _ in range(family))]
        wrong += min(holm(p_values)) <= 0.05
        wrong_alone += min(p_values) <= 0.05
    assert wrong <= most(0.05, NULLS)
    assert wrong_alone > 0.8 * NULLS


def test_holm_gives_the_textbook_values_in_the_order_asked() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([]) == ()
    assert holm([0.9, 0.8]) == (1.0, 1.0)


def test_equal_draws_are_identical_and_a_shift_without_spread_has_no_interval() -> None:
    a = Draws(0.5, (0.4, 0.5, 0.6))
    assert paired(a, a, "blocks") == Change(0.0, 0.0, 0.0, None, "equal in all 3 blocks", identical=True)
    rounded = Draws(0.5 * (1 + 1e-12), tuple(each * (1 + 1e-12) for each in a.draws))
    assert paired(a, rounded, "blocks").identical, "the last digits of a sum are no difference"
    shifted = paired(a, Draws(0.75, (0.65, 0.75, 0.85)), "seeds")
    assert not shifted.identical
    assert shifted.value == 0.25
    assert paired(Draws(1.0, (1.0, 1.0)), Draws(2.0, (2.0, 2.0)), "seeds").low is None


def test_the_difference_of_two_wilson_intervals_is_newcombes() -> None:
    # Newcombe 1998, Statistics in Medicine 17:873, table II, method 10: 56/70 - 48/80.
    change = difference_of_intervals(proportion_interval(48, 80), proportion_interval(56, 70), math.inf)
    assert (change.value, change.low, change.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_p_and_interval_agree_about_no_difference() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        low, high = rng.uniform(0.01, 0.1, (2, 2))
        values = rng.uniform(0.9, 1.1, 2)
        a, b = (Estimate(v, v - lo, v + hi, "") for v, lo, hi in zip(values, low, high, strict=True))
        for change, none in ((difference_of_intervals(a, b, 9), 0.0), (ratio_of_intervals(a, b, 4), 1.0)):
            assert change.p is not None
            assert (change.p > 0.05) == covers(change, none)


def test_the_ratio_of_times_covers_one_though_processes_differ_more_than_their_own_intervals_say() -> None:
    rng, between, inside = np.random.default_rng(4), 0.08, 0.005
    missed, missed_inside = 0, 0
    for _ in range(NULLS):
        times = []
        for _ in range(2):
            spread = spread_of([np.exp(rng.normal(0, between, 8))])
            value = 5.0 * math.exp(rng.normal(0, math.hypot(between, inside)))
            assert spread is not None
            times.append(Time(value, value * math.exp(-1.96 * inside), value * math.exp(1.96 * inside), spread))
        a, b = times
        missed += not covers(ratio_of_times(a, b), 1.0)
        missed_inside += not covers(ratio_of_intervals(*(Estimate(t.value, t.low, t.high, "") for t in times), 99), 1.0)
    assert missed <= most(0.05, NULLS)
    assert missed_inside > 0.5 * NULLS


def test_one_spread_that_both_sides_share_counts_once() -> None:
    spread = Spread(0.1, 4)
    a, b = Time(1.0, None, None, spread), Time(1.3, None, None, spread)
    reach = stats.t.ppf(0.975, 4) * 0.1 * math.sqrt(2)
    assert width_of_log(ratio_of_times(a, b, one_run=True)) == pytest.approx(2 * reach)
    assert width_of_log(ratio_of_times(a, b)) == pytest.approx(
        2 * reach * stats.t.ppf(0.975, 8) / stats.t.ppf(0.975, 4)
    )


def width_of_log(change: Change) -> float:
    assert change.low is not None and change.high is not None
    return math.log(change.high / change.low)


def test_a_spread_needs_three_processes_and_pools_groups_of_other_levels() -> None:
    assert spread_of([[1.0, 1.1], [5.0]]) is None
    pooled = spread_of([[1.0, 1.1, 0.9], [10.0, 11.0, 9.0]])
    single = spread_of([[1.0, 1.1, 0.9]])
    assert pooled is not None and single is not None
    assert (pooled.sd, pooled.freedom, single.freedom) == (pytest.approx(single.sd), 4, 2)

"""Intervals: what they cover, when they refuse, and that the planted answer lies inside."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from ditbench.harness.stats.intervals import (
    P90_MIN_SAMPLES,
    P99_MIN_SAMPLES,
    Estimate,
    jackknife_interval,
    median_interval,
    paired_ratio_interval,
    proportion_interval,
    summary,
)


def covers(estimate: Estimate, truth: float) -> bool:
    assert estimate.low is not None and estimate.high is not None
    return estimate.low <= truth <= estimate.high


def test_statistics_do_not_import_torch() -> None:
    code = "import sys, harness.stats.intervals; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("n", [6, 9, 40])
def test_median_interval_covers_the_median_of_a_skewed_distribution_as_often_as_it_says(n: int) -> None:
    rng = np.random.default_rng(n)
    hits = sum(covers(median_interval(rng.exponential(size=n)), np.log(2)) for _ in range(400))
    assert 0.92 <= hits / 400 <= 0.995


def test_median_interval_takes_the_tabulated_order_statistics() -> None:
    # Binomial(n, 1/2) tables: (n, k) with the k-th smallest and k-th largest at 95 %.
    for n, k in ((6, 1), (8, 1), (9, 2), (20, 6), (25, 8), (50, 18), (100, 40)):
        estimate = median_interval(np.arange(1, n + 1)[::-1])
        assert (estimate.low, estimate.high) == (k, n + 1 - k), n


def test_median_interval_gives_a_reason_instead_of_an_interval_below_six_samples() -> None:
    estimate = median_interval([3.0, 1.0, 2.0, 5.0, 4.0])
    assert (estimate.value, estimate.low, estimate.high) == (3.0, None, None)
    assert estimate.method == "no interval: 5 samples, 95% needs 6"
    assert median_interval(np.arange(6)).low is not None
    assert "needs 8" in median_interval(np.arange(7), confidence=0.99).method
    assert median_interval(np.arange(8), confidence=0.99).low is not None


def test_median_interval_of_equal_samples_is_a_point() -> None:
    estimate = median_interval(np.full(30, 2.5))
    assert (estimate.low, estimate.value, estimate.high) == (2.5, 2.5, 2.5)


def test_jackknife_of_a_mean_equals_the_t_interval_of_the_block_means() -> None:
    blocks = np.random.default_rng(0).standard_normal((10, 7)) + 3
    means = blocks.mean(axis=1)
    estimate = jackknife_interval(blocks.mean(), (means.sum() - means) / 9)
    reach = 2.2621571627982 * means.std(ddof=1) / np.sqrt(10)  # t(9) at 97.5 %
    assert estimate.low == pytest.approx(blocks.mean() - reach, rel=1e-9)
    assert estimate.high == pytest.approx(blocks.mean() + reach, rel=1e-9)


def test_jackknife_ends_stay_inside_the_statistics_range() -> None:
    estimate = jackknife_interval(0.98, [0.9, 1.0, 0.95, 1.0], lower=0.0, upper=1.0)
    assert estimate.high == 1.0
    assert estimate.low is not None and 0 < estimate.low < 0.98


def test_wilson_interval_gives_the_published_values() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3.
    for successes, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)):
        estimate = proportion_interval(successes, n)
        assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=5e-5)
    assert proportion_interval(29, 29).high == 1.0


def drifting_rounds(
    ratio: float, rounds: int, seed: int, calls: int = 25, change: float = 0.0
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Two methods whose machine slows down and speeds up by 20 % from round to round, for both alike.

    change: by how much the ratio itself moves from round to round; noise inside a round is 0.02.
    """
    rng = np.random.default_rng(seed)
    level = np.exp(rng.normal(0, 0.2, rounds))
    planted = ratio * np.exp(rng.normal(0, change, rounds))
    a = [r * x * np.exp(rng.normal(0, 0.02, calls)) for r, x in zip(planted, level, strict=True)]
    b = [x * np.exp(rng.normal(0, 0.02, calls)) for x in level]
    return a, b


@pytest.mark.parametrize("change", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("rounds", [3, 5, 6, 8, 20])
def test_paired_ratio_interval_holds_the_planted_ratio_as_often_as_it_says(rounds: int, change: float) -> None:
    estimates = [
        paired_ratio_interval(*drifting_rounds(1.3, rounds, seed, calls=4, change=change)) for seed in range(400)
    ]
    assert 0.92 <= np.mean([covers(each, 1.3) for each in estimates]) <= 0.98
    assert all(
        each.low is not None and each.high is not None and each.low <= each.value <= each.high for each in estimates
    )


def test_paired_ratio_takes_students_t_of_logarithms_below_six_rounds() -> None:
    ratios = np.array([1.1, 1.3, 1.2, 1.6])
    estimate = paired_ratio_interval([[r] for r in ratios], [[1.0]] * 4)
    centre, reach = np.log(ratios).mean(), 3.1824463052837 * np.log(ratios).std(ddof=1) / 2  # t(3) at 97.5 %
    assert (estimate.low, estimate.high) == pytest.approx((np.exp(centre - reach), np.exp(centre + reach)), rel=1e-9)
    assert estimate.value == pytest.approx(np.sqrt(1.2 * 1.3)), "the median of the rounds' ratios"
    assert "t interval of the logarithms of 4 rounds" in estimate.method


def test_paired_ratio_interpolates_between_order_statistics_from_six_rounds_on() -> None:
    # Hettmansperger and Sheather 1986: of eight, [1st, 8th] holds 254/256 and [2nd, 7th] 238/256.
    logs = np.array([0.0, 0.1, 0.3, 0.4, 0.6, 0.7, 0.9, 1.3])
    share = (254 / 256 - 0.95) / (16 / 256)
    inward = 7 * share / (1 + 6 * share)
    estimate = paired_ratio_interval([[x] for x in np.exp(logs)[::-1]], [[1.0]] * 8)
    assert estimate.low == pytest.approx(np.exp(0.1 * inward), rel=1e-9)
    assert estimate.high == pytest.approx(np.exp(1.3 - 0.4 * inward), rel=1e-9)
    assert estimate.value == pytest.approx(np.exp(0.5), rel=1e-9)
    assert "order statistics of 8 rounds" in estimate.method
    assert "t interval" in paired_ratio_interval([[x] for x in np.exp(logs[:7])], [[1.0]] * 7, confidence=0.99).method


def test_pairing_removes_the_drift_that_both_share() -> None:
    a, b = drifting_rounds(1.3, 12, seed=5)
    paired = paired_ratio_interval(a, b)
    broken = paired_ratio_interval(a, b[1:] + b[:1])
    assert paired.low is not None and paired.high is not None
    assert broken.low is not None and broken.high is not None
    assert paired.high - paired.low < 0.5 * (broken.high - broken.low)
    # The ratio of the medians over all rounds is what drift spoils.
    errors = []
    for seed in range(60):
        a, b = drifting_rounds(1.3, 7, seed)
        pooled = np.median(np.concatenate(a)) / np.median(np.concatenate(b))
        errors.append((paired_ratio_interval(a, b).value - 1.3, pooled - 1.3))
    own, other = np.square(errors).mean(axis=0)
    assert own < 0.6 * other


def test_one_disturbed_round_of_ten_does_not_move_the_ratio_far() -> None:
    a, b = drifting_rounds(1.3, 10, seed=1)
    disturbed = paired_ratio_interval([3 * a[0], *a[1:]], b)
    assert disturbed.high is not None and disturbed.high < 1.35


def test_paired_ratio_sees_no_difference_where_there_is_none_and_one_where_there_is() -> None:
    a, b = drifting_rounds(1.0, 8, seed=3)
    assert covers(paired_ratio_interval(a, b), 1.0)
    slower = paired_ratio_interval([1.2 * x for x in a], b)
    assert not covers(slower, 1.0)


@pytest.mark.parametrize("rounds", [4, 9])
def test_exchanging_the_methods_gives_the_reciprocal_interval(rounds: int) -> None:
    a, b = drifting_rounds(1.3, rounds, seed=2)
    one, other = paired_ratio_interval(a, b), paired_ratio_interval(b, a)
    assert one.low is not None and one.high is not None
    assert (other.value, other.low, other.high) == pytest.approx((1 / one.value, 1 / one.high, 1 / one.low), rel=1e-12)


def test_paired_ratio_gives_a_reason_instead_of_an_interval() -> None:
    two = paired_ratio_interval(*drifting_rounds(1.3, 2, seed=1))
    assert (two.low, two.high, two.method) == (None, None, "no interval: 2 rounds, a ratio needs 3")
    same = paired_ratio_interval([[2.0]] * 3, [[1.0]] * 3)
    assert (same.value, same.low, same.high) == (2.0, None, None)
    assert same.method == "no interval: the ratio is the same in all 3 rounds"


def test_paired_ratio_refuses_rounds_without_a_partner() -> None:
    with pytest.raises(ValueError, match="pairs"):
        paired_ratio_interval([[1.0], [1.0]], [[1.0]])
    with pytest.raises(ValueError, match="positive"):
        paired_ratio_interval([[1.0]], [[0.0]])


@pytest.mark.parametrize(("share", "limit"), [(0.1, P90_MIN_SAMPLES), (0.01, P99_MIN_SAMPLES)])
def test_tail_limits_are_the_least_n_with_two_samples_beyond_at_99_percent(share: float, limit: int) -> None:
    def fewer_than_two(n: int) -> float:
        return float((1 - share) ** n + n * share * (1 - share) ** (n - 1))

    assert fewer_than_two(limit) <= 0.01 < fewer_than_two(limit - 1)


def test_summary_gives_tail_quantiles_only_from_enough_samples() -> None:
    rng = np.random.default_rng(0)
    tails = {n: summary(rng.exponential(size=n) + 1) for n in (63, 64, 661, 662)}
    assert [tails[n].p90 is None for n in tails] == [True, False, False, False]
    assert [tails[n].p99 is None for n in tails] == [True, True, True, False]


def test_summary_orders_its_figures() -> None:
    s = summary(np.random.default_rng(2).gamma(4.0, size=700))
    assert s.low is not None and s.high is not None and s.p90 is not None and s.p99 is not None
    assert s.minimum < s.q1 < s.low < s.median < s.high < s.q3 < s.p90 < s.p99
    assert s.n == 700


def test_summary_of_one_timing_has_no_interval_and_says_why() -> None:
    s = summary([2.0])
    assert (s.n, s.median, s.q1, s.q3, s.low, s.high) == (1, 2.0, 2.0, 2.0, None, None)
    assert "no interval" in s.interval


@pytest.mark.parametrize("bad", [[], [1.0, float("nan")], [[1.0]]])
def test_bad_series_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        summary(bad)

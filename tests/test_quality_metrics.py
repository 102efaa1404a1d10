"""Quality mathematics against torch-fidelity, closed forms, and the traps that spoil published figures."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from ditbench.harness.quality import tiles
from ditbench.harness.quality.frechet import (
    FrechetResult,
    counted_twice,
    frechet_distance,
    frechet_from_features,
    frechet_of_blocks,
    frechet_of_seeds,
    limit_of,
)
from ditbench.harness.quality.inception_score import inception_score
from ditbench.harness.quality.kernel import kernel_distance, kernel_jackknife, rbf_distance
from ditbench.harness.quality.neighbours import neighbour_metrics
from ditbench.harness.quality.statistics import FeatureStatistics
from ditbench.methods.torchvision_shim import ensure_torchvision_importable

DIM = 24


def features(n: int, seed: int, shift: float = 0.0, dim: int = DIM) -> np.ndarray:
    """Correlated, skewed features, as extractors give them."""
    mixing = np.eye(dim) + np.random.default_rng(99).standard_normal((dim, dim)) / dim
    raw = np.random.default_rng(seed).standard_normal((n, dim)) + shift
    return np.maximum(raw, -0.5) @ mixing


# Against torch-fidelity -------------------------------------------------------------------------------


def test_frechet_agrees_with_torch_fidelity() -> None:
    ensure_torchvision_importable()
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    x, y = features(700, 1, shift=0.2), features(900, 2)
    statistics = [{"mu": f.mean(axis=0), "sigma": np.cov(f, rowvar=False)} for f in (x, y)]
    oracle = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_from_features(x, y) == pytest.approx(oracle, rel=1e-9)


def test_kid_agrees_with_torch_fidelity_on_the_same_subsets() -> None:
    ensure_torchvision_importable()
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = features(500, 1, shift=0.2), features(430, 2)
    for seed in (2020, 7):
        oracle = kid_features_to_metric(
            torch.from_numpy(x),
            torch.from_numpy(y),
            kid_subsets=12,
            kid_subset_size=150,
            rng_seed=seed,
            verbose=False,
        )
        own = kernel_distance(x, y, subsets=12, subset_size=150, seed=seed)
        assert own.estimate.value == pytest.approx(oracle["kernel_inception_distance_mean"], rel=1e-9)
        assert own.subset_std == pytest.approx(oracle["kernel_inception_distance_std"], rel=1e-9)


@pytest.mark.parametrize("seed", [None, 2020])
def test_inception_score_agrees_with_torch_fidelity_on_the_same_splits(seed: int | None) -> None:
    ensure_torchvision_importable()
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = 3 * features(503, 4)
    oracle = isc_features_to_metric(torch.from_numpy(logits), splits=10, shuffle=seed is not None, rng_seed=seed)
    own = inception_score(logits, splits=10, shuffle_seed=seed)
    assert own.estimate.value == pytest.approx(oracle["inception_score_mean"], rel=1e-9)
    assert own.std == pytest.approx(oracle["inception_score_std"], rel=1e-9)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_and_recall_agree_with_torch_fidelity(k: int) -> None:
    ensure_torchvision_importable()
    from torch_fidelity.metric_prc import prc_features_to_metric

    x, y = 0.8 * features(420, 1, shift=0.3), features(350, 2)
    oracle = prc_features_to_metric(torch.from_numpy(x), torch.from_numpy(y), prc_neighborhood=k, verbose=False)
    own = neighbour_metrics(x, y, k=k)
    assert 0.05 < own.recall.value < own.precision.value < 0.999
    assert own.precision.value == pytest.approx(oracle["precision"], rel=1e-6)
    assert own.recall.value == pytest.approx(oracle["recall"], rel=1e-6)


# Statistics -------------------------------------------------------------------------------------------


def test_statistics_keep_twelve_digits_under_a_large_mean() -> None:
    # Integers over 1024 stay exact when 2^20 is added, so the covariance must not change at all.
    x = np.round(features(600, 3) * 1024) / 1024
    expected = np.cov(x, rowvar=False)
    shifted = FeatureStatistics(DIM)
    for batch in np.array_split(x + 2.0**20, 7):
        shifted.update(batch)
    np.testing.assert_allclose(shifted.covariance, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    np.testing.assert_allclose(shifted.mean - 2.0**20, x.mean(axis=0), rtol=0, atol=1e-9)

    raw = ((x + 2.0**20).T @ (x + 2.0**20) - 600 * np.outer(shifted.mean, shifted.mean)) / 599
    assert np.abs(raw - expected).max() > 1e-6, "raw outer sums are expected to fail here"


def test_float32_features_are_accumulated_in_float64() -> None:
    x = (features(3000, 5) + 10).astype(np.float32)
    expected = np.cov(x.astype(np.float64), rowvar=False)
    scale = np.abs(expected).max()
    own = FeatureStatistics(DIM)
    for batch in np.array_split(x, 30):
        own.update(batch)
    assert np.abs(own.covariance - expected).max() < 1e-10 * scale

    in_float32 = (x.T @ x - len(x) * np.outer(x.mean(axis=0), x.mean(axis=0))) / np.float32(len(x) - 1)
    assert np.abs(in_float32 - expected).max() > 1e-7 * scale, "float32 sums are expected to fail here"


def test_merging_in_any_order_equals_a_single_pass() -> None:
    x = features(400, 6) + np.linspace(-50, 900, DIM)
    whole = FeatureStatistics.of(x).moments()
    parts = [x[:1], x[1:150], x[150:390], x[390:]]
    for order in itertools.permutations(range(4)):
        merged = FeatureStatistics(DIM)
        for index in order:
            # In two batches, so that a part's sum about its origin is not zero.
            part = FeatureStatistics.of(parts[index][:1])
            part.update(parts[index][1:])
            merged.merge(part)
        assert merged.n == whole.n == 400
        np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-13)
        np.testing.assert_allclose(merged.covariance, whole.covariance, rtol=0, atol=1e-12)


def test_merging_leaves_the_merged_statistics_alone() -> None:
    total, part = FeatureStatistics(DIM), FeatureStatistics.of(features(50, 1))
    before = part.covariance.copy()
    total.merge(part)
    total.update(features(50, 2) + 5)
    np.testing.assert_array_equal(part.covariance, before)
    assert part.n == 50


def test_taking_out_what_was_merged_gives_the_rest() -> None:
    x, y = features(200, 1) + 30, features(40, 2)
    total = FeatureStatistics.of(np.concatenate([y, x]))
    rest = total.without(FeatureStatistics.of(y))
    assert rest.n == 200
    np.testing.assert_allclose(rest.mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(rest.covariance, np.cov(x, rowvar=False), rtol=0, atol=1e-10)


def test_finished_moments_cannot_be_changed() -> None:
    moments = FeatureStatistics.of(features(10, 1)).moments()
    with pytest.raises(ValueError, match="read-only"):
        moments.covariance[0, 0] = 1.0


@pytest.mark.parametrize("bad", [np.full((3, DIM), np.nan), np.full((3, DIM), np.inf), np.ones((3, DIM + 1))])
def test_statistics_refuse_bad_features(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"NaN|dimensions"):
        FeatureStatistics(DIM).update(bad)


def test_statistics_refuse_a_covariance_of_one_sample() -> None:
    with pytest.raises(ValueError, match="two samples"):
        FeatureStatistics.of(np.ones((1, DIM))).moments()


# Fréchet distance -------------------------------------------------------------------------------------


def test_frechet_equals_the_closed_form_for_commuting_covariances() -> None:
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((DIM, DIM)))[0]
    a, b = np.linspace(0.1, 9, DIM), np.linspace(4, 0.01, DIM)
    offset = np.linspace(-1, 1, DIM)
    expected = offset @ offset + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    value = frechet_distance(offset, basis * a @ basis.T, np.zeros(DIM), basis * b @ basis.T)
    assert value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n", [5, DIM, 400])
def test_frechet_of_a_set_with_itself_is_zero_at_any_rank(n: int) -> None:
    x = features(n, 1)
    assert frechet_from_features(x, x.copy()) <= 1e-9
    assert frechet_from_features(x, x[::-1]) <= 1e-9


def test_frechet_of_covariances_on_disjoint_subspaces_is_the_sum_of_their_traces() -> None:
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((DIM, DIM)))[0]
    first = basis[:, :5] @ basis[:, :5].T * 3.0
    second = basis[:, 5:] @ basis[:, 5:].T
    assert frechet_distance(np.zeros(DIM), first, np.zeros(DIM), second) == pytest.approx(15.0 + DIM - 5, rel=1e-12)


def test_frechet_is_symmetric() -> None:
    x, y = features(30, 1, shift=1), features(15, 2)
    assert frechet_from_features(x, y) == pytest.approx(frechet_from_features(y, x), rel=1e-9)


@pytest.mark.parametrize(
    "sigma", [np.diag([1.0, -0.5]), np.array([[1.0, 0.5], [0.0, 1.0]]), np.full((2, 2), np.nan), np.eye(3)]
)
def test_frechet_refuses_what_is_no_covariance(sigma: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"semi-definite|symmetric|NaN|not \(d,\)"):
        frechet_distance(np.zeros(2), sigma, np.zeros(2), np.eye(2))


def in_blocks(x: np.ndarray, y: np.ndarray, blocks: int = 10) -> FrechetResult:
    parts = [FeatureStatistics.of(part) for part in np.array_split(x, blocks)]
    return frechet_of_blocks(parts, y.mean(axis=0), np.cov(y, rowvar=False))


def test_frechet_by_blocks_equals_recomputing_without_each_block() -> None:
    x, y = features(207, 1, shift=0.2), features(500, 2)
    result = in_blocks(x, y)
    left_out = [frechet_from_features(np.delete(x, block, axis=0), y) for block in np.array_split(np.arange(207), 10)]
    reach = 2.2621571627982 * np.sqrt(0.9 * np.sum((np.array(left_out) - np.mean(left_out)) ** 2))
    assert result.frechet.value == pytest.approx(frechet_from_features(x, y), rel=1e-12)
    assert result.frechet.low == pytest.approx(result.frechet.value - reach, rel=1e-9)
    assert result.frechet.high == pytest.approx(result.frechet.value + reach, rel=1e-9)
    assert result.leave_one_out == pytest.approx(left_out, rel=1e-9)
    assert result.infinity.value == pytest.approx(10 * result.frechet.value - 9 * np.mean(left_out), rel=1e-9)


def test_the_plain_interval_covers_the_mean_value_at_its_own_sample_count() -> None:
    # Both as the docstring says: it covers E[FD at n], not the true distance, which is zero here.
    rng = np.random.default_rng(0)
    estimates = []
    for _ in range(100):
        parts = [FeatureStatistics.of(part) for part in np.array_split(rng.standard_normal((200, 16)), 10)]
        estimates.append(frechet_of_blocks(parts, np.zeros(16), np.eye(16)).frechet)
    mean = np.mean([e.value for e in estimates])
    hits = sum(e.low is not None and e.high is not None and e.low <= mean <= e.high for e in estimates)
    assert hits >= 90
    assert all(e.low is not None and e.low > 0 for e in estimates)


@pytest.mark.parametrize("blocks", [4, 10])
def test_the_limit_is_where_the_line_through_two_counts_meets_infinity(blocks: int) -> None:
    n, truth, slope, curve = 1000, 3.0, 800.0, 5e4

    def at(count: float, curved: float) -> float:
        return truth + slope / count + curved / count**2

    for curved in (0.0, curve):
        shorter, short = n * (1 - 1 / blocks), 2 * n / blocks
        limit, left = limit_of(at(n, curved), [at(shorter, curved)] * blocks, [at(short, curved)] * (blocks // 2))
        line = np.polyfit([1 / n, 1 / shorter], [at(n, curved), at(shorter, curved)], 1)
        assert limit.value == pytest.approx(line[1], rel=1e-9)
        # and what curvature leaves of the bias is known
        assert left == pytest.approx(limit.value - truth, abs=1e-9)


def test_the_limits_interval_is_students_t_below_and_that_of_its_root_above() -> None:
    # All pairs lie as far above their own pseudo-values as a straight course asks: nothing counted twice, no bias left.
    pseudo = np.array([5.0, 6.0, 4.0, 5.5, 4.5, 7.0, 3.0, 5.0, 6.0, 4.0])
    full = pseudo.mean() + 1 / 4
    pairs = pseudo.reshape(5, 2).mean(axis=1) + 1.25
    limit, left = limit_of(full, list((10 * full - pseudo) / 9), list(pairs))
    reach = 2.2621571627982 * pseudo.std(ddof=1) / np.sqrt(10)
    assert limit.value == pytest.approx(5.0, rel=1e-12) and left == pytest.approx(0.0, abs=1e-12)
    assert limit.low == pytest.approx(5.0 - reach, rel=1e-9)
    assert limit.high == pytest.approx((np.sqrt(5.0) + reach / (2 * np.sqrt(5.0))) ** 2, rel=1e-9)


def test_the_limit_is_unbiased_where_the_plain_distance_is_not() -> None:
    rng, mu = np.random.default_rng(3), np.full(8, 0.3)
    parts = [[FeatureStatistics.of(part) for part in rng.standard_normal((10, 30, 8))] for _ in range(150)]
    results = [frechet_of_blocks(blocks, mu, np.eye(8)) for blocks in parts]
    limits, plain = (np.array([getattr(r, name).value for r in results]) for name in ("infinity", "frechet"))
    error = limits.std(ddof=1) / np.sqrt(150)
    assert abs(limits.mean() - 0.72) < 4 * error
    assert plain.mean() - 0.72 > 10 * error


def test_quadratic_variance_is_counted_twice_as_said() -> None:
    # Q(x, x) = |x|^2 of five dimensions: the limit's own variance against its squared standard error.
    rng, sets, b = np.random.default_rng(4), 40_000, 10
    x = rng.standard_normal((sets, b, 5))
    full = (x.mean(axis=1) ** 2).sum(axis=1)
    without = (((x.sum(axis=1)[:, None] - x) / (b - 1)) ** 2).sum(axis=2)
    pseudo = b * full[:, None] - (b - 1) * without
    above = (x.reshape(sets, b // 2, 2, 5).mean(axis=2) ** 2).sum(axis=2) - pseudo.reshape(sets, b // 2, 2).mean(axis=2)
    too_much = pseudo.var(axis=1, ddof=1).mean() / b - pseudo.mean(axis=1).var()
    assert too_much / above.var(axis=1, ddof=1).mean() == pytest.approx(counted_twice(b), rel=0.05)


def test_the_limit_has_no_interval_at_no_distance_and_for_few_samples_and_says_why() -> None:
    rng = np.random.default_rng(5)

    def of(n: int, dim: int, shift: float) -> FrechetResult:
        parts = [FeatureStatistics.of(part) for part in np.array_split(rng.standard_normal((n, dim)) + shift, 10)]
        return frechet_of_blocks(parts, np.zeros(dim), np.eye(dim))

    null = [of(400, 4, 0.0).infinity for _ in range(40)]
    refused = [each for each in null if each.low is None and each.high is None]
    assert len(refused) >= 25 and all("not told apart from zero" in each.method for each in refused)
    assert all(each.low == 0.0 for each in null if each.low is not None), "what is printed begins at zero"

    curved = of(100, 32, 0.1)
    assert curved.infinity.low is None and "few samples, about" in curved.infinity.method
    assert curved.bias_left < 0
    singular = of(100, 64, 0.1)
    assert singular.infinity.low is None and "less than half of 64 dimensions" in singular.infinity.method
    enough = of(1000, 4, 0.3).infinity
    assert enough.low is not None and enough.high is not None and enough.low < 0.36 < enough.high


def test_dimensions_that_the_reference_lacks_do_not_count_as_few_samples() -> None:
    rng = np.random.default_rng(6)
    x = np.concatenate([rng.standard_normal((400, 4)) + 0.5, np.zeros((400, 200))], axis=1)
    parts = [FeatureStatistics.of(part) for part in np.array_split(x, 10)]
    sigma = np.diag(np.r_[np.ones(4), np.zeros(200)])
    assert frechet_of_blocks(parts, np.zeros(204), sigma).infinity.low is not None


def test_the_limit_refuses_blocks_that_are_not_equal_or_not_even() -> None:
    for sizes in ([20] * 9, [20] * 2, [20] * 9 + [18]):
        parts = [FeatureStatistics.of(features(size, 1)) for size in sizes]
        with pytest.raises(ValueError, match="equal and an even number"):
            frechet_of_blocks(parts, np.zeros(DIM), np.eye(DIM))


def test_seeds_have_a_t_interval_from_three_on_and_a_reason_before() -> None:
    y = features(500, 2)
    results = [in_blocks(features(400, seed, shift=0.5), y) for seed in (1, 3, 4, 5)]
    for kind, estimate in zip(("frechet", "infinity"), frechet_of_seeds(results), strict=True):
        values = np.array([getattr(result, kind).value for result in results])
        reach = 3.1824463052837 * values.std(ddof=1) / 2  # t(3) at 97.5 %
        assert estimate.value == pytest.approx(values.mean(), rel=1e-12)
        assert estimate.low == pytest.approx(values.mean() - reach, rel=1e-9)
        assert estimate.high == pytest.approx(values.mean() + reach, rel=1e-9)
    for estimate in frechet_of_seeds(results[:2]):
        assert (estimate.low, estimate.high) == (None, None)
        assert estimate.method == "no interval: 2 seeds, Student's t needs 3"


def test_seeds_have_no_interval_around_a_limit_that_keeps_its_bias() -> None:
    y = features(500, 2)
    few = [in_blocks(features(40, seed, shift=0.5), y) for seed in (1, 3, 4)]
    plain, limit = frechet_of_seeds(few)
    assert plain.low is not None
    assert limit.low is None and "few samples" in limit.method


def test_intervals_give_way_to_a_reason_when_blocks_would_be_too_small() -> None:
    x, y = features(19, 1), features(60, 2)
    estimates = [
        in_blocks(x, y).frechet,
        in_blocks(x, y).infinity,
        kernel_jackknife(x, y).estimate,
        kernel_distance(x, y, subsets=2, subset_size=15).estimate,
        rbf_distance(x, y).estimate,
        neighbour_metrics(x, y).precision,
        neighbour_metrics(x, y).coverage,
    ]
    for estimate in estimates:
        assert estimate.low is None and estimate.high is None
        assert estimate.method == "no interval: 19 samples are too few for 10 blocks"


# Kernel distance --------------------------------------------------------------------------------------


def test_kid_of_one_distribution_is_unbiased_around_zero() -> None:
    rng = np.random.default_rng(0)
    values = np.array(
        [
            kernel_jackknife(rng.standard_normal((60, 8)), rng.standard_normal((45, 8))).estimate.value
            for _ in range(300)
        ]
    )
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean()) < 4 * error
    assert (values < 0).mean() > 0.3
    # The biased estimator would sit at E[k(x, x) - k(x, y)] (1/60 + 1/45), about 0.3: far outside.
    assert 4 * error < 0.03


def test_kid_interval_equals_recomputing_without_each_block() -> None:
    x, y = features(103, 1, shift=0.3), features(80, 2)

    def direct(a: np.ndarray) -> float:
        aa, bb, ab = ((p @ q.T / DIM + 1) ** 3 for p, q in ((a, a), (y, y), (a, y)))
        n, m = len(a), len(y)
        within = (aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (m * (m - 1))
        return float(within - 2 * ab.mean())

    left_out = np.array([direct(np.delete(x, b, axis=0)) for b in np.array_split(np.arange(103), 10)])
    reach = 2.2621571627982 * np.sqrt(0.9 * np.sum((left_out - left_out.mean()) ** 2))
    found = kernel_jackknife(x, y)
    assert found.estimate.value == pytest.approx(direct(x), rel=1e-10)
    assert found.estimate.high == pytest.approx(direct(x) + reach, rel=1e-8)
    np.testing.assert_allclose(found.leave_one_out, left_out, rtol=1e-10)


@pytest.mark.parametrize("tile", [7, 40])
def test_kid_does_not_depend_on_how_the_kernel_is_tiled(monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    x, y = features(130, 1, shift=0.3), features(80, 2)
    whole = kernel_jackknife(x, y)
    monkeypatch.setattr(tiles, "TILE", tile)
    tiled = kernel_jackknife(x, y)
    assert tiled.estimate.value == pytest.approx(whole.estimate.value, rel=1e-10)
    np.testing.assert_allclose(tiled.leave_one_out, whole.leave_one_out, rtol=1e-10)


def test_kid_refuses_subsets_larger_than_a_set() -> None:
    with pytest.raises(ValueError, match="does not fit 50 and 80"):
        kernel_distance(features(50, 1), features(80, 2), subset_size=60)


# Inception score --------------------------------------------------------------------------------------


def test_inception_score_is_one_for_uniform_and_the_class_count_for_certain_balanced_logits() -> None:
    assert inception_score(np.zeros((40, 8)), splits=2).estimate.value == pytest.approx(1.0, rel=1e-12)
    certain = np.tile(np.eye(8) * 2000.0, (10, 1))
    score = inception_score(certain, splits=5)
    assert score.estimate.value == pytest.approx(8.0, rel=1e-12)
    assert score.std == pytest.approx(0.0, abs=1e-12)


# Precision and recall ---------------------------------------------------------------------------------


def test_identical_sets_have_full_precision_and_recall() -> None:
    x = features(200, 1)
    result = neighbour_metrics(x, x[np.random.default_rng(0).permutation(200)] * 1.0)
    assert result.precision.value == result.recall.value == 1.0


def test_mode_collapse_gives_high_precision_and_low_recall() -> None:
    real = features(300, 1)
    collapsed = real[:1] + 0.01 * np.random.default_rng(0).standard_normal((300, DIM))
    result = neighbour_metrics(collapsed, real)
    assert result.precision.value > 0.95
    assert result.recall.value < 0.05


def test_scattered_samples_give_low_precision_and_high_recall() -> None:
    real = features(300, 1, dim=4)
    scattered = 8 * np.random.default_rng(0).standard_normal((300, 4))
    result = neighbour_metrics(scattered, real)
    assert result.precision.value < 0.4
    assert result.recall.value > 0.9


def test_exact_copies_count_as_inside_balls_of_radius_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    # A product rounds differently by its shape, so several sizes are tried; rounding must never decide.
    for seed, tile in itertools.product(range(6), (20, 64, 2**20)):
        monkeypatch.setattr(tiles, "TILE", tile)
        points = 3 + np.random.default_rng(seed).standard_normal((97, 37))
        generated, real = np.repeat(points, 2, axis=0)[::-1], np.repeat(points[:60], 3, axis=0)
        result = neighbour_metrics(generated, real, k=1)
        assert result.recall.value == 1.0
        assert result.precision.value == pytest.approx(60 / 97, rel=1e-12)


def test_precision_and_recall_intervals_equal_recomputing_without_each_block() -> None:
    x, y = 0.8 * features(123, 1, shift=0.3), features(90, 2)
    result = neighbour_metrics(x, y)
    rest = [neighbour_metrics(np.delete(x, b, axis=0), y) for b in np.array_split(np.arange(123), 10)]
    for estimate, values in (
        (result.precision, np.array([r.precision.value for r in rest])),
        (result.recall, np.array([r.recall.value for r in rest])),
    ):
        reach = 2.2621571627982 * np.sqrt(0.9 * np.sum((values - values.mean()) ** 2))
        assert reach > 0
        assert estimate.low == pytest.approx(max(0, estimate.value - reach), rel=1e-9)
        assert estimate.high == pytest.approx(min(1, estimate.value + reach), rel=1e-9)


def test_precision_and_recall_do_not_depend_on_how_distances_are_tiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = 0.8 * features(123, 1, shift=0.3), features(90, 2)
    whole = neighbour_metrics(x, y)
    monkeypatch.setattr(tiles, "TILE", 11)
    assert neighbour_metrics(x, y) == whole


# The torchvision shim ---------------------------------------------------------------------------------


def run_python(code: str) -> None:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_shim_makes_torchvision_importable_and_may_be_called_twice() -> None:
    run_python(
        "from ditbench.methods.torchvision_shim import ensure_torchvision_importable as ensure\n"
        "first = ensure(); assert ensure() == first\n"
        "import torchvision\n"
        "assert ensure() == first"
    )


def test_shim_leaves_operators_alone_that_are_defined_already() -> None:
    # Stands for a torchvision that fits its torch: a second definition of a schema would raise.
    run_python(
        "import torch\n"
        "from ditbench.methods import torchvision_shim as shim\n"
        "if shim._compiled_operators_load(): raise SystemExit(0 if not shim._kept_alive else 1)\n"
        "compiled = torch.library.Library('torchvision', 'DEF')\n"
        "for schema in shim._SCHEMAS.values(): compiled.define(schema)\n"
        "assert shim.ensure_torchvision_importable() is False and not shim._kept_alive\n"
        "import torchvision"
    )

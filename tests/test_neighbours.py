"""Neighbour metrics, kernel distances and the inception score against brute force, and what they do at full size."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from ditbench.harness.quality import tiles
from ditbench.harness.quality.inception_score import inception_score
from ditbench.harness.quality.kernel import (
    BANDWIDTH_SAMPLES,
    kernel_distance,
    kernel_jackknife,
    rbf_bandwidth,
    rbf_distance,
)
from ditbench.harness.quality.neighbours import NeighbourMetrics, neighbour_metrics
from ditbench.methods.torchvision_shim import ensure_torchvision_importable

NAMES = ("precision", "recall", "density", "coverage")


def features(n: int, seed: int, shift: float = 0.0, dim: int = 12) -> np.ndarray:
    raw = np.random.default_rng(seed).standard_normal((n, dim)) + shift
    return np.maximum(raw, -0.5)


def brute_force(x: np.ndarray, y: np.ndarray, k: int, density_k: int) -> dict[str, float]:
    """The four definitions, pair by pair, from the papers."""

    def radius(points: np.ndarray, neighbours: int) -> np.ndarray:
        others = [cdist(points[[i]], np.delete(points, i, axis=0))[0] for i in range(len(points))]
        return np.array([np.sort(distances)[neighbours - 1] for distances in others])

    between = cdist(x, y)
    in_real, in_dense = between <= radius(y, k), between <= radius(y, density_k)
    in_made = between <= radius(x, k)[:, None]
    return {
        "precision": np.mean([in_real[i].any() for i in range(len(x))]),
        "recall": np.mean([in_made[:, j].any() for j in range(len(y))]),
        "density": sum(in_dense[i].sum() for i in range(len(x))) / (density_k * len(x)),
        "coverage": np.mean([in_dense[:, j].any() for j in range(len(y))]),
    }


def value(metrics: NeighbourMetrics, name: str) -> float:
    return float(getattr(metrics, name).value)


# Neighbours -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "density_k"), [(3, 5), (5, 3), (1, 1)])
@pytest.mark.parametrize(("scale", "shift"), [(0.7, 0.4), (1.0, 0.0), (2.0, 0.0)])
def test_neighbour_metrics_equal_brute_force(k: int, density_k: int, scale: float, shift: float) -> None:
    x, y = scale * features(143, 1, shift), features(97, 2)
    result = neighbour_metrics(x, y, k=k, density_k=density_k)
    expected = brute_force(x, y, k, density_k)
    for name in NAMES:
        assert value(result, name) == pytest.approx(expected[name], rel=1e-12), name


@pytest.mark.parametrize("tile", [9, 4096])
def test_values_without_a_block_equal_recomputing_without_it(monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    monkeypatch.setattr(tiles, "TILE", tile)
    x, y = 0.8 * features(123, 1, shift=0.4), features(90, 2)
    result = neighbour_metrics(x, y)
    for index, block in enumerate(np.array_split(np.arange(123), 10)):
        expected = brute_force(np.delete(x, block, axis=0), y, 3, 5)
        for name in NAMES:
            assert result.leave_one_out[name][index] == pytest.approx(expected[name], rel=1e-12), (name, index)
    assert len(set(result.leave_one_out["coverage"])) > 1


def test_intervals_are_the_jackknife_of_the_values_without_a_block() -> None:
    x, y = 0.8 * features(123, 1, shift=0.4), features(90, 2)
    result = neighbour_metrics(x, y)
    for name in NAMES:
        rest = np.array(result.leave_one_out[name])
        reach = 2.2621571627982 * np.sqrt(0.9 * np.sum((rest - rest.mean()) ** 2))
        estimate = getattr(result, name)
        assert estimate.low == pytest.approx(max(0.0, estimate.value - reach), rel=1e-9)
        high = estimate.value + reach if name == "density" else min(1.0, estimate.value + reach)
        assert estimate.high == pytest.approx(high, rel=1e-9)


def test_density_and_its_interval_can_exceed_one_and_coverage_tells_collapse() -> None:
    real = features(300, 1)
    centre = real[np.argmin(cdist(real, real).sum(axis=1))]
    collapsed = centre + 0.01 * np.random.default_rng(0).standard_normal((300, real.shape[1]))
    result = neighbour_metrics(collapsed, real)
    assert result.density.value > 1.0
    assert result.density.high is not None and result.density.high > result.density.value
    assert result.coverage.value < 0.5


def test_one_distribution_has_density_and_coverage_near_their_expectation() -> None:
    # Naeem et al., section 3.3: density tends to 1, coverage to 1 - (N-1)...(N-k) / ((M+N-1)...(M+N-k)).
    n = m = 900
    result = neighbour_metrics(features(n, 1, dim=4), features(m, 2, dim=4))
    k = np.arange(1, 6)
    assert result.coverage.value == pytest.approx(1 - np.prod((m - k) / (n + m - k)), abs=0.02)
    assert result.density.value == pytest.approx(1.0, abs=0.1)


def test_float32_features_give_the_figures_of_the_same_numbers_in_float64() -> None:
    x, y = (features(200, seed, dim=64).astype(np.float32) + 30 for seed in (1, 2))
    assert neighbour_metrics(x, y) == neighbour_metrics(x.astype(np.float64), y.astype(np.float64))


def test_copies_in_2048_dimensions_lie_inside_balls_of_radius_zero() -> None:
    # float32 products, or a slack that does not grow with the dimension, would lose some of them
    points = (0.4 + np.random.default_rng(0).standard_normal((150, 2048))).astype(np.float32)
    made, real = np.repeat(points, 2, axis=0)[::-1], np.repeat(points[:100], 3, axis=0)
    result = neighbour_metrics(made, real, k=1, density_k=2)
    assert result.recall.value == result.coverage.value == 1.0
    assert result.precision.value == pytest.approx(2 / 3, rel=1e-12)
    assert result.density.value == pytest.approx(2 / 3 * 3 / 2, rel=1e-12)


def test_a_memory_map_is_read_tile_by_tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = (np.random.default_rng(seed).standard_normal((3000, 512)).astype(np.float32) for seed in (1, 2))
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    monkeypatch.setattr(tiles, "TILE", 100)
    tracemalloc.start()
    found = neighbour_metrics(mapped, y[:200])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # numpy's share: two tiles of float32 and the decisions; float64 features would take 12 MB
    assert peak < 3e6
    monkeypatch.undo()
    assert found == neighbour_metrics(x, y[:200])


@pytest.mark.parametrize("metric", [neighbour_metrics, kernel_jackknife, rbf_distance])
def test_progress_counts_every_tile_once_and_ends_at_the_total(monkeypatch: pytest.MonkeyPatch, metric: object) -> None:
    monkeypatch.setattr(tiles, "TILE", 25)
    seen: list[tuple[int, int]] = []
    metric(features(130, 1), features(80, 2), progress=lambda done, total: seen.append((done, total)))  # type: ignore[operator]
    # 130 samples in ten blocks of 13: ten tiles; 80 in one block: four
    total = 10 * 11 // 2 + 4 * 5 // 2 + 10 * 4
    assert seen == [(step, total) for step in range(1, total + 1)]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones((5, 3)), np.ones((9, 2)), "3 against 2 feature dimensions"),
        (np.ones((3, 2)), np.ones((9, 2)), "too few for k = 3 and 5"),
        (np.ones((9, 2)), np.ones((5, 2)), "too few for k = 3 and 5"),
        (np.full((9, 2), np.nan), np.ones((9, 2)), "NaN or infinity"),
        (np.ones(9), np.ones((9, 2)), r"shape \(n, d\)"),
    ],
)
def test_neighbour_metrics_refuse_bad_features(x: np.ndarray, y: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        neighbour_metrics(x, y)


# Kernel distances -------------------------------------------------------------------------------------


def mmd2(x: np.ndarray, y: np.ndarray, kernel: object) -> float:
    xx, yy, xy = (kernel(a, b) for a, b in ((x, x), (y, y), (x, y)))  # type: ignore[operator]
    n, m = len(x), len(y)
    within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within - 2 * xy.mean())


@pytest.mark.parametrize("metric", [kernel_jackknife, rbf_distance])
@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_intervals_cover_what_other_samples_give_against_the_same_reference(metric: object, shift: float) -> None:
    reference = features(60, 5)
    estimates = [metric(features(200, 100 + i, shift), reference).estimate for i in range(60)]  # type: ignore[operator]
    mean = np.mean([each.value for each in estimates])
    assert sum(each.low <= mean <= each.high for each in estimates) >= 54
    # and they are no wider than twice what is needed
    reach = np.mean([each.high - each.value for each in estimates])
    assert reach < 2 * 2.262 * np.std([each.value for each in estimates], ddof=1)


def test_published_kid_without_a_block_leaves_it_out_of_every_subset() -> None:
    x, y = features(107, 1, shift=0.3), features(80, 2)
    found = kernel_distance(x, y, subsets=4, subset_size=50)

    def cubic(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    rng = np.random.RandomState(2020)
    drawn = [(rng.choice(107, 50, replace=False), rng.choice(80, 50, replace=False)) for _ in range(4)]
    assert found.estimate.value == pytest.approx(np.mean([mmd2(x[i], y[j], cubic) for i, j in drawn]), rel=1e-10)
    for index, block in enumerate(np.array_split(np.arange(107), 10)):
        rest = np.mean([mmd2(x[np.setdiff1d(i, block)], y[j], cubic) for i, j in drawn])
        assert found.leave_one_out[index] == pytest.approx(rest, rel=1e-9)
    values = np.array(found.leave_one_out)
    reach = 2.2621571627982 * np.sqrt(0.9 * np.sum((values - values.mean()) ** 2))
    assert found.estimate.high == pytest.approx(found.estimate.value + reach, rel=1e-9)


def test_rbf_distance_agrees_with_torch_fidelity_at_the_same_bandwidth() -> None:
    ensure_torchvision_importable()
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = features(150, 1, shift=0.2) + 20, features(150, 2) + 20
    own = rbf_distance(x, y)
    oracle = kid_features_to_metric(
        torch.from_numpy(x),
        torch.from_numpy(y),
        kid_subsets=1,
        kid_subset_size=150,
        kid_kernel="rbf",
        kid_kernel_rbf_sigma=own.bandwidth,
        verbose=False,
    )
    assert own.estimate.value == pytest.approx(oracle["kernel_inception_distance_mean"], rel=1e-9)


def test_rbf_distance_without_a_block_equals_recomputing_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE", 6)
    x, y = features(83, 1, shift=0.3) - 7, features(60, 2) - 7
    found = rbf_distance(x, y)

    def gaussian(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.exp(-(cdist(a, b) ** 2) / (2 * found.bandwidth**2))

    assert found.estimate.value == pytest.approx(mmd2(x, y, gaussian), rel=1e-10)
    for index, block in enumerate(np.array_split(np.arange(83), 10)):
        expected = mmd2(np.delete(x, block, axis=0), y, gaussian)
        assert found.leave_one_out[index] == pytest.approx(expected, rel=1e-9)


def test_bandwidth_is_the_median_distance_and_that_of_evenly_spaced_samples_in_a_large_set() -> None:
    small = features(301, 3) + 5
    assert rbf_bandwidth(small) == pytest.approx(np.median(cdist(small, small)[np.triu_indices(301, 1)]), rel=1e-12)
    # a set sorted by class: its first samples alone would give the bandwidth of one class
    large = np.concatenate([features(BANDWIDTH_SAMPLES, seed, shift=10.0 * seed, dim=3) for seed in range(3)])
    evenly = large[np.linspace(0, len(large) - 1, BANDWIDTH_SAMPLES).astype(int)]
    distances = cdist(evenly, evenly)[np.triu_indices(BANDWIDTH_SAMPLES, 1)]
    assert rbf_bandwidth(large) == pytest.approx(np.median(distances), rel=1e-12)


def test_rbf_distance_does_not_change_with_the_scale_or_origin_of_the_features() -> None:
    x, y = features(120, 1, shift=0.2), features(110, 2)
    moved = rbf_distance(1000 * x + 3, 1000 * y + 3)
    assert moved.estimate.value == pytest.approx(rbf_distance(x, y).estimate.value, rel=1e-9)


def test_rbf_distance_sees_what_the_first_three_moments_do_not() -> None:
    rng = np.random.default_rng(0)
    normal, signs = rng.standard_normal((600, 1)), rng.choice([-1.0, 1.0], (600, 1))
    cubic, gaussian = kernel_jackknife(signs, normal).estimate, rbf_distance(signs, normal).estimate
    assert cubic.low is not None and cubic.high is not None and cubic.low < 0 < cubic.high
    assert gaussian.low is not None and gaussian.low > 0.01


def test_rbf_distance_refuses_a_reference_of_copies() -> None:
    with pytest.raises(ValueError, match="copies"):
        rbf_distance(features(30, 1), np.repeat(features(1, 2), 40, axis=0))


# Inception score --------------------------------------------------------------------------------------


def test_inception_score_interval_is_the_t_interval_over_its_splits() -> None:
    logits = 3 * features(103, 4)
    splits = [logits[i * 103 // 10 : (i + 1) * 103 // 10] for i in range(10)]
    scores = np.array([inception_score(split, splits=1).estimate.value for split in splits])
    found = inception_score(logits, splits=10)
    reach = 2.2621571627982 * scores.std(ddof=1) / np.sqrt(10)
    assert found.estimate.value == pytest.approx(scores.mean(), rel=1e-12)
    assert found.estimate.high == pytest.approx(scores.mean() + reach, rel=1e-9)
    np.testing.assert_allclose(found.leave_one_out, [np.delete(scores, i).mean() for i in range(10)], rtol=1e-12)


def test_inception_score_of_one_split_has_no_interval() -> None:
    found = inception_score(features(50, 1), splits=1)
    assert found.estimate.low is None and found.leave_one_out == ()
    assert found.estimate.method == "no interval: one split"

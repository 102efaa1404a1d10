"""Fréchet distance between two sets of features, each taken as a Gaussian.

Source: Dowson and Landau, Journal of Multivariate Analysis 12 (1982); Heusel et al. 2017 (FID), section 3:
    |mu_1 - mu_2|^2 + tr(S_1) + tr(S_2) - 2 tr((S_1^1/2 S_2 S_1^1/2)^1/2).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.quality.statistics import FeatureStatistics, as_features
from harness.stats.intervals import Estimate, jackknife_interval

Floats = NDArray[np.float64]


def frechet_distance(mu_1: ArrayLike, sigma_1: ArrayLike, mu_2: ArrayLike, sigma_2: ArrayLike) -> float:
    """The squared Fréchet distance (what is published as FID), at least 0, in squared feature units.

    mu: (d,) means; sigma: (d, d) symmetric covariances, of any rank. ValueError on other shapes, NaN or
    infinity, and on covariances that are clearly not symmetric or not positive semi-definite.
    """
    mean_1, covariance_1 = _gaussian(mu_1, sigma_1)
    mean_2, covariance_2 = _gaussian(mu_2, sigma_2)
    if mean_1.shape != mean_2.shape:
        raise ValueError(f"{len(mean_1)} against {len(mean_2)} feature dimensions")
    return _distance(mean_1, covariance_1, mean_2, covariance_2, _root(covariance_2))


def frechet_from_features(features: ArrayLike, reference: ArrayLike) -> float:
    """The Fréchet distance between (n, d) features and (m, d) reference features; n and m at least 2."""
    one = FeatureStatistics.of(features)
    two = FeatureStatistics.of(reference)
    return frechet_distance(one.mean, one.covariance, two.mean, two.covariance)


def frechet_jackknife(
    features: ArrayLike, reference_mu: ArrayLike, reference_sigma: ArrayLike, blocks: int = 10
) -> Estimate:
    """The Fréchet distance of (n, d) features to a fixed reference, with a 10-block jackknife interval.

    The blocks are contiguous, disjoint and equal to within one sample. Samples must be in no order that
    matters (by index, not sorted by class). One eigen-decomposition and one set of singular values a block:
    time grows as blocks x d^3, so it is quick at 64 dimensions and slow at 2048.

    What the interval is: how far the value would move if other samples were drawn from the same model, at
    the same n and against the same reference. It is conservative, because leaving samples out also moves
    the value by its bias. What it is not: it does not remove the finite-sample bias (the value is too high
    by about c/n), so values at different n are not compared through it, and it does not know of the
    reference's own sampling error. A naive bootstrap is worse: its duplicates add the bias a second time to
    value and interval.

    Without an interval (fewer than two samples a block) ``method`` says so. ValueError below two samples.
    """
    if blocks < 2:
        raise ValueError("a jackknife needs at least two blocks")
    array = as_features(features)
    total = FeatureStatistics.of(array)
    mu, sigma = _gaussian(reference_mu, reference_sigma)
    if len(mu) != total.dim:
        raise ValueError(f"{total.dim} feature dimensions against {len(mu)} of the reference")
    root = _root(sigma)
    full = _distance(total.mean, total.covariance, mu, sigma, root)
    if len(array) < 2 * blocks:
        return Estimate(full, None, None, f"no interval: {len(array)} samples are too few for {blocks} blocks")
    values = []
    for block in np.array_split(array, blocks):
        rest = total.without(FeatureStatistics.of(block))
        values.append(_distance(rest.mean, rest.covariance, mu, sigma, root))
    return jackknife_interval(full, values, lower=0.0)


def _distance(mu_1: Floats, sigma_1: Floats, mu_2: Floats, sigma_2: Floats, root_2: Floats) -> float:
    # tr((S_1^1/2 S_2 S_1^1/2)^1/2) is the nuclear norm of R_1^T R_2 for any R R^T = S. Singular values keep
    # the digits that square roots of the product's eigenvalues lose (1e-16 instead of 1e-8 of the largest).
    overlap = np.linalg.svd(_root(sigma_1).T @ root_2, compute_uv=False).sum()
    offset = mu_1 - mu_2
    value = offset @ offset + np.trace(sigma_1) + np.trace(sigma_2) - 2.0 * overlap
    return max(0.0, float(value))


def _root(sigma: Floats) -> Floats:
    """R of shape (d, rank) with R R^T = sigma; directions at rounding level are left out."""
    values, vectors = np.linalg.eigh(sigma)
    largest = float(np.abs(values).max())
    if values[0] < -1e-6 * largest:
        raise ValueError(f"a covariance has the negative eigenvalue {values[0]:.3g}")
    kept = values > len(values) * np.finfo(np.float64).eps * largest
    scaled: Floats = vectors[:, kept] * np.sqrt(values[kept])
    return scaled


def _gaussian(mu: ArrayLike, sigma: ArrayLike) -> tuple[Floats, Floats]:
    mean = np.asarray(mu, dtype=np.float64)
    covariance = np.asarray(sigma, dtype=np.float64)
    if mean.ndim != 1 or len(mean) == 0 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(f"mean {mean.shape} and covariance {covariance.shape} are not (d,) and (d, d)")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError("statistics contain NaN or infinity")
    if np.abs(covariance - covariance.T).max() > 1e-6 * np.abs(covariance).max():
        raise ValueError("a covariance is not symmetric")
    return mean, (covariance + covariance.T) / 2

"""Distributions of features with known mean and covariance: what the coverage study draws from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Rng = np.random.Generator
Draw = Callable[[Rng, int], Floats]

MANY = 10_000_000  # draws where moments have no closed form
CHUNK = 100_000


@dataclass(frozen=True)
class Law:
    """mean (d,) and covariance (d, d) of the features that ``draw(rng, n)`` gives as (n, d)."""

    mean: Floats
    covariance: Floats
    draw: Draw


def flat(dim: int) -> Floats:
    """(d, d) covariance with equal variances."""
    return np.eye(dim)


def decaying(dim: int) -> Floats:
    """(d, d) covariance with the variances 1, 1/2, 1/3, ..., as learned features have them in kind."""
    return np.diag(1.0 / np.arange(1, dim + 1))


def moved(covariance: Floats, mean: float = 0.0, scale: float = 0.0, turn: float = 0.0) -> tuple[Floats, Floats]:
    """Mean and covariance of a model at some distance from a reference at 0 with the diagonal ``covariance``.

    mean: length of the shift in standard deviations, spread over all dimensions. scale: standard deviations times
    1 + scale and 1 - scale in turn. turn: angle in radians by which neighbouring dimensions are rotated.
    """
    deviation = np.sqrt(np.diag(covariance))
    dim = len(deviation)
    scaled = deviation * (1 + scale * (-1.0) ** np.arange(dim))
    rotation = np.eye(dim)
    for first in range(0, dim - 1, 2):
        rotation[first : first + 2, first : first + 2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    return mean * deviation / np.sqrt(dim), rotation * scaled**2 @ rotation.T


def gaussian(mean: Floats, covariance: Floats) -> Law:
    """The normal law."""
    return _shaped(mean, covariance, lambda rng, n: rng.standard_normal((n, len(mean))))


def student(mean: Floats, covariance: Floats, freedom: int = 5) -> Law:
    """The multivariate t law with a common radius: heavy tails in all dimensions at once."""

    def standard(rng: Rng, n: int) -> Floats:
        radius = np.sqrt((freedom - 2) / rng.chisquare(freedom, (n, 1)))
        return rng.standard_normal((n, len(mean))) * radius

    return _shaped(mean, covariance, standard)


def lognormal(mean: Floats, covariance: Floats, sigma: float = 0.8) -> Law:
    """Independent log-normal features before mixing: skewed, with heavy upper tails."""
    centre, square = np.exp(sigma**2 / 2), np.exp(sigma**2)

    def standard(rng: Rng, n: int) -> Floats:
        drawn = np.exp(sigma * rng.standard_normal((n, len(mean))))
        shifted: Floats = (drawn - centre) / np.sqrt((square - 1) * square)
        return shifted

    return _shaped(mean, covariance, standard)


def mixture(weights: ArrayLike, means: Floats, deviations: Floats) -> Law:
    """A mixture of normal laws with diagonal covariances; its mean and covariance are closed forms.

    weights (k,), means (k, d), deviations (k, d).
    """
    share = np.asarray(weights, dtype=np.float64)
    mean = share @ means
    away = means - mean
    covariance = (share[:, None] * away).T @ away + np.diag(share @ deviations**2)

    def draw(rng: Rng, n: int) -> Floats:
        which = rng.choice(len(share), size=n, p=share)
        return means[which] + rng.standard_normal((n, len(mean))) * deviations[which]

    return Law(mean, covariance, draw)


def clusters(dim: int, count: int, seed: int, apart: float = 1.5) -> tuple[Floats, Floats, Floats]:
    """Weights, means and deviations of ``count`` clusters on top of decaying variances."""
    rng = np.random.default_rng(seed)
    deviation = np.sqrt(np.diag(decaying(dim)))
    means = apart * rng.standard_normal((count, dim)) * deviation
    return rng.dirichlet(np.full(count, 5.0)), means, deviation * np.exp(0.3 * rng.standard_normal((count, dim)))


def rectified(law: Law, mixing: Floats, draws: int = MANY) -> Law:
    """max(0, x A) of another law's features x, as the last layer of a network; moments from ``draws`` draws."""

    def draw(rng: Rng, n: int) -> Floats:
        return np.maximum(0.0, law.draw(rng, n) @ mixing)

    rng = np.random.default_rng(20_26)
    total, outer, origin = np.zeros(mixing.shape[1]), np.zeros((mixing.shape[1],) * 2), draw(rng, CHUNK).mean(axis=0)
    for _ in range(draws // CHUNK):
        drawn = draw(rng, CHUNK) - origin
        total += drawn.sum(axis=0)
        outer += drawn.T @ drawn
    count = draws // CHUNK * CHUNK
    mean = total / count
    return Law(origin + mean, outer / count - np.outer(mean, mean), draw)


def atoms(features: Floats, weights: Floats) -> Law:
    """Rows of (n, d) features drawn with replacement, each in proportion to its weight; moments are the rows' own."""
    share = weights / weights.sum()
    mean = share @ features
    away = features - mean
    return Law(mean, (share[:, None] * away).T @ away, lambda rng, n: features[rng.choice(len(share), n, p=share)])


def _shaped(mean: Floats, covariance: Floats, standard: Draw) -> Law:
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(values) @ vectors.T
    return Law(mean, covariance, lambda rng, n: mean + standard(rng, n) @ root)

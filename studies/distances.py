"""Scenarios of the Fréchet distance: known moments, the distance between them, and intervals around its estimates."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ditbench.harness.quality.frechet import FrechetResult, frechet_distance, frechet_of_blocks, frechet_of_seeds
from ditbench.harness.quality.statistics import FeatureStatistics
from ditbench.harness.stats.intervals import Estimate
from studies import laws
from studies.laws import Law
from studies.scenario import Rng, Scenario

BLOCKS = 10


def distance(
    name: str, make: Callable[[], Law], reference: laws.Floats, n: int, repetitions: int = 1, seeds: int = 0
) -> Scenario:
    """The limit from one set of n samples in ten blocks, or from ``seeds`` sets; reference: covariance at mean 0."""
    law = cache(make)
    origin = np.zeros(len(reference))

    def one(rng: Rng) -> FrechetResult:
        return _in_blocks(law().draw(rng, n), reference)

    def estimate(rng: Rng) -> Estimate:
        return frechet_of_seeds([one(rng) for _ in range(seeds)])[1] if seeds else one(rng).infinity

    def truth() -> float:
        return frechet_distance(law().mean, law().covariance, origin, reference)

    return Scenario(f"{name}, {len(reference)}-d, n = {n}", truth, estimate, repetitions)


def at_own_count(name: str, law: Law, reference: laws.Floats, n: int) -> Scenario:
    """The plain distance of n samples; its truth is its expectation at n, from 4000 sets."""

    def truth() -> float:
        rng = np.random.default_rng(20_27)
        sets = (FeatureStatistics.of(law.draw(rng, n)) for _ in range(4000))
        origin = np.zeros(len(reference))
        return float(np.mean([frechet_distance(each.mean, each.covariance, origin, reference) for each in sets]))

    def estimate(rng: Rng) -> Estimate:
        return _in_blocks(law.draw(rng, n), reference).frechet

    return Scenario(f"{name}, {len(reference)}-d, n = {n}", truth, estimate, repetitions=5)


def _in_blocks(features: laws.Floats, reference: laws.Floats) -> FrechetResult:
    blocks = [FeatureStatistics.of(part) for part in np.array_split(features, BLOCKS)]
    return frechet_of_blocks(blocks, np.zeros(len(reference)), reference)


def distances() -> list[Scenario]:
    """One set of samples, ten blocks."""
    flat, decaying = laws.flat, laws.decaying

    def normal(
        name: str, base: Callable[[int], laws.Floats], dim: int, n: int, many: int = 1, **move: float
    ) -> Scenario:
        kind = "equal variances" if base is flat else "decaying variances"
        return distance(f"{name}, {kind}", lambda: laws.gaussian(*laws.moved(base(dim), **move)), base(dim), n, many)

    def of(name: str, law: Callable[..., Law], dim: int, n: int, **move: float) -> Scenario:
        return distance(name, lambda: law(*laws.moved(decaying(dim), **move)), decaying(dim), n)

    return [
        normal("mean, small", flat, 16, 1000, mean=0.25),
        normal("mean, medium", flat, 16, 1000, mean=0.5),
        normal("mean, large", flat, 16, 1000, mean=2.0),
        normal("covariance, small", decaying, 16, 1000, scale=0.07),
        normal("covariance, medium", decaying, 16, 1000, scale=0.15),
        normal("covariance, large", decaying, 16, 1000, scale=0.5),
        normal("mean, medium", flat, 64, 2000, mean=0.5),
        normal("covariance, small", flat, 64, 2000, scale=0.05),
        normal("covariance, large", flat, 64, 2000, scale=0.3),
        normal("covariance, medium", flat, 64, 5000, scale=0.1),
        normal("mean, medium", decaying, 64, 1000, mean=0.5),
        normal("covariance, medium", decaying, 64, 1000, scale=0.1),
        normal("rotation, medium", decaying, 64, 2000, turn=0.4),
        normal("mean and covariance", decaying, 64, 5000, mean=0.3, scale=0.1),
        normal("mean and covariance", decaying, 128, 3000, mean=0.3, scale=0.1),
        mixed("mixture of 5", 16, 1000, 5),
        mixed("mixture of 10", 64, 2000, 10),
        rectified("rectified mixture, truth from ten million draws", 16, 2000),
        real_features("class shares, near", 1000, 0.6),
        real_features("class shares, far", 1000, 0.15),
        real_features("class shares, far", 300, 0.15),
        of("heavy tails (t, 5 degrees), mean", laws.student, 16, 1000, mean=0.5),
        of("heavy tails (t, 5 degrees), covariance", laws.student, 64, 2000, scale=0.15),
        of("skewed (log-normal), mean and covariance", laws.lognormal, 16, 1000, mean=0.5, scale=0.1),
        normal("few samples, mean", flat, 64, 100, mean=1.0),
        normal("few samples, mean", flat, 64, 300, mean=1.0),
        normal("few samples, mean", flat, 32, 160, many=5, mean=1.0),
        normal("few samples, covariance", decaying, 64, 300, scale=0.3),
        normal("null", flat, 16, 1000, many=10),
        normal("null", decaying, 16, 1000, many=10),
        normal("null", decaying, 64, 1000, many=5),
        real_features("null", 1000, 1.0, repetitions=5),
        normal("one standard error from null", flat, 16, 1000, many=5, mean=0.115),
        normal("two standard errors from null", flat, 16, 1000, many=5, mean=0.17),
        normal("one standard error from null", decaying, 16, 1000, many=5, scale=0.033),
        normal("two standard errors from null", decaying, 16, 1000, many=5, scale=0.048),
    ]


def seed_blocks() -> list[Scenario]:
    """Independent sets of samples, Student's t over them."""

    def sets(name: str, seeds: int, dim: int, n: int, many: int = 1, **move: float) -> Scenario:
        base = laws.decaying(dim)
        return distance(
            f"{seeds} seeds, {name}", lambda: laws.gaussian(*laws.moved(base, **move)), base, n, many, seeds
        )

    return [
        sets("mean", 3, 16, 500, mean=0.5),
        sets("covariance", 5, 16, 500, scale=0.15),
        sets("mean and covariance", 5, 32, 1000, mean=0.3, scale=0.1),
        sets("covariance", 10, 16, 500, scale=0.15),
        sets("few samples", 5, 32, 80, scale=0.1),
        sets("null", 3, 16, 500, many=5),
        sets("null", 5, 16, 500, many=5),
        sets("one standard error from null", 5, 16, 500, many=5, scale=0.031),
        sets("two sets", 2, 16, 500, mean=0.5),
    ]


def own_counts() -> list[Scenario]:
    """The plain distance, away from null."""
    flat, decaying = laws.flat(16), laws.decaying(16)
    return [
        at_own_count("mean, equal variances", laws.gaussian(*laws.moved(flat, mean=0.5)), flat, 1000),
        at_own_count(
            "covariance, decaying variances", laws.gaussian(*laws.moved(decaying, scale=0.15)), decaying, 1000
        ),
    ]


@cache
def _digits() -> tuple[laws.Floats, NDArray[np.int64]]:
    """(1797, 64) centred features that the shipped classifier has of scikit-learn's digits, and their classes."""
    import torch  # not needed to list the scenarios
    from sklearn.datasets import load_digits

    from ditbench.harness.quality.extractors.digits import DigitExtractor
    from ditbench.harness.sample.quantise import quantise

    data = load_digits()
    images = quantise(data.images[:, None] / 8.0 - 1.0)
    features = DigitExtractor()(torch.from_numpy(images.transpose(0, 2, 3, 1).copy()))["features"].numpy()
    return features - features.mean(axis=0, dtype=np.float64), data.target


def real_features(name: str, n: int, rarer: float, repetitions: int = 1) -> Scenario:
    """Features of the shipped extractor: digits below five are drawn ``rarer`` times as often as the others."""

    @cache
    def moments() -> tuple[Law, laws.Floats]:
        features, classes = _digits()
        law = laws.atoms(features, np.where(classes < 5, rarer, 1.0))
        return law, laws.atoms(features, np.ones(len(features))).covariance

    def truth() -> float:
        law, reference = moments()
        return frechet_distance(law.mean, law.covariance, np.zeros(64), reference)

    def estimate(rng: Rng) -> Estimate:
        law, reference = moments()
        return _in_blocks(law.draw(rng, n), reference).infinity

    return Scenario(f"digits as the shipped classifier sees them, {name}, 64-d, n = {n}", truth, estimate, repetitions)


def mixed(name: str, dim: int, n: int, count: int) -> Scenario:
    """A mixture against the moments of the same clusters in other shares."""
    weights, means, deviations = laws.clusters(dim, count, seed=7)
    centred = means - weights @ means
    reference = laws.mixture(weights, centred, deviations)
    others = 0.5 * weights + 0.5 * np.random.default_rng(8).dirichlet(np.full(count, 5.0))
    return distance(name, lambda: laws.mixture(others, centred, deviations), reference.covariance, n)


def rectified(name: str, dim: int, n: int) -> Scenario:
    """A rectified mixture, moved so that its mean lies near the reference's."""
    weights, means, deviations = laws.clusters(dim, 5, seed=9)
    mixing = np.random.default_rng(10).standard_normal((dim, dim)) / np.sqrt(dim)

    def make() -> Law:
        law = laws.rectified(laws.mixture(weights, means, deviations), mixing)
        near = law.mean * 0.8
        return Law(law.mean - near, law.covariance, lambda rng, n: law.draw(rng, n) - near)

    return distance(name, make, 0.2 * laws.flat(dim), n)


def limits() -> list[Scenario]:
    """Where the intervals are known not to hold as they say, or hardly."""
    flat, decaying = laws.flat(16), laws.decaying(16)
    heavy = laws.student(np.zeros(16), decaying)
    return [
        distance("limit at null, heavy tails (t, 5 degrees)", lambda: heavy, decaying, 200, repetitions=10),
        at_own_count("plain distance at null", laws.gaussian(np.zeros(16), flat), flat, 1000),
    ]

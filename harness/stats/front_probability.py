"""How sure a point's place on the Pareto front is, when its coordinates were measured with error.

A coordinate's error is a sum of independent standard normal numbers z_i, each times one of its ``deviations``.
Coordinates of the same ``source`` share the z_i: cells that were sampled from the same seeds keep their covariance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
_Key = tuple[int, str]

DRAWS = 4000  # the standard error of a probability is then at most 0.8 %


@dataclass(frozen=True)
class Uncertain:
    """A coordinate: value + scale * sum z_i deviations_i, or value * exp of that sum where ``log``.

    deviations  one number a z_i; its standard error is the root of their sum of squares. Empty: exact
    source      coordinates of one source share z_i and scale; None: an error of its own
    freedom     degrees of freedom of the standard error: scale = sqrt(freedom / chi^2), so that the error is Student's
                t; None: scale = 1

    ValueError if a number is not finite, or if ``log`` and the value is not positive.
    """

    value: float
    deviations: tuple[float, ...] = ()
    source: str | None = None
    freedom: int | None = None
    log: bool = False

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.value, *self.deviations))):
            raise ValueError(f"{self.value} with deviations {self.deviations} is not finite")
        if self.log and self.value <= 0:
            raise ValueError(f"{self.value} has no logarithm")
        if self.freedom is not None and self.freedom < 1:
            raise ValueError(f"{self.freedom} degrees of freedom")

    @property
    def exact(self) -> bool:
        """Whether no draw can differ from the value."""
        return not any(self.deviations)


@dataclass(frozen=True)
class UncertainPoint:
    """A named point; lower is better on both axes."""

    name: str
    x: Uncertain
    y: Uncertain


def of_leave_one_out(full: float, leave_one_out: ArrayLike, source: str) -> Uncertain:
    """``full`` with the error of a jackknife over b >= 2 blocks; ``source`` names the blocks.

    leave_one_out: (b,) values with one block left out each. The deviations are (p_i - mean p) / sqrt(b (b - 1)) of the
    pseudo-values p_i = b full - (b - 1) leave_one_out_i; the standard error is that of ``jackknife_interval``. The bias
    is not removed. Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 11.
    """
    values = _series(leave_one_out)
    pseudo = len(values) * full - (len(values) - 1) * values
    return Uncertain(full, _deviations(pseudo), source, freedom=len(values) - 1)


def of_repeats(values: ArrayLike, source: str) -> Uncertain:
    """The mean of (n,) independent repeats, n >= 2, with its standard error; ``source`` names the set of repeats.

    Repeat i of two coordinates of one source must belong together (the same seed), else the source must differ.
    """
    series = _series(values)
    return Uncertain(float(series.mean()), _deviations(series), source, freedom=len(series) - 1)


def of_interval(
    value: float,
    low: float | None,
    high: float | None,
    source: str | None = None,
    log: bool = False,
    confidence: float = 0.95,
) -> Uncertain:
    """A normal error whose ``confidence`` interval is as wide as [low, high]; exact without both ends.

    How the interval was made is not asked: the tails of Student's t are lost, its ends are kept. The error is
    symmetric, with half the interval's width (``log``: of its logarithm). Without ``log`` the longer side counts:
    the other end may have been cut to the range of the figure.
    """
    if low is None or high is None:
        return Uncertain(value, log=log)
    if low > high or (log and low <= 0):
        raise ValueError(f"[{low}, {high}] is not an interval" + (" of positive numbers" if log else ""))
    half = math.log(high / low) / 2 if log else max(value - low, high - value)
    return Uncertain(value, (half / NormalDist().inv_cdf(0.5 + confidence / 2),), source, log=log)


def front_probability(points: Sequence[UncertainPoint], draws: int = DRAWS, seed: int = 0) -> dict[str, float]:
    """name -> share of draws in which no other point dominates it, in [0, 1], as ``pareto.dominates`` says.

    What it is: a parametric bootstrap around the measured values. Of two points of one cost it is one minus the
    one-sided p value of the (paired) test of their difference: 50 % where they are equal, not 100 %. Where the true
    differences are three times the errors and more, as many of the points with 70 % are truly on the front (simulated).

    What it is not: the chance that another run finds the point on its front. And where the true differences are not
    larger than the errors:
      * luck is believed, because the draws are centred on the measured values: high probabilities are too high and low
        ones too low. Of points with 88 %, 77 % are true members at differences as large as the errors, 55 % at a third.
      * of points that each truly trade a little more cost for a little better quality, all are members, but in every
        draw some fall behind a cheaper one by chance: their probabilities are too low (two thirds on average for steps
        of one error).

    With b shared blocks all errors together have b - 1 dimensions. Pairs are drawn rightly; for 30 points of 10 blocks
    no harm was seen in simulation. An error common to all points (the reference's) moves none past another: it belongs
    in no deviation.

    ``seed`` fixes the result; the order of ``points`` does not matter. ValueError: two points of one name, or a source
    whose coordinates have different numbers of deviations or degrees of freedom.
    """
    if draws < 1:
        raise ValueError(f"{draws} draws")
    names = [point.name for point in points]
    if len(set(names)) < len(names):
        raise ValueError(f"two points have the name {next(name for name in names if names.count(name) > 1)!r}")
    if not points:
        return {}
    xs = [(_key(point.x, point.name, "x"), point.x) for point in points]
    ys = [(_key(point.y, point.name, "y"), point.y) for point in points]
    errors = _errors([*xs, *ys], draws, np.random.default_rng(seed))
    x, y = (np.stack([_drawn(each, errors[key]) for key, each in axis], axis=1) for axis in (xs, ys))
    shares = _members(x, y).mean(axis=0)
    return {name: float(share) for name, share in zip(names, shares, strict=True)}


def _key(coordinate: Uncertain, name: str, axis: str) -> _Key:
    return (0, coordinate.source) if coordinate.source is not None else (1, f"{axis} {name}")


def _errors(coordinates: Sequence[tuple[_Key, Uncertain]], draws: int, rng: np.random.Generator) -> dict[_Key, Floats]:
    """Source -> scale * z, (draws, deviations). Drawn in the order of names, so that the order of points is free."""
    shapes: dict[_Key, tuple[int, int | None]] = {}
    for key, each in coordinates:
        shape = (len(each.deviations), each.freedom)
        if shapes.setdefault(key, shape) != shape:
            raise ValueError(f"source {key[1]!r} has coordinates of {shapes[key]} and {shape} (deviations, freedom)")
    drawn = {}
    for key in sorted(shapes):
        count, freedom = shapes[key]
        drawn[key] = rng.standard_normal((draws, count))
        if freedom is not None:
            drawn[key] *= np.sqrt(freedom / rng.chisquare(freedom, (draws, 1)))
    return drawn


def _drawn(coordinate: Uncertain, errors: Floats) -> Floats:
    moved = errors @ np.array(coordinate.deviations, dtype=np.float64)
    return coordinate.value * np.exp(moved) if coordinate.log else coordinate.value + moved


def _members(x: Floats, y: Floats) -> NDArray[np.bool_]:
    """Which points of each draw nobody dominates; x, y and result (draws, points)."""
    order = np.lexsort((y, x), axis=-1)
    x, y = np.take_along_axis(x, order, axis=-1), np.take_along_axis(y, order, axis=-1)
    # Whatever dominates a point is sorted before it, and does so by its y alone.
    kept = np.ones(x.shape, dtype=np.bool_)
    best = y[:, 0].copy()
    for place in range(1, x.shape[1]):
        twin = (x[:, place] == x[:, place - 1]) & (y[:, place] == y[:, place - 1])
        kept[:, place] = np.where(twin, kept[:, place - 1], y[:, place] < best)
        np.minimum(best, y[:, place], out=best)
    members = np.empty_like(kept)
    np.put_along_axis(members, order, kept, axis=-1)
    return members


def _deviations(values: Floats) -> tuple[float, ...]:
    count = len(values)
    return tuple(((values - values.mean()) / math.sqrt(count * (count - 1))).tolist())


def _series(values: ArrayLike) -> Floats:
    series = np.asarray(values, dtype=np.float64)
    if series.ndim != 1 or len(series) < 2:
        raise ValueError("an error needs a series of at least two values")
    return series

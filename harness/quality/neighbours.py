"""Precision, recall, density and coverage: who lies inside whose k-nearest-neighbour balls.

Sources: Kynkäänniemi et al. 2019, Improved Precision and Recall Metric, section 2 (k = 3); Naeem et al. 2020, Reliable
Fidelity and Diversity Metrics, section 3 (k = 5).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ditbench.harness.quality.tiles import Progress, Rows, Tile, counter, pairs, squared_distances
from ditbench.harness.stats.intervals import Estimate, jackknife_interval

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class NeighbourMetrics:
    """What the balls say of generated samples.

    precision      share of generated samples inside any real ball, 0 to 1
    recall         share of real samples inside any generated ball, 0 to 1
    density        real balls around a generated sample, divided by their k, mean: at least 0, can exceed 1
    coverage       share of real balls with a generated sample inside, 0 to 1
    leave_one_out  by those names: the value without each block of generated samples; empty where there is no interval
    """

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate
    leave_one_out: dict[str, tuple[float, ...]]


def neighbour_metrics(
    features: ArrayLike,
    reference: ArrayLike,
    *,
    k: int = 3,
    density_k: int = 5,
    blocks: int = 10,
    device: str = "cpu",
    progress: Progress | None = None,
) -> NeighbourMetrics:
    """Neighbour metrics of (n, d) generated features against (m, d) reference features.

    A ball reaches from its sample to that sample's k-th nearest neighbour in its own set, the sample itself not
    counted; its border belongs to it. Precision and recall use ``k``, density and coverage ``density_k``. All four
    depend on n and m: compare them at equal counts only.

    The intervals leave out one contiguous block of generated samples at a time, with new balls around the rest, and
    hold the reference fixed. Features stay as they are; distances are float64 and come in tiles, so memory beside the
    inputs is about 0.5 GB at d = 2048 whatever n and m. Time grows as (n^2/2 + nm + m^2/2) d. ``progress`` gets
    (tiles done, all tiles). ValueError unless n is above k and m above both.
    """
    x, y = Rows(features, device), Rows(reference, device)
    if x.dim != y.dim:
        raise ValueError(f"{x.dim} against {y.dim} feature dimensions")
    if min(k, density_k) < 1 or blocks < 2:
        raise ValueError("k must be at least 1, and a jackknife needs two blocks")
    if len(x) <= k or len(y) <= max(k, density_k):
        raise ValueError(f"{len(x)} and {len(y)} samples are too few for k = {k} and {density_k}")
    centre = y.mean()
    x, y = x.about(centre), y.about(centre)
    enough = len(x) >= 2 * blocks and len(x) - -(-len(x) // blocks) > k
    parts, whole = x.blocks(blocks if enough else 1), y.blocks(1)
    tick = counter(pairs(parts) + pairs(whole) + pairs(parts, whole), progress)
    # Equal distances must compare equal though they were rounded in different products: twice a distance's error bound.
    largest = max(float(x.norms.max()), float(y.norms.max()))
    slack = 4 * (x.dim + 2) * np.finfo(np.float64).eps * largest
    nearest = _nearest(y, whole, max(k, density_k) + 1, tick).flatten(1)
    balls = _Balls(
        generated=_radii_without(_nearest(x, parts, k + 1, tick), parts, k) + slack,
        real=_kth(nearest, k) + slack,
        dense=_kth(nearest, density_k) + slack,
    )
    values = _values(_inside(x, parts, y, whole, balls, tick), parts, density_k)
    estimates = {name: _estimate(name, series, len(x), blocks) for name, series in values.items()}
    rest = {name: tuple(series[1:].tolist()) for name, series in values.items()}
    return NeighbourMetrics(**estimates, leave_one_out=rest)


@dataclass(frozen=True)
class _Balls:
    """Squared radii; generated: (n, 1 + parts), of all samples and without each part."""

    generated: Tensor
    real: Tensor
    dense: Tensor


@dataclass(frozen=True)
class _Inside:
    """Who lies inside what; parts are blocks of generated samples.

    precise  (n,) the generated sample in any real ball; dense (n,): in how many
    recalled (m, 1 + parts) the real sample in any generated ball, without each part
    covered  (m, parts) a generated sample of the part in the real ball
    """

    precise: Bools
    dense: Floats
    recalled: Bools
    covered: Bools


def _nearest(x: Rows, parts: list[slice], count: int, tick: Callable[[], None]) -> Tensor:
    """(n, parts, count) squared distances to the nearest samples of each part; the sample itself is at -infinity.

    Infinity where a part has fewer.
    """
    found = torch.full((len(x), len(parts), count), math.inf, dtype=torch.float64, device=x.norms.device)

    def offer(rows: Tile, part: int, squared: Tensor) -> None:
        best = squared.topk(min(count, squared.shape[1]), dim=1, largest=False).values
        both = torch.cat([found[rows.rows, part], best], dim=1)
        found[rows.rows, part] = both.topk(count, dim=1, largest=False).values

    for down, across, squared in squared_distances(x, parts, x, parts, tick):
        if down == across:
            squared.fill_diagonal_(-math.inf)
        else:
            offer(across, down.block, squared.T)
        offer(down, across.block, squared)
    return found


def _kth(nearest: Tensor, k: int) -> Tensor:
    # the sample itself is the first
    return nearest.kthvalue(k + 1, dim=1).values


def _radii_without(nearest: Tensor, parts: list[slice], k: int) -> Tensor:
    """(n, 1 + parts) squared radii among all samples, then without each part; -infinity in the part: no ball."""
    columns = [_kth(nearest.flatten(1), k)]
    for index, part in enumerate(parts if len(parts) > 1 else []):
        others = torch.cat([nearest[:, :index], nearest[:, index + 1 :]], dim=1)
        columns.append(_kth(others.flatten(1), k))
        columns[-1][part] = -math.inf
    return torch.stack(columns, dim=1)


def _inside(
    x: Rows, parts: list[slice], y: Rows, whole: list[slice], balls: _Balls, tick: Callable[[], None]
) -> _Inside:
    device = x.norms.device
    precise = torch.zeros(len(x), dtype=torch.bool, device=device)
    dense = torch.zeros(len(x), dtype=torch.int64, device=device)
    recalled = torch.zeros((len(y), balls.generated.shape[1]), dtype=torch.bool, device=device)
    covered = torch.zeros((len(y), len(parts)), dtype=torch.bool, device=device)
    for down, across, squared in squared_distances(x, parts, y, whole, tick):
        precise[down.rows] |= (squared <= balls.real[across.rows]).any(dim=1)
        near = squared <= balls.dense[across.rows]
        dense[down.rows] += near.sum(dim=1)
        covered[across.rows, down.block] |= near.any(dim=0)
        for column in range(recalled.shape[1]):
            recalled[across.rows, column] |= (squared <= balls.generated[down.rows, column, None]).any(dim=0)
    return _Inside(
        precise.cpu().numpy(), dense.cpu().numpy().astype(np.float64), recalled.cpu().numpy(), covered.cpu().numpy()
    )


def _values(inside: _Inside, parts: list[slice], density_k: int) -> dict[str, Floats]:
    """Each metric of all samples, then without each part (where there is more than one)."""
    indices = range(len(parts)) if len(parts) > 1 else range(0)
    density = inside.dense / density_k
    covered = [inside.covered, *(np.delete(inside.covered, index, axis=1) for index in indices)]
    return {
        "precision": _means_without(inside.precise, parts),
        "recall": inside.recalled.mean(axis=0),
        "density": _means_without(density, parts),
        "coverage": np.array([some.any(axis=1).mean() for some in covered]),
    }


def _means_without(values: Bools | Floats, parts: list[slice]) -> Floats:
    rest = [np.delete(values, part).mean() for part in parts] if len(parts) > 1 else []
    return np.array([values.mean(), *rest])


def _estimate(name: str, values: Floats, n: int, blocks: int) -> Estimate:
    full = float(values[0])
    if len(values) == 1:
        return Estimate(full, None, None, f"no interval: {n} samples are too few for {blocks} blocks")
    return jackknife_interval(full, values[1:], lower=0.0, upper=math.inf if name == "density" else 1.0)

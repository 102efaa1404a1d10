"""Kernel distances: unbiased squared MMD with the cubic kernel of KID and with a Gaussian kernel.

Sources: Gretton et al. 2012, A Kernel Two-Sample Test, eq. 3 (the estimator); Bińkowski et al. 2018, Demystifying MMD
GANs, section 4 (KID); Jayasumana et al. 2024, Rethinking FID, section 4 (CMMD).

At no difference the estimate scatters around 0 and is negative about half the time: an interval with 0 inside means "no
difference seen". All intervals hold the reference fixed: they are for comparing runs against one reference. Simulated,
they cover 95 to 99 % of the time what other samples give against the same reference, also at no difference. They do not
know how far the reference is from its own source: with five times as many generated samples as real ones they miss the
distance to that source in a fifth to a third of the cases, so an interval just above 0 does not prove a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ditbench.harness.quality.tiles import Progress, Rows, Tile, counter, pairs, products, squared_distances
from ditbench.harness.stats.intervals import Estimate, jackknife_interval

Floats = NDArray[np.float64]
Source = Callable[
    [Rows, list[slice], Rows, list[slice], Callable[[], None]],
    Iterator[tuple[Tile, Tile, Tensor]],
]
SUBSET_SEED = 2020  # torch-fidelity's; the same seed draws the same subsets
BANDWIDTH_SAMPLES = 2000


@dataclass(frozen=True)
class KernelDistance:
    """An estimate in kernel units; leave_one_out: the value without each block of generated samples, or empty."""

    estimate: Estimate
    leave_one_out: tuple[float, ...]


@dataclass(frozen=True)
class SubsetKernelDistance(KernelDistance):
    """KID as published: the mean over subsets. subset_std is no standard error: subsets are small and overlap."""

    subset_std: float
    subsets: int
    subset_size: int


@dataclass(frozen=True)
class RbfDistance(KernelDistance):
    """bandwidth: the kernel's sigma, in feature units."""

    bandwidth: float


def kernel_distance(
    features: ArrayLike,
    reference: ArrayLike,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = SUBSET_SEED,
    blocks: int = 10,
    device: str = "cpu",
    progress: Progress | None = None,
) -> SubsetKernelDistance:
    """KID between (n, d) features and (m, d) reference features: the mean unbiased MMD of random subsets.

    k(x, y) = (x.y/d + 1)^3. Subsets are drawn as torch-fidelity draws them: from one RandomState(seed), without
    replacement, features first. The interval belongs to the mean: it leaves one contiguous block of ``features`` at a
    time out of every subset and holds the reference and the draws fixed. Time grows as subsets x subset_size^2 x d.
    ``progress`` gets (subsets done, all). ValueError if a subset is larger than a set or smaller than 2.
    """
    x, y = _rows(features, reference, device)
    if subsets < 1 or blocks < 2:
        raise ValueError("KID needs at least one subset and two blocks")
    if not 2 <= subset_size <= min(len(x), len(y)):
        raise ValueError(f"a KID subset of {subset_size} does not fit {len(x)} and {len(y)} samples (2 is the least)")
    rng = np.random.RandomState(seed)
    starts = [part.start for part in x.blocks(blocks)]
    tick = counter(subsets, progress)
    every = np.empty((subsets, 1 + blocks))
    for index in range(subsets):
        # sorted for the reads; the order inside a subset does not matter
        chosen = np.sort(rng.choice(len(x), subset_size, replace=False))
        drawn = x.take(chosen)
        real = y.take(np.sort(rng.choice(len(y), subset_size, replace=False)))
        block = torch.from_numpy(np.searchsorted(starts, chosen, side="right") - 1).to(drawn.device)
        one_hot = torch.nn.functional.one_hot(block, blocks).to(torch.float64)
        sums = _Sums(
            sizes=_numpy(one_hot.sum(dim=0)),
            within=_numpy(one_hot.T @ _cubic(drawn @ drawn.T, x.dim).fill_diagonal_(0.0) @ one_hot),
            between=_numpy(one_hot.T @ _cubic(drawn @ real.T, x.dim).sum(dim=1)),
            reference=float(_cubic(real @ real.T, x.dim).fill_diagonal_(0.0).sum()),
            reference_size=subset_size,
        )
        every[index] = sums.distances()
        tick()
    means = every.mean(axis=0)
    # what a block leaves of a small subset can be too little for a distance
    enough = len(x) >= 2 * blocks and bool(np.isfinite(means).all())
    estimate, rest = _interval(means if enough else means[:1], len(x), blocks)
    return SubsetKernelDistance(estimate, rest, float(every[:, 0].std()), subsets, subset_size)


def kernel_jackknife(
    features: ArrayLike,
    reference: ArrayLike,
    *,
    blocks: int = 10,
    device: str = "cpu",
    progress: Progress | None = None,
) -> KernelDistance:
    """Unbiased squared MMD of all samples with KID's kernel, (n, d) features against (m, d) of the reference.

    The interval leaves out one contiguous block of ``features`` at a time and holds the reference fixed: it says what
    other samples of the same model would give against this reference. Time grows as (n^2/2 + nm + m^2/2) d, memory
    beside the inputs is about 0.5 GB at d = 2048. ``progress`` gets (tiles done, all tiles). ValueError below two
    samples a set.
    """
    x, y = _rows(features, reference, device)
    return KernelDistance(*_of_all(x, y, products, partial(_cubic, dim=x.dim), blocks, progress))


def rbf_distance(
    features: ArrayLike,
    reference: ArrayLike,
    *,
    blocks: int = 10,
    device: str = "cpu",
    progress: Progress | None = None,
) -> RbfDistance:
    """Unbiased squared MMD of all samples with the kernel exp(-|x - y|^2 / (2 sigma^2)), sigma = ``rbf_bandwidth``.

    Shapes, interval, time, memory and errors as ``kernel_jackknife``. The value is below 2 and does not change when all
    features are scaled. CMMD's figures are other numbers: it takes normalised CLIP embeddings, fixes sigma = 10 for
    them, and multiplies the biased estimate (each sample counts against itself too; never negative) by 1000.
    """
    x, y = _rows(features, reference, device)
    bandwidth = rbf_bandwidth(reference)
    centre = y.mean()
    x, y = x.about(centre), y.about(centre)
    kernel = partial(_gaussian, bandwidth=bandwidth)
    return RbfDistance(*_of_all(x, y, squared_distances, kernel, blocks, progress), bandwidth)


def rbf_bandwidth(reference: ArrayLike) -> float:
    """The median Euclidean distance between pairs of (m, d) reference features, in feature units.

    Of at most 2,000 samples, evenly spaced by index: the bandwidth is a function of the reference alone. ValueError if
    it is 0 (half of the pairs are copies) or there is no pair.
    """
    rows = Rows(reference)
    if len(rows) < 2:
        raise ValueError("a bandwidth needs at least two reference samples")
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), BANDWIDTH_SAMPLES)).astype(np.int64)
    points = rows.about(rows.mean()).take(chosen)
    upper = np.triu_indices(len(points), k=1)
    dots, norms = _numpy(points @ points.T), _numpy(points.square().sum(dim=1))
    squared = (norms[:, None] + norms - 2.0 * dots)[upper]
    median = float(np.median(np.sqrt(np.maximum(squared, 0.0))))
    if median <= 1e-7 * float(np.sqrt(norms.max())):
        raise ValueError("half of the reference features are copies of each other: they give no bandwidth")
    return median


@dataclass(frozen=True)
class _Sums:
    """Kernel sums by block of generated samples, no sample against itself.

    sizes (g,); within (g, g); between (g,): against the reference; reference: of the reference within itself
    """

    sizes: Floats
    within: Floats
    between: Floats
    reference: float
    reference_size: int

    def distances(self) -> Floats:
        """(1 + g,) squared MMD of all samples, then without each block; not finite for a rest of under two samples."""
        blocks = len(self.sizes)
        kept = np.vstack([np.ones(blocks), 1.0 - np.eye(blocks)])
        n, m = kept @ self.sizes, self.reference_size
        within = np.einsum("ka,ab,kb->k", kept, self.within, kept)
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Floats = within / (n * (n - 1)) - 2.0 * (kept @ self.between) / (n * m)
        return found + self.reference / (m * (m - 1))


def _of_all(
    x: Rows, y: Rows, source: Source, kernel: Callable[[Tensor], Tensor], blocks: int, progress: Progress | None
) -> tuple[Estimate, tuple[float, ...]]:
    if blocks < 2 or min(len(x), len(y)) < 2:
        raise ValueError("an unbiased MMD needs at least two samples a set, and its jackknife two blocks")
    parts, whole = x.blocks(blocks if len(x) >= 2 * blocks else 1), y.blocks(1)
    tick = counter(pairs(parts) + pairs(whole) + pairs(parts, whole), progress)

    def summed(one: Rows, one_blocks: list[slice], two: Rows, two_blocks: list[slice]) -> Floats:
        sums = np.zeros((len(one_blocks), len(two_blocks)))
        for down, across, values in source(one, one_blocks, two, two_blocks, tick):
            found = kernel(values)
            if one is two and down == across:
                found.fill_diagonal_(0.0)
            total = float(found.sum())
            sums[down.block, across.block] += total
            if one is two and down != across:
                sums[across.block, down.block] += total
        return sums

    sums = _Sums(
        sizes=np.array([part.stop - part.start for part in parts], dtype=np.float64),
        within=summed(x, parts, x, parts),
        between=summed(x, parts, y, whole)[:, 0],
        reference=float(summed(y, whole, y, whole)[0, 0]),
        reference_size=len(y),
    )
    values = sums.distances()
    return _interval(values if len(parts) > 1 else values[:1], len(x), blocks)


def _interval(values: Floats, n: int, blocks: int) -> tuple[Estimate, tuple[float, ...]]:
    full = float(values[0])
    if len(values) == 1:
        return Estimate(full, None, None, f"no interval: {n} samples are too few for {blocks} blocks"), ()
    return jackknife_interval(full, values[1:]), tuple(values[1:].tolist())


def _rows(features: ArrayLike, reference: ArrayLike, device: str) -> tuple[Rows, Rows]:
    x, y = Rows(features, device), Rows(reference, device)
    if x.dim != y.dim:
        raise ValueError(f"{x.dim} against {y.dim} feature dimensions")
    return x, y


def _cubic(dots: Tensor, dim: int) -> Tensor:
    return dots.div_(dim).add_(1.0).pow_(3)


def _gaussian(squared: Tensor, bandwidth: float) -> Tensor:
    # rounding can make the distance of copies slightly negative
    return squared.clamp_(min=0.0).div_(-2.0 * bandwidth**2).exp_()


def _numpy(values: Tensor) -> Floats:
    array: Floats = values.cpu().numpy()
    return array

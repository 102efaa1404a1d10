"""Large sets of features taken a tile at a time: they stay as they are in memory or on disk, a tile is float64."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Progress = Callable[[int, int], None]

TILE = 4096  # rows of a tile: 64 MiB of 2048 features, 128 MiB of products


@dataclass(frozen=True)
class Tile:
    """``rows`` of one set, all of them in its block number ``block``."""

    block: int
    rows: slice


class Rows:
    """(n, d) features that are never held as float64 as a whole.

    features: any real numbers, also a memory map; float32 and float64 are not copied. ``take`` subtracts ``centre``
    (d,). ``device`` makes the products and must have float64. ValueError on another shape, NaN or infinity.
    """

    def __init__(self, features: ArrayLike, device: str | torch.device = "cpu", centre: Tensor | None = None) -> None:
        array = np.asarray(features)
        if array.ndim != 2 or array.shape[1] < 1:
            raise ValueError(f"features must have the shape (n, d), not {array.shape}")
        if array.dtype not in (np.float32, np.float64):
            array = array.astype(np.float64)
        for start in range(0, len(array), TILE):
            if not np.isfinite(array[start : start + TILE]).all():
                raise ValueError("features contain NaN or infinity")
        self._array: NDArray[np.float32] | NDArray[np.float64] = array
        self._device = torch.device(device)
        self._centre = centre

    def __len__(self) -> int:
        return len(self._array)

    @property
    def dim(self) -> int:
        return int(self._array.shape[1])

    def take(self, rows: slice | NDArray[np.int64]) -> Tensor:
        """(rows, d) float64 on the device, new memory."""
        # a copy first: torch takes neither negative strides nor read-only memory
        tile = torch.from_numpy(np.array(self._array[rows], order="C")).to(self._device).to(torch.float64)
        return tile if self._centre is None else tile.sub_(self._centre)

    def mean(self) -> Tensor:
        """(d,) float64 mean of the rows."""
        return torch.stack([self.take(tile.rows).sum(dim=0) for tile in tiles(self.blocks(1))]).sum(dim=0) / len(self)

    def about(self, centre: Tensor) -> Rows:
        """The same rows less ``centre`` (d,)."""
        return Rows(self._array, self._device, centre)

    @cached_property
    def norms(self) -> Tensor:
        """(n,) float64 squared norms of the rows."""
        return torch.cat([self.take(tile.rows).square_().sum(dim=1) for tile in tiles(self.blocks(1))])

    def blocks(self, count: int) -> list[slice]:
        """``count`` contiguous slices, equal to within one row, the longer ones first."""
        return _split(slice(0, len(self)), count)


def tiles(blocks: list[slice]) -> list[Tile]:
    """The blocks cut into tiles of at most ``TILE`` rows, equal to within one row inside a block."""
    return [
        Tile(block, part)
        for block, rows in enumerate(blocks)
        for part in _split(rows, max(1, -(-(rows.stop - rows.start) // TILE)))
    ]


def pairs(x: list[slice], y: list[slice] | None = None) -> int:
    """How many products ``products`` gives for these blocks; ``y`` None: of a set with itself."""
    n = len(tiles(x))
    return n * (n + 1) // 2 if y is None else n * len(tiles(y))


def products(
    x: Rows, x_blocks: list[slice], y: Rows, y_blocks: list[slice], tick: Callable[[], None]
) -> Iterator[tuple[Tile, Tile, Tensor]]:
    """(rows of x, rows of y, their (rows, rows) float64 dot products), tile by tile; ``tick`` after each.

    Of a set with itself (``x is y``, same blocks) every unordered pair of tiles comes once. The caller may change them.
    """
    across = tiles(y_blocks)
    for index, down in enumerate(tiles(x_blocks)):
        rows = x.take(down.rows)
        for other in across[index:] if x is y else across:
            columns = rows if x is y and other == down else y.take(other.rows)
            yield down, other, rows @ columns.T
            tick()


def squared_distances(
    x: Rows, x_blocks: list[slice], y: Rows, y_blocks: list[slice], tick: Callable[[], None]
) -> Iterator[tuple[Tile, Tile, Tensor]]:
    """As ``products``, of squared distances. Rounding can make a distance of equal rows slightly negative.

    Distances do not depend on the origin, their rounding does: centre both sets alike.
    """
    for down, across, dots in products(x, x_blocks, y, y_blocks, tick):
        yield down, across, dots.mul_(-2.0).add_(x.norms[down.rows, None]).add_(y.norms[across.rows])


def counter(total: int, progress: Progress | None) -> Callable[[], None]:
    """A function that tells ``progress`` (done, total), with one more done at each call."""
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    return tick


def _split(rows: slice, count: int) -> list[slice]:
    small, longer = divmod(rows.stop - rows.start, count)
    edges = [rows.start + part * small + min(part, longer) for part in range(count + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)]

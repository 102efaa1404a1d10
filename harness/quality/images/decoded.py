"""Pictures that a cell's decoder made of its latents, as a set of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ditbench.harness.errors import InputError
from ditbench.harness.quality.images.checks import check_layout, checked_count, in_batches
from ditbench.harness.store.arrays import read_arrays, read_header

IMAGES = "images"


class DecodedImages:
    """The first ``count`` pictures in files beside a cell's shards; one file is in memory at a time.

    paths: the files in order. Raises InputError: a file that is missing or damaged, pictures of two sizes, fewer than
    ``count``.
    """

    def __init__(self, paths: Sequence[Path], count: int) -> None:
        if not paths:
            raise InputError("there are no decoded pictures")
        self._paths, self._count = list(paths), count
        found = [_shape(path) for path in paths]
        self._shape = found[0][1:]
        for path, shape in zip(paths, found, strict=True):
            if shape[1:] != self._shape:
                raise InputError(f"{path} holds pictures of {shape[1:]}, {paths[0].name} of {self._shape} (H, W, C)")
        checked_count(self.name, sum(shape[0] for shape in found), 1, count)

    @property
    def name(self) -> str:
        return str(self._paths[0].parent)

    def __len__(self) -> int:
        return self._count

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._shape

    def batches(self, size: int, limit: int | None = None) -> Iterator[NDArray[np.uint8]]:
        """(<= size, H, W, C) in order, across files. InputError: fewer than ``limit``, a damaged file."""
        return in_batches(self._images(), self.shape, checked_count(self.name, len(self), size, limit), size)

    def _images(self) -> Iterator[NDArray[np.uint8]]:
        for path in self._paths:
            images = read_pictures(path)
            yield from images
            del images  # or it would stay while the next file is read


def read_pictures(path: Path) -> NDArray[np.uint8]:
    """(n, H, W, C) uint8 of one file. Raises InputError: missing, damaged."""
    try:
        images: NDArray[np.uint8] = read_arrays(path, [IMAGES])[IMAGES]
    except InputError as error:
        raise _again(error) from None
    check_layout(f"{path}: {IMAGES}", images.shape, images.dtype)
    return images


def _shape(path: Path) -> tuple[int, int, int, int]:
    try:
        header = read_header(path, IMAGES)
    except InputError as error:
        raise _again(error) from None
    check_layout(f"{path}: {IMAGES}", header.shape, header.dtype)
    count, height, width, channels = header.shape
    return count, height, width, channels


def _again(error: InputError) -> InputError:
    return InputError(f"{error.message}; delete the file and run the suite again: it is decoded anew")

"""Sets of uint8 images that are never all in memory: from files, from arrays, from sample shards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ditbench.harness.errors import InputError
from ditbench.harness.quality.images.checks import CHANNELS, check_layout, checked_count, in_batches
from ditbench.harness.quality.images.folder import FolderImages
from ditbench.harness.quality.images.npz import NpzImages
from ditbench.harness.sample.quantise import quantise
from ditbench.harness.store.arrays import read_arrays, read_header

_STREAM_BYTES = 8 << 20


class ImageSource(Protocol):
    """A set of images in a fixed order, at least one."""

    @property
    def name(self) -> str:
        """What errors and tables call it: the path as the user gave it."""
        ...

    def __len__(self) -> int: ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """H, W, C of every image; C is 1 or 3."""
        ...

    def batches(self, size: int, limit: int | None = None) -> Iterator[NDArray[np.uint8]]:
        """(<= size, H, W, C) uint8 in order, up to ``limit``; every call begins anew, every batch is the caller's own.

        Raises InputError at the call if there are fewer than ``limit`` images, and at a batch that cannot be read.
        """
        ...


def open_images(path: Path) -> ImageSource:
    """The images of an npz file (ADM's layout) or of a folder of PNG files.

    Raises InputError at once for all that can be seen without decoding the images.
    """
    if path.is_dir():
        return FolderImages(path)
    if not path.exists():
        raise InputError(f"no such npz file or folder of PNG images: {path}")
    return NpzImages(path)


class ArrayImages:
    """Images that are in memory already, (N, H, W, C) uint8, under a name. InputError for another layout."""

    def __init__(self, images: NDArray[np.uint8], name: str) -> None:
        check_layout(name, images.shape, images.dtype)
        self._images, self._name = images, name

    @property
    def name(self) -> str:
        return self._name

    def __len__(self) -> int:
        return len(self._images)

    @property
    def shape(self) -> tuple[int, int, int]:
        _, height, width, channels = self._images.shape
        return (height, width, channels)

    def batches(self, size: int, limit: int | None = None) -> Iterator[NDArray[np.uint8]]:
        """(<= size, H, W, C) in order, as copies. InputError: fewer images than ``limit``."""
        count = checked_count(self.name, len(self), size, limit)
        return (self._images[start : min(start + size, count)].copy() for start in range(0, count, size))


class ShardImages:
    """The first ``count`` samples in shards, quantised; one shard is in memory at a time.

    paths: the shards in order, as ditbench.harness.sample.shards writes them. Raises InputError: a shard that is
    missing or damaged, channels that make no image, fewer samples than ``count``.
    """

    def __init__(self, paths: Sequence[Path], count: int) -> None:
        if not paths:
            raise InputError("there are no shards of samples")
        self._paths, self._count = list(paths), count
        found = [_sample_shape(path) for path in paths]
        self._shape = found[0][1:]
        for path, shape in zip(paths, found, strict=True):
            if shape[1:] != self._shape:
                raise InputError(f"{path} holds samples of {shape[1:]}, {paths[0].name} of {self._shape} (H, W, C)")
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
        """(<= size, H, W, C) in order, across shards. InputError: fewer than ``limit``, NaN, a damaged shard."""
        return in_batches(self._images(), self.shape, checked_count(self.name, len(self), size, limit), size)

    def _images(self) -> Iterator[NDArray[np.uint8]]:
        for path in self._paths:
            samples = read_arrays(path, ["samples"])["samples"]
            for index in range(len(samples)):
                try:
                    image = quantise(samples[index])
                except InputError as error:
                    raise InputError(f"{path}: {error.message}") from None
                yield image.transpose(1, 2, 0)
            del samples  # or it would stay while the next shard is read


def batch_digest(images: NDArray[np.uint8]) -> str:
    """SHA-256, hex, over dtype, shape and pixels of (n, H, W, C) images; whatever memory layout they have."""
    found = _begun(images.shape, images.dtype)
    found.update(np.ascontiguousarray(images).data)
    return found.hexdigest()


def digest(source: ImageSource, limit: int | None = None) -> str:
    """``batch_digest`` of the first ``limit`` images (of all, if None), without holding them. InputError as batches."""
    count = len(source) if limit is None else limit
    found = _begun((count, *source.shape), np.dtype(np.uint8))
    for images in source.batches(stream_size(source.shape), limit):
        found.update(np.ascontiguousarray(images).data)
    return found.hexdigest()


def stream_size(shape: tuple[int, int, int]) -> int:
    """How many (H, W, C) images to take at once where it does not matter for the result: 8 MiB, or one."""
    return max(1, _STREAM_BYTES // (shape[0] * shape[1] * shape[2]))


def _begun(shape: tuple[int, ...], dtype: np.dtype[np.uint8]) -> hashlib._Hash:
    return hashlib.sha256(f"{dtype.str} {'x'.join(map(str, shape))}\n".encode())


def _sample_shape(path: Path) -> tuple[int, int, int, int]:
    """(n, H, W, C) of a shard's samples, which lie in it as (n, C, H, W) float."""
    header = read_header(path, "samples")
    if header.dtype.kind != "f" or len(header.shape) != 4:
        raise InputError(f"{path}: samples are {header.shape} {header.dtype}, not (n, C, H, W) floats")
    count, channels, height, width = header.shape
    if channels not in CHANNELS:
        raise InputError(
            f"{path}: samples have {channels} channels: latents must be decoded first (give the cell a decoder)"
        )
    return count, height, width, channels

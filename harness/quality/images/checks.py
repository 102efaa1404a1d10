"""What every set of images is checked for, and how it is handed out in batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ditbench.harness.errors import InputError

CHANNELS = (1, 3)


def check_layout(where: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """InputError unless it is (N, H, W, C) uint8, none of them 0, C 1 or 3. ``where`` begins the message."""
    if dtype.kind == "f":
        raise InputError(
            f"{where} is {dtype}, images must be uint8: save np.clip(127.5 * x + 128, 0, 255).astype(np.uint8) of "
            "values in [-1, 1], np.clip(255 * x + 0.5, 0, 255).astype(np.uint8) of values in [0, 1]"
        )
    if dtype != np.uint8:
        raise InputError(f"{where} is {dtype}, images must be uint8 with levels 0 to 255")
    if len(shape) == 3:
        raise InputError(
            f"{where} has shape {shape}, not (N, H, W, C): give grey images one channel, images[..., None]"
        )
    if len(shape) != 4:
        raise InputError(f"{where} has shape {shape}, images must be (N, H, W, C)")
    if shape[3] not in CHANNELS and shape[1] in CHANNELS:
        raise InputError(f"{where} has shape {shape}, channels first: save images.transpose(0, 2, 3, 1)")
    if shape[3] == 4:
        raise InputError(f"{where} has shape {shape}, 4 channels: save images[..., :3] if the fourth is opacity")
    if shape[3] not in CHANNELS:
        raise InputError(f"{where} has shape {shape}, {shape[3]} channels: images have 1 or 3")
    if 0 in shape:
        raise InputError(f"{where} has shape {shape}: there are no images")


def checked_count(name: str, have: int, size: int, limit: int | None) -> int:
    """How many images to hand out. InputError if there are fewer than ``limit``; ValueError below 1."""
    if size < 1 or (limit is not None and limit < 1):
        raise ValueError(f"batches of {size} images up to {limit}: both must be at least 1")
    if limit is not None and limit > have:
        raise InputError(f"{name} holds {have:,} image{'s' * (have != 1)}, the protocol asks for {limit:,}")
    return have if limit is None else limit


def in_batches(
    images: Iterator[NDArray[np.uint8]], shape: tuple[int, int, int], count: int, size: int
) -> Iterator[NDArray[np.uint8]]:
    """The first ``count`` of (H, W, C) images as (<= size, H, W, C), each batch its own memory."""
    for start in range(0, count, size):
        batch = np.empty((min(size, count - start), *shape), dtype=np.uint8)
        for row in batch:
            row[...] = next(images)
        yield batch

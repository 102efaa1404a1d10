"""Images of noise, files of them, and the one line that refuses a bad file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ditbench.harness.errors import InputError
from ditbench.harness.quality.images.source import ImageSource
from ditbench.harness.sample.shards import Shard, write_shard


def noise(count: int, height: int = 6, width: int = 5, channels: int = 3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def every_image(source: ImageSource, size: int = 4, limit: int | None = None) -> np.ndarray:
    return np.concatenate(list(source.batches(size, limit)))


def save_png(path: Path, image: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(image.squeeze(-1) if image.ndim == 3 and image.shape[2] == 1 else image)
    (picture.convert(mode) if mode else picture).save(path)


def fault(call: Callable[[], object]) -> str:
    """The one line of the InputError that ``call`` raises."""
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def shards(folder: Path, samples: np.ndarray, size: int) -> list[Path]:
    paths = []
    for start in range(0, len(samples), size):
        paths.append(folder / f"shard-{start}.npz")
        write_shard(paths[-1], Shard(samples[start : start + size], np.zeros(size, dtype=np.int64)))
    return paths

"""Images -> features, batch by batch, with a cache that is addressed by what the features were made of.

Neither images nor their features lie under a name that a user gives: a batch's key holds the digest of its pixels, the
extractor, its weights and its resize. So a cached feature cannot come back for other images or another extractor.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ditbench.harness.environment import versions
from ditbench.harness.quality.extractors.extractor import Extractor
from ditbench.harness.quality.images.source import ImageSource, batch_digest
from ditbench.harness.quality.statistics import FeatureStatistics
from ditbench.harness.store.arrays import write_npz
from ditbench.harness.store.identity import canonical_json, digest

CACHE_VERSION = 1
BLOCKS = 10
WHOLE = ("features", "logits")  # kept for every image; of the others only the statistics are

Features = dict[str, NDArray[np.float32]]
Progress = Callable[[int, int], None]


class FeatureCache:
    """A folder with one file a batch. Files that are damaged or of another key count as absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, key: dict[str, Any]) -> Features | None:
        """The features of exactly this key, or None."""
        try:
            with np.load(self._path(key), allow_pickle=False) as data:
                if str(data["key"]) != canonical_json(key):
                    return None
                found = {name: data[name] for name in key["dims"]}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        fits = all(array.shape == (key["count"], key["dims"][name]) for name, array in found.items())
        return found if fits else None

    def write(self, key: dict[str, Any], features: Features) -> None:
        write_npz(self._path(key), key=canonical_json(key), **features)

    def _path(self, key: dict[str, Any]) -> Path:
        return self.folder / f"{digest(key)[:32]}.npz"


def feature_key(images: NDArray[np.uint8], extractor: Extractor) -> dict[str, Any]:
    """Everything that the features of a batch depend on. The batch itself counts: its size moves the last bits."""
    return {
        "version": CACHE_VERSION,
        "images": batch_digest(images),
        "count": len(images),
        "extractor": extractor.name,
        "sha256": extractor.sha256,
        "resize": extractor.resize,
        "dims": dict(extractor.dims),
        "torch": versions().get("torch", ""),
    }


def extract_batches(
    source: ImageSource, extractor: Extractor, batch: int, count: int, cache: FeatureCache | None
) -> Iterator[Features]:
    """Features of the first ``count`` images, (<= batch, d) float32 of each kind, in order."""
    for images in source.batches(batch, count):
        key = feature_key(images, extractor) if cache else {}
        found = cache.read(key) if cache else None
        if found is None:
            made = extractor(torch.from_numpy(images))
            found = {name: array.cpu().numpy() for name, array in made.items()}
            if any(not np.isfinite(array).all() for array in found.values()):
                raise ValueError(f"{source.name}: the extractor gave NaN or infinity")
            if cache:
                cache.write(key, found)
        yield found


@dataclass(frozen=True)
class FeatureSet:
    """Features of one set of images.

    arrays      features (n, d) and logits (n, classes), float32
    statistics  kind -> float64 statistics of ``BLOCKS`` contiguous blocks, equal to within one image
    """

    count: int
    arrays: Features
    statistics: dict[str, list[FeatureStatistics]]


def collect(
    source: ImageSource,
    extractor: Extractor,
    *,
    count: int,
    batch: int,
    cache: FeatureCache | None = None,
    progress: Progress | None = None,
) -> FeatureSet:
    """Features of the first ``count`` images of ``source``. Held at once: one batch of images, and all features."""
    arrays = {name: np.empty((count, dim), dtype=np.float32) for name, dim in extractor.dims.items() if name in WHOLE}
    kinds = [name for name in extractor.dims if name != "logits"]
    statistics = {name: [FeatureStatistics(extractor.dims[name]) for _ in range(BLOCKS)] for name in kinds}
    edges = block_edges(count)
    done = 0
    for found in extract_batches(source, extractor, batch, count, cache):
        size = len(found["features"])
        for name, array in arrays.items():
            array[done : done + size] = found[name]
        for name in kinds:
            for block, (start, stop) in enumerate(pairwise(edges)):
                inside = found[name][max(0, start - done) : max(0, stop - done)]
                statistics[name][block].update(inside)
        done += size
        if progress is not None:
            progress(done, count)
    return FeatureSet(count, arrays, statistics)


def block_edges(count: int) -> list[int]:
    """Where ``BLOCKS`` contiguous blocks of ``count`` samples begin, and the end of the last: as np.array_split."""
    small, larger = divmod(count, BLOCKS)
    return [block * small + min(block, larger) for block in range(BLOCKS + 1)]


def merged(blocks: list[FeatureStatistics]) -> FeatureStatistics:
    """The statistics of all blocks together; the blocks stay as they are."""
    total = FeatureStatistics(blocks[0].dim)
    for block in blocks:
        total.merge(block)
    return total

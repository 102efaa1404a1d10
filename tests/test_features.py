"""Features are collected in order and in bounded memory, and a cached one never comes back for anything else."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ditbench.harness.quality.features import FeatureCache, block_edges, collect, feature_key, merged
from ditbench.harness.quality.images.source import ArrayImages


@dataclass(frozen=True)
class Linear:
    """An extractor that multiplies the first pixels and counts the images that it has seen."""

    name: str = "linear"
    sha256: str = "0" * 64
    resize: str = "none"
    dims: Mapping[str, int] = field(default_factory=lambda: {"features": 3, "logits": 2, "spatial": 4})
    scale: float = 1.0
    seen: list[int] = field(default_factory=list)

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        self.seen.append(len(images))
        flat = images.flatten(1).float() * self.scale
        return {"features": flat[:, :3], "logits": flat[:, 3:5], "spatial": flat[:, 5:9]}


def pictures(count: int = 25, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 5, 3), dtype=np.uint8)


def features_of(images: np.ndarray, extractor: Linear, cache: Path | None = None, batch: int = 10) -> np.ndarray:
    kept = FeatureCache(cache) if cache else None
    return collect(ArrayImages(images, "made"), extractor, count=len(images), batch=batch, cache=kept).arrays[
        "features"
    ]


def test_features_come_in_order_and_block_statistics_are_those_of_contiguous_blocks() -> None:
    images = pictures(47)
    shown: list[tuple[int, int]] = []
    found = collect(
        ArrayImages(images, "made"),
        Linear(),
        count=43,
        batch=10,
        progress=lambda done, total: shown.append((done, total)),
    )
    flat = images[:43].reshape(43, -1).astype(np.float64)
    assert np.array_equal(found.arrays["features"], flat[:, :3])
    assert np.array_equal(found.arrays["logits"], flat[:, 3:5])
    assert "spatial" not in found.arrays, "of these only the statistics are kept"
    for name, expected in (("features", flat[:, :3]), ("spatial", flat[:, 5:9])):
        blocks = found.statistics[name]
        assert [block.n for block in blocks] == [len(part) for part in np.array_split(flat, 10)]
        for block, part in zip(blocks, np.array_split(expected, 10), strict=True):
            np.testing.assert_allclose(block.mean, part.mean(axis=0))
        np.testing.assert_allclose(merged(blocks).covariance, np.cov(expected, rowvar=False), rtol=1e-12)
    assert shown[-1] == (43, 43)


@pytest.mark.parametrize("count", [10, 43, 50_001])
def test_block_edges_split_as_numpy_does(count: int) -> None:
    lengths = [len(part) for part in np.array_split(np.arange(count), 10)]
    assert list(np.diff(block_edges(count))) == lengths


def test_a_second_pass_reads_the_cache_and_gives_the_same(tmp_path: Path) -> None:
    extractor = Linear()
    first = features_of(pictures(), extractor, tmp_path)
    assert sum(extractor.seen) == 25
    assert np.array_equal(features_of(pictures(), extractor, tmp_path), first)
    assert sum(extractor.seen) == 25, "nothing was extracted again"


@pytest.mark.parametrize(
    "change",
    [
        {"name": "linear-2"},
        {"sha256": "1" * 64},
        {"resize": "bilinear"},
        {"dims": {"features": 3, "logits": 2}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_extractor_or_resize_never_gets_cached_features(tmp_path: Path, change: dict[str, Any]) -> None:
    features_of(pictures(), Linear(), tmp_path)
    other = replace(Linear(), scale=2.0, seen=[], **change)
    found = features_of(pictures(), other, tmp_path)
    assert sum(other.seen) == 25
    assert np.array_equal(found, features_of(pictures(), other)), "what was returned is the other extractor's"


def test_other_images_never_get_cached_features(tmp_path: Path) -> None:
    extractor = Linear()
    features_of(pictures(), extractor, tmp_path)
    one_pixel = pictures()
    one_pixel[13, 0, 0, 0] ^= 1
    assert np.array_equal(features_of(one_pixel, extractor, tmp_path), features_of(one_pixel, Linear()))
    turned = np.ascontiguousarray(pictures().transpose(0, 2, 1, 3))  # the same bytes would be another shape's
    assert np.array_equal(features_of(turned, extractor, tmp_path), features_of(turned, Linear()))
    reshaped = pictures().reshape(25, 5, 4, 3)
    before = sum(extractor.seen)
    features_of(reshaped, extractor, tmp_path)
    assert sum(extractor.seen) == before + 25, "equal bytes of another shape are other images"


def test_a_file_under_another_batchs_name_is_not_believed(tmp_path: Path) -> None:
    cache, extractor = FeatureCache(tmp_path), Linear()
    images, others = pictures(10), pictures(10, seed=1)
    features_of(images, extractor, tmp_path)
    (file,) = tmp_path.iterdir()
    other_key = feature_key(others, extractor)
    shutil.copy(file, cache._path(other_key))
    assert cache.read(other_key) is None
    assert np.array_equal(features_of(others, extractor, tmp_path), features_of(others, Linear()))


def test_a_damaged_cache_file_is_made_again(tmp_path: Path) -> None:
    extractor = Linear()
    expected = features_of(pictures(10), extractor, tmp_path)
    (file,) = tmp_path.iterdir()
    for damage in (file.read_bytes()[:-30], b"", b"not a zip"):
        file.write_bytes(damage)
        before = sum(extractor.seen)
        assert np.array_equal(features_of(pictures(10), extractor, tmp_path), expected)
        assert sum(extractor.seen) == before + 10


def test_a_killed_extraction_goes_on_where_it_was(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    @dataclass(frozen=True)
    class Dies(Linear):
        def __call__(self, images: Tensor) -> dict[str, Tensor]:
            if sum(self.seen) >= 20:
                raise Killed
            return super().__call__(images)

    with pytest.raises(Killed):
        features_of(pictures(50), Dies(), tmp_path)
    extractor = Linear()
    features_of(pictures(50), extractor, tmp_path)
    assert sum(extractor.seen) == 30


def test_features_that_are_not_finite_stop_the_scoring_and_are_not_kept(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Broken(Linear):
        def __call__(self, images: Tensor) -> dict[str, Tensor]:
            return {name: torch.full_like(each, torch.nan) for name, each in super().__call__(images).items()}

    with pytest.raises(ValueError, match=r"made: .* NaN"):
        features_of(pictures(10), Broken(), tmp_path)
    assert not list(tmp_path.iterdir())

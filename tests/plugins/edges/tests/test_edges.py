"""What every metric should hold: a known set has a known value."""

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from edges.metric import measured


class Pictures:
    """What a metric is given as images: batches (b, H, W, C) uint8."""

    def __init__(self, pictures: np.ndarray) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def batches(self, size: int) -> Iterator[np.ndarray]:
        for start in range(0, len(self), size):
            yield self.pictures[start : start + size]


def given(pictures: np.ndarray, real: np.ndarray | None = None) -> SimpleNamespace:
    features = np.zeros((len(pictures), 1), np.float32)
    return SimpleNamespace(
        features=features, images=Pictures(pictures), reference_images=None if real is None else Pictures(real)
    )


def stripes(count: int, height: int) -> np.ndarray:
    pictures = np.zeros((count, 8, 8, 1), np.uint8)
    pictures[:, :, ::2] = height
    return pictures


def test_flat_pictures_have_no_edges_and_stripes_have_their_height():
    found = measured(given(stripes(20, 0), real=stripes(30, 100)))
    assert found["edges"].value == 0
    assert found["edges_reference"].value == pytest.approx(100)


def test_its_interval_holds_its_value():
    pictures = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 1), dtype=np.uint8)
    (found,) = measured(given(pictures)).values()
    assert found.low < found.value < found.high


def test_one_sample_says_why_it_has_no_figure():
    with pytest.raises(ValueError, match="no interval"):
        measured(given(stripes(1, 100)))

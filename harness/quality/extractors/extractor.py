"""The contract of a feature extractor: a callable with a name, a digest and a resize that stand in protocol ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class Extractor(Protocol):
    """uint8 images -> named features. Weights are verified against ``sha256`` before an extractor exists.

    Every extractor gives ``features`` (n, d), which all set metrics read; ``logits`` (n, classes), unnormalised, where
    there is a classifier; ``spatial`` (n, d) where the sFID layout is defined.
    """

    @property
    def name(self) -> str:
        """With version: what stands in protocol ids. It changes when the features of an image change."""
        ...

    @property
    def sha256(self) -> str:
        """Digest of the weights' file, 64 hex digits."""
        ...

    @property
    def resize(self) -> str:
        """How images of any size come to the network's size, in words."""
        ...

    @property
    def dims(self) -> Mapping[str, int]:
        """Name of each kind of features -> its width."""
        ...

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """(n, H, W, C) uint8, C 1 or 3, on any device -> float32 (n, d) of each of ``dims``, on the extractor's device.

        ValueError for another dtype or shape.
        """
        ...

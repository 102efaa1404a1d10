"""scikit-learn's handwritten digits: 1,797 grey images of 8x8 with levels 0..16 (Alpaydin & Kaynak, UCI, 1998)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor


@dataclass(frozen=True)
class Digits:
    """images (N, 1, 8, 8) float32 in [-1, 1]; labels (N,) int64 in 0..9; in the order of the data set."""

    images: Tensor
    labels: Tensor

    channels, size, num_classes = 1, 8, 10

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(images (B, 1, 8, 8), labels (B,)) of ``rows`` (B,)."""
        return self.images[rows], self.labels[rows]

    def split(self, test_every: int = 5) -> tuple[Digits, Digits]:
        """(train, test): every ``test_every``-th image is for testing."""
        held_out = torch.arange(len(self.labels)) % test_every == 0
        return (
            Digits(self.images[~held_out], self.labels[~held_out]),
            Digits(self.images[held_out], self.labels[held_out]),
        )


@cache
def digits() -> Digits:
    """The whole set, from the installed scikit-learn; nothing is downloaded."""
    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().div(8).sub(1).unsqueeze(1)
    return Digits(images.contiguous(), torch.from_numpy(bunch.target).long())

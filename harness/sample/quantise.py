"""From a sampler's numbers to pixels: the one place where float samples become uint8 images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ditbench.harness.errors import InputError


def quantise(samples: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """[-1, 1] float of any shape -> uint8 of the same shape, by rounding: clamp(127.5 x + 128) truncated.

    -1 -> 0, 0 -> 128, 1 -> 255; what lies beyond is clamped. Computed in float64, so that the rounding of float32 moves
    no grey level. Raises InputError for NaN and infinity, which have no grey level.
    """
    if not np.isfinite(samples).all():
        raise InputError("samples hold NaN or infinity, which have no grey level")
    scaled: NDArray[np.uint8] = np.clip(127.5 * samples.astype(np.float64) + 128.0, 0, 255).astype(np.uint8)
    return scaled

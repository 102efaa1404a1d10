"""From uint8 images of any size to what a network reads: RGB batches, and resizes that equal their oracles.

An extractor and its resize belong together: TF1's bilinear differs from a correct one by several grey levels on
detailed images, and antialiasing changes published figures (Parmar et al. 2022, sections 3 and 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ditbench.methods.torchvision_shim import ensure_torchvision_importable

_FIXED_POINT = 2.0**22  # Pillow's 8-bit resize rounds its weights to multiples of 1 / 2^22


def rgb(images: Tensor, device: torch.device) -> Tensor:
    """(n, H, W, C) uint8, C 1 or 3 -> (n, 3, H, W) uint8 on ``device``; gray is repeated. ValueError for others."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
        given = f"{tuple(images.shape)} {str(images.dtype).removeprefix('torch.')}"
        raise ValueError(f"images must be (n, H, W, C) uint8 with C 1 or 3, none of them 0, not {given}")
    return images.to(device).permute(0, 3, 1, 2).expand(-1, 3, -1, -1)


def bilinear_tf1(images: Tensor, size: int) -> Tensor:
    """(n, C, H, W) uint8 -> (n, C, size, size) float32 as TensorFlow 1 resized: corners at 0, no antialiasing."""
    ensure_torchvision_importable()
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    resized: Tensor = interpolate_bilinear_2d_like_tensorflow1x(images.float(), (size, size), align_corners=False)
    return resized


def bicubic(images: Tensor, size: int) -> Tensor:
    """(n, C, H, W) uint8 -> (n, C, size, size) float32 in [0, 255], antialiased, not rounded to grey levels.

    Equals Pillow's bicubic resize of float ("F") images, then clipped: the clean resize of Parmar et al. 2022.
    """
    height, width = images.shape[2:]
    rows = _weighted(images, _taps(width, size), dim=3).float()
    return _weighted(rows, _taps(height, size), dim=2).float().clamp_(0, 255)


def bicubic_8bit(images: Tensor, size: int) -> Tensor:
    """(n, C, H, W) uint8 -> (n, C, size, size) uint8, antialiased.

    Equals Pillow's bicubic resize of 8-bit images, which rounds to grey levels after each of two passes. The first is
    along rows for every image, as in Pillow up to 12; later ones begin with the columns of images taller than wide.
    """
    height, width = images.shape[2:]
    rows = _grey_levels(_weighted(images, _taps(width, size).fixed_point(), dim=3))
    return _grey_levels(_weighted(rows, _taps(height, size).fixed_point(), dim=2))


@dataclass(frozen=True)
class _Taps:
    """index, weight (taps, target): each target pixel is the sum over taps of weight * source[index]."""

    index: Tensor
    weight: Tensor

    def fixed_point(self) -> _Taps:
        scaled = self.weight * _FIXED_POINT
        return _Taps(self.index, torch.trunc(scaled + 0.5 * torch.sign(scaled)))


@cache
def _taps(source: int, target: int) -> _Taps:
    """Keys' cubic with a = -1/2, stretched by the scale when shrinking, cut at the borders and made to sum to 1."""
    scale = source / target
    stretch = max(scale, 1.0)
    centre = (np.arange(target) + 0.5) * scale
    first = np.maximum(np.trunc(centre - 2 * stretch + 0.5), 0)
    last = np.minimum(np.trunc(centre + 2 * stretch + 0.5), source)
    position = first + np.arange(int((last - first).max()))[:, None]
    distance = np.abs((position - centre + 0.5) * (1 / stretch))
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weight = np.where(distance < 1, near, np.where(distance < 2, far, 0)) * (position < last)
    index = np.minimum(position, source - 1).astype(np.int64)
    return _Taps(torch.from_numpy(index), torch.from_numpy(weight / weight.sum(axis=0)))


def _weighted(images: Tensor, taps: _Taps, dim: int) -> Tensor:
    # One tap after another in float64, as Pillow adds them: what rounds the sums afterwards then agrees.
    source = images.to(torch.float64, memory_format=torch.contiguous_format)
    indices, weights = taps.index.to(images.device), taps.weight.to(images.device)
    if dim == 2:
        weights = weights[:, :, None]
    total = source.index_select(dim, indices[0]).mul_(weights[0])
    for index, weight in zip(indices[1:], weights[1:], strict=True):
        total.addcmul_(source.index_select(dim, index), weight)
    return total


def _grey_levels(sums: Tensor) -> Tensor:
    return sums.add_(_FIXED_POINT / 2).div_(_FIXED_POINT).floor_().clamp_(0, 255).to(torch.uint8)

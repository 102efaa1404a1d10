"""One kernel for every patch size: the fixed matrices between the stored kernels and those of a size.

B(a→b) is bilinear resizing of an a x a patch to b x b (half-pixel centres, no antialiasing), (b², a²). Kernels are
always projected from the stored ones; a chain of resizes would lose weights.

Embedding: pseudo-inverse resize (FlexiViT, arXiv 2212.08013, section 3.4; FlexiDiT, arXiv 2502.20126, section 3.1).
De-embedding: the paper says "pseudo-inverse of the bilinear interpolation" and no more; of the readings that leave the
pre-trained size unchanged, the one here also keeps the scale of what is predicted at the other sizes.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


@lru_cache
def bilinear(old: int, new: int) -> Tensor:
    """B(old→new), (new², old²), float64, on the CPU."""
    basis = torch.eye(old * old, dtype=torch.float64, device="cpu").view(old * old, 1, old, old)
    resized = F.interpolate(basis, size=(new, new), mode="bilinear", align_corners=False)
    return resized.view(old * old, new * new).T.contiguous()


@lru_cache
def embedding_matrix(stored: int, size: int) -> Tensor:
    """From a stored kernel to one of ``size``: pinv(B(stored→size)ᵀ), (size², stored²).

    Where the size is the larger, <x, w> = <B x, Q w> for every patch x. Where it is the smaller, Q sums blocks.
    """
    return _pinv(bilinear(stored, size).T)


@lru_cache
def head_matrix(stored: int, size: int) -> Tensor:
    """From a stored de-embedding to one of ``size``: (size², stored²), rows that sum to 1.

    pinv(B(size→stored)) up to the stored size; above it predictions are interpolated, B(stored→size).
    """
    return _pinv(bilinear(size, stored)) if size <= stored else bilinear(stored, size)


def project_embedding(weight: Tensor, size: int) -> Tensor:
    """Stored kernel (C, C_in, u, u) -> (C, C_in, size, size), for every input channel and output by itself."""
    return _on_patch(embedding_matrix(weight.shape[-1], size), weight)


def lift_embedding(weight: Tensor, stored: int) -> Tensor:
    """A kernel (C, C_in, p, p) -> the stored one, of size ``stored`` >= p, that projects to it at p."""
    return _on_patch(_pinv(embedding_matrix(stored, weight.shape[-1])), weight)


def project_head(rows: Tensor, channels: int, size: int) -> Tensor:
    """Stored rows (u²·channels, …), ordered place in the patch, then channel -> (size²·channels, …)."""
    return _on_rows(head_matrix(_side(rows, channels), size), rows, channels)


def lift_head(rows: Tensor, channels: int, stored: int) -> Tensor:
    """Rows (p²·channels, …) -> the stored ones, of size ``stored`` >= p, that project to them at p."""
    return _on_rows(bilinear(_side(rows, channels), stored), rows, channels)


def patch_positions(input_size: int, size: int, pretrained: int, centre: bool) -> Tensor:
    """Coordinates (grid,) of the patches of a row, in patches of the pre-trained size: 0, 1, 2, … at that size.

    A patch is where its centre is, or its corner. The paper names neither.
    """
    corners = torch.arange(input_size // size, dtype=torch.float64, device="cpu") * size
    return (corners + ((size - pretrained) / 2 if centre else 0.0)) / pretrained


def _pinv(matrix: Tensor) -> Tensor:
    found: Tensor = torch.linalg.pinv(matrix)
    return found


def _side(rows: Tensor, channels: int) -> int:
    return math.isqrt(rows.shape[0] // channels)


def _on_patch(matrix: Tensor, weight: Tensor) -> Tensor:
    """In float64, so that a pre-trained kernel comes back as it was."""
    out = weight.flatten(2).double() @ matrix.to(weight.device).T
    side = math.isqrt(matrix.shape[0])
    return out.to(weight.dtype).view(*weight.shape[:2], side, side)


def _on_rows(matrix: Tensor, rows: Tensor, channels: int) -> Tensor:
    places = rows.view(matrix.shape[1], channels, -1).double()
    out = torch.einsum("pu,ucd->pcd", matrix.to(rows.device), places).to(rows.dtype)
    return out.reshape(matrix.shape[0] * channels, *rows.shape[1:])

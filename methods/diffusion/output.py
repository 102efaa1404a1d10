"""How a model's output is laid out."""

from __future__ import annotations

import torch
from torch import Tensor


def split_output(output: Tensor, channels: int) -> tuple[Tensor, Tensor | None]:
    """Model output (B, C or 2C, H, W) -> prediction (B, C, H, W) and variance interpolation, if it is there."""
    if output.shape[1] == channels:
        return output, None
    prediction, variance = torch.split(output, channels, dim=1)
    return prediction, variance

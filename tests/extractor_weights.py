"""Files of seeded random weights in the published layouts, and images to look at with them."""

from __future__ import annotations

from pathlib import Path

import torch

from ditbench.harness.quality.extractors.dinov2 import Shape, VisionTransformer
from studies.stand_ins import State, inception_state, pictures, randomise, write_inception

__all__ = ["State", "dinov2_state", "inception_state", "pictures", "write_dinov2", "write_inception"]


def dinov2_state(width: int = 128, depth: int = 2, grid: int = 37, gated: bool = False, seed: int = 0) -> State:
    """The names of a released DINOv2 checkpoint at any size; width a multiple of 64, patches of 14."""
    state = VisionTransformer(Shape(width, depth, hidden=4 * width, gated=gated, grid=grid)).state_dict()
    randomise(state, seed)
    return dict(state)


def write_dinov2(path: Path, state: State | None = None) -> Path:
    """``path``, written as the published file is."""
    torch.save(dinov2_state() if state is None else state, path)
    return path

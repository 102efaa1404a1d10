"""Making the shards of a cell: those that are missing, each whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from harness.sample.shards import Shard, shard_path, shard_ranges, write_shard

if TYPE_CHECKING:
    from harness.sample.generate import BoundCell


class NotFiniteError(ArithmeticError):
    """A sample holds NaN or infinity: its figures would mean nothing."""


def generate_shards(
    cell: BoundCell, samples: int, size: int, folder: Path, progress: Callable[[int, int], None]
) -> list[Path]:
    """Make the shards that ``folder`` lacks; returns the paths of all, in order.

    Raises NotFiniteError before a shard with NaN or infinity is written.
    """
    paths = []
    ranges = list(shard_ranges(samples, size))
    for done, indices in enumerate(ranges):
        path = shard_path(folder, indices)
        if not path.is_file():
            generated, labels = cell.generate(indices)
            if not torch.isfinite(generated).all():
                bad = int((~torch.isfinite(generated)).flatten(1).any(1).sum())
                raise NotFiniteError(f"{bad} of {size} samples in shard {indices.start} are NaN or infinite")
            write_shard(path, Shard(generated.cpu().numpy(), labels.cpu().numpy()))
        paths.append(path)
        progress(done + 1, len(ranges))
    return paths


def existing_shards(folder: Path, samples: int, size: int) -> list[Path] | None:
    """The paths of all shards of ``samples`` samples, in order; None if one is not there yet."""
    paths = [shard_path(folder, indices) for indices in shard_ranges(samples, size)]
    return paths if all(path.is_file() for path in paths) else None

"""Making the shards of a cell, and their pictures: those that are missing, each whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ditbench.harness.sample.order import Piece
from ditbench.harness.sample.shards import NotFiniteError, Shard, shard_path, shard_ranges, write_shard

if TYPE_CHECKING:
    from ditbench.harness.sample.generate import BoundCell
    from ditbench.harness.sample.picture_decoder import PictureDecoder


def make_pieces(
    pieces: Sequence[Piece],
    bound: Callable[[], BoundCell],
    decoder: Callable[[], PictureDecoder],
    progress: Callable[[], None],
) -> None:
    """Make the files that ``pieces`` lack: first all shards, then their pictures; ``progress`` is called after each.

    ``bound`` and ``decoder`` are called only where there is work for them. Raises NotFiniteError before a file with
    NaN or infinity is written.
    """
    for piece in pieces:
        if not piece.shard.is_file():
            _make_shard(replace(bound(), spec=piece.spec), piece.indices, piece.shard)
            progress()
    undecoded = [(piece.picture, piece.shard) for piece in pieces if piece.picture and not piece.picture.is_file()]
    for folder, group in groupby(undecoded, key=lambda each: each[0].parent):
        from ditbench.harness.sample.picture_decoder import decode_shards

        decode_shards(decoder(), [shard for _, shard in group], folder, lambda _done, _total: progress())


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
            _make_shard(cell, indices, path)
        paths.append(path)
        progress(done + 1, len(ranges))
    return paths


def existing_shards(folder: Path, samples: int, size: int) -> list[Path] | None:
    """The paths of all shards of ``samples`` samples, in order; None if one is not there yet."""
    paths = [shard_path(folder, indices) for indices in shard_ranges(samples, size)]
    return paths if all(path.is_file() for path in paths) else None


def _make_shard(cell: BoundCell, indices: range, path: Path) -> None:
    generated, labels = cell.generate(indices)
    if not torch.isfinite(generated).all():
        bad = int((~torch.isfinite(generated)).flatten(1).any(1).sum())
        raise NotFiniteError(f"{bad} of {len(indices)} samples in shard {indices.start} are NaN or infinite")
    write_shard(path, Shard(generated.cpu().numpy(), labels.cpu().numpy()))

"""Shards: fixed ranges of sample indices, each one batch and one file that appears whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ditbench.harness.store.arrays import read_arrays, write_npz
from ditbench.harness.store.identity import digest
from ditbench.harness.store.records import DecoderSpec

# Raise it when the same latents, decoder and settings give other pictures.
DECODED_VERSION = 1


class NotFiniteError(ArithmeticError):
    """A sample holds NaN or infinity: its figures would mean nothing."""


@dataclass(frozen=True)
class Shard:
    """samples (n, C, H, W) float32 as the sampler left them; labels (n,) int64."""

    samples: NDArray[np.float32]
    labels: NDArray[np.int64]


def shard_ranges(samples: int, size: int) -> Iterator[range]:
    """Index ranges of all shards of a run of ``samples``. Each is ``size`` long, also the last.

    A shard is always a whole batch, so that a longer run extends a shorter one; surplus samples are not scored.
    """
    for start in range(0, samples, size):
        yield range(start, start + size)


def shard_path(folder: Path, indices: range) -> Path:
    return folder / f"shard-{indices.start:07d}-{indices.stop:07d}.npz"


def decoded_folder(samples_folder: Path, spec: DecoderSpec) -> Path:
    """Where the pictures of a folder of shards lie: another place for every decoder and way of decoding."""
    key = digest({"version": DECODED_VERSION, "decoder": spec.model_dump(exclude={"weights"})})
    return samples_folder / f"decoded-{key[:12]}"


def write_shard(path: Path, shard: Shard) -> None:
    write_npz(path, samples=shard.samples, labels=shard.labels)


def read_shard(path: Path) -> Shard:
    """Raises InputError for a damaged file."""
    return Shard(**read_arrays(path, ["samples", "labels"]))

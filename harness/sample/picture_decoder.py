"""From latents to pictures: the autoencoder of a cell, tiles, and files of pictures beside the shards of latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ditbench.harness.assets.locations import sha256_of
from ditbench.harness.errors import InputError
from ditbench.harness.sample.execution import tf32
from ditbench.harness.sample.quantise import quantise
from ditbench.harness.sample.shards import NotFiniteError
from ditbench.harness.store.arrays import read_arrays, write_npz
from ditbench.harness.store.records import DecoderSpec
from ditbench.methods.errors import CheckpointError
from ditbench.methods.latent.autoencoder import LatentDecoder, load_decoder

OVERLAP = 4  # neighbouring tiles share at least a quarter of their side
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Window = tuple[int, Tensor]


@dataclass(frozen=True)
class PictureDecoder:
    """A decoder on its device, in the number type of ``spec``."""

    model: LatentDecoder
    spec: DecoderSpec
    device: str

    def decode(self, latents: Tensor | NDArray[np.floating[Any]]) -> Tensor:
        """Latents (n, 4, h, w) as the sampler left them, n >= 1 -> pictures (n, 3, 8h, 8w) float32, about -1 to 1.

        ``spec.batch`` latents a call, in order; pictures stay on the device. float32 is never rounded to TF32. NaN and
        infinity are passed on: whoever keeps the pictures checks them.
        """
        z, size = torch.as_tensor(latents), self.spec.batch
        settings = tf32(False) if self.spec.dtype == "float32" else nullcontext()
        with torch.inference_mode(), settings:
            parts = [self._call(z[start : start + size]) for start in range(0, len(z), size)]
            return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _call(self, latents: Tensor) -> Tensor:
        z = latents.to(self.device, torch.float32) / self.spec.scale
        z = z.to(_DTYPES[self.spec.dtype])
        height, width = z.shape[-2:]
        side = self.spec.tile
        if side is None or (height <= side and width <= side):
            return self._model(z)
        factor, pictures = self.model.scale_factor, None
        for top, down in windows(height, side, factor, self.device):
            for left, across in windows(width, side, factor, self.device):
                tile = self._model(z[..., top : top + side, left : left + side])
                if pictures is None:
                    pictures = tile.new_zeros(*tile.shape[:2], height * factor, width * factor)
                place = pictures[..., top * factor : (top + side) * factor, left * factor : (left + side) * factor]
                place += tile * down[:, None] * across
        assert pictures is not None
        return pictures

    def _model(self, z: Tensor) -> Tensor:
        pictures: Tensor = self.model(z)
        return pictures.float()


@lru_cache(maxsize=32)  # a call of the decoder must not wait for copies to its device
def windows(length: int, side: int, factor: int, device: str = "cpu") -> tuple[Window, ...]:
    """Where tiles of ``side`` latents begin along an axis of ``length``, each with the weights of its pixels.

    All tiles are of one size (the axis's, if that is less) and evenly spread, and overlap by a quarter of ``side`` or
    more. Weights rise linearly over an overlap and add up to 1 at every pixel; where one tile is alone its weight is 1.
    """
    size = min(side, length)
    stride = size - size // OVERLAP
    count = 1 + -(-(length - size) // stride)
    starts = [round(place * (length - size) / max(1, count - 1)) for place in range(count)]
    raw: list[Tensor] = []
    for number, start in enumerate(starts):
        pixels = torch.arange(size * factor, dtype=torch.float64) + 0.5
        weight = torch.ones_like(pixels)
        if number > 0:
            weight = weight.minimum(pixels / ((starts[number - 1] + size - start) * factor))
        if number + 1 < count:
            weight = weight.minimum((size * factor - pixels) / ((start + size - starts[number + 1]) * factor))
        raw.append(weight)
    total = torch.zeros(length * factor, dtype=torch.float64)
    for start, weight in zip(starts, raw, strict=True):
        total[start * factor : (start + size) * factor] += weight
    return tuple(
        (start, (weight / total[start * factor : (start + size) * factor]).to(device, torch.float32))
        for start, weight in zip(starts, raw, strict=True)
    )


def bind_decoder(spec: DecoderSpec, weights: Path | None, device: str) -> PictureDecoder:
    """The decoder of ``spec`` with the weights of a file or folder (random ones if None), on its device.

    Raises CheckpointError (also for weights that are not those of ``spec``'s digest), ConfigError; see
    ``ditbench.methods.latent.autoencoder.load_decoder``.
    """
    if weights is not None and spec.weights_sha256 is not None and sha256_of(weights) != spec.weights_sha256:
        raise CheckpointError(f"{weights} changed since the plan was made: run the suite again")
    return PictureDecoder(load_decoder(weights).to(device, _DTYPES[spec.dtype]), spec, device)


def decode_shards(
    decoder: PictureDecoder, shards: Sequence[Path], folder: Path, progress: Callable[[int, int], None]
) -> list[Path]:
    """Make the files of pictures that ``folder`` lacks, each whole or not at all; returns the paths of all, in order.

    A file has its shard's name and holds ``images`` (n, H, W, 3) uint8. A call of the decoder never takes latents of
    two shards, so that pictures do not depend on which shards were made before. Raises NotFiniteError before a file of
    pictures with NaN or infinity is written; InputError: a damaged shard, samples that are no latents of this decoder.
    """
    paths = []
    for done, shard in enumerate(shards):
        path = folder / shard.name
        if not path.is_file():
            write_npz(path, images=_pictures(decoder, shard))
        paths.append(path)
        progress(done + 1, len(shards))
    return paths


def _pictures(decoder: PictureDecoder, shard: Path) -> NDArray[np.uint8]:
    latents = read_arrays(shard, ["samples"])["samples"]
    channels = decoder.model.in_channels
    if latents.ndim != 4 or latents.shape[1] != channels:
        raise InputError(f"{shard}: samples are {latents.shape}, and the cell's decoder takes (n, {channels}, h, w)")
    made = []
    for start in range(0, len(latents), decoder.spec.batch):
        pictures = decoder.decode(latents[start : start + decoder.spec.batch])
        if not torch.isfinite(pictures).all():
            bad = int((~torch.isfinite(pictures)).flatten(1).any(1).sum())
            raise NotFiniteError(f"{bad} of {len(pictures)} decoded pictures in {shard.name} hold NaN or infinity")
        made.append(quantise(pictures.cpu().numpy()).transpose(0, 2, 3, 1))
    return np.ascontiguousarray(np.concatenate(made))

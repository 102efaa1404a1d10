"""Images that some encoder has turned into latents beforehand: a folder with ``latents.npy`` and ``labels.npy``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ditbench.methods.errors import ConfigError


@dataclass(frozen=True)
class Latents:
    """Rows are read from disk as they are drawn: latents (N, C, S, S) float16 or float32, already scaled as the
    denoiser expects them (Stable Diffusion's VAE: times 0.18215); labels (N,) whole numbers. For random flips store
    both orientations."""

    latents: NDArray[np.floating]
    labels: NDArray[np.integer]

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(images (B, C, S, S) float32, labels (B,) int64) of ``rows`` (B,)."""
        chosen = rows.numpy()
        return torch.from_numpy(self.latents[chosen]).float(), torch.from_numpy(self.labels[chosen]).long()


def latents(folder: str | None = None) -> Latents:
    """The folder's arrays, mapped, not read. Raises ConfigError."""
    if folder is None:
        raise ConfigError("dataset latents: name its folder under data, with latents.npy and labels.npy in it")
    arrays = []
    for name in ("latents.npy", "labels.npy"):
        path = Path(folder) / name
        try:
            arrays.append(np.load(path, mmap_mode="r", allow_pickle=False))
        except FileNotFoundError:
            raise ConfigError(f"dataset latents: no such file: {path}") from None
        except (OSError, ValueError, EOFError) as error:
            raise ConfigError(f"dataset latents: {path} is not a readable array ({error})") from None
    images, labels = arrays
    if images.ndim != 4 or labels.shape != (len(images),) or not len(images):
        raise ConfigError(
            f"dataset latents: {folder} holds latents {list(images.shape)} and labels {list(labels.shape)}, "
            "not (N, C, S, S) and (N,)"
        )
    return Latents(images, labels)

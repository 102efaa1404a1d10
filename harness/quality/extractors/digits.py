"""Features of 8x8 digits: the shipped classifier, with its digest checked before it is used."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from harness.errors import InputError
from methods.registry import datasets
from methods.training.data.digits import Digits
from methods.training.digit_classifier import DigitClassifier
from methods.weights import load_into, sha256_file
from methods.zoo import checkpoint, manifest

Images = NDArray[np.uint8]
CHUNK = 1024


@dataclass(frozen=True)
class Extracted:
    """features (n, 64) float32, predicted (n,) int64 class of each image."""

    features: NDArray[np.float32]
    predicted: NDArray[np.int64]


def quantise(samples: NDArray[np.float32]) -> Images:
    """[-1, 1] float (n, C, H, W) -> uint8, by rounding: clamp(127.5 x + 128) truncated. -1 -> 0, 0 -> 128, 1 -> 255."""
    scaled: Images = np.clip(127.5 * samples.astype(np.float64) + 128.0, 0, 255).astype(np.uint8)
    return scaled


def extract(images: Images) -> Extracted:
    """Run the classifier on uint8 images (n, 1, 8, 8)."""
    model, features, predicted = _classifier(), [], []
    with torch.inference_mode():
        for start in range(0, len(images), CHUNK):
            batch = torch.from_numpy(images[start : start + CHUNK]).float().sub(128).div(127.5).clamp(-1, 1)
            hidden = model.features(batch)
            features.append(hidden.numpy())
            predicted.append(model.head(hidden).argmax(1).numpy())
    return Extracted(np.concatenate(features), np.concatenate(predicted))


def reference_images(expected_sha256: str) -> Images:
    """All digits, quantised. Raises InputError if this scikit-learn ships other ones."""
    data: Digits = datasets()["digits"].load()()
    images = quantise(data.images.numpy())
    digest = hashlib.sha256(images.tobytes()).hexdigest()
    if digest != expected_sha256:
        raise InputError(f"the installed scikit-learn's digits are not the reference's (digest {digest[:16]}…)")
    return images


@cache
def _classifier() -> DigitClassifier:
    path, entry = checkpoint("digit-classifier"), manifest()["digit-classifier"]
    if sha256_file(path) != entry["sha256"]:
        raise InputError(f"{path.name} is not the file that the manifest names: reinstall ditbench")
    model = DigitClassifier()
    load_into(model, path)
    return model.eval()

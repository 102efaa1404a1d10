"""Features of 8x8 digits: the shipped classifier, with its digest checked before it is used."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ditbench.harness.errors import InputError
from ditbench.harness.sample.quantise import quantise
from ditbench.methods.loading import load_into
from ditbench.methods.registry import datasets
from ditbench.methods.training.data.digits import Digits
from ditbench.methods.training.digit_classifier import DigitClassifier
from ditbench.methods.weights import sha256_file
from ditbench.methods.zoo import checkpoint, manifest


class DigitExtractor:
    """64 features and 10 class logits of (n, 8, 8, 1) uint8 images; always on the CPU, where it takes no time."""

    name = "digit-classifier, 64 features"
    resize = "none (8x8)"
    dims: Mapping[str, int] = {"features": 64, "logits": 10}

    def __init__(self) -> None:
        self.sha256 = str(manifest()["digit-classifier"]["sha256"])
        self._model = _classifier(self.sha256)

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        if images.dtype != torch.uint8 or images.shape[1:] != (8, 8, 1):
            raise ValueError(f"digits are (n, 8, 8, 1) uint8 images, not {tuple(images.shape)} {images.dtype}")
        with torch.inference_mode():
            scaled = images.cpu().permute(0, 3, 1, 2).float().sub(128).div(127.5).clamp(-1, 1)
            hidden = self._model.features(scaled)
            return {"features": hidden, "logits": self._model.head(hidden)}


def shipped(_path: None, _sha256: str, _device: str) -> DigitExtractor:
    """As protocols make their extractors."""
    return DigitExtractor()


def reference_images(expected_sha256: str) -> NDArray[np.uint8]:
    """All digits, quantised, (1797, 8, 8, 1). Raises InputError if this scikit-learn ships other ones."""
    data: Digits = datasets()["digits"].load()()
    images = quantise(data.images.numpy())
    images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    digest = hashlib.sha256(images.tobytes()).hexdigest()
    if digest != expected_sha256:
        raise InputError(f"the installed scikit-learn's digits are not the reference's (digest {digest[:16]}…)")
    return images


@cache
def _classifier(sha256: str) -> DigitClassifier:
    path = checkpoint("digit-classifier")
    if sha256_file(path) != sha256:
        raise InputError(f"{path.name} is not the file that the manifest names: reinstall ditbench")
    model = DigitClassifier()
    load_into(model, path)
    return model.eval()

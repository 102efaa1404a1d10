"""Inception of the 2015 graph, in the two ways that papers use it: as ADM's evaluator and as clean-fid."""

from __future__ import annotations

import io
import textwrap
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ditbench.harness.errors import InputError
from ditbench.harness.quality.extractors.resize import bicubic, bilinear_tf1, rgb
from ditbench.methods.errors import CheckpointError
from ditbench.methods.torchvision_shim import ensure_torchvision_importable
from ditbench.methods.weights import read_state

SIZE = 299
_SPATIAL_BLOCK = "Mixed_6d"
_SPATIAL_CHANNELS = 7
_STAGES = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    *("Mixed_7a", "Mixed_7b", "Mixed_7c", "AvgPool"),
)


@dataclass(frozen=True, eq=False)
class InceptionExtractor:
    """An ``Extractor``: see the contract. Made by ``adm_inception`` and ``clean_inception``."""

    name: str
    sha256: str
    resize: str
    dims: Mapping[str, int]
    network: nn.Module
    device: torch.device
    to_299: Callable[[Tensor, int], Tensor]

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """See ``Extractor``. ``features`` are pool3, ``logits`` lack the bias, ``spatial`` see ``spatial_features``."""
        found = {}
        with torch.inference_mode(), full_float32():
            x = (self.to_299(rgb(images, self.device), SIZE) - 128) / 128
            for stage in _STAGES:
                block = self.network.get_submodule(stage)
                if stage == _SPATIAL_BLOCK and "spatial" in self.dims:
                    found["spatial"] = spatial_features(block.get_submodule("branch1x1")(x))
                x = block(x)
            found["features"] = x.flatten(1)
            found["logits"] = found["features"] @ self.network.get_parameter("fc.weight").T
        return found


def adm_inception(path: str | PathLike[str], sha256: str, device: str | torch.device) -> InceptionExtractor:
    """Inception as ADM's evaluator uses it: what DiT papers report. Dhariwal and Nichol 2021, section 2.2.

    path: torch-fidelity's file of the 2015 weights, or its state dict as safetensors. sha256: the file's digest, which
    the caller has verified. Raises InputError if the file holds anything else.
    """
    return InceptionExtractor(
        name="inception-2015: pool3, Mixed_6d spatial, bias-free logits",
        sha256=sha256,
        resize="TF1 bilinear to 299x299",
        dims={"features": 2048, "logits": 1008, "spatial": 17 * 17 * _SPATIAL_CHANNELS},
        network=_network(path, device),
        device=torch.device(device),
        to_299=bilinear_tf1,
    )


def clean_inception(path: str | PathLike[str], sha256: str, device: str | torch.device) -> InceptionExtractor:
    """Inception behind clean-fid's resize. Parmar et al. 2022, section 4. Arguments and errors as ``adm_inception``."""
    return InceptionExtractor(
        name="inception-2015: pool3, bias-free logits",
        sha256=sha256,
        resize="bicubic with antialiasing to 299x299 in float, clipped to 0..255",
        dims={"features": 2048, "logits": 1008},
        network=_network(path, device),
        device=torch.device(device),
        to_299=bicubic,
    )


def spatial_features(activations: Tensor) -> Tensor:
    """(n, 192, 17, 17) after the ReLU of Mixed_6d.branch1x1 -> (n, 2023): 7 channels, the channel fastest.

    The reference statistics that are published for sFID were made with TensorFlow, whose images are NHWC.
    """
    return activations[:, :_SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)


def read_weights(path: str | PathLike[str]) -> dict[str, Tensor]:
    """The state dict in a safetensors or torch file, on the CPU. Nothing in the file is executed. Raises InputError."""
    path = Path(path)
    if path.suffix == ".safetensors" or not path.is_file() or zipfile.is_zipfile(path):
        try:
            return read_state(path)
        except CheckpointError as error:
            raise InputError(str(error)) from None
    # The published file is of 2019: torch's format from before zip, which read_state cannot map into memory.
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        # A damaged file of that format fails in many ways, struct.error and KeyError among them.
        problem = "cut short, of another kind, or with objects in it that are not unpickled"
        raise InputError(f"{path}: no torch file of tensors alone ({problem}): fetch it again") from None
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(f"{path}: no state dict of tensors in it")
    return loaded


@contextmanager
def full_float32() -> Iterator[None]:
    """No TF32: on a GPU torch allows it in convolutions by default, and features lose three digits."""
    cudnn, products = torch.backends.cudnn, torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with cudnn.flags(enabled=cudnn.enabled, deterministic=cudnn.deterministic, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(products)


def _network(path: str | PathLike[str], device: str | torch.device) -> nn.Module:
    ensure_torchvision_importable()
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    # The library unpickles whatever its path holds: it gets a file in memory, written here, of tensors alone.
    tensors = io.BytesIO()
    torch.save(dict(read_weights(path)), tensors)
    tensors.seek(0)
    try:
        network: nn.Module = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=tensors
        )
    except RuntimeError as error:
        problem = textwrap.shorten(str(error).split("\n", 1)[-1], 160, placeholder=" …")
        raise InputError(f"{path} is not the Inception of 2015: {problem}") from None
    return network.to(device)

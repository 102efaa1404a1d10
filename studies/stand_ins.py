"""Seeded random stand-ins for published extractor weights, and images to look at with them."""

from __future__ import annotations

import io
import math
from pathlib import Path

import torch
from torch import Tensor, nn

from ditbench.methods.torchvision_shim import ensure_torchvision_importable

State = dict[str, Tensor]


def pictures(n: int, height: int, width: int, seed: int, contrast: float = 1.0) -> Tensor:
    """(n, height, width, 3) uint8 that differ in colour, shading and noise, so that features differ as well."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=generator)

    shading = nn.functional.interpolate(uniform(3, 4, 4) - 0.5, (height, width), mode="bilinear")
    noise = torch.randn(n, 3, height, width, generator=generator) * uniform(1, 1, 1)
    values = uniform(3, 1, 1) + 2 * contrast * uniform(1, 1, 1) * shading + 0.3 * noise
    return (255 * values.clamp(0, 1)).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def inception_state(seed: int = 0) -> State:
    """All names of the 2015 Inception. Batch norms fit what passes through: activations neither vanish nor explode."""
    ensure_torchvision_importable()
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Unloaded(FeatureExtractorInceptionV3):
        def load_state_dict(self, state: object) -> None:
            pass

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    network = Unloaded("inception-v3-compat", ["2048"], feature_extractor_weights_path=nothing)
    randomise(network.state_dict(), seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train().momentum = 1.0
    with torch.no_grad():
        network(pictures(4, 64, 64, seed).permute(0, 3, 1, 2))
    return dict(network.state_dict())


def write_inception(path: Path, state: State | None = None) -> Path:
    """``path``, written as the published file is: in torch's format from before zip."""
    torch.save(inception_state() if state is None else state, path, _use_new_zipfile_serialization=False)
    return path


def randomise(state: State, seed: int) -> None:
    """In place: He-normal weights, scales around 1, everything else small."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in state.items():
        if not value.is_floating_point():
            continue
        value.normal_(generator=generator)
        if name.endswith("weight") and value.ndim > 1:
            value.mul_(math.sqrt(2 / value[0].numel()))
        elif name.endswith(("weight", "gamma")):
            value.sigmoid_().add_(0.5)
        else:
            value.mul_(0.2)

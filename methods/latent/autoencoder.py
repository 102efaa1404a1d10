"""The decoder half of a latent autoencoder (AutoencoderKL of Stable Diffusion), from files as diffusers saves them."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ditbench.methods.errors import CheckpointError, ConfigError
from ditbench.methods.torchvision_shim import ensure_torchvision_importable
from ditbench.methods.weights import compare, read_state, save_state

SD_CONFIG: Mapping[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
}
"""The autoencoder of Stable Diffusion 1 and 2, on whose latents DiT and its descendants were trained."""

_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_MOVED = ("shift_factor", "latents_mean", "latents_std")
_OLD_ATTENTION = re.compile(r"(.*attentions\.\d+\.)(query|key|value|proj_attn)\.(weight|bias)")
_NEW_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class LatentDecoder(nn.Module):
    """Latents (B, in_channels, h, w) -> pictures (B, 3, scale_factor·h, scale_factor·w), about -1 to 1, unclamped.

    Takes over the decoder and the 1×1 convolution before it of a diffusers AutoencoderKL; the encoder is left behind.
    The latents are the autoencoder's own: divided by the diffusion's scale already.
    """

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.post_quant_conv: nn.Module = autoencoder.post_quant_conv or nn.Identity()
        self.decoder: nn.Module = autoencoder.decoder
        self.in_channels: int = autoencoder.config.latent_channels
        self.scale_factor: int = 2 ** (len(autoencoder.config.block_out_channels) - 1)

    def forward(self, z: Tensor) -> Tensor:
        pictures: Tensor = self.decoder(self.post_quant_conv(z))
        return pictures


def load_decoder(source: Path | None, seed: int = 0) -> LatentDecoder:
    """A decoder in float32 on the CPU, without gradients.

    source  a folder with ``config.json`` and the weights; or a file of weights of the SD shape; None: random weights
            of that shape by ``seed``, which tell what decoding costs and nothing else

    Both the old and the new names of the attention's tensors are read. Raises CheckpointError: files that are missing,
    unreadable or of another model; ConfigError: diffusers is not installed.
    """
    if source is None:
        return _ready(LatentDecoder(_random(SD_CONFIG, seed)))
    config, weights = SD_CONFIG, source
    if source.is_dir():
        config, weights = _read_config(source / "config.json"), _weights_in(source)
    try:
        with torch.device("meta"):
            whole = _autoencoder_class()(**config)
    except ConfigError:
        raise
    except Exception as error:  # whatever a config of odd values makes diffusers raise
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{source}: no autoencoder can be built from its config.json ({first})") from None
    state = _with_new_names(read_state(weights))
    if (problem := compare(whole.state_dict(), state)) is not None:
        shape = "its config.json describes" if source.is_dir() else "Stable Diffusion has, in the names of diffusers"
        raise CheckpointError(f"{weights} is not the AutoencoderKL that {shape}: {problem}")
    decoder = LatentDecoder(whole)
    # copies: what was read may be views of the whole file, encoder and all
    kept = {name: state[name].to(torch.float32, copy=True) for name in decoder.state_dict()}
    decoder.load_state_dict(kept, strict=True, assign=True)
    return _ready(decoder)


def make_autoencoder_files(
    folder: Path, seed: int, block_out_channels: tuple[int, ...] = (8, 8, 8, 8), norm_num_groups: int = 4
) -> Path:
    """Save a whole autoencoder with random weights as diffusers does; returns ``folder``. A stand-in to try things on.

    Latents are smaller than pictures by 2 to the power of the blocks after the first. Raises ConfigError.
    """
    blocks = len(block_out_channels)
    config = {
        **SD_CONFIG,
        "block_out_channels": block_out_channels,
        "down_block_types": ("DownEncoderBlock2D",) * blocks,
        "up_block_types": ("UpDecoderBlock2D",) * blocks,
        "layers_per_block": 1,
        "norm_num_groups": norm_num_groups,
    }
    save_state(folder / _FILES[0], _random(config, seed).state_dict(), {})
    (folder / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL", **config}, indent=2) + "\n")
    return folder


def _autoencoder_class() -> Any:
    try:
        ensure_torchvision_importable()
        from diffusers import AutoencoderKL
    except ImportError as error:
        why = "diffusers is not installed" if error.name == "diffusers" else " ".join(str(error).split())
        raise ConfigError(f"decoding latents needs diffusers ({why}): pip install 'ditbench[latent]'") from None
    return AutoencoderKL


def _random(config: Mapping[str, Any], seed: int) -> Any:
    build = _autoencoder_class()
    # not torch.manual_seed: it would also move the generators of GPUs, which nobody puts back
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed % 2**63)
        return build(**config)


def _ready(decoder: LatentDecoder) -> LatentDecoder:
    return decoder.eval().requires_grad_(False)


def _weights_in(folder: Path) -> Path:
    for name in _FILES:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder} holds no weights of an autoencoder: {' or '.join(_FILES)}")


def _read_config(path: Path) -> dict[str, Any]:
    """The arguments of AutoencoderKL in a config.json, checked for what decoding here does not do."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent} has no config.json: give the autoencoder's folder as diffusers saves it"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({' '.join(str(error).split())})") from None
    name = found.get("_class_name") if isinstance(found, dict) else None
    if name != "AutoencoderKL":
        raise CheckpointError(f"{path} describes {name or 'no model of diffusers'}, not an AutoencoderKL")
    config = {key: value for key, value in found.items() if not key.startswith("_")}
    if unknown := sorted(set(config) - set(inspect.signature(_autoencoder_class().__init__).parameters)):
        raise CheckpointError(f"{path}: the installed diffusers does not know {unknown[0]!r}; use a newer one")
    if moved := [key for key in _MOVED if config.get(key) is not None]:
        raise CheckpointError(
            f"{path}: this autoencoder's latents are moved by {moved[0]}, and ditbench only divides them by a scale"
        )
    return config


def _with_new_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The attention's tensors under the names of today's diffusers."""

    def renamed(name: str) -> str:
        if (old := _OLD_ATTENTION.fullmatch(name)) is None:
            return name
        new = f"{old[1]}{_NEW_NAMES[old[2]]}.{old[3]}"
        return name if new in state else new

    return {renamed(name): tensor for name, tensor in state.items()}

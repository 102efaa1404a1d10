"""The shape of a DiT, as users write it. Never imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ditbench.methods.config import make_config
from ditbench.methods.diffusion.prediction import Flow, predicted_on
from ditbench.methods.errors import ConfigError
from ditbench.methods.facts import ClassLabels, Facts
from ditbench.methods.lora.config import AdapterConfig
from ditbench.methods.space import Space


@dataclass(frozen=True)
class DiTConfig:
    """Shape of a DiT. Field names follow the reference; the defaults are DiT-XL/2 on 256x256 images.

    input_size   side of the square latent (32 for 256x256 images behind the 8x VAE, 64 for 512x512)
    learn_sigma  predict the variance too: the output has 2 * in_channels channels; under a flow they are made, as the
                 public SiT checkpoints have them, and dropped
    flow         None: predicts noise (DiT); linear or cosine: velocity on that path, a SiT
    adapter      low-rank updates of the blocks: see ``AdapterConfig``; None: none
    prepared_mib memory for weights that are made of the stored ones, MiB; what does not fit is made again at each use
    """

    input_size: int = 32
    patch_size: int = 2
    in_channels: int = 4
    hidden_size: int = 1152
    depth: int = 28
    num_heads: int = 16
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    learn_sigma: bool = True
    flow: Flow | None = None
    adapter: Any = None
    prepared_mib: int = 4096

    def __post_init__(self) -> None:
        for name in (
            "input_size",
            "patch_size",
            "in_channels",
            "hidden_size",
            "depth",
            "num_heads",
            "num_classes",
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name} must be a whole number of at least 1, not {value!r}")
        if self.input_size % self.patch_size:
            raise ConfigError(f"patch_size {self.patch_size} does not divide input_size {self.input_size}")
        if self.hidden_size % self.num_heads:
            raise ConfigError(f"num_heads {self.num_heads} does not divide hidden_size {self.hidden_size}")
        if self.hidden_size % 4:
            raise ConfigError(f"hidden_size {self.hidden_size} must be a multiple of 4 (sin-cos positions)")
        if not isinstance(self.mlp_ratio, int | float) or int(self.hidden_size * self.mlp_ratio) < 1:
            raise ConfigError(f"mlp_ratio must be a positive number, not {self.mlp_ratio!r}")
        predicted_on(self.flow)
        mib = self.prepared_mib
        if not isinstance(mib, int) or isinstance(mib, bool) or mib < 0:
            raise ConfigError(f"prepared_mib must be a whole number of at least 0, not {mib!r}")
        if self.adapter is not None:
            object.__setattr__(self, "adapter", AdapterConfig.parse(self.adapter))

    @property
    def tokens(self) -> int:
        return (self.input_size // self.patch_size) ** 2

    @property
    def static_shape(self) -> dict[str, Any]:
        """The fields of the static base of a model with this config: what its weights depend on."""
        names = [field.name for field in fields(DiTConfig) if field.name not in ("adapter", "prepared_mib")]
        return {name: getattr(self, name) for name in names}

    @property
    def head_channels(self) -> int:
        """Channels that the final layer makes."""
        return self.in_channels * (2 if self.learn_sigma else 1)

    @property
    def out_channels(self) -> int:
        """Channels that the model returns."""
        return self.head_channels if self.flow is None else self.in_channels

    @property
    def facts(self) -> Facts:
        """Of every method with this shape."""
        return Facts(
            # samples of one or three channels are pictures, others latents behind an autoencoder of factor 8
            space=Space(
                self.in_channels, (self.input_size, self.input_size), scale=1 if self.in_channels in (1, 3) else 8
            ),
            predicts=predicted_on(self.flow),
            conditions=(ClassLabels(self.num_classes),),
        )


def dit_facts(config: Mapping[str, Any]) -> Facts:
    """Facts of a DiT from the fields of DiTConfig. Raises ConfigError."""
    return make_config(DiTConfig, config).facts

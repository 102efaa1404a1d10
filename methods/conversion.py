"""What conversions of a static DiT share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import nn

from ditbench.methods.backbones.config import DiTConfig
from ditbench.methods.backbones.dit import DiT
from ditbench.methods.errors import ConfigError


def static_shape(config: DiTConfig) -> dict[str, Any]:
    """The fields of the static base of a model with this ``config``: what its weights depend on."""
    names = [field.name for field in fields(DiTConfig) if field.name not in ("adapter", "prepared_mib")]
    return {name: getattr(config, name) for name in names}


def shape_of(static: nn.Module, becomes: str, config: Mapping[str, Any]) -> tuple[DiT, dict[str, Any]]:
    """The static model, and ``config`` with its shape filled in. Raises ConfigError where the two disagree."""
    if type(static) is not DiT:
        raise ConfigError(f"a {becomes} is made from a static DiT, not from {type(static).__name__}")
    if static.config.adapter is not None:
        raise ConfigError(f"a {becomes} is made from a DiT without adapters; give it its own")
    shape = static_shape(static.config)
    for name, value in config.items():
        if name in shape and shape[name] != value:
            raise ConfigError(f"{name} is {shape[name]} in the model and {value} in what it shall become")
    return static, {**config, **shape}

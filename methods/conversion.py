"""What conversions of a static DiT share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import nn

from methods.backbones.dit import DiT
from methods.errors import ConfigError


def shape_of(static: nn.Module, becomes: str, config: Mapping[str, Any]) -> tuple[DiT, dict[str, Any]]:
    """The static model, and ``config`` with its shape filled in. Raises ConfigError where the two disagree."""
    if type(static) is not DiT:
        raise ConfigError(f"a {becomes} is made from a static DiT, not from {type(static).__name__}")
    shape = asdict(static.config)
    for name, value in config.items():
        if name in shape and shape[name] != value:
            raise ConfigError(f"{name} is {shape[name]} in the model and {value} in what it shall become")
    return static, {**config, **shape}

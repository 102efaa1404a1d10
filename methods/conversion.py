"""What conversions of a static model share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ditbench.methods.bases import OnBase
from ditbench.methods.errors import ConfigError
from ditbench.methods.weights import compare


def is_static(model: OnBase) -> bool:
    """Whether ``model`` has the tensors of its static base and no others."""
    assert isinstance(model, nn.Module)
    with torch.device("meta"):
        base = model.static_base()
    return compare(base.state_dict(), model.state_dict()) is None


def shape_of(static: nn.Module, becomes: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` of what a static DiT ``becomes``, with the model's shape filled in. Raises ConfigError where the two
    disagree, or where ``static`` is no static DiT: it says its ``static_shape``, and has no tensors but a DiT's."""
    shape = getattr(static, "static_shape", None)
    if shape is None or not isinstance(static, OnBase):
        raise ConfigError(f"a {becomes} is made from a static DiT, not from {type(static).__name__}")
    if static.adapter is not None:
        raise ConfigError(f"a {becomes} is made from a DiT without adapters; give it its own")
    if not is_static(static):
        raise ConfigError(f"a {becomes} is made from a static DiT, not from {type(static).__name__}")
    return agreed(shape, config)


def agreed(shape: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` with the ``shape`` of the static model filled in. Raises ConfigError where the two disagree."""
    for name, value in config.items():
        if name in shape and shape[name] != value:
            raise ConfigError(f"{name} is {shape[name]} in the model and {value} in what it shall become")
    return {**config, **shape}

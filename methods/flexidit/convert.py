"""From a static DiT to a FlexiDiT that computes the same at the pre-trained patch size."""

from __future__ import annotations

from typing import Any

from torch import nn

from ditbench.methods.config import make_config
from ditbench.methods.conversion import shape_of
from ditbench.methods.flexidit.config import FlexiDiTConfig
from ditbench.methods.flexidit.model import FlexiDiT


def flexidit_from(static: nn.Module, **config: Any) -> FlexiDiT:
    """A FlexiDiT with the weights of ``static``; new sizes start from what its kernels project to. With adapters the
    base is frozen.

    ``config`` holds fields of FlexiDiTConfig; those of its shape must be the model's. Raises ConfigError.
    """
    merged = shape_of(static, "FlexiDiT", config)
    model = FlexiDiT(make_config(FlexiDiTConfig, merged)).to(static.get_parameter("pos_embed"))
    model.put_base(static)
    model.freeze_base()
    return model

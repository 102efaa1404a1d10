"""From a static DiT to a DyDiT that computes the same: important parts first, routers open."""

from __future__ import annotations

from typing import Any

from torch import nn

from ditbench.methods.config import make_config
from ditbench.methods.conversion import shape_of
from ditbench.methods.dydit.config import DyDiTConfig
from ditbench.methods.dydit.model import DyDiT


def dydit_from(static: nn.Module, *, rank: bool = True, **config: Any) -> DyDiT:
    """A DyDiT with the weights of ``static``, ranked unless ``rank`` is off, and open routers. With adapters the base
    is frozen.

    ``config`` holds fields of DyDiTConfig; those of its shape must be the model's. Raises ConfigError.
    """
    merged = shape_of(static, "DyDiT", config)
    model = DyDiT(make_config(DyDiTConfig, merged)).to(static.get_parameter("pos_embed"))
    model.put_base(static, rank=rank)
    model.freeze_base()
    return model

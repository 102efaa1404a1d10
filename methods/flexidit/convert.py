"""From a static DiT to a FlexiDiT that computes the same at the pre-trained patch size."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from ditbench.methods.backbones.dit import DiT
from ditbench.methods.config import make_config
from ditbench.methods.conversion import shape_of
from ditbench.methods.flexidit.config import FlexiDiTConfig
from ditbench.methods.flexidit.model import FlexiDiT, NewSize
from ditbench.methods.flexidit.patching import lift_embedding, lift_head, project_embedding, project_head


@torch.no_grad()
def fill(model: FlexiDiT, base: DiT) -> None:
    """Put the weights of the static ``base`` into ``model``; new sizes start from what its kernels project to."""
    given, channels = base.state_dict(), base.config.head_channels
    stored = max(model.config.underlying_size, model.config.patch_size)
    embed = lift_embedding(given["x_embedder.proj.weight"], stored)
    head = {name: lift_head(given[f"final_layer.linear.{name}"], channels, stored) for name in ("weight", "bias")}
    state: dict[str, Tensor] = {**model.state_dict(), **given}
    if model.config.recipe == "shared":
        state["x_embedder.proj.weight"] = embed
        state |= {f"final_layer.linear.{name}": rows for name, rows in head.items()}
    model.load_state_dict(state)
    for name, module in model.new_sizes.items():
        own, size = cast(NewSize, module), int(name)
        own.x_embedder.proj.weight.copy_(project_embedding(embed, size))
        assert own.x_embedder.proj.bias is not None
        own.x_embedder.proj.bias.copy_(given["x_embedder.proj.bias"])
        own.linear.weight.copy_(project_head(head["weight"], channels, size))
        own.linear.bias.copy_(project_head(head["bias"], channels, size))


@torch.no_grad()
def flexidit_from(static: nn.Module, **config: Any) -> FlexiDiT:
    """A FlexiDiT with the weights of ``static``; new sizes start from what its kernels project to. With adapters the
    base is frozen.

    ``config`` holds fields of FlexiDiTConfig; those of its shape must be the model's. Raises ConfigError.
    """
    base, merged = shape_of(static, "FlexiDiT", config)
    model = FlexiDiT(make_config(FlexiDiTConfig, merged)).to(base.pos_embed)
    fill(model, base)
    model.freeze_base()
    return model

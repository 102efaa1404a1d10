"""The weights of a static DiT in a FlexiDiT, whose new sizes start from what its kernels project to."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from ditbench.methods.flexidit.patching import lift_embedding, lift_head, project_embedding, project_head

if TYPE_CHECKING:
    from ditbench.methods.flexidit.model import FlexiDiT, NewSize


@torch.no_grad()
def fill(model: FlexiDiT, base: nn.Module) -> None:
    """Put the weights of the static ``base`` into ``model``; new sizes start from what its kernels project to."""
    given, channels = base.state_dict(), model.config.head_channels
    stored = max(model.config.underlying_size, model.config.patch_size)
    embed = lift_embedding(given["x_embedder.proj.weight"], stored)
    head = {name: lift_head(given[f"final_layer.linear.{name}"], channels, stored) for name in ("weight", "bias")}
    state: dict[str, Tensor] = {**model.state_dict(), **given}
    if model.config.recipe == "shared":
        state["x_embedder.proj.weight"] = embed
        state |= {f"final_layer.linear.{name}": rows for name, rows in head.items()}
    model.load_state_dict(state)
    for name, module in model.new_sizes.items():
        own, size = cast("NewSize", module), int(name)
        own.x_embedder.proj.weight.copy_(project_embedding(embed, size))
        assert own.x_embedder.proj.bias is not None
        own.x_embedder.proj.bias.copy_(given["x_embedder.proj.bias"])
        own.linear.weight.copy_(project_head(head["weight"], channels, size))
        own.linear.bias.copy_(project_head(head["bias"], channels, size))

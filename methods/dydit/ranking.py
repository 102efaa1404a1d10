"""Important parts of a DiT first, so that those which may be always on are the most important ones."""

from __future__ import annotations

import torch
from torch import Tensor

from ditbench.methods.backbones.dit import DiT


@torch.no_grad()
def rank_by_magnitude(model: DiT) -> None:
    """Order heads, and MLP channels, by the L2 norm of their weights, largest first, in place.

    A head's norm is over its rows of W_Q, W_K, W_V and columns of W_O; a channel's over its row of fc1 and column of
    fc2. Both permutations leave the function unchanged (up to the order of sums). Head 0 and group 0, which may be
    always on, are then the most important ones. The paper names the criterion (arXiv 2410.03456, section 3.2), not the
    formula.
    """
    for block in model.blocks:
        attention, mlp = block.get_submodule("attn"), block.get_submodule("mlp")
        heads = model.config.num_heads
        qkv, proj = attention.get_parameter("qkv.weight"), attention.get_parameter("proj.weight")
        bias = attention.get_parameter("qkv.bias")
        width = qkv.shape[1]
        rows, columns = qkv.view(3, heads, -1, width), proj.view(width, heads, -1)
        norm = _squares(rows, (0, 2, 3)) + _squares(columns, (0, 2))
        order = norm.argsort(descending=True, stable=True)
        qkv.copy_(rows[:, order].flatten(0, 2))
        bias.copy_(bias.view(3, heads, -1)[:, order].flatten())
        proj.copy_(columns[:, order].flatten(1))
        fc1, fc2 = mlp.get_parameter("fc1.weight"), mlp.get_parameter("fc2.weight")
        order = (_squares(fc1, (1,)) + _squares(fc2, (0,))).argsort(descending=True, stable=True)
        fc1.copy_(fc1[order])
        mlp.get_parameter("fc1.bias").copy_(mlp.get_parameter("fc1.bias")[order])
        fc2.copy_(fc2[:, order])


def _squares(weight: Tensor, dims: tuple[int, ...]) -> Tensor:
    """In float64: files of adapters rest on the order, so that machines which sum in other orders must agree on it."""
    return weight.double().square().sum(dims)

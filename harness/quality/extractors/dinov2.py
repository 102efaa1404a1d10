"""DINOv2 features of images, by the protocol of Stein et al. 2023 (dgm-eval).

The network is that of Oquab et al. 2023: a vision transformer with LayerScale, without register tokens. Its reference
implementation is fetched from the network with its weights; this one reads a local checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditbench.harness.errors import InputError
from ditbench.harness.quality.extractors.inception import full_float32, read_weights
from ditbench.harness.quality.extractors.resize import bicubic_8bit, rgb
from ditbench.methods.weights import mismatch

SIZE = 224
_HEAD, _PATCH = 64, 14
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as in training
_RELEASED = {(384, 12): "vits14", (768, 12): "vitb14", (1024, 24): "vitl14", (1536, 40): "vitg14"}


@dataclass(frozen=True, eq=False)
class Dinov2Extractor:
    """An ``Extractor``: see the contract. Made by ``dinov2``."""

    name: str
    sha256: str
    dims: Mapping[str, int]
    network: nn.Module
    device: torch.device
    resize: str = "bicubic with antialiasing to 224x224, rounded to grey levels after rows and after columns"

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """See ``Extractor``. ``features`` are the class token after the last norm."""
        with torch.inference_mode(), full_float32():
            x = bicubic_8bit(rgb(images, self.device), SIZE).float() / 255
            mean, std = (x.new_tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
            return {"features": self.network((x - mean) / std)}


def dinov2(path: str | PathLike[str], sha256: str, device: str | torch.device) -> Dinov2Extractor:
    """DINOv2 from a released checkpoint (dinov2_vitl14_pretrain.pth; the sizes S, B and g as well).

    sha256: the file's digest, which the caller has verified. The published figures are of ViT-L/14, on images that
    Pillow resized as 8-bit images: dgm-eval's default, not its "clean" resize. Raises InputError if the file holds
    anything else, register tokens included.
    """
    state = read_weights(path)
    try:
        with torch.device("meta"):
            network = VisionTransformer(Shape.of(state))
        problem = mismatch(network, state)
    except ValueError as error:
        problem = str(error)
    if problem is not None:
        raise InputError(f"{path} is not a DINOv2 backbone without registers: {problem}")
    network.to_empty(device=device)
    network.load_state_dict(state)
    size = network.shape
    return Dinov2Extractor(
        name=f"dinov2-{_RELEASED.get((size.width, size.depth), size.text)}: class token after the last norm",
        sha256=sha256,
        dims={"features": size.width},
        network=network.requires_grad_(False).eval(),
        device=torch.device(device),
    )


@dataclass(frozen=True)
class Shape:
    """Of a network: width a multiple of 64, depth in blocks, hidden units of the MLP, its kind, and the grid's side."""

    width: int
    depth: int
    hidden: int
    gated: bool
    grid: int

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Shape:
        """The shape that a checkpoint's tensors imply. ValueError with what is missing or odd."""
        gated = "blocks.0.mlp.w3.weight" in state
        second = "blocks.0.mlp.w3.weight" if gated else "blocks.0.mlp.fc2.weight"
        for name in ("pos_embed", second):
            if name not in state:
                raise ValueError(f"{name} is missing")
        table = state["pos_embed"]
        if table.ndim != 3 or table.shape[2] % _HEAD or math.isqrt(table.shape[1] - 1) ** 2 != table.shape[1] - 1:
            raise ValueError(f"pos_embed {list(table.shape)} is not [1, 1 + a square, a multiple of {_HEAD}]")
        return cls(
            width=table.shape[2],
            depth=1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks.")),
            hidden=state[second].shape[-1],
            gated=gated,
            grid=math.isqrt(table.shape[1] - 1),
        )

    @property
    def text(self) -> str:
        return f"width {self.width}, depth {self.depth}"


class VisionTransformer(nn.Module):
    """(n, 3, H, W) normalised images, H = W a multiple of 14 -> (n, width), the class token."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.cls_token = nn.Parameter(torch.empty(1, 1, shape.width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + shape.grid**2, shape.width))
        self.mask_token = nn.Parameter(torch.empty(1, shape.width))  # of training; it stands in checkpoints
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, shape.width, _PATCH, _PATCH)})
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.width, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed["proj"](images)
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        tokens = tokens + resampled_positions(self.pos_embed, patches.shape[-1])
        for block in self.blocks:
            tokens = block(tokens)
        result: Tensor = self.norm(tokens[:, 0])
        return result


def resampled_positions(table: Tensor, grid: int) -> Tensor:
    """Position embeddings (1, 1 + side^2, width) for grid x grid patches: (1, 1 + grid^2, width).

    The reference adds 0.1 to the new side against rounding; that shifts every sample point, and the released networks
    are used so. Bicubic, not antialiased. The class token's embedding stays.
    """
    side, width = math.isqrt(table.shape[1] - 1), table.shape[2]
    if side == grid:
        return table
    scale = (grid + 0.1) / side
    square = table[:, 1:].reshape(1, side, side, width).permute(0, 3, 1, 2)
    moved = F.interpolate(square, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([table[:, :1], moved.flatten(2).transpose(1, 2)], dim=1)


class Block(nn.Module):
    """Attention and MLP, each behind a LayerNorm, scaled by channel and added: (n, tokens, width) -> the same."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(shape.width, eps=1e-6)
        self.attn = Attention(shape.width)
        self.ls1 = nn.ParameterDict({"gamma": nn.Parameter(torch.empty(shape.width))})
        self.norm2 = nn.LayerNorm(shape.width, eps=1e-6)
        self.mlp = GatedMlp(shape) if shape.gated else Mlp(shape)
        self.ls2 = nn.ParameterDict({"gamma": nn.Parameter(torch.empty(shape.width))})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1["gamma"] * self.attn(self.norm1(x))
        result: Tensor = x + self.ls2["gamma"] * self.mlp(self.norm2(x))
        return result


class Attention(nn.Module):
    """Self-attention with heads of 64 channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, _HEAD)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        result: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return result


class Mlp(nn.Module):
    """Of the sizes S, B and L."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.fc1 = nn.Linear(shape.width, shape.hidden)
        self.fc2 = nn.Linear(shape.hidden, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return result


class GatedMlp(nn.Module):
    """Of the size g: SwiGLU, both halves in one product."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.w12 = nn.Linear(shape.width, 2 * shape.hidden)
        self.w3 = nn.Linear(shape.hidden, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        result: Tensor = self.w3(F.silu(gate) * value)
        return result

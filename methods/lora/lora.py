"""LoRA (Hu et al., arXiv 2106.09685): a frozen linear layer plus a low-rank update, one named update or many.

An update is named; which one works is said by a ``Switch`` that all adapted layers of a model share. With none the
layer is the base's to the last bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.prepared import PreparedWeights


@dataclass
class Switch:
    """active: the update that works, None = the base alone. merged: at inference add it into a copy of the weights,
    which ``prepared`` keeps; else its two small products run beside the base's."""

    merged: bool = True
    active: str | None = None
    prepared: PreparedWeights = field(default_factory=lambda: PreparedWeights(4 * 2**30))


@dataclass(frozen=True, eq=False)
class Merged:
    """weight (C_out, C_in) with an update in it."""

    weight: Tensor


class LoraFactors(nn.Module):
    """scale · up · down, with down (rank, C_in) random and up (C_out, rank) zero at the start: no change."""

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        """For a ``weight`` (C_out, C_in), in its type and on its device."""
        super().__init__()
        self.scale = alpha / rank
        self.down = nn.Parameter(weight.new_empty(rank, weight.shape[1]))
        self.up = nn.Parameter(weight.new_empty(weight.shape[0], rank))
        self.reset()

    def reset(self) -> None:
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        nn.init.zeros_(self.up)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.down), self.up) * self.scale

    def update(self) -> Tensor:
        """What it adds to the weight: (C_out, C_in)."""
        return self.scale * (self.up @ self.down)


class LoraLinear(nn.Linear):
    """A linear layer under its usual parameter names, with updates in ``adapters``."""

    def __init__(self, base: nn.Linear, names: tuple[str, ...], rank: int, alpha: float | None, switch: Switch) -> None:
        super().__init__(base.in_features, base.out_features, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.switch = switch
        scale = float(rank) if alpha is None else alpha
        self.adapters = nn.ModuleDict({name: LoraFactors(base.weight, rank, scale) for name in names})

    def forward(self, x: Tensor) -> Tensor:
        name = self.switch.active
        if name is None or name not in self.adapters:
            return F.linear(x, self.weight, self.bias)
        if self.switch.merged and not self.training:
            return F.linear(x, self.merged(name), self.bias)
        update: Tensor = self.adapters[name](x)
        return F.linear(x, self.weight, self.bias) + update

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # a look-up, once an addition: nothing to compile
    def merged(self, name: str) -> Tensor:
        """The weight with update ``name`` in it, made once."""
        factors = self.adapters[name]
        assert isinstance(factors, LoraFactors)
        sources = (self.weight, factors.down, factors.up)
        made = self.switch.prepared.get(
            (id(self), name), sources, lambda: Merged(self.weight + factors.update().to(self.weight.dtype))
        )
        return made.weight


def add_lora(
    root: nn.Module,
    targets: tuple[str, ...],
    names: tuple[str, ...],
    rank: int,
    switch: Switch,
    alpha: float | None = None,
) -> list[LoraLinear]:
    """Put updates ``names`` on every linear layer of ``root`` whose path ends with one of ``targets``.

    ``alpha`` None: the rank, a scale of 1. Raises ValueError for a target that no linear layer has.
    """
    made = []
    for target in targets:
        paths = [path for path, module in root.named_modules() if type(module) is nn.Linear and _ends(path, target)]
        if not paths:
            raise ValueError(f"no linear layer is called {target!r}")
        for path in paths:
            parent, _, name = path.rpartition(".")
            layer = LoraLinear(root.get_submodule(path), names, rank, alpha, switch)  # type: ignore[arg-type]
            setattr(root.get_submodule(parent), name, layer)
            made.append(layer)
    return made


def _ends(path: str, target: str) -> bool:
    return path == target or path.endswith(f".{target}")

"""Linear layers with low-rank updates: one frozen weight, one named update or many.

Plain updates are LoRA (Hu et al., arXiv 2106.09685). TD-LoRA mixes one of the two factors from experts, with weights
that follow from the timestep embedding; the paper that names it (DyDiT++, arXiv 2504.06803) was not at hand, so that
factor, mixing and start are our reading. Which update works, and at which time, is said by a ``Switch`` that all
adapted layers of a model share. With none the layer is the base's to the last bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditbench.methods.lora.config import AdapterConfig
from ditbench.methods.prepared import PreparedWeights


@dataclass(frozen=True, eq=False)
class Made:
    """A weight (C_out, C_in) with an update in it, or the embedding (1, C) of a time."""

    tensor: Tensor


@dataclass
class Switch:
    """How the adapted layers of a model run just now.

    folded    at inference an update is added into a copy of the weights, which ``prepared`` keeps
    active    the update that works; None: the base alone
    time      the timestep that experts are mixed for when they are folded in
    embedded  timestep embeddings (B, C), or (1, C) for all rows: updates run beside the weights, mixed row by row
    embedder  (B,) -> (B, C), for ``time``
    """

    folded: bool = True
    active: str | None = None
    time: float | None = None
    embedded: Tensor | None = None
    embedder: nn.Module | None = None
    prepared: PreparedWeights = field(default_factory=lambda: PreparedWeights(4 * 2**30))

    def embed(self) -> Tensor:
        """The embedding (1, C) of ``time``."""
        embedder, time = self.embedder, self.time
        assert embedder is not None and time is not None
        sources = self.sources()

        def make() -> Made:
            return Made(embedder(torch.tensor([time], device=sources[0].device)))

        return self.prepared.get(("embedded", time), sources, make).tensor

    def sources(self) -> tuple[Tensor, ...]:
        """What mixing by time reads, besides an update's own factors."""
        return () if self.embedder is None else tuple(self.embedder.parameters())


class LoraFactors(nn.Module):
    """scale · up · down, with down (rank, C_in) random and up (C_out, rank) zero at the start: no change."""

    def __init__(self, weight: Tensor, config: AdapterConfig) -> None:
        """For a ``weight`` (C_out, C_in), in its type and on its device."""
        super().__init__()
        self.scale = config.scale
        self.down = nn.Parameter(weight.new_empty(config.rank, weight.shape[1]))
        self.up = nn.Parameter(weight.new_empty(weight.shape[0], config.rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        nn.init.zeros_(self.up)

    def forward(self, x: Tensor, embedded: Tensor | None = None) -> Tensor:
        return F.linear(F.linear(x, self.down), self.up) * self.scale

    def update(self, switch: Switch) -> Tensor:
        """What it adds to the weight: (C_out, C_in)."""
        return self.scale * (self.up @ self.down)

    def sources(self, switch: Switch) -> tuple[Tensor, ...]:
        return (self.down, self.up)


class ExpertFactors(nn.Module):
    """scale · up(t) · down, or scale · up · down(t): a factor is the mean of its experts under softmax(router · E_t).

    down ([experts,] rank, C_in) is random and up ([experts,] C_out, rank) zero at the start: no change. The router
    (experts, C) starts Xavier-uniform, as those of DyDiT: with equal weights, all experts of up would get the same
    gradient at every step and stay one.
    """

    def __init__(self, weight: Tensor, config: AdapterConfig, width: int) -> None:
        """For a ``weight`` (C_out, C_in) and timestep embeddings of ``width`` C."""
        super().__init__()
        self.scale, self.mixes_up = config.scale, config.expert_factor == "up"
        down, up = (config.rank, weight.shape[1]), (weight.shape[0], config.rank)
        self.down = nn.Parameter(weight.new_empty(down if self.mixes_up else (config.experts, *down)))
        self.up = nn.Parameter(weight.new_empty((config.experts, *up) if self.mixes_up else up))
        self.router = nn.Parameter(weight.new_empty(config.experts, width))
        for each in self.down.unbind() if self.down.ndim == 3 else (self.down,):
            nn.init.kaiming_uniform_(each, a=math.sqrt(5))
        nn.init.zeros_(self.up)
        nn.init.xavier_uniform_(self.router)

    def forward(self, x: Tensor, embedded: Tensor | None = None) -> Tensor:
        """x (B, N, C_in), embedded (B, C) or (1, C) -> (B, N, C_out). Nothing of size B · C_out · C_in is made."""
        assert embedded is not None
        if self.mixes_up:
            return F.linear(x, self.down) @ self.mixed(self.up, embedded).transpose(1, 2) * self.scale
        return F.linear(x @ self.mixed(self.down, embedded).transpose(1, 2), self.up) * self.scale

    def mixed(self, experts: Tensor, embedded: Tensor) -> Tensor:
        """A stack (experts, a, b) -> (B, a, b)."""
        weights = F.linear(embedded, self.router).softmax(-1)
        return (weights @ experts.flatten(1)).view(-1, *experts.shape[1:])

    def update(self, switch: Switch) -> Tensor:
        """What it adds to the weight at the switch's time: (C_out, C_in)."""
        embedded = switch.embed()
        if self.mixes_up:
            return self.scale * (self.mixed(self.up, embedded)[0] @ self.down)
        return self.scale * (self.up @ self.mixed(self.down, embedded)[0])

    def sources(self, switch: Switch) -> tuple[Tensor, ...]:
        return (self.down, self.up, self.router, *switch.sources())


class LoraLinear(nn.Linear):
    """A linear layer under its usual parameter names, with updates in ``adapters``."""

    def __init__(
        self, base: nn.Linear, names: tuple[str, ...], config: AdapterConfig, switch: Switch, width: int
    ) -> None:
        super().__init__(base.in_features, base.out_features, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.switch = switch
        self.adapters = nn.ModuleDict(
            {
                name: ExpertFactors(base.weight, config, width) if config.timed else LoraFactors(base.weight, config)
                for name in names
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        switch = self.switch
        name = switch.active
        if name is None or name not in self.adapters:
            return F.linear(x, self.weight, self.bias)
        if switch.folded and switch.embedded is None and not self.training:
            return F.linear(x, self.folded(), self.bias)
        update: Tensor = self.adapters[name](x, switch.embedded)
        return F.linear(x, self.weight, self.bias) + update

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # a look-up, once an addition: nothing to compile
    def folded(self) -> Tensor:
        """The weight with the active update in it, made once."""
        factors, time = self._active(), self.switch.time
        if factors is None:
            return self.weight
        key = (id(self), self.switch.active, time if isinstance(factors, ExpertFactors) else None)
        return self.switch.prepared.get(key, self.sources(), lambda: Made(self.fold())).tensor

    def fold(self) -> Tensor:
        """The weight with the active update in it, made anew: (C_out, C_in). The sum is rounded once."""
        if (factors := self._active()) is None:
            return self.weight
        exact = torch.promote_types(self.weight.dtype, torch.float32)
        return (self.weight.to(exact) + factors.update(self.switch).to(exact)).to(self.weight.dtype)

    def sources(self) -> tuple[Tensor, ...]:
        """What ``fold`` reads."""
        factors = self._active()
        return (self.weight,) if factors is None else (self.weight, *factors.sources(self.switch))

    def _active(self) -> LoraFactors | ExpertFactors | None:
        name = self.switch.active
        if name is None or name not in self.adapters:
            return None
        factors = self.adapters[name]
        assert isinstance(factors, LoraFactors | ExpertFactors)
        return factors


def weight_of(layer: nn.Linear) -> Tensor:
    """The weight (C_out, C_in) that a layer of any kind works with at inference, with its active update."""
    return layer.fold() if isinstance(layer, LoraLinear) else layer.weight


def sources_of(layer: nn.Linear) -> tuple[Tensor, ...]:
    """What ``weight_of`` reads, and the bias."""
    return (*(layer.sources() if isinstance(layer, LoraLinear) else (layer.weight,)), layer.bias)


def add_lora(
    root: nn.Module, config: AdapterConfig, names: tuple[str, ...], switch: Switch, width: int = 1
) -> list[LoraLinear]:
    """Put updates ``names`` on every linear layer of ``root`` whose path ends with one of the config's targets.

    ``width`` of the timestep embeddings that experts are mixed by. Raises ValueError for a target that no linear layer
    has.
    """
    made = []
    for target in config.targets:
        paths = [path for path, module in root.named_modules() if type(module) is nn.Linear and _ends(path, target)]
        if not paths:
            raise ValueError(f"no linear layer is called {target!r}")
        for path in paths:
            parent, _, name = path.rpartition(".")
            layer = LoraLinear(root.get_submodule(path), names, config, switch, width)  # type: ignore[arg-type]
            setattr(root.get_submodule(parent), name, layer)
            made.append(layer)
    return made


def _ends(path: str, target: str) -> bool:
    return path == target or path.endswith(f".{target}")

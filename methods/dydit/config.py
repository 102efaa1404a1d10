"""The shape of a DyDiT and what is dynamic in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ditbench.methods.backbones.config import DiTConfig
from ditbench.methods.config import make_config
from ditbench.methods.dydit.activity import Activity, BlockCost
from ditbench.methods.errors import ConfigError
from ditbench.methods.facts import Facts


@dataclass(frozen=True)
class DyDiTConfig(DiTConfig):
    """A DiT with routers.

    tdw           route heads and MLP channel groups by timestep
    sdt           route tokens past the MLP
    always_on     head 0 and group 0 cannot be closed (the published format of 2025; False: that of 2024)
    activity      impose this much work instead of the routers' verdicts: see ``Activity``; samples mean nothing

    ``prepared_mib`` is for sliced weights.
    """

    tdw: bool = True
    sdt: bool = True
    always_on: bool = True
    activity: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.tdw or self.sdt):
            raise ConfigError("tdw and sdt are both off: that is a static DiT; build 'dit'")
        if self.mlp_width % self.num_heads:
            raise ConfigError(f"the MLP's {self.mlp_width} channels do not divide into {self.num_heads} groups")
        if self.sdt and self.hidden_size < 16:
            raise ConfigError(f"hidden_size {self.hidden_size} is below 16, which the token router needs")
        if self.adapter is not None and not self.adapter.folded:
            raise ConfigError("adapter: folded: false is not for models that slice their weights; leave it out")
        if self.activity is not None:
            object.__setattr__(self, "activity", Activity.parse(self.activity))
            self.activity.fractions(0.0, self.block_cost, self.tdw, self.sdt)

    @property
    def mlp_width(self) -> int:
        return int(self.hidden_size * self.mlp_ratio)

    @property
    def block_cost(self) -> BlockCost:
        return BlockCost.of(self.tokens, self.hidden_size, self.mlp_width)

    @property
    def facts(self) -> Facts:
        return replace(super().facts, imposed="" if self.activity is None else "activity")


def dydit_facts(config: Mapping[str, Any]) -> Facts:
    """Facts of a DyDiT from the fields of DyDiTConfig. Raises ConfigError."""
    return make_config(DyDiTConfig, config).facts

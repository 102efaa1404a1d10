"""What adapters a model has, as users write it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from ditbench.methods.adaptation import Adaptation
from ditbench.methods.config import make_config
from ditbench.methods.errors import ConfigError

TARGETS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
"""Linear layers of a DiT's block."""
Factor = Literal["up", "down"]


@dataclass(frozen=True)
class AdapterConfig:
    """Low-rank updates of linear layers: LoRA (arXiv 2106.09685), or TD-LoRA with more than one expert.

    rank           of every update, at least 1
    alpha          an update is scaled by alpha / rank; None: the rank, a scale of 1
    experts        1: LoRA; more: one factor is mixed from so many by the timestep
    expert_factor  which factor has experts: up (C_out, rank) or down (rank, C_in)
    targets        which linear layers, by the ends of their paths
    folded         at inference updates are added into a copy of the weights (TD-LoRA: one a timestep); False: their
                   products run beside the weights
    """

    rank: int = 8
    alpha: float | None = None
    experts: int = 1
    expert_factor: Factor = "up"
    targets: tuple[str, ...] = TARGETS
    folded: bool = True

    def __post_init__(self) -> None:
        for name in ("rank", "experts"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"adapter: {name} must be a whole number of at least 1, not {value!r}")
        alpha = self.alpha
        if alpha is not None and (
            not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha < math.inf
        ):
            raise ConfigError(f"adapter: alpha must be a positive number, not {alpha!r}")
        if self.expert_factor not in get_args(Factor):
            raise ConfigError(f"adapter: expert_factor is up or down, not {self.expert_factor!r}")
        if not isinstance(self.folded, bool):
            raise ConfigError(f"adapter: folded is true or false, not {self.folded!r}")

    @classmethod
    def parse(cls, value: Any, rank: int = 8, targets: tuple[str, ...] = TARGETS) -> AdapterConfig:
        """From a mapping of the fields; ``rank`` is the default of that name, ``targets`` are those that there are.

        Raises ConfigError.
        """
        if isinstance(value, AdapterConfig):
            return value
        if not isinstance(value, Mapping):
            known = ", ".join(field.name for field in dataclasses.fields(cls))
            raise ConfigError(f"adapter must be a mapping such as {{rank: {rank}}} (of {known}), not {value!r}")
        try:
            made = make_config(cls, {"rank": rank, "targets": targets, **{str(k): inner for k, inner in value.items()}})
        except ConfigError as error:
            text = str(error)
            raise ConfigError(text if text.startswith("adapter") else f"adapter: {text}") from None
        chosen: Any = made.targets
        if (
            not isinstance(chosen, list | tuple)
            or not chosen
            or any(target not in targets for target in chosen)
            or len({*chosen}) < len(chosen)
        ):
            raise ConfigError(f"adapter: targets are some of {', '.join(targets)}, each once, not {chosen!r}")
        # one order, so that equal choices are equal values
        return replace(made, targets=tuple(target for target in targets if target in chosen))

    @property
    def scale(self) -> float:
        return 1.0 if self.alpha is None else self.alpha / self.rank

    @property
    def timed(self) -> bool:
        """Whether updates depend on the timestep."""
        return self.experts > 1

    @property
    def adaptation(self) -> Adaptation:
        """As records tell it."""
        if not self.timed:
            about = "LoRA leaves the weights of a base and adds to each a product of two thin matrices."
            return Adaptation("LoRA", f"r={self.rank}", about=about)
        about = "In TD-LoRA one of the two thin matrices of LoRA is mixed from experts by the timestep."
        return Adaptation("TD-LoRA", f"r={self.rank} ×{self.experts}", refines="LoRA", about=about)

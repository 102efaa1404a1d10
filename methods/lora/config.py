"""What adapters a model has, as users write it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ditbench.methods.config import make_config
from ditbench.methods.errors import ConfigError

TARGETS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
Factor = Literal["up", "down"]


@dataclass(frozen=True)
class AdapterConfig:
    """Low-rank updates of a block's linear layers: LoRA (arXiv 2106.09685), or TD-LoRA with more than one expert.

    rank           of every update, at least 1
    alpha          an update is scaled by alpha / rank; None: the rank, a scale of 1
    experts        1: LoRA; more: one factor is mixed from so many by the timestep
    expert_factor  which factor has experts: up (C_out, rank) or down (rank, C_in)
    targets        which linear layers of every block
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
        targets = self.targets
        if (
            not isinstance(targets, list | tuple)
            or not targets
            or any(target not in TARGETS for target in targets)
            or len({*targets}) < len(targets)
        ):
            raise ConfigError(f"adapter: targets are some of {', '.join(TARGETS)}, each once, not {targets!r}")
        # one order, so that equal choices are equal values
        object.__setattr__(self, "targets", tuple(target for target in TARGETS if target in targets))

    @classmethod
    def parse(cls, value: Any, rank: int = 8) -> AdapterConfig:
        """From a mapping of the fields; ``rank`` is the default of that name. Raises ConfigError."""
        if isinstance(value, AdapterConfig):
            return value
        if not isinstance(value, Mapping):
            known = ", ".join(field.name for field in dataclasses.fields(cls))
            raise ConfigError(f"adapter must be a mapping such as {{rank: {rank}}} (of {known}), not {value!r}")
        try:
            return make_config(cls, {"rank": rank, **{str(key): inner for key, inner in value.items()}})
        except ConfigError as error:
            text = str(error)
            raise ConfigError(text if text.startswith("adapter") else f"adapter: {text}") from None

    @property
    def scale(self) -> float:
        return 1.0 if self.alpha is None else self.alpha / self.rank

    @property
    def timed(self) -> bool:
        """Whether updates depend on the timestep."""
        return self.experts > 1

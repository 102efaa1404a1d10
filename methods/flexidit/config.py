"""The shape of a FlexiDiT, its patch sizes, and how they are scheduled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ditbench.methods.backbones.config import DiTConfig
from ditbench.methods.config import make_config
from ditbench.methods.errors import ConfigError
from ditbench.methods.facts import Facts
from ditbench.methods.flexidit.cost import macs
from ditbench.methods.flexidit.schedule import Schedule
from ditbench.methods.lora.config import AdapterConfig

Recipe = Literal["shared", "lora"]
Positions = Literal["centre", "corner"]
Layout = Literal["auto", "separate", "padded", "joined", "packed"]


@dataclass(frozen=True)
class FlexiDiTConfig(DiTConfig):
    """A DiT that runs at several patch sizes. ``patch_size`` is the pre-trained one.

    patch_sizes      all sizes, coarse ones and the pre-trained one; each divides input_size
    recipe           shared: one set of weights, (de-)embeddings projected from stored kernels; lora: the base as it
                     is, and for each new size its own (de-)embedding and low-rank updates of attention and MLP;
                     ``adapter`` says which, of rank 32 unless it says another (shared: one set for all sizes)
    underlying_size  patch size of the stored kernels (shared)
    positions        where a patch is on the pre-trained size's grid: by its centre or its corner
    size_norm        a layer norm after the patch embedding of every new size
    schedule         sizes over the sampling steps: see ``Schedule.parse``; unset: the pre-trained size throughout
    layout           how two branches of unequal length run in one guided step; auto: as ``tune`` measured

    ``prepared_mib`` is for projected kernels and folded weights.
    """

    patch_sizes: Any = (2, 4)
    recipe: Recipe = "shared"
    underlying_size: int = 4
    positions: Positions = "centre"
    size_norm: bool = False
    schedule: Any = None
    layout: Layout = "auto"

    def __post_init__(self) -> None:
        if self.recipe == "lora":
            given = {} if self.adapter is None else self.adapter
            object.__setattr__(self, "adapter", AdapterConfig.parse(given, rank=32))
        super().__post_init__()
        sizes = self.patch_sizes
        if not isinstance(sizes, list | tuple) or not all(type(size) is int and size > 0 for size in sizes):
            raise ConfigError(f"patch_sizes is a list of whole numbers such as [2, 4], not {sizes!r}")
        if self.patch_size not in sizes:
            raise ConfigError(f"patch_sizes {list(sizes)} lack the pre-trained size, patch_size {self.patch_size}")
        for size in sizes:
            self._check_divides(size)
        # the pre-trained size first, then the others as they grow
        ordered = (self.patch_size, *sorted({*sizes} - {self.patch_size}))
        object.__setattr__(self, "patch_sizes", ordered)
        for name, kind in (("recipe", Recipe), ("positions", Positions), ("layout", Layout)):
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(f"{name} is one of {', '.join(get_args(kind))}, not {getattr(self, name)!r}")
        if self.recipe == "lora" and self.layout not in ("auto", "separate"):
            raise ConfigError(
                f"layout {self.layout} runs both branches on the same weights, and recipe lora gives each size its "
                "own: leave it at auto"
            )
        if self.layout not in ("auto", "separate") and not self.shares_rows:
            raise ConfigError(
                f"layout {self.layout} puts sequences into one row, and updates that depend on the timestep run "
                "beside the weights row by row: leave it at auto, or fold them"
            )
        value = self.underlying_size
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"underlying_size must be a whole number of at least 1, not {value!r}")
        if self.recipe == "shared" and self.underlying_size < self.patch_size:
            raise ConfigError(
                f"underlying_size {self.underlying_size} is below patch_size {self.patch_size}: "
                "the pre-trained kernel would not fit into it"
            )
        if self.schedule is not None:
            object.__setattr__(self, "schedule", Schedule.parse(self.schedule, ordered))

    def _check_divides(self, size: int) -> None:
        if self.input_size % size:
            fitting = ", ".join(str(d) for d in range(1, self.input_size + 1) if self.input_size % d == 0)
            raise ConfigError(f"patch size {size} does not divide input_size {self.input_size}; these do: {fitting}")

    @property
    def shares_rows(self) -> bool:
        """Whether sequences of both branches may lie in one row: they have the same weights there."""
        adapter = self.adapter
        return self.recipe == "shared" and (adapter is None or adapter.folded or not adapter.timed)

    def tokens_at(self, size: int) -> int:
        """Length of the sequence at patch ``size``."""
        return (self.input_size // size) ** 2

    def macs_at(self, size: int) -> float:
        """See ``cost.macs``. Raises ConfigError for a size that does not divide the input."""
        self._check_divides(size)
        return macs(self, size)


def flexidit_facts(config: Mapping[str, Any]) -> Facts:
    """Facts of a FlexiDiT from the fields of FlexiDiTConfig. Raises ConfigError."""
    return make_config(FlexiDiTConfig, config).facts

"""What a model is told beside the time, as a value: named tensors with rows first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ditbench.methods.errors import ConfigError
from ditbench.methods.facts import ClassLabels, Facts

LABEL = "label"


class Conditions:
    """Frozen. ``tensors``: name -> (B, …); ``nothing``: name -> (1, …), what stands for "no condition"; empty where a
    model cannot be told nothing. Without any tensor the rows are those of an unconditional model.
    """

    def __init__(
        self, rows: int, tensors: Mapping[str, Tensor] | None = None, nothing: Mapping[str, Tensor] | None = None
    ) -> None:
        self.tensors = MappingProxyType(dict(tensors or {}))
        self.nothing = MappingProxyType(dict(nothing or {}))
        self._rows = rows
        for name, tensor in self.tensors.items():
            if len(tensor) != rows:
                raise ConfigError(f"condition {name!r} has {len(tensor)} rows, and the batch {rows}")

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def null(self) -> Conditions:
        """As many rows that say nothing. Raises ConfigError for a model that cannot be told nothing."""
        if self.tensors.keys() - self.nothing.keys() or not self.tensors:
            raise ConfigError("there is no condition to leave out: the model cannot be guided (guidance: 1)")
        full = {name: self.nothing[name].expand_as(tensor).contiguous() for name, tensor in self.tensors.items()}
        return self.replaced(full)

    def cat(self, other: Conditions) -> Conditions:
        """These rows, then the other's."""
        joined = {name: torch.cat([tensor, other[name]]) for name, tensor in self.tensors.items()}
        return Conditions(len(self) + len(other), joined, self.nothing)

    def rows(self, indices: Sequence[int] | slice | Tensor) -> Conditions:
        """The rows of these indices, in their order."""
        chosen = torch.arange(len(self))[indices]
        return Conditions(len(chosen), {name: t[chosen.to(t.device)] for name, t in self.tensors.items()}, self.nothing)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Conditions:
        """On ``device``; tensors of real numbers in ``dtype``."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, dtype if tensor.is_floating_point() else None)

        tensors = {name: moved(tensor) for name, tensor in self.tensors.items()}
        return Conditions(len(self), tensors, {name: moved(tensor) for name, tensor in self.nothing.items()})

    def replaced(self, tensors: Mapping[str, Tensor]) -> Conditions:
        """The same kind with other tensors under the same names: a captured graph's own ones."""
        rows = len(next(iter(tensors.values()))) if tensors else len(self)
        return Conditions(rows, tensors, self.nothing)


class Source(Protocol):
    """Where the conditions of a sample come from."""

    def draw(
        self, facts: Facts, seed: int, indices: Sequence[int], streams: Sequence[np.random.Generator]
    ) -> Conditions:
        """One row a sample, on the CPU. What sample i is told depends on (seed, i) alone: on its own stream, before its
        noise, or on its index. Raises ConfigError for a model that takes no such conditions."""
        ...


class Labels:
    """Class labels, drawn evenly from all classes; or nothing, for a model that takes none.

    only  of these classes
    """

    def __init__(self, only: Sequence[int] | None = None) -> None:
        whole = only is None or all(isinstance(each, int) and each >= 0 for each in only)
        if only is not None and (not only or not whole):
            raise ConfigError(f"only must be a list of class labels, not {only!r}")
        self.only = None if only is None else list(only)

    def draw(
        self, facts: Facts, seed: int, indices: Sequence[int], streams: Sequence[np.random.Generator]
    ) -> Conditions:
        if (kind := _labels(facts)) is None:
            if self.only is not None:
                raise ConfigError("the model takes no class labels")
            return Conditions(len(streams))
        classes = list(range(kind.count)) if self.only is None else self.only
        if max(classes) >= kind.count:
            raise ConfigError(f"only: {max(classes)} is no class of 0..{kind.count - 1}")
        labels = [classes[int(stream.integers(len(classes)))] for stream in streams]
        return _of_kind(torch.tensor(labels, dtype=torch.long), kind)


def made_source(wanted: Mapping[str, Any]) -> Source:
    """From a registered name and its options; empty: class labels. Raises ConfigError, UnknownNameError."""
    from ditbench.methods.registry import conditions

    options = {"name": "labels", **wanted}
    entry = conditions()[str(options.pop("name"))]
    try:
        made: Source = entry.load()(**{**entry.preset, **options})
    except TypeError as error:
        raise ConfigError(f"conditions: {error}") from None
    return made


def zeros(facts: Facts, rows: int, device: torch.device | str = "cpu") -> Conditions:
    """Rows of the right kind and shape, whose values do not matter: for counting and timing."""
    if (kind := _labels(facts)) is None:
        return Conditions(rows)
    return _of_kind(torch.zeros(rows, dtype=torch.long, device=device), kind)


def of_labels(facts: Facts, labels: Tensor) -> Conditions:
    """These class labels (B,), for a model of these facts. Raises ConfigError where it takes none."""
    if (kind := _labels(facts)) is None:
        raise ConfigError("the model takes no class labels")
    return _of_kind(labels, kind)


def _labels(facts: Facts) -> ClassLabels | None:
    return next((kind for kind in facts.conditions if isinstance(kind, ClassLabels)), None)


def _of_kind(labels: Tensor, kind: ClassLabels) -> Conditions:
    return Conditions(
        len(labels), {LABEL: labels}, {LABEL: labels.new_full((1,), kind.count)} if kind.droppable else {}
    )

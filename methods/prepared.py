"""What is made of weights once and kept while memory allows: slices, projected kernels, merged adapters."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Self, TypeVar, cast

import torch
from torch import Tensor, nn

T = TypeVar("T")


class PreparedWeights:
    """Values by key, least recently used dropped first, never more than ``limit`` bytes.

    A value is a dataclass that holds tensors. Tensors that are the weights themselves take no room. A value is made
    anew when the weights were written to in between.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self._kept: OrderedDict[Hashable, tuple[tuple[tuple[Tensor, int], ...], object, int]] = OrderedDict()

    def get(self, key: Hashable, sources: tuple[Tensor, ...], make: Callable[[], T]) -> T:
        """The value of ``key``; ``sources`` are the weights that ``make`` reads."""
        versions = tuple((tensor, 0 if tensor.is_inference() else tensor._version) for tensor in sources)
        if (found := self._kept.get(key)) is not None:
            if all(a is b and v == w for (a, v), (b, w) in zip(found[0], versions, strict=True)):
                self._kept.move_to_end(key)
                return cast(T, found[1])
            self._drop(key)
        # ordinary tensors even when the first call is an inference-mode one: later calls may differentiate
        with torch.inference_mode(False), torch.no_grad():
            made = make()
        own = {tensor.data_ptr() for tensor in sources}
        tensors = [value for value in vars(made).values() if isinstance(value, Tensor)]
        size = sum(t.numel() * t.element_size() for t in tensors if t.data_ptr() not in own)
        if size <= self.limit:
            while self.bytes + size > self.limit:
                self._drop(next(iter(self._kept)))
            self._kept[key] = (versions, made, size)
            self.bytes += size
        return made

    def clear(self) -> None:
        self._kept.clear()
        self.bytes = 0

    def _drop(self, key: Hashable) -> None:
        self.bytes -= self._kept.pop(key)[2]


class KeepsPrepared(nn.Module):
    """A model with ``prepared_mib`` MiB for what it prepares; moving or training it drops that."""

    prepared_mib: int = 4096

    @property
    def prepared(self) -> PreparedWeights:
        if "_prepared" not in self.__dict__:
            self.__dict__["_prepared"] = PreparedWeights(self.prepared_mib * 2**20)
        return cast(PreparedWeights, self.__dict__["_prepared"])

    @property
    def prepared_bytes(self) -> int:
        return self.prepared.bytes

    def forget(self) -> None:
        self.prepared.clear()

    def train(self, mode: bool = True) -> Self:
        self.forget()
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self.forget()
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call, no-any-return]

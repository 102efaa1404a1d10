"""What a loop remembers between its steps.

The loop makes it, passes it in each call and drops it at its end; no module keeps anything. Rows are kept by branch, so
that a step that does not guide leaves the guidance branch's memory as it was.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

BRANCHES = ("conditional", "guidance")


@dataclass(frozen=True)
class Kept:
    """A tensor with rows first, and the choices that it was made under: it may be reused under equal ones only."""

    value: Tensor
    stamp: Hashable


@dataclass
class Memory:
    """Tensors by branch and key. ``rows``: images of the loop, rows of one branch."""

    rows: int
    _kept: dict[tuple[str, Hashable], Kept] = field(default_factory=dict)

    def put(self, branches: Sequence[str], key: Hashable, value: Tensor, stamp: Hashable = None) -> None:
        """Keep ``value`` (rows of all ``branches`` in order, first axis) for each of them; views, nothing is copied."""
        for branch, part in zip(branches, value.chunk(len(branches)), strict=True):
            self._kept[branch, key] = Kept(part, stamp)

    def get(self, branches: Sequence[str], key: Hashable, stamp: Hashable = None) -> Tensor | None:
        """What was kept for all of ``branches``, joined; None where one has nothing, or something of other choices."""
        found = [self._kept.get((branch, key)) for branch in branches]
        parts = [each.value for each in found if each is not None and each.stamp == stamp]
        if len(parts) < len(branches):
            return None
        if len(parts) == 1:
            return parts[0]
        whole = parts[0]._base
        if whole is not None and all(part._base is whole for part in parts) and len(whole) == sum(map(len, parts)):
            return whole
        return torch.cat(parts)

    def snapshot(self) -> Memory:
        """A copy that later steps do not touch; what is kept is never written to in place."""
        return Memory(self.rows, dict(self._kept))

    def restore(self, snapshot: Memory) -> None:
        """Be as ``snapshot`` was."""
        self._kept = dict(snapshot._kept)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def bytes(self) -> int:
        """Of what is kept now; storage that several views share counts once."""
        storages = {kept.value.untyped_storage()._cdata: kept.value for kept in self._kept.values()}
        return sum(value.untyped_storage().nbytes() for value in storages.values())

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
    """One branch's rows of a tensor, and the choices that it was made under: it may be reused under equal ones only.

    whole, branches  what was put, and whose rows it holds: asked for together, they come back as they were
    """

    value: Tensor
    stamp: Hashable
    whole: Tensor
    branches: tuple[str, ...]


@dataclass
class Memory:
    """Tensors by branch and key. ``rows``: images of the loop, rows of one branch."""

    rows: int
    _kept: dict[tuple[str, Hashable], Kept] = field(default_factory=dict)

    def put(self, branches: Sequence[str], key: Hashable, value: Tensor, stamp: Hashable = None) -> None:
        """Keep ``value`` (rows of all ``branches`` in order, first axis) for each of them; views, nothing is copied.

        Raises ValueError for another number of rows.
        """
        if len(value) != self.rows * len(branches):
            raise ValueError(f"{len(value)} rows to remember, of {self.rows} images in {len(branches)} branches")
        for branch, part in zip(branches, value.chunk(len(branches)), strict=True):
            self._kept[branch, key] = Kept(part, stamp, value, tuple(branches))

    def get(self, branches: Sequence[str], key: Hashable, stamp: Hashable = None) -> Tensor | None:
        """What was kept for all of ``branches``, joined; None where one has nothing, or something of other choices."""
        found = [self._kept.get((branch, key)) for branch in branches]
        kept = [each for each in found if each is not None and each.stamp == stamp]
        if len(kept) < len(branches):
            return None
        if len(kept) == 1:
            return kept[0].value
        whole = kept[0].whole
        if kept[0].branches == tuple(branches) and all(each.whole is whole for each in kept):
            return whole
        return torch.cat([each.value for each in kept])

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

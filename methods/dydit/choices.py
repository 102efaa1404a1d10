"""What a DyDiT chooses a step: heads and channel groups by the timestep, and tokens where they are imposed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ditbench.methods.glossary import notes
from ditbench.methods.plans import Choice, Facet

HEADS, GROUPS, TOKENS = "attention heads", "MLP channel groups", "tokens"
Indices = tuple[int, ...]


@dataclass(frozen=True)
class Width(Choice):
    """Active heads and MLP channel groups a layer, as sorted indices, of ``parts`` each."""

    heads: tuple[Indices, ...]
    groups: tuple[Indices, ...]
    parts: int

    def facets(self) -> tuple[Facet, ...]:
        return (_shares(HEADS, map(len, self.heads), self.parts), _shares(GROUPS, map(len, self.groups), self.parts))


@dataclass(frozen=True)
class Kept(Choice):
    """Tokens a layer that pass the MLP, of ``length``, imposed."""

    tokens: tuple[int, ...]
    length: int

    def facets(self) -> tuple[Facet, ...]:
        return (_shares(TOKENS, self.tokens, self.length),)


def _shares(name: str, counts: Iterable[int], whole: int) -> Facet:
    return Facet(name, tuple(count / whole for count in counts), (), **notes(name))

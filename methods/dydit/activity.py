"""Imposed activity: how much of a model is on, said instead of learned, to cost it without trained weights.

Routers are evaluated and their verdicts replaced, so that FLOPs and time are those of a trained model of the same
activity. Samples mean nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ditbench.methods.errors import ConfigError

# (training timestep, active heads, active MLP groups): figure 5 of arXiv 2410.03456, at the steps 25, 100 and 225 of
# its 250. Between them linear, beyond them constant.
PUBLISHED = ((100.0, 0.9799, 0.9129), (401.0, 0.3080, 0.5201), (903.0, 0.0982, 0.2053))
_KEYS = ("target", "profile", "heads", "groups", "tokens")
_HELP = "a target in (0, 1], or a mapping with target, profile: published, heads, groups or tokens"


@dataclass(frozen=True)
class BlockCost:
    """MACs of one block's two sub-layers for one sequence at full activity: MHSA 4NC² + 2N²C, MLP 2NC·D."""

    attention: int
    mlp: int

    @classmethod
    def of(cls, tokens: int, width: int, mlp_width: int) -> BlockCost:
        return cls(4 * tokens * width**2 + 2 * tokens**2 * width, 2 * tokens * width * mlp_width)

    def ratio(self, heads: float, groups: float, tokens: float) -> float:
        """Share of the full block's MACs at these active fractions."""
        return (heads * self.attention + groups * tokens * self.mlp) / (self.attention + self.mlp)


@dataclass(frozen=True)
class Activity:
    """Fractions in [0, 1]; ``None`` leaves the full model, except where ``target`` says what follows from it.

    target   share of the MHSA and MLP MACs to leave: heads = target, groups · tokens = target, in equal parts unless
             ``tokens`` is given
    profile  'published': heads and groups by timestep as DyDiT learned them
    """

    target: float | None = None
    profile: str | None = None
    heads: float | None = None
    groups: float | None = None
    tokens: float | None = None

    def __post_init__(self) -> None:
        for name in ("target", "heads", "groups", "tokens"):
            value = getattr(self, name)
            numeric = isinstance(value, int | float) and not isinstance(value, bool)
            least = 0.0 if name == "tokens" else math.ulp(0.0)
            if value is not None and not (numeric and least <= value <= 1):
                bounds = "[0, 1]" if name == "tokens" else "(0, 1]"
                raise ConfigError(f"activity: {name} must be a number in {bounds}, not {value!r}")
        if self.profile not in (None, "published"):
            raise ConfigError(f"activity: profile must be 'published', not {self.profile!r}")
        widths = self.heads is not None or self.groups is not None
        if sum((self.target is not None, self.profile is not None, widths)) > 1:
            raise ConfigError("activity: give one of target, profile, or heads and groups")

    @classmethod
    def parse(cls, value: Any) -> Activity:
        """A number is a target, a word a profile, a mapping the fields. Raises ConfigError."""
        if isinstance(value, Activity):
            return value
        if isinstance(value, str):
            return cls(profile=value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return cls(target=value)
        if not isinstance(value, Mapping):
            raise ConfigError(f"activity must be {_HELP}, not {value!r}")
        if unknown := [key for key in value if key not in _KEYS]:
            raise ConfigError(f"activity: unknown key {unknown[0]!r} (known: {', '.join(_KEYS)})")
        return cls(**value)

    def fractions(self, timestep: float, cost: BlockCost, tdw: bool, sdt: bool) -> tuple[float, float, float]:
        """Active (heads, groups, tokens) at ``timestep``. Raises ConfigError where the model lacks the means."""
        if self.profile is not None:
            heads, groups = _published(timestep)
            wanted = (heads, groups, 1.0 if self.tokens is None else self.tokens)
        elif self.target is not None:
            wanted = self._of_target(self.target, cost, tdw, sdt)
        else:
            wanted = tuple(1.0 if value is None else value for value in (self.heads, self.groups, self.tokens))  # type: ignore[assignment]
        if not tdw and min(wanted[:2]) < 1:
            raise ConfigError("activity: without tdw all heads and groups are on")
        if not sdt and (wanted[2] < 1 or self.tokens not in (None, 1)):
            raise ConfigError("activity: without sdt all tokens are on")
        return wanted

    def head_cost(self, cost: BlockCost) -> float:
        """What a head costs in units of a whole group, where tokens shall make good the rounding of heads; else 0."""
        return cost.attention / cost.mlp if self.target is not None else 0.0

    def _of_target(self, target: float, cost: BlockCost, tdw: bool, sdt: bool) -> tuple[float, float, float]:
        if not tdw:
            if self.tokens is not None:
                raise ConfigError("activity: without tdw the target decides the tokens; give one of target and tokens")
            tokens = (target * (cost.attention + cost.mlp) - cost.attention) / cost.mlp
            if tokens < 0:
                floor = cost.attention / (cost.attention + cost.mlp)
                raise ConfigError(f"activity: without tdw the attention alone is {floor:.3f}, above target {target:g}")
            return 1.0, 1.0, tokens
        if not sdt:
            return target, target, 1.0
        tokens = math.sqrt(target) if self.tokens is None else self.tokens
        if tokens < target:
            raise ConfigError(f"activity: tokens {tokens:g} below target {target:g} would need more groups than all")
        return target, target / tokens, tokens


def _published(timestep: float) -> tuple[float, float]:
    points = PUBLISHED
    if timestep <= points[0][0]:
        return points[0][1], points[0][2]
    for (t0, h0, g0), (t1, h1, g1) in pairwise(points):
        if timestep <= t1:
            share = (timestep - t0) / (t1 - t0)
            return h0 + share * (h1 - h0), g0 + share * (g1 - g0)
    return points[-1][1], points[-1][2]


@dataclass(frozen=True)
class Counts:
    """Active heads, groups and tokens of every layer: what fractions come to in whole parts."""

    heads: tuple[int, ...]
    groups: tuple[int, ...]
    tokens: tuple[int, ...]


def counts(
    fractions: tuple[float, float, float], depth: int, parts: int, tokens: int, head_cost: float = 0.0
) -> Counts:
    """Whole numbers a layer whose sums are as near to ``fractions`` as they can be; at least one head and group.

    What rounding takes in one layer the next gives back; tokens also make good what the groups' rounding did to
    groups · tokens and, where ``head_cost`` is given, what the heads' rounding did to the total.
    """
    wanted_heads, wanted_groups, wanted_tokens = fractions
    heads: list[int] = []
    groups: list[int] = []
    kept: list[int] = []
    for layer in range(1, depth + 1):
        heads.append(_next(wanted_heads * parts * layer - sum(heads), 1, parts))
        groups.append(_next(wanted_groups * parts * layer - sum(groups), 1, parts))
        if wanted_tokens == 1:
            kept.append(tokens)
            continue
        owed = head_cost * tokens * (wanted_heads * parts * layer - sum(heads))
        product = wanted_groups * parts * wanted_tokens * tokens * layer + owed
        done = sum(g * n for g, n in zip(groups, kept, strict=False))
        kept.append(_next((product - done) / groups[-1], 0, tokens))
    return Counts(tuple(heads), tuple(groups), tuple(kept))


def _next(wanted: float, least: int, most: int) -> int:
    return min(most, max(least, round(wanted)))

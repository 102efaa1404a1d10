"""How much of a dynamic model is on, step by step and layer by layer, as its count of operations says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ditbench.report.row import Row

# Each part's key in the records, with its name for readers.
PARTS = {"heads": "attention heads", "groups": "MLP channel groups", "tokens": "tokens"}

Shares = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Activity:
    """``timesteps`` from noise to image; ``parts``: (key of PARTS, one share a layer for every step), only those
    that the method switches."""

    timesteps: tuple[float, ...]
    parts: tuple[tuple[str, Shares], ...]

    def shares(self, part: str) -> Shares | None:
        """Active shares [step][layer] of a part; None if the method leaves it whole."""
        return dict(self.parts).get(part)


def activity_of(row: Row) -> Activity | None:
    """What the cell's record says; None for a static cell, and for a record without the figures."""
    stored = row.detail("flops").get("activity")
    if not isinstance(stored, Mapping):
        return None
    timesteps = tuple(float(timestep) for timestep in stored.get("timesteps") or ())
    parts = tuple((name, shares) for name in PARTS if (shares := _shares(stored.get(name), len(timesteps))))
    return Activity(timesteps, parts) if timesteps and parts else None


def _shares(stored: Any, steps: int) -> Shares | None:
    """One tuple a step; None where there is nothing, or not a rectangle of ``steps`` rows."""
    shares = tuple(tuple(float(share) for share in layers) for layers in stored or ())
    whole = len(shares) == steps and len({len(layers) for layers in shares}) == 1
    return shares if whole and shares[0] else None


def mean_share(shares: Shares) -> float:
    """Mean over layers and steps."""
    return fmean(share for layers in shares for share in layers)


def router_gmacs(row: Row) -> dict[str, float]:
    """Overhead that a step's compute includes, e.g. 'token routers' -> GMAC; empty for a static cell."""
    stored = row.detail("flops").get("parts") or {}
    return {str(name): float(gmacs) for name, gmacs in stored.items()}


def is_dynamic(row: Row) -> bool:
    """Whether the count of operations found parts that are switched, or routers that switch them."""
    return activity_of(row) is not None or bool(router_gmacs(row))

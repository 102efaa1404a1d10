"""Lazy registries: a name points to 'module:attribute', imported only when it is built.

Listing names never imports torch. Other distributions add methods through the entry-point group
``ditbench.methods``; a name taken twice is an error.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any


class UnknownNameError(LookupError):
    """A name that no registry entry has; the message suggests the nearest one."""


@dataclass(frozen=True)
class Entry:
    """One registered thing. ``preset`` is bound to the factory; ``summary`` is the line that `list` shows.

    ``converter``: for methods that a static model can become, ``module:attribute`` of (model, **config) -> model.
    """

    name: str
    target: str
    summary: str
    preset: dict[str, Any] = field(default_factory=dict)
    converter: str = ""

    def load(self) -> Callable[..., Any]:
        return _imported(self.target)

    def load_converter(self) -> Callable[..., Any]:
        return _imported(self.converter)


def _imported(target: str) -> Callable[..., Any]:
    module, _, attribute = target.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found


class Registry:
    """Names of one kind ('method', 'sampler', …) in order of registration."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def add(self, name: str, target: str, summary: str, *, converter: str = "", **preset: Any) -> None:
        """Register ``name``. Raises ValueError when the name is taken."""
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered twice: {self._entries[name].target} and {target}")
        self._entries[name] = Entry(name, target, summary, preset, converter)

    def __getitem__(self, name: str) -> Entry:
        try:
            return self._entries[name]
        except KeyError:
            near = difflib.get_close_matches(name, self._entries, n=1, cutoff=0.6)
            hint = f" (did you mean {near[0]!r}?)" if near else f" (known: {', '.join(self._entries)})"
            raise UnknownNameError(f"unknown {self.kind} {name!r}{hint}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def names(self) -> list[str]:
        return list(self._entries)


# hidden size, depth, heads: Table 1 of the DiT paper (arXiv 2212.09748)
_DIT_SIZES = {"s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16), "xl": (1152, 28, 16)}
_PIXELS: dict[str, Any] = {"input_size": 8, "patch_size": 2, "in_channels": 1, "num_classes": 10}
_DIGITS = {**_PIXELS, "hidden_size": 96, "depth": 6, "num_heads": 6}
_TESTING = {**_PIXELS, "hidden_size": 32, "depth": 2, "num_heads": 2}


@cache
def methods() -> Registry:
    """All denoisers: shipped presets, families, then entry points of other distributions."""
    registry = Registry("method")
    dit = "methods.backbones.dit:dit"
    registry.add("dit", dit, "DiT family: give the full config")
    for size, (hidden, depth, heads) in _DIT_SIZES.items():
        for patch in (2, 4, 8):
            registry.add(
                f"dit-{size}-{patch}",
                dit,
                f"DiT-{size.upper()}/{patch}, 256x256 latents (512: input_size=64)",
                patch_size=patch,
                hidden_size=hidden,
                depth=depth,
                num_heads=heads,
            )
    registry.add("dit-digits", dit, "small DiT for 8x8 handwritten digits; weights zoo:dit-digits", **_DIGITS)
    registry.add("dit-testing", dit, "tiny DiT for tests (milliseconds a call)", **_TESTING)
    _add_family(
        registry,
        "DyDiT",
        "methods.dydit.model:dydit",
        "methods.dydit.convert:dydit_from",
        "with dynamic width (TDW) and tokens (SDT); activity=0.5 costs it without weights",
        "DyDiT for 8x8 digits; weights zoo:dydit-digits-0.5 and others",
    )
    _add_family(
        registry,
        "FlexiDiT",
        "methods.flexidit.model:flexidit",
        "methods.flexidit.convert:flexidit_from",
        "that runs at several patch sizes; schedule=0.64 mixes them over the steps",
        "FlexiDiT for 8x8 digits, patch sizes 2 and 4; weights zoo:flexidit-digits",
    )
    for point in entry_points(group="ditbench.methods"):
        registry.add(point.name, point.value, f"from {point.dist.name if point.dist else point.value}")
    return registry


def _add_family(registry: Registry, shown: str, target: str, converter: str, what: str, digits: str) -> None:
    """A method made from a DiT: the family, its S to XL at patch size 2, and the small ones."""
    family = shown.lower()
    registry.add(family, target, f"{shown} family: give the full config", converter=converter)
    for size, (hidden, depth, heads) in _DIT_SIZES.items():
        registry.add(
            f"{family}-{size}-2",
            target,
            f"DiT-{size.upper()}/2 {what}",
            converter=converter,
            patch_size=2,
            hidden_size=hidden,
            depth=depth,
            num_heads=heads,
        )
    registry.add(f"{family}-digits", target, digits, converter=converter, **_DIGITS)
    registry.add(f"{family}-testing", target, f"tiny {shown} for tests", converter=converter, **_TESTING)


@cache
def samplers() -> Registry:
    """Samplers of the diffusion (noise-prediction) kind."""
    registry = Registry("sampler")
    registry.add("ddpm", "methods.diffusion.ddpm:DDPM", "ancestral sampling with the learned variance")
    registry.add("ddim", "methods.diffusion.ddim:DDIM", "DDIM; eta=0 is deterministic")
    registry.add(
        "dpm-solver++",
        "methods.diffusion.dpm_solver:DPMSolverPP2M",
        "DPM-Solver++(2M), second order multistep",
    )
    return registry


@cache
def datasets() -> Registry:
    """Data sets that ship with ditbench or that it makes."""
    registry = Registry("dataset")
    registry.add("digits", "methods.training.data.digits:digits", "scikit-learn's 1,797 handwritten digits, 8x8")
    registry.add(
        "latents", "methods.training.data.latents:latents", "a folder of latents.npy and labels.npy; to train on"
    )
    return registry


def names() -> list[str]:
    """Names of all methods."""
    return methods().names()

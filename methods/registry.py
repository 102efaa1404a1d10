"""Lazy registries: a name points to 'module:attribute', imported only when it is built.

Listing names never imports torch. Other distributions add methods through the entry-point group
``ditbench.methods``; a name taken twice is an error.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Literal


class UnknownNameError(LookupError):
    """A name that no registry entry has; the message suggests the nearest one."""


@dataclass(frozen=True)
class Entry:
    """One registered thing. ``preset`` is bound to the factory; ``summary`` is the line that `list` shows.

    ``converter``: for methods that a static model can become, ``module:attribute`` of (model, **config) -> model.
    ``options``: for samplers, which of the options they take; ``predicts``: what their models must predict.
    ``adaptive``: for samplers that choose their own steps.
    """

    name: str
    target: str
    summary: str
    preset: dict[str, Any] = field(default_factory=dict)
    converter: str = ""
    options: tuple[str, ...] = ()
    predicts: Literal["noise", "velocity"] = "noise"
    adaptive: bool = False

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

    def add(
        self,
        name: str,
        target: str,
        summary: str,
        *,
        converter: str = "",
        options: tuple[str, ...] = (),
        predicts: Literal["noise", "velocity"] = "noise",
        adaptive: bool = False,
        **preset: Any,
    ) -> None:
        """Register ``name``. Raises ValueError when the name is taken."""
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered twice: {self._entries[name].target} and {target}")
        self._entries[name] = Entry(name, target, summary, preset, converter, options, predicts, adaptive)

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
    for flow in (None, "linear"):
        for family in _FAMILIES:
            _add_family(registry, family, flow)
    for point in entry_points(group="ditbench.methods"):
        registry.add(point.name, point.value, f"from {point.dist.name if point.dist else point.value}")
    return registry


@dataclass(frozen=True)
class _Family:
    """A kind of model on either backbone. ``prefix`` stands before the backbone's name: Dy + DiT, Dy + SiT.

    digits  what the small preset's line says of it and of its weights
    """

    prefix: str
    target: str
    converter: str = ""
    what: str = ""
    digits: str = ""


_FAMILIES = (
    _Family(
        "", "ditbench.methods.backbones.dit:dit", digits="small {} for 8x8 handwritten digits; weights zoo:{}-digits"
    ),
    _Family(
        "Dy",
        "ditbench.methods.dydit.model:dydit",
        "ditbench.methods.dydit.convert:dydit_from",
        " with dynamic width (TDW) and tokens (SDT); activity=0.5 costs it without weights",
        "{} for 8x8 digits; weights zoo:{}-digits-0.5 and others",
    ),
    _Family(
        "Flexi",
        "ditbench.methods.flexidit.model:flexidit",
        "ditbench.methods.flexidit.convert:flexidit_from",
        " that runs at several patch sizes; schedule=0.64 mixes them over the steps",
        "{} for 8x8 digits, patch sizes 2 and 4; weights zoo:{}-digits",
    ),
)


def _add_family(registry: Registry, family: _Family, flow: str | None) -> None:
    """The family, its S to XL and the small ones: noise prediction (DiT), or velocity on a path (SiT)."""
    backbone = "DiT" if flow is None else "SiT"
    shown = family.prefix + backbone
    name, kind = shown.lower(), dict[str, Any]({} if flow is None else {"flow": flow})
    registry.add(name, family.target, f"{shown} family: give the full config", converter=family.converter, **kind)
    for size, (hidden, depth, heads) in _DIT_SIZES.items():
        for patch in (2,) if family.prefix else (2, 4, 8):
            what = family.what or ", 256x256 latents (512: input_size=64)"
            registry.add(
                f"{name}-{size}-{patch}",
                family.target,
                f"{backbone}-{size.upper()}/{patch}{what}",
                converter=family.converter,
                patch_size=patch,
                hidden_size=hidden,
                depth=depth,
                num_heads=heads,
                **kind,
            )
    small = dict[str, Any]({} if flow is None else {**kind, "learn_sigma": False})
    digits, tiny = family.digits.format(shown, name), f"tiny {shown} for tests (milliseconds a call)"
    registry.add(f"{name}-digits", family.target, digits, converter=family.converter, **_DIGITS, **small)
    registry.add(f"{name}-testing", family.target, tiny, converter=family.converter, **_TESTING, **small)


@cache
def samplers() -> Registry:
    """Samplers: of noise prediction, then of flows."""
    registry = Registry("sampler")
    steps = ("spacing", "clip")
    registry.add(
        "ddpm", "ditbench.methods.diffusion.ddpm:DDPM", "ancestral sampling with the learned variance", options=steps
    )
    registry.add(
        "ddim", "ditbench.methods.diffusion.ddim:DDIM", "DDIM; eta=0 is deterministic", options=(*steps, "eta")
    )
    registry.add(
        "dpm-solver++",
        "ditbench.methods.diffusion.dpm_solver:DPMSolverPP2M",
        "DPM-Solver++(2M), second order multistep",
        options=steps,
    )
    flow = "ditbench.methods.diffusion.flow"
    registry.add(
        "euler",
        f"{flow}:Euler",
        "flows: Euler's method on the ODE, one evaluation a step",
        predicts="velocity",
    )
    registry.add(
        "heun",
        f"{flow}:Heun",
        "flows: Heun's method on the ODE, second order, two evaluations a step",
        predicts="velocity",
    )
    registry.add(
        "dopri5",
        f"{flow}:Dopri5",
        "flows: adaptive Dormand-Prince 5(4) on the ODE; takes atol and rtol in place of steps",
        options=("atol", "rtol", "land"),
        predicts="velocity",
        adaptive=True,
    )
    registry.add(
        "euler-maruyama",
        f"{flow}:EulerMaruyama",
        "flows: the reverse SDE, with a last step along the drift",
        options=("last_step",),
        predicts="velocity",
    )
    return registry


@cache
def datasets() -> Registry:
    """Data sets that ship with ditbench or that it makes."""
    registry = Registry("dataset")
    registry.add(
        "digits", "ditbench.methods.training.data.digits:digits", "scikit-learn's 1,797 handwritten digits, 8x8"
    )
    registry.add(
        "latents",
        "ditbench.methods.training.data.latents:latents",
        "a folder of latents.npy and labels.npy; to train on",
    )
    return registry


def predicts(method: str, config: Mapping[str, Any]) -> Literal["noise", "velocity"]:
    """What a method with these overrides predicts, without building it; an unknown one: noise."""
    preset = methods()[method].preset if method in methods() else {}
    return "noise" if {**preset, **config}.get("flow") is None else "velocity"


def names() -> list[str]:
    """Names of all methods."""
    return methods().names()

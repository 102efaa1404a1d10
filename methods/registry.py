"""What ships, by name: methods, samplers, modifiers, data sets. Other distributions add theirs by entry points.

Listing names never imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ditbench.methods.entries import Entry, MethodEntry, Registry, SamplerEntry, UnknownNameError
from ditbench.methods.facts import Facts

__all__ = [
    "UnknownNameError",
    "code_of",
    "conditions",
    "datasets",
    "facts_of",
    "methods",
    "modifiers",
    "names",
    "samplers",
]

# hidden size, depth, heads: Table 1 of the DiT paper (arXiv 2212.09748)
_DIT_SIZES = {"s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16), "xl": (1152, 28, 16)}
_PIXELS: dict[str, Any] = {"input_size": 8, "patch_size": 2, "in_channels": 1, "num_classes": 10}
_DIGITS = {**_PIXELS, "hidden_size": 96, "depth": 6, "num_heads": 6}
_TESTING = {**_PIXELS, "hidden_size": 32, "depth": 2, "num_heads": 2}


@cache
def methods() -> Registry[MethodEntry]:
    """All denoisers: shipped presets, families, then entry points of other distributions."""
    registry = Registry("methods", MethodEntry)
    for flow in (None, "linear"):
        for family in _FAMILIES:
            _add_family(registry, family, flow)
    return registry


@dataclass(frozen=True)
class _Family:
    """A kind of model on either backbone. ``prefix`` stands before the backbone's name: Dy + DiT, Dy + SiT.

    facts   'module:attribute' under ditbench.methods, as ``target``, ``converter`` and ``objective``
    digits  what the small preset's line says of it and of its weights
    """

    prefix: str
    target: str
    facts: str
    converter: str = ""
    what: str = ""
    digits: str = ""
    objective: str = "training.objectives:PLAIN"
    adapts: tuple[str, ...] = ("adapter",)

    def entry(self, summary: str, **preset: Any) -> MethodEntry:
        places = (self.target, self.facts, self.converter, self.objective)
        target, facts, converter, objective = (f"ditbench.methods.{place}" if place else "" for place in places)
        return MethodEntry(
            target, summary, preset, facts=facts, converter=converter, objective=objective, adapts=self.adapts
        )


_FAMILIES = (
    _Family(
        "",
        "backbones.dit:dit",
        "backbones.config:dit_facts",
        digits="small {} for 8x8 handwritten digits; weights zoo:{}-digits",
    ),
    _Family(
        "Dy",
        "dydit.model:dydit",
        "dydit.config:dydit_facts",
        "dydit.convert:dydit_from",
        " with dynamic width (TDW) and tokens (SDT); activity=0.5 costs it without weights",
        "{} for 8x8 digits; weights zoo:{}-digits-0.5 and others",
        "dydit.training:OBJECTIVE",
    ),
    _Family(
        "Flexi",
        "flexidit.model:flexidit",
        "flexidit.config:flexidit_facts",
        "flexidit.convert:flexidit_from",
        " that runs at several patch sizes; schedule=0.64 mixes them over the steps",
        "{} for 8x8 digits, patch sizes 2 and 4; weights zoo:{}-digits",
        "flexidit.training:OBJECTIVE",
        ("adapter", "recipe"),
    ),
)


def _add_family(registry: Registry[MethodEntry], family: _Family, flow: str | None) -> None:
    """The family, its S to XL and the small ones: noise prediction (DiT), or velocity on a path (SiT)."""
    backbone = "DiT" if flow is None else "SiT"
    shown = family.prefix + backbone
    name, kind = shown.lower(), dict[str, Any]({} if flow is None else {"flow": flow})
    registry.add(name, family.entry(f"{shown} family: give the full config", **kind))
    for size, (hidden, depth, heads) in _DIT_SIZES.items():
        for patch in (2,) if family.prefix else (2, 4, 8):
            what = family.what or ", 256x256 latents (512: input_size=64)"
            shape = {"patch_size": patch, "hidden_size": hidden, "depth": depth, "num_heads": heads}
            registry.add(
                f"{name}-{size}-{patch}",
                family.entry(f"{backbone}-{size.upper()}/{patch}{what}", **shape, **kind),
            )
    small = dict[str, Any]({} if flow is None else {**kind, "learn_sigma": False})
    digits, tiny = family.digits.format(shown, name), f"tiny {shown} for tests (milliseconds a call)"
    registry.add(f"{name}-digits", family.entry(digits, **_DIGITS, **small))
    registry.add(f"{name}-testing", family.entry(tiny, **_TESTING, **small))


@cache
def samplers() -> Registry[SamplerEntry]:
    """Samplers: of noise prediction, then of flows, then entry points of other distributions."""
    registry = Registry("samplers", SamplerEntry)
    steps = ("spacing", "clip")

    def add(name: str, target: str, summary: str, *options: str, **more: Any) -> None:
        registry.add(name, SamplerEntry(f"ditbench.methods.diffusion.{target}", summary, options=options, **more))

    add("ddpm", "ddpm:DDPM", "ancestral sampling with the learned variance", *steps)
    add("ddim", "ddim:DDIM", "DDIM; eta=0 is deterministic", *steps, "eta")
    add("dpm-solver++", "dpm_solver:DPMSolverPP2M", "DPM-Solver++(2M), second order multistep", *steps)
    flow = {"predicts": "velocity"}
    add("euler", "flow:Euler", "flows: Euler's method on the ODE, one evaluation a step", **flow)
    add("heun", "flow:Heun", "flows: Heun's method on the ODE, second order, two evaluations a step", **flow)
    add(
        "dopri5",
        "flow:Dopri5",
        "flows: adaptive Dormand-Prince 5(4) on the ODE; takes atol and rtol in place of steps",
        *("atol", "rtol", "land"),
        adaptive=True,
        **flow,
    )
    summary = "flows: the reverse SDE, with a last step along the drift"
    add("euler-maruyama", "flow:EulerMaruyama", summary, "last_step", **flow)
    return registry


@cache
def modifiers() -> Registry[Entry]:
    """What can be put around methods: none ships yet; entry points of other distributions."""
    return Registry("modifiers", Entry)


@cache
def conditions() -> Registry[Entry]:
    """Sources of what samples are told, then entry points of other distributions."""
    registry = Registry("conditions", Entry)
    registry.add("labels", Entry("ditbench.methods.conditions:Labels", "class labels, evenly drawn; only: of these"))
    return registry


@cache
def datasets() -> Registry[Entry]:
    """Data sets that ship with ditbench or that it makes, then entry points of other distributions."""
    registry = Registry("datasets", Entry)
    place = "ditbench.methods.training.data"
    registry.add("digits", Entry(f"{place}.digits:digits", "scikit-learn's 1,797 handwritten digits, 8x8"))
    summary = "a folder of latents.npy and labels.npy; to train on"
    registry.add("latents", Entry(f"{place}.latents:latents", summary))
    return registry


def facts_of(method: str, config: Mapping[str, Any]) -> Facts:
    """What is known of a method with these overrides before it is built.

    Raises UnknownNameError, PluginError, ConfigError.
    """
    return methods()[method].facts_of(config)


def code_of(method: str, sampler: str, around: Sequence[str] = (), told: str = "labels") -> str:
    """Which code makes the samples of a method, a sampler, modifiers and a source of conditions: part of identities.

    Raises UnknownNameError, PluginError.
    """
    entries = (methods()[method], samplers()[sampler], conditions()[told], *(modifiers()[name] for name in around))
    parts = [part for entry in entries for part in entry.code.split("; ")]
    return "; ".join(dict.fromkeys(parts))


def names() -> list[str]:
    """Names of all methods."""
    return methods().names()

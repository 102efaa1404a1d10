"""Registered things: a name points to 'module:attribute', imported only when it is built. Never imports torch."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, Literal, TypeVar

from ditbench.methods.code import OWN, Origin, own_origin
from ditbench.methods.diffusion.prediction import Prediction
from ditbench.methods.facts import Facts


class UnknownNameError(LookupError):
    """A name that no registry entry has; the message suggests the nearest one."""


class PluginError(UnknownNameError):
    """An entry of another distribution that cannot be used; the message says which and why, in one line."""


@dataclass(frozen=True)
class Entry:
    """One registered thing.

    target   'module:attribute' of what is called with the preset and the user's options
    summary  the line that `list` shows
    preset   options bound to the target
    name     under which it is registered; a plugin leaves it to its entry point
    origin   the distribution that it comes from; a plugin leaves it empty
    """

    target: str
    summary: str = ""
    preset: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    origin: Origin = field(default_factory=own_origin)

    def load(self) -> Callable[..., Any]:
        return imported(self.target)

    @property
    def code(self) -> str:
        """Which code the name stands for: part of identities."""
        return self.origin.code(self.target)


@dataclass(frozen=True)
class Shipped:
    """Weights in a package of a distribution: 'package/folder/x.safetensors'; their SHA-256, hex, where it is known."""

    path: str
    sha256: str = ""


@dataclass(frozen=True)
class MethodEntry(Entry):
    """A denoiser.

    facts      what is known of it before it is built: the value, or 'module:attribute' of a function (config) -> Facts
               in a module that does not import torch; empty: the model is built on ``meta`` and asked, which is slow
    converter  'module:attribute' of (model, **config) -> model, for methods that a static model can become
    objective  'module:attribute' of how it is trained: (data, recipe, device) -> LossOf, or an ``Objective``
    adapts     keys of its config that leave a part of the weights untrained; without them all are trained
    weights    what its distribution ships, by NAME: others find it as zoo:DISTRIBUTION/NAME; a bare string is a path
    """

    facts: Facts | str = ""
    converter: str = ""
    objective: str = "ditbench.methods.training.objectives:PLAIN"
    adapts: tuple[str, ...] = ("adapter",)
    weights: Mapping[str, Shipped | str] = field(default_factory=dict)

    def load_converter(self) -> Callable[..., Any]:
        return imported(self.converter)

    def load_objective(self) -> Callable[..., Any]:
        return imported(self.objective)

    def without_adapter(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """``config`` of the same method with all weights trained."""
        return {name: value for name, value in config.items() if name not in self.adapts}

    def facts_of(self, config: Mapping[str, Any]) -> Facts:
        """Facts of this method with ``config`` over the preset. Raises ConfigError, TypeError."""
        if isinstance(self.facts, Facts):
            return self.facts
        merged = {**self.preset, **config}
        if self.facts:
            found: Facts = imported(self.facts)(merged)
            return found
        import torch

        with torch.device("meta"):
            built: Facts = self.load()(**merged).facts
        return built


@dataclass(frozen=True)
class SamplerEntry(Entry):
    """A sampler.

    options   which options of a suite's ``sampler`` it takes
    predicts  what its models must predict
    adaptive  it chooses its own steps
    """

    options: tuple[str, ...] = ()
    predicts: Prediction = "noise"
    adaptive: bool = False


E = TypeVar("E", bound=Entry)
Kind = Literal["methods", "modifiers", "samplers", "datasets", "conditions", "extractors", "metrics"]
GROUPS: dict[str, str] = {
    "methods": "method",
    "modifiers": "modifier",
    "samplers": "sampler",
    "datasets": "dataset",
    "conditions": "condition source",
    "extractors": "extractor",
    "metrics": "metric",
}
"""Entry-point groups are called ``ditbench.`` and one of these; with the word for one thing of the group."""


class Registry(Generic[E]):
    """Names of one kind in order of registration: those that ship, then entry points of other distributions.

    A plugin's thing is called DISTRIBUTION/NAME, and NAME alone where that is nobody else's.
    """

    def __init__(self, kind: Kind, entry: type[E]) -> None:
        self.kind, self._entry = GROUPS[kind], entry
        self._entries: dict[str, E] = {}
        self._points: dict[str, EntryPoint] = {}
        self._short: dict[str, list[str]] = {}
        for point in entry_points(group=f"{OWN}.{kind}"):
            full = f"{point.dist.name if point.dist else point.module}/{point.name}"
            self._points[full] = point
            self._short.setdefault(point.name, []).append(full)

    def add(self, name: str, entry: E) -> None:
        """Register a shipped ``entry``. Raises ValueError when the name is taken."""
        if name in self._entries:
            first = self._entries[name].target
            raise ValueError(f"{self.kind} {name!r} is registered twice: {first} and {entry.target}")
        self._entries[name] = replace(entry, name=name)

    def __getitem__(self, name: str) -> E:
        """The entry; a plugin's module is imported here. Raises UnknownNameError, PluginError."""
        if name in self._entries:
            return self._entries[name]
        full = [name] if name in self._points else self._short.get(name, [])
        if len(full) > 1:
            raise UnknownNameError(f"{self.kind} {name!r} is in several distributions: say {' or '.join(full)}")
        if full:
            return self._plugged(name, self._points[full[0]])
        near = difflib.get_close_matches(name, self.names(), n=1, cutoff=0.6)
        known = f" (known: {', '.join(self.names())})" if self.names() else " (none is installed)"
        hint = f" (did you mean {near[0]!r}?)" if near else known
        raise UnknownNameError(f"unknown {self.kind} {name!r}{hint}")

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._points or len(self._short.get(str(name), [])) == 1

    def __iter__(self) -> Iterator[E]:
        """All entries. Of plugins the name, the target and where they come from: their modules are not imported."""
        yield from self._entries.values()
        for name in self.names():
            if name not in self._entries:
                point = self._points[name if name in self._points else self._short[name][0]]
                origin = Origin.of_distribution(point.dist)
                yield self._entry(target=point.value, summary=f"from {origin}", name=name, origin=origin)

    def of(self, distribution: str) -> list[E]:
        """The entries of another distribution that can be imported. Raises UnknownNameError, PluginError."""
        full = [name for name in self._points if name.partition("/")[0] == distribution]
        if not full:
            known = dict.fromkeys(name.partition("/")[0] for name in self._points)
            near = difflib.get_close_matches(distribution, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"these do: {', '.join(known) or 'none'}"
            raise UnknownNameError(f"no distribution {distribution!r} has {self.kind}s ({hint})")
        found, broken = list[E](), list[PluginError]()
        for name in full:
            try:
                found.append(self[name])
            except PluginError as error:
                broken.append(error)
        if not found:
            raise broken[0]
        return found

    def names(self) -> list[str]:
        """Of everything, each by the shortest name that is its own."""
        plugged = []
        for full, point in self._points.items():
            alone = len(self._short[point.name]) == 1 and point.name not in self._entries
            plugged.append(point.name if alone else full)
        return [*self._entries, *plugged]

    def _plugged(self, name: str, point: EntryPoint) -> E:
        origin = Origin.of_distribution(point.dist)
        try:
            found = point.load()
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise PluginError(f"{self.kind} {name!r} of {origin} cannot be imported: {text}") from None
        if isinstance(found, Entry):
            if not isinstance(found, self._entry):
                raise PluginError(
                    f"{self.kind} {name!r} of {origin}: {point.value} is a {type(found).__name__}, "
                    f"and this group takes a {self._entry.__name__}"
                )
            return replace(found, name=name, origin=origin)
        if not callable(found):
            raise PluginError(f"{self.kind} {name!r} of {origin}: {point.value} is neither an entry nor callable")
        return self._entry(target=point.value, summary=f"from {origin}", name=name, origin=origin)


def unknown_groups() -> list[str]:
    """One line for every entry point of a group ``ditbench.…`` that does not exist."""
    known = [f"{OWN}.{kind}" for kind in GROUPS]
    lines = []
    present = {group for group in entry_points().groups if group.startswith(f"{OWN}.")}
    for group in sorted(present - {*known}):
        near = difflib.get_close_matches(group, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"groups: {', '.join(known)}"
        owners = sorted({str(Origin.of_distribution(point.dist)) for point in entry_points(group=group)})
        lines.append(f"{', '.join(owners)}: no group is called {group} ({hint})")
    return lines


def imported(target: str) -> Callable[..., Any]:
    """What 'module:attribute' names."""
    module, _, attribute = target.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found

"""A loaded suite -> a plan: cells that are fully resolved and checked, each measurement with its identity.

Planning builds no model and never imports torch, so a run that finds everything in its store ends at once.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from harness.environment import environment, fingerprint, resolve_threads
from harness.errors import InputError, Position, did_you_mean
from harness.store.records import CellSpec, DecoderSpec
from harness.suite.checks import check
from harness.suite.expand import Draft, Settings, expand
from harness.suite.identity import measurement_identity
from harness.suite.load import LoadedSuite
from harness.suite.positions import Node
from harness.suite.schema import MEASUREMENTS, Measurement, Sampler, Suite
from harness.suite.weights import sha256_of, weights_path
from methods.registry import methods, samplers

MIN_SAMPLES = 20


@dataclass(frozen=True)
class PlannedMeasurement:
    """One measurement of a cell. ``options`` are resolved; ``identity`` is the address of its record."""

    name: Measurement
    identity: str
    options: dict[str, Any]


@dataclass(frozen=True)
class PlannedCell:
    """One cell and its measurements, in the order of ``MEASUREMENTS``."""

    spec: CellSpec
    measurements: tuple[PlannedMeasurement, ...]


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    baseline  the cell that ratios are taken against, even where ``only`` left it out of ``cells``
    command   the shell command that makes this plan again
    """

    suite: Suite
    baseline: CellSpec | None
    cells: tuple[PlannedCell, ...]
    command: str
    nodes: Mapping[str, Node] = field(repr=False)

    def position(self, cell: str, field: str) -> Position:
        """Where the value of a cell's field was written ('weights', 'config.patch_size'), else the cell."""
        return self.nodes[cell].nearest(tuple(field.split("."))).position

    def to_json(self) -> dict[str, Any]:
        """The content of ``plan.json``."""
        return {
            "suite": self.suite.suite,
            "title": self.suite.title,
            "description": self.suite.description,
            "baseline": self.baseline.cell if self.baseline else None,
            "command": self.command,
            "cells": [
                {
                    "name": cell.spec.cell,
                    "spec": cell.spec.model_dump(mode="json"),
                    "measurements": {each.name: each.identity for each in cell.measurements},
                }
                for cell in self.cells
            ],
        }


def make_plan(
    loaded: LoadedSuite, *, only: str | None = None, device: str | None = None, limit: int | None = None
) -> Plan:
    """Resolve and check every cell of a suite, also those that ``only`` leaves out.

    only    keep the cells whose name matches this glob
    device  'cpu' or 'cuda': replaces every cell's device
    limit   at most this many quality samples, >= 20

    Raises InputError at the place of the first fault.
    """
    _check_options(device, limit)
    drafts = expand(loaded)
    digest_of = cache(sha256_of)  # many cells share one checkpoint
    threads = resolve_threads(loaded.suite.threads)
    specs = {draft.name: _spec(draft, loaded.suite, threads, device, digest_of) for draft in drafts}
    baseline = _baseline(loaded, specs)
    chosen = [spec for name, spec in specs.items() if only is None or fnmatchcase(name, only)]
    if not chosen:
        names = ", ".join(list(specs)[:20]) + (", …" if len(specs) > 20 else "")
        raise InputError(f"--only {only}: no cell has such a name{did_you_mean(only or '', specs)}; cells: {names}")
    fingerprint_of = cache(lambda device: fingerprint(environment(device)))
    nodes = {draft.name: draft.node for draft in drafts}
    cells = tuple(
        PlannedCell(spec, _measurements(loaded, spec, baseline, limit, fingerprint_of(spec.device), nodes[spec.cell]))
        for spec in chosen
    )
    return Plan(loaded.suite, baseline, cells, _command(loaded.source, only, device, limit), nodes)


def _check_options(device: str | None, limit: int | None) -> None:
    devices = ("cpu", "cuda")
    if device is not None and device not in devices:
        raise InputError(f"--device {device}: not one of {', '.join(devices)}{did_you_mean(device, devices)}")
    if limit is not None and limit < MIN_SAMPLES:
        raise InputError(f"--limit {limit}: quality needs at least {MIN_SAMPLES} samples")


def _command(source: str, only: str | None, device: str | None, limit: int | None) -> str:
    options = {"--only": only, "--device": device, "--limit": limit}
    words = [word for option, value in options.items() if value is not None for word in (option, str(value))]
    return shlex.join(["ditbench", "run", source, *words])


def _baseline(loaded: LoadedSuite, specs: Mapping[str, CellSpec]) -> CellSpec | None:
    name = loaded.suite.baseline
    if name is None:
        return None
    if name not in specs:
        hint = did_you_mean(name, specs) or f" (cells: {', '.join(list(specs)[:20])})"
        raise InputError(f"baseline: no cell is called {name!r}{hint}", loaded.position_of(("baseline",)))
    return specs[name]


def _spec(draft: Draft, suite: Suite, threads: int, device: str | None, digest_of: Callable[[Path], str]) -> CellSpec:
    settings = draft.settings
    check(settings, draft.node, suite.quality.protocol)
    return CellSpec(
        cell=draft.name,
        method=settings.method,
        variant=draft.variant,
        config=settings.config,
        weights=settings.weights,
        weights_sha256=_weights_digest(settings, draft.node, digest_of),
        sampler=str(settings.sampler.name),
        sampler_options=sampler_options(settings.sampler),
        steps=settings.steps,
        guidance_scale=settings.guidance.scale,
        guidance_interval=settings.guidance.interval,
        guidance_channels=settings.guidance.channels,
        guidance_weak=settings.guidance.weak,
        dataset=settings.dataset,
        device=device or settings.device,
        dtype=settings.dtype,
        mode=settings.mode,
        attention=settings.attention,
        decoder=_decoder(settings, draft.node, digest_of),
        published=settings.published,
        threads=threads,
        seed=settings.seed,
        measure=tuple(name for name in MEASUREMENTS if name in settings.measure),
        batch=settings.batch,
        timeout_s=settings.timeout_s or suite.limits.timeout_s,
        cost_only=settings.weights is None or settings.config.get("activity") is not None,
    )


def sampler_options(sampler: Sampler) -> dict[str, Any]:
    """The options that count for this sampler."""
    entry = samplers()[str(sampler.name)]
    taken = ("spacing", "eta", "clip") if entry.predicts == "noise" else entry.options
    return sampler.model_dump(include=set(taken))


def _decoder(settings: Settings, node: Node, digest_of: Callable[[Path], str]) -> DecoderSpec | None:
    decoder = settings.decoder
    if decoder is None:
        return None
    digest = None
    if decoder.weights is not None:
        try:
            digest = digest_of(weights_path(decoder.weights, folder=True))
        except InputError as error:
            raise InputError(error.message, node.nearest(("decoder", "weights")).position) from None
    return DecoderSpec(**decoder.model_dump(), weights_sha256=digest)


def latent_side(spec: CellSpec) -> int:
    """Side of a cell's samples, as its config or its preset says it."""
    return int(spec.config.get("input_size", methods()[spec.method].preset.get("input_size", 32)))


def _weights_digest(settings: Settings, node: Node, digest_of: Callable[[Path], str]) -> str | None:
    if settings.weights is None:
        return None
    try:
        return digest_of(weights_path(settings.weights))
    except InputError as error:
        raise InputError(error.message, node.nearest(("weights",)).position) from None


def _measurements(
    loaded: LoadedSuite,
    spec: CellSpec,
    baseline: CellSpec | None,
    limit: int | None,
    found: Mapping[str, Any],
    node: Node,
) -> tuple[PlannedMeasurement, ...]:
    planned = []
    for name in MEASUREMENTS:
        if name not in spec.measure:
            continue
        if name == "paired" and baseline is not None and spec.cell == baseline.cell:
            continue
        options: dict[str, Any] = getattr(loaded.suite, name).model_dump()
        if "batch" in options and spec.batch is not None:
            options["batch"] = spec.batch
        if name == "decode":
            options["side"] = latent_side(spec)
        quality = loaded.suite.quality
        protocol = None
        if name == "quality":
            protocol = _protocol(loaded)
        if name == "paired":
            _check_pair(spec, baseline, node)
            options |= {"shard": quality.shard, "lpips_sha256": _lpips_digest(loaded)}
        if name in ("quality", "paired"):
            options["samples"] = min(quality.samples, limit or quality.samples)
        identity = measurement_identity(name, spec, options, fingerprint=found, baseline=baseline, protocol=protocol)
        planned.append(PlannedMeasurement(name, identity, options))
    return tuple(planned)


def _protocol(loaded: LoadedSuite) -> str:
    from harness.quality.protocols import protocol  # only a suite that measures quality needs it

    quality = loaded.suite.quality
    try:
        return protocol(quality.protocol, quality.reference).id
    except InputError as error:
        if error.position is not None:  # the fault is in the user's file of assets
            raise
        field = "reference" if "reference" in error.message and quality.reference else "protocol"
        raise InputError(error.message, loaded.position_of(("quality", field))) from None


def _check_pair(spec: CellSpec, baseline: CellSpec | None, node: Node) -> None:
    """A pair is made of the same noise and the same label: what else differs is what is compared."""
    position = node.nearest(("measure",)).position
    if baseline is None:
        raise InputError("paired figures compare with the baseline's samples: the suite names no baseline", position)
    for name in ("seed", "dataset"):
        ours, theirs = getattr(spec, name), getattr(baseline, name)
        if ours != theirs:
            raise InputError(
                f"paired figures need the {name} of the baseline ({theirs}), and {spec.cell} has {ours}", position
            )


def _lpips_digest(loaded: LoadedSuite) -> str | None:
    net = loaded.suite.paired.lpips
    if net is None:
        return None
    from harness.assets import digest_of, require
    from harness.quality.protocols import LPIPS_ASSETS

    try:
        return digest_of(require(LPIPS_ASSETS[net], f"paired LPIPS ({net})"))
    except InputError as error:
        raise InputError(error.message, error.position or loaded.position_of(("paired", "lpips"))) from None

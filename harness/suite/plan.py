"""A loaded suite -> a plan: cells that are fully resolved and checked, each measurement with its identity.

Planning builds no model and never imports torch, so a run that finds everything in its store ends at once.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from ditbench.harness.assets.locations import asset_config, weights_digest
from ditbench.harness.environment import environment, fingerprint, resolve_threads
from ditbench.harness.errors import InputError, MissingFileError, Position, did_you_mean
from ditbench.harness.measurements.registry import measurements
from ditbench.harness.store.records import CellSpec, DecoderSpec
from ditbench.harness.suite.checks import check
from ditbench.harness.suite.expand import Draft, expand
from ditbench.harness.suite.facts import facts_at
from ditbench.harness.suite.load import LoadedSuite
from ditbench.harness.suite.planned import Missing, PlannedCell, PlannedMeasurement, plan_cell
from ditbench.harness.suite.positions import Node
from ditbench.harness.suite.schema import Sampler, Suite
from ditbench.methods.code import OWN
from ditbench.methods.facts import Facts
from ditbench.methods.registry import code_of, samplers

__all__ = ["Plan", "PlannedCell", "PlannedMeasurement", "make_plan"]

MIN_SAMPLES = 20


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    baseline  the cell that ratios are taken against, even where ``only`` left it out of ``cells``
    command   the shell command that makes this plan again
    fingerprints  device -> what identities of timings on it hold
    """

    suite: Suite
    baseline: CellSpec | None
    cells: tuple[PlannedCell, ...]
    command: str
    nodes: Mapping[str, Node] = field(repr=False)
    fingerprints: Mapping[str, Mapping[str, Any]] = field(repr=False)

    def position(self, cell: str, field: str) -> Position:
        """Where the value of a cell's field was written ('weights', 'config.KEY'), else the cell."""
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
                    "waiting": {name: each.reason for each in cell.waiting for name in each.measurements},
                }
                for cell in self.cells
            ],
        }


def make_plan(
    loaded: LoadedSuite, *, only: str | None = None, device: str | None = None, limit: int | None = None
) -> Plan:
    """Resolve and check every cell of a suite, also those that ``only`` leaves out.

    only    keep the cells whose name matches this glob
    device  'cpu' or 'cuda': replaces every cell's device; on a CPU dtype tf32 becomes float32
    limit   at most this many quality samples, >= 20

    A missing file of the user's is no fault: what needs it is ``waiting`` and has no identity. Raises InputError at the
    place of the first fault.
    """
    _check_options(device, limit)
    drafts = [_moved(_shaped(draft), device) for draft in expand(loaded)]
    digest_of = cache(weights_digest)  # many cells share one checkpoint
    threads = resolve_threads(loaded.suite.threads)
    specs: dict[str, CellSpec] = {}
    missing: dict[str, Missing] = {}
    for draft in drafts:
        facts = facts_at(draft.settings.method, draft.settings.config, draft.node)
        check(draft.settings, facts, draft.node, loaded.suite, device or draft.settings.device)
        digests, missing[draft.name] = _digests(draft, digest_of)
        specs[draft.name] = _spec(draft, facts, loaded.suite, threads, device, digests)
    baseline = _baseline(loaded, specs)
    chosen = [spec for name, spec in specs.items() if only is None or fnmatchcase(name, only)]
    if not chosen:
        names = ", ".join(list(specs)[:20]) + (", …" if len(specs) > 20 else "")
        raise InputError(f"--only {only}: no cell has such a name{did_you_mean(only or '', specs)}; cells: {names}")
    fingerprints = {device: fingerprint(environment(device)) for device in sorted({spec.device for spec in chosen})}
    nodes = {draft.name: draft.node for draft in drafts}
    cells = tuple(
        plan_cell(loaded, spec, baseline, limit, fingerprints[spec.device], nodes[spec.cell], missing)
        for spec in chosen
    )
    return Plan(loaded.suite, baseline, cells, _command(loaded.source, only, device, limit), nodes, fingerprints)


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


def _shaped(draft: Draft) -> Draft:
    """The cell with the shape that ``ditbench.toml`` gives its weights, under its own config. Its variant tells, and no
    published figure, which is of the published model, is set beside its own."""
    shape = asset_config(draft.settings.weights)
    if not shape:
        return draft
    settings = replace(draft.settings, config={**shape, **draft.settings.config}, published=())
    return replace(draft, settings=settings, variant=f"{draft.variant} (stand-in)".strip())


def _moved(draft: Draft, device: str | None) -> Draft:
    """TF32 is how a GPU may round float32: where ``--device`` moves a cell to the CPU, float32 is left of it."""
    if device != "cpu" or draft.settings.dtype != "tf32":
        return draft
    return replace(draft, settings=replace(draft.settings, dtype="float32"))


def _digests(draft: Draft, digest_of: Callable[[str, bool], str]) -> tuple[dict[str, str], Missing]:
    """SHA-256 by field ('weights', 'decoder') of the files that a cell names, and those that are not there."""
    decoder = draft.settings.decoder
    named: list[tuple[str, str | None, tuple[str, ...], bool]]
    named = [("weights", draft.settings.weights, ("weights",), False)]
    if decoder is not None:
        named.append(("decoder", decoder.weights, ("decoder", "weights"), True))
    found: dict[str, str] = {}
    missing: dict[str, MissingFileError] = {}
    for name, file, path, folder in named:
        if file is None:
            continue
        position = draft.node.nearest(path).position
        try:
            found[name] = digest_of(file, folder)
        except MissingFileError as error:
            missing[name] = MissingFileError(error.message, position)
        except InputError as error:
            raise InputError(error.message, position) from None
    return found, missing


def _spec(
    draft: Draft, facts: Facts, suite: Suite, threads: int, device: str | None, digests: Mapping[str, str]
) -> CellSpec:
    settings, decoder = draft.settings, draft.settings.decoder
    return CellSpec(
        cell=draft.name,
        method=settings.method,
        variant=draft.variant,
        config=settings.config,
        modifiers=settings.modifiers,
        conditions=settings.conditions,
        weights=settings.weights,
        weights_sha256=digests.get("weights"),
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
        decoder=DecoderSpec(**decoder.model_dump(), weights_sha256=digests.get("decoder")) if decoder else None,
        published=settings.published,
        threads=threads,
        seed=settings.seed,
        measure=tuple(name for name in measurements().names() if name in settings.measure),
        batch=settings.batch,
        timeout_s=settings.timeout_s or suite.limits.timeout_s,
        cost_only=settings.weights is None or bool(facts.imposed),
        imposed=facts.imposed,
        code=code_of(
            settings.method,
            str(settings.sampler.name),
            [name for each in settings.modifiers for name in each],
            settings.conditions.get("name", "labels"),
        ),
    )


def sampler_options(sampler: Sampler) -> dict[str, Any]:
    """The options that count for this sampler."""
    entry = samplers()[str(sampler.name)]
    if entry.origin.name != OWN:
        return sampler.model_dump(include={*entry.options}, exclude_unset=True)
    taken = ("spacing", "eta", "clip") if entry.predicts == "noise" else entry.options
    return sampler.model_dump(include=set(taken))

"""Scoring images that lie in files, whoever made them: what ``ditbench score`` prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ditbench.harness.errors import InputError
from ditbench.harness.quality.build import build_extractor
from ditbench.harness.quality.definitions import definition
from ditbench.harness.quality.evaluate import protocol_detail, quantity_of, reference_detail, uncertainty_detail
from ditbench.harness.quality.features import FeatureCache, collect
from ditbench.harness.quality.figures import figures
from ditbench.harness.quality.images.source import open_images
from ditbench.harness.quality.protocols import protocol
from ditbench.harness.quality.reference import load_reference
from ditbench.harness.store.records import Quantity

Stage = Callable[[str], Callable[[int, int], None]]


@dataclass(frozen=True)
class FileScore:
    """values: the figures by name; protocol: id@count; missing: figure -> why there is none."""

    source: str
    samples: int
    protocol: str
    values: dict[str, Quantity]
    missing: dict[str, str]
    detail: dict[str, Any]


def score_images(
    path: Path,
    protocol_name: str,
    reference: str | None,
    *,
    samples: int | None = None,
    batch: int = 100,
    device: str = "cpu",
    cache: Path | None = None,
    stage: Stage = lambda name: lambda done, total: None,
) -> FileScore:
    """Figures of the images in an npz (ADM's layout) or a folder of PNG files.

    samples  how many to score, from the first; unset: what the protocol asks for (all, where it asks for no number)
    cache    a folder that keeps features
    stage    name of a stage -> its progress callback (done, total)

    Raises InputError: unreadable or lossy images, fewer than asked for, absent or wrong extractor or reference.
    """
    chosen = protocol(protocol_name, reference)
    source, fixed = open_images(path), definition(protocol_name)
    count = samples or fixed.samples or len(source)
    if len(source) < count:
        asked = f"{count:,} are asked for" if samples else f"protocol {protocol_name} asks for {count:,}"
        raise InputError(
            f"{source.name} holds {len(source):,} images, {asked} (--samples {len(source)} scores what there is; the "
            "protocol id then says so)"
        )
    if count < 2:
        raise InputError(f"{source.name}: statistics need at least two images")
    extractor = build_extractor(chosen, device)
    if fixed.shape is not None and source.shape != fixed.shape:
        raise InputError(f"{source.name}: images are {source.shape}, protocol {chosen.name} reads {fixed.shape}")
    kept = FeatureCache(cache) if cache else None
    against = load_reference(chosen, reference, extractor, batch=batch, cache=kept, progress=stage("reference"))
    found = collect(source, extractor, count=count, batch=batch, cache=kept, progress=stage("features"))
    scored = figures(found, against, published=fixed.subsets, device=device, progress=stage("figures"))
    return FileScore(
        source=source.name,
        samples=count,
        protocol=chosen.at(count),
        values={name: quantity_of(estimate) for name, estimate in scored.values.items()},
        missing=scored.missing,
        detail={
            **uncertainty_detail([scored]),
            **reference_detail(against),
            "protocol": protocol_detail(chosen),
        },
    )

"""What is left to make for the figures of a plan: images, their files and their bytes. Never imports torch by itself.

Counted from the plan and from what lies in the run's folder. Shards that several cells share are made, and counted,
once: with the first cell that needs them.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ditbench.harness.environment import versions
from ditbench.harness.measurements.measurement import Measurement
from ditbench.harness.measurements.registry import measurements
from ditbench.harness.sample.shards import decoded_folder, shard_path, shard_ranges
from ditbench.harness.store.identity import samples_identity, seed_blocks
from ditbench.harness.store.records import CellSpec
from ditbench.harness.store.store import RunStore
from ditbench.harness.suite.plan import Plan, PlannedCell
from ditbench.methods.registry import facts_of
from ditbench.methods.space import Space

SHARD_FILE, PICTURES_FILE, FEATURES_FILE = 550, 280, 1950  # bytes of a file besides the numbers in it
LABEL = 8
RECORD = 16 << 10


@dataclass
class Workload:
    """What one cell still makes. ``images``, ``pictures``, ``features``: how many are sampled, decoded, extracted.

    disk  bytes by kind: 'latents' (samples as they leave the sampler), 'pictures', 'features', 'records'
    """

    images: int = 0
    pictures: int = 0
    features: int = 0
    disk: dict[str, int] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(self.disk.values())

    def add(self, kind: str, size: int) -> None:
        self.disk[kind] = self.disk.get(kind, 0) + size


def space_of(spec: CellSpec) -> Space:
    """What one of a cell's samples is."""
    return facts_of(spec.method, spec.config).space


def picture_shape(spec: CellSpec) -> tuple[int, int, int]:
    """(C, H, W) of what is scored."""
    space = space_of(spec)
    return space.picture_shape if spec.decoder else (space.channels, *space.size)


def wanted_options(cell: PlannedCell, missing: set[str]) -> dict[str, Mapping[str, Any]]:
    """Options of the measurements of a cell that are to run (``missing``) or wait for a file, by name."""
    options: dict[str, Mapping[str, Any]] = {m.name: m.options for m in cell.measurements if m.name in missing}
    for each in cell.waiting:
        options |= each.measurements
    return options


def workloads(
    plan: Plan, store: RunStore, wanted: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> dict[str, Workload]:
    """By cell. ``wanted``: cell -> measurement -> options of what is not measured yet, see ``wanted_options``."""
    found = {cell.spec.cell: Workload() for cell in plan.cells}
    seen: set[Hashable] = set()
    for cell in plan.cells:
        options = wanted.get(cell.spec.cell, {})
        work = found[cell.spec.cell]
        for kind in _sampling(options):
            _add_samples(work, cell.spec, options[kind.name], store, seen, kind.features(options[kind.name]))
        if options:
            work.add("records", RECORD * len(options))
    for cell in plan.cells:  # after all cells' own: what the baseline makes itself is not made for others
        options = wanted.get(cell.spec.cell, {})
        for kind in _sampling(options):
            if "comparison" in kind.needs and plan.baseline is not None:
                _add_samples(found[cell.spec.cell], plan.baseline, options[kind.name], store, seen, features=0)
    return found


def _sampling(options: Mapping[str, Any]) -> list[Measurement[Any]]:
    return [kind for kind in measurements() if kind.name in options and "samples" in kind.needs]


def _add_samples(
    work: Workload, spec: CellSpec, options: Mapping[str, Any], store: RunStore, seen: set[Hashable], features: int
) -> None:
    samples, size = int(options["samples"]), int(options["shard"])
    space = space_of(spec)
    for block in seed_blocks(spec, int(options.get("seed_blocks", 1))):
        folder = _folder(block, size, store)
        ranges = list(shard_ranges(samples, size))
        if (key := (folder or block.cell, block.seed)) not in seen:
            seen.add(key)
            left = [each for each in ranges if folder is None or not shard_path(folder, each).is_file()]
            work.images += len(left) * size
            work.add("latents", len(left) * (size * (4 * space.elements + LABEL) + SHARD_FILE))
            if spec.decoder is not None:
                decoded = None if folder is None else _decoded(folder, spec)
                left = [each for each in ranges if decoded is None or not shard_path(decoded, each).is_file()]
                pixels = math.prod(space.picture_shape)
                work.pictures += len(left) * size
                work.add("pictures", len(left) * (size * pixels + PICTURES_FILE))
        if features:
            work.features += samples
            batches = -(-samples // size)
            work.add("features", 4 * samples * features + batches * FEATURES_FILE)


def _folder(spec: CellSpec, shard: int, store: RunStore) -> Path | None:
    """None for a cell that waits: its samples have no identity yet."""
    if spec.weights is not None and spec.weights_sha256 is None:
        return None
    return store.samples_folder(samples_identity(spec, shard, versions().get("torch", "")))


def _decoded(folder: Path, spec: CellSpec) -> Path | None:
    assert spec.decoder is not None
    if (spec.decoder.weights is not None and spec.decoder.weights_sha256 is None) or not folder.is_dir():
        return None
    return decoded_folder(folder, spec.decoder)

"""From a planned cell to the job of its process."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ditbench.harness.assets.locations import weights_path
from ditbench.harness.environment import versions
from ditbench.harness.run.job import Job, Task
from ditbench.harness.run.measures import ORDER
from ditbench.harness.store.identity import samples_identity, seed_blocks
from ditbench.harness.store.records import CellSpec
from ditbench.harness.store.store import RunStore
from ditbench.harness.suite.plan import BESIDE_BASELINE, Plan, PlannedCell, PlannedMeasurement


def job_of(plan: Plan, cell: PlannedCell, wanted: list[PlannedMeasurement], store: RunStore, nproc: int = 1) -> Job:
    """What a cell's process needs to make the measurements ``wanted``."""
    spec = cell.spec
    options: dict[str, dict[str, Any]] = {m.name: m.options for m in wanted}
    sampled = options.get("quality") or options.get("paired") or {"shard": 0}
    flops = next((m.identity for m in wanted if m.name == "flops"), "")
    blocks = seed_blocks(spec, int(sampled.get("seed_blocks", 1)))
    folder_of = partial(samples_folder, store, int(sampled["shard"]))
    beside = plan.baseline if {*BESIDE_BASELINE} & {*options} else None
    return Job(
        spec=spec,
        weights=weights_of(spec),
        baseline=plan.baseline,
        baseline_weights=weights_of(beside) if beside else None,
        tasks=tuple(Task(name, options[name]) for name in ORDER if name in options),
        samples_folders=tuple(map(folder_of, blocks)),
        baseline_samples=folder_of(plan.baseline) if plan.baseline and "paired" in options else None,
        features_folder=store.features_folder.resolve(),
        maps_folder=store.samples_folder(flops).resolve(),
        log=(store.folder / "logs" / f"{spec.cell}.log").resolve(),
        decoder_weights=decoder_weights_of(spec),
        baseline_decoder_weights=decoder_weights_of(beside) if beside else None,
        nproc=nproc,
    )


def weights_of(spec: CellSpec) -> Path | None:
    """The file of a cell's weights, absolute; None for random ones."""
    return weights_path(spec.weights).resolve() if spec.weights else None


def decoder_weights_of(spec: CellSpec) -> Path | None:
    """The file or folder of a cell's decoder, absolute; None for no decoder, or random weights."""
    decoder = spec.decoder
    return None if decoder is None or decoder.weights is None else weights_path(decoder.weights, folder=True).resolve()


def samples_folder(store: RunStore, shard: int, spec: CellSpec) -> Path:
    """Where the shards of ``shard`` samples of a cell lie, absolute."""
    return store.samples_folder(samples_identity(spec, shard, versions()["torch"])).resolve()

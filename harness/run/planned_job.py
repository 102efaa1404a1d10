"""From a planned cell to the job of its process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ditbench.harness.assets.locations import weights_path
from ditbench.harness.measurements.bench import Job, Task
from ditbench.harness.store.records import CellSpec
from ditbench.harness.store.store import RunStore
from ditbench.harness.suite.plan import Plan, PlannedCell, PlannedMeasurement


def job_of(plan: Plan, cell: PlannedCell, wanted: Sequence[PlannedMeasurement], store: RunStore, nproc: int = 1) -> Job:
    """What a cell's process needs to make the measurements ``wanted``."""
    spec = cell.spec
    beside = plan.baseline if any("baseline" in each.kind.needs_of(each.options) for each in wanted) else None
    return Job(
        spec=spec,
        weights=weights_of(spec),
        baseline=plan.baseline,
        baseline_weights=weights_of(beside) if beside else None,
        tasks=tuple(map(_task, wanted)),
        folder=store.folder.resolve(),
        log=(store.folder / "logs" / f"{spec.cell}.log").resolve(),
        fingerprint=plan.fingerprints[spec.device],
        timeout_s=spec.timeout_s or plan.suite.limits.timeout_s,
        decoder_weights=decoder_weights_of(spec),
        baseline_decoder_weights=decoder_weights_of(beside) if beside else None,
        nproc=nproc,
    )


def _task(planned: PlannedMeasurement) -> Task:
    kind = planned.kind
    timed = "clock" in kind.needs_of(planned.options)
    return Task(planned.name, planned.options, planned.identity, timed, kind.run)


def weights_of(spec: CellSpec) -> Path | None:
    """The file of a cell's weights, absolute; None for random ones."""
    return weights_path(spec.weights).resolve() if spec.weights else None


def decoder_weights_of(spec: CellSpec) -> Path | None:
    """The file or folder of a cell's decoder, absolute; None for no decoder, or random weights."""
    decoder = spec.decoder
    return None if decoder is None or decoder.weights is None else weights_path(decoder.weights, folder=True).resolve()

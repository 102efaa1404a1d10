"""Run a plan: for each cell, what has no complete record. Every outcome is committed the moment it arrives."""

from __future__ import annotations

import fcntl
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from tqdm import tqdm

from harness.environment import environment, versions
from harness.errors import InputError
from harness.run.isolation import process_context, run_cell
from harness.run.worker import ORDER, Job, Outcome, Progress, Task
from harness.store.records import CellSpec, Provenance, Record
from harness.store.store import RunStore, write_atomic, write_json
from harness.suite.identity import samples_identity, seed_blocks
from harness.suite.load import LoadedSuite
from harness.suite.plan import Plan, PlannedCell, PlannedMeasurement
from harness.suite.weights import weights_path


@dataclass(frozen=True)
class RunSummary:
    """How a run ended: measurements that were attempted and reused; failed cells, and one line a failure."""

    ran: int
    reused: int
    failed_cells: tuple[str, ...]
    failures: tuple[str, ...]


def todo(plan: Plan, store: RunStore) -> dict[str, list[PlannedMeasurement]]:
    """cell -> measurements without a complete record. Equal measurements of two cells are listed once."""
    seen: set[str] = set()
    missing: dict[str, list[PlannedMeasurement]] = {}
    for cell in plan.cells:
        for measurement in cell.measurements:
            if measurement.identity not in seen and not store.has(measurement.identity):
                missing.setdefault(cell.spec.cell, []).append(measurement)
            seen.add(measurement.identity)
    return missing


def check_inputs(plan: Plan, missing: dict[str, list[PlannedMeasurement]]) -> None:
    """Build each distinct model that is about to run on ``meta`` and compare its checkpoint's keys and shapes.

    Raises InputError at the place of ``weights``, ``config`` or ``device`` in the suite, before anything runs.
    """
    if not missing:
        return
    from harness.sample.generate import checkpoint_problem

    seen: set[tuple[object, ...]] = set()
    for cell in plan.cells:
        spec = cell.spec
        sampling = (spec.sampler, repr(spec.sampler_options), spec.steps, spec.guidance_scale, spec.guidance_interval)
        key = (spec.method, repr(spec.config), spec.weights, spec.device, spec.measure, *sampling)
        if spec.cell not in missing or key in seen:
            continue
        seen.add(key)
        problem = checkpoint_problem(spec, _weights(spec))
        if problem is not None:
            raise InputError(problem.message, plan.position(spec.cell, problem.field))


def run(loaded: LoadedSuite, plan: Plan, whole: Plan, folder: Path) -> RunSummary:
    """Run what ``plan`` asks for and ``folder`` lacks. ``whole`` is the suite's full plan: what reports will show.

    Survives a kill at any time: complete records stay, finished shards stay, the rest runs next time.
    """

    store = RunStore(folder)
    missing = todo(plan, store)
    check_inputs(plan, missing)
    with _lock(folder):
        write_atomic(folder / "suite.yaml", loaded.text.encode())
        store.write_plan(whole.to_json())
        here = environment(plan.cells[0].spec.device)
        write_json(folder / "environment.json", here)
        count = sum(map(len, missing.values()))
        if missing:
            context = process_context()
            quiet = 0.2 if sys.stderr.isatty() else 10.0
            with tqdm(total=count, unit="meas", desc=plan.suite.suite, mininterval=quiet, leave=True) as bar:
                for cell in plan.cells:
                    if cell.spec.cell in missing:
                        _run_cell(context, whole, cell, missing[cell.spec.cell], store, here, bar)
    total = sum(len(cell.measurements) for cell in plan.cells)
    failures = []
    for cell in plan.cells:
        for measurement in cell.measurements:
            if not store.has(measurement.identity):
                record = store.load(measurement.identity)
                reason = record.failure.message if record and record.failure else "not run"
                failures.append((cell.spec.cell, f"{cell.spec.cell}: {measurement.name}: {reason}"))
    return RunSummary(count, total - count, tuple(dict.fromkeys(c for c, _ in failures)), tuple(t for _, t in failures))


def _run_cell(
    context: ForkServerContext,
    plan: Plan,
    cell: PlannedCell,
    wanted: list[PlannedMeasurement],
    store: RunStore,
    here: dict[str, Any],
    bar: tqdm[Any],
) -> None:
    spec = cell.spec
    options: dict[str, dict[str, Any]] = {m.name: m.options for m in wanted}
    identities: dict[str, str] = {m.name: m.identity for m in wanted}
    sampled = options.get("quality") or options.get("paired") or {"shard": 0}
    blocks = int(sampled.get("seed_blocks", 1))

    def folder_of(spec: CellSpec) -> Path:
        return store.samples_folder(samples_identity(spec, int(sampled["shard"]), versions()["torch"])).resolve()

    job = Job(
        spec=spec,
        weights=_weights(spec),
        baseline=plan.baseline,
        baseline_weights=_weights(plan.baseline) if plan.baseline else None,
        tasks=tuple(Task(name, options[name]) for name in ORDER if name in options),
        samples_folders=tuple(folder_of(block) for block in seed_blocks(spec, blocks)),
        baseline_samples=folder_of(plan.baseline) if plan.baseline and "paired" in options else None,
        features_folder=store.features_folder.resolve(),
        maps_folder=store.samples_folder(identities.get("flops", "")).resolve(),
        log=(store.folder / "logs" / f"{spec.cell}.log").resolve(),
    )

    def on_progress(progress: Progress) -> None:
        share = f" {progress.done}/{progress.total}" if progress.total else ""
        bar.set_postfix_str(f"{spec.cell}: {progress.task}{share}", refresh=sys.stderr.isatty())

    def on_outcome(outcome: Outcome) -> None:
        identity = identities[outcome.task]
        store.commit(_record(plan, spec, outcome, identity, options[outcome.task], here))
        if outcome.failure is not None:
            bar.write(f"{spec.cell}: {outcome.task} failed: {outcome.failure.message}", file=sys.stderr)
        bar.update()

    run_cell(context, job, spec.timeout_s or plan.suite.limits.timeout_s, on_progress, on_outcome)


def _record(
    plan: Plan, spec: CellSpec, outcome: Outcome, identity: str, options: dict[str, Any], here: dict[str, Any]
) -> Record:
    started = datetime.now(UTC) - timedelta(seconds=outcome.seconds)
    return Record(
        identity=identity,
        suite=plan.suite.suite,
        spec=spec,
        measurement=outcome.task,
        options=options,
        status="failed" if outcome.failure else "ok",
        values=outcome.values,
        detail=outcome.detail,
        protocol=outcome.protocol,
        failure=outcome.failure,
        provenance=Provenance(
            command=f"{plan.command} --only {shlex.quote(spec.cell)}",
            started=started.isoformat(timespec="seconds"),
            seconds=round(outcome.seconds, 3),
            seed=spec.seed,
            device=spec.device,
            device_name=str(here["device_name"]),
            threads=spec.threads,
            versions={"python": str(here["python"]), **here["versions"]},
            git=here["git"],
            weights_sha256=spec.weights_sha256,
        ),
    )


def _weights(spec: CellSpec) -> Path | None:
    return weights_path(spec.weights).resolve() if spec.weights else None


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One run a folder at a time. The system drops the lock with the process, also when it is killed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise InputError(f"--out {folder}: cannot write there ({error.strerror})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another run is working in {folder}: wait for it or give another --out") from None
        yield

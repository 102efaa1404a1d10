"""Run a plan: for each cell, what has no complete record. Every outcome is committed the moment it arrives."""

from __future__ import annotations

import errno
import fcntl
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ditbench.harness.environment import environment
from ditbench.harness.errors import InputError
from ditbench.harness.run.isolation import process_context, run_cell
from ditbench.harness.run.job import Outcome, Progress
from ditbench.harness.run.jobs import decoder_weights_of, job_of, weights_of
from ditbench.harness.store.records import CellSpec, Provenance, Record
from ditbench.harness.store.store import RunStore, remove_temporary, store_error, write_atomic, write_json
from ditbench.harness.suite.load import LoadedSuite
from ditbench.harness.suite.plan import BESIDE_BASELINE, Plan, PlannedCell, PlannedMeasurement
from ditbench.harness.suite.waiting import refuse_waiting
from ditbench.harness.suite.weights import verify_weights


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
    """Build each distinct model that is about to run on ``meta`` and compare its checkpoint's keys and shapes; load
    each distinct decoder.

    Raises InputError at the place of ``weights``, ``config``, ``device`` or ``decoder`` in the suite, before anything
    runs.
    """
    if not missing:
        return
    from ditbench.harness.sample.generate import checkpoint_problem

    seen: set[tuple[object, ...]] = set()
    for cell in plan.cells:
        spec = cell.spec
        sampling = (spec.sampler, repr(spec.sampler_options), spec.steps, spec.guidance_scale, spec.guidance_interval)
        model = (spec.method, repr(spec.config), repr(spec.modifiers), spec.weights)
        key = (*model, spec.device, spec.mode, spec.measure, *sampling)
        if spec.cell not in missing or key in seen:
            continue
        seen.add(key)
        problem = checkpoint_problem(spec, weights_of(spec))
        if problem is not None:
            raise InputError(problem.message, plan.position(spec.cell, problem.field))
    _check_decoders(plan, [cell.spec for cell in plan.cells if cell.spec.cell in missing])


def _check_decoders(plan: Plan, specs: list[CellSpec]) -> None:
    """Load each distinct decoder once, and see that it takes what its cells make."""
    from ditbench.harness.sample.generate import latent_channels
    from ditbench.methods.errors import CheckpointError, ConfigError
    from ditbench.methods.latent.autoencoder import load_decoder

    taken: dict[str | None, int] = {}
    for spec in specs:
        if spec.decoder is None:
            continue
        place = plan.position(spec.cell, "decoder.weights")
        weights = spec.decoder.weights
        if weights not in taken:
            try:
                taken[weights] = load_decoder(decoder_weights_of(spec)).in_channels
            except (CheckpointError, ConfigError) as error:
                raise InputError(str(error), place) from None
        if (made := latent_channels(spec)) != taken[weights]:
            raise InputError(
                f"the decoder takes latents of {taken[weights]} channels, and {spec.method} makes {made}", place
            )


def check_processes(plan: Plan, missing: Mapping[str, object], nproc: int) -> None:
    """Raises InputError where cells that are about to run cannot be shared out over ``nproc`` processes."""
    if nproc < 1:
        raise InputError(f"--nproc {nproc}: at least one process makes the samples")
    if nproc > 1 and any(cell.spec.device == "cuda" for cell in plan.cells if cell.spec.cell in missing):
        import torch

        if (gpus := torch.cuda.device_count()) < nproc:
            raise InputError(f"--nproc {nproc}: each process takes a GPU of its own, and this machine shows {gpus}")


def verify_inputs(plan: Plan, missing: dict[str, list[PlannedMeasurement]]) -> None:
    """Raise InputError if a file that is about to be used is not what ``ditbench.toml`` declares. Reads it in full."""
    specs = [cell.spec for cell in plan.cells if cell.spec.cell in missing]
    if plan.baseline and any(each.name in BESIDE_BASELINE for wanted in missing.values() for each in wanted):
        specs.append(plan.baseline)
    for spec in specs:
        if spec.weights is not None:
            verify_weights(spec.weights)
        if spec.decoder is not None and spec.decoder.weights is not None:
            verify_weights(spec.decoder.weights, folder=True)


def run(loaded: LoadedSuite, plan: Plan, whole: Plan, folder: Path, nproc: int = 1) -> RunSummary:
    """Run what ``plan`` asks for and ``folder`` lacks. ``whole`` is the suite's full plan: what reports will show.

    Samples of a cell are made by ``nproc`` processes; their number changes no sample. Survives a kill at any time:
    complete records stay, finished shards stay, the rest runs next time. Raises StoreError where the disk of
    ``folder`` takes nothing more.
    """

    refuse_waiting(plan)
    store = RunStore(folder)
    missing = todo(plan, store)
    check_inputs(plan, missing)
    check_processes(plan, missing, nproc)
    verify_inputs(plan, missing)
    with lock(folder):
        remove_temporary(folder)
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
                        _run_cell(context, whole, cell, missing[cell.spec.cell], store, here, bar, nproc)
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
    nproc: int,
) -> None:
    spec = cell.spec
    options = {str(m.name): m.options for m in wanted}
    identities = {str(m.name): m.identity for m in wanted}
    job = job_of(plan, cell, wanted, store, nproc)

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


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """One run a folder at a time. The system drops the lock with the process, also when it is killed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise store_error(folder / ".lock", error) from None
        raise InputError(f"--out {folder}: cannot write there ({error.strerror})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another run is working in {folder}: wait for it or give another --out") from None
        yield

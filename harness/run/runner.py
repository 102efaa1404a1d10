"""Run a plan: for each cell, what has no complete record. Every outcome is committed the moment it arrives."""

from __future__ import annotations

import errno
import fcntl
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ditbench.harness.assets.locations import verify_weights
from ditbench.harness.environment import environment
from ditbench.harness.errors import InputError
from ditbench.harness.measurements.registry import measurements
from ditbench.harness.run.executor import Executor, LocalExecutor
from ditbench.harness.run.planned_job import decoder_weights_of, job_of, weights_of
from ditbench.harness.run.recording import CellReports
from ditbench.harness.store.records import CellSpec
from ditbench.harness.store.store import RunStore, remove_temporary, store_error, write_atomic, write_json
from ditbench.harness.suite.load import LoadedSuite
from ditbench.harness.suite.plan import Plan, PlannedMeasurement
from ditbench.harness.suite.refusal import refuse_waiting


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
        problem = checkpoint_problem(spec, weights_of(spec), [measurements()[name].misfit for name in spec.measure])
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
    beside = ("baseline" in each.kind.needs for wanted in missing.values() for each in wanted)
    if plan.baseline and any(beside):
        specs.append(plan.baseline)
    for spec in specs:
        if spec.weights is not None:
            verify_weights(spec.weights)
        if spec.decoder is not None and spec.decoder.weights is not None:
            verify_weights(spec.decoder.weights, folder=True)


def run(
    loaded: LoadedSuite,
    plan: Plan,
    whole: Plan,
    folder: Path,
    nproc: int = 1,
    executor: Executor | None = None,
) -> RunSummary:
    """Run what ``plan`` asks for and ``folder`` lacks. ``whole`` is the suite's full plan: what reports will show.

    Samples of a cell are made by ``nproc`` processes; their number changes no sample. ``executor`` does the jobs;
    unset: this machine. Survives a kill at any time:
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
            executor = executor or LocalExecutor()
            quiet = 0.2 if sys.stderr.isatty() else 10.0
            with tqdm(total=count, unit="meas", desc=plan.suite.suite, mininterval=quiet, leave=True) as bar:
                for cell in plan.cells:
                    if cell.spec.cell in missing:
                        wanted = {each.name: each for each in missing[cell.spec.cell]}
                        job = job_of(whole, cell, [*wanted.values()], store, nproc)
                        executor.submit(job, CellReports(whole, cell.spec, wanted, store, here, bar))
                executor.finish()
    total = sum(len(cell.measurements) for cell in plan.cells)
    failures = []
    for cell in plan.cells:
        for measurement in cell.measurements:
            if not store.has(measurement.identity):
                record = store.load(measurement.identity)
                reason = record.failure.message if record and record.failure else "not run"
                failures.append((cell.spec.cell, f"{cell.spec.cell}: {measurement.name}: {reason}"))
    return RunSummary(count, total - count, tuple(dict.fromkeys(c for c, _ in failures)), tuple(t for _, t in failures))


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

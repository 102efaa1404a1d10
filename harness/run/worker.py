"""What happens inside a cell's own process: bind the cell, run its measurements, send each outcome as it is ready."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.store.records import CellSpec, Failure, FailureKind, Quantity
from harness.suite.schema import (
    AgreementOptions,
    FlopsOptions,
    KernelsOptions,
    LatencyOptions,
    MemoryOptions,
    QualityOptions,
    TrainingOptions,
)

if TYPE_CHECKING:
    from harness.sample.generate import BoundCell


@dataclass(frozen=True)
class Task:
    """One measurement that the parent wants: its name and resolved options."""

    name: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """Everything that a cell's process needs. Paths are absolute.

    samples_folders   shards of the cell's samples, one folder a seed block
    baseline_samples  shards of the baseline's samples, where paired figures are wanted
    features_folder   cache of extracted features
    maps_folder       token maps of ``flops``
    """

    spec: CellSpec
    weights: Path | None
    baseline: CellSpec | None
    baseline_weights: Path | None
    tasks: tuple[Task, ...]
    samples_folders: tuple[Path, ...]
    baseline_samples: Path | None
    features_folder: Path
    maps_folder: Path
    log: Path


@dataclass(frozen=True)
class Outcome:
    """The result of one task: values and detail, or a failure."""

    task: str
    seconds: float
    values: dict[str, Quantity]
    detail: dict[str, Any]
    protocol: str | None = None
    failure: Failure | None = None


@dataclass(frozen=True)
class Progress:
    """What the process is doing now; ``total`` is 0 where there is nothing to count."""

    task: str
    done: int = 0
    total: int = 0


def work(job: Job, connection: Connection) -> None:
    """Entry point of the process. Sends Progress and Outcome objects, then None, then ends."""
    _die_with_parent()
    _write_output_to(job.log)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler announces itself on stderr otherwise
    cell = LazyCell(job)
    for task in job.tasks:
        connection.send(Progress(task.name))
        begin = time.perf_counter()
        try:
            values, detail, protocol = _measure(task, cell, job, connection)
            outcome = Outcome(task.name, time.perf_counter() - begin, values, detail, protocol)
        except Exception as error:
            traceback.print_exc()
            outcome = Outcome(task.name, time.perf_counter() - begin, {}, {}, failure=_failure(error))
        connection.send(outcome)
    connection.send(None)
    connection.close()


class LazyCell:
    """The bound cell and baseline, built at first use: counting FLOPs needs neither."""

    def __init__(self, job: Job) -> None:
        import torch

        torch.set_num_threads(job.spec.threads or torch.get_num_threads())
        self._job = job
        self._cell: BoundCell | None = None
        self.load_ms = 0.0

    def get(self) -> BoundCell:
        """The cell of the job's spec."""
        if self._cell is None:
            from harness.sample.generate import bind

            begin = time.perf_counter()
            self._cell = bind(self._job.spec, self._job.weights)
            self.load_ms = (time.perf_counter() - begin) * 1e3
        return self._cell

    def baseline(self) -> BoundCell | None:
        """The baseline to time beside the cell; None if the cell is it, or if it runs on another device."""
        spec, other = self._job.spec, self._job.baseline
        if other is None or other.cell == spec.cell or other.device != spec.device:
            return None
        return self.any_baseline()

    def any_baseline(self) -> BoundCell:
        """The baseline, bound, sharing the cell's model when it is the same one."""
        from harness.sample.generate import BoundCell, bind, bind_sampler

        spec, other = self._job.spec, self._job.baseline
        assert other is not None, "asked for only where the suite names one"
        same = ("method", "config", "weights_sha256", "device", "dtype", "mode", "seed")
        if all(getattr(spec, name) == getattr(other, name) for name in same):
            return BoundCell(other, self.get().model, *bind_sampler(other, self.get().model))
        return bind(other, self._job.baseline_weights)


Measured = tuple[dict[str, Quantity], dict[str, Any], str | None]


def _measure(task: Task, cell: LazyCell, job: Job, connection: Connection) -> Measured:
    def counted(done: int, total: int) -> None:
        connection.send(Progress(task.name, done, total))

    return MEASURES[task.name](task.options, cell, job, counted)


Counted = Callable[[int, int], None]


def _flops(options: dict[str, Any], cell: LazyCell, job: Job, progress: Counted) -> Measured:
    from harness.measure.count_cell import measure_flops

    result = measure_flops(job.spec, job.weights, FlopsOptions.model_validate(options), job.maps_folder)
    return result.values(), result.detail(), None


def _latency(options: dict[str, Any], cell: LazyCell, job: Job, progress: Counted) -> Measured:
    from harness.measure.compare_times import measure_latency

    bound = cell.get()
    result = measure_latency(bound, cell.baseline(), LatencyOptions.model_validate(options), cell.load_ms)
    return result.values, result.detail, None


def _kernels(options: dict[str, Any], cell: LazyCell, job: Job, progress: Counted) -> Measured:
    from harness.measure.kernels import measure_kernels

    result = measure_kernels(cell.get(), KernelsOptions.model_validate(options))
    return result.values, result.detail, None


def _memory(options: dict[str, Any], cell: LazyCell, job: Job, progress: Counted) -> Measured:
    from harness.measure.memory import measure_memory

    result = measure_memory(cell.get(), MemoryOptions.model_validate(options))
    return result.values, result.detail, None


def _training(options: dict[str, Any], cell: LazyCell, job: Job, progress: Counted) -> Measured:
    from harness.measure.training import Trainee, measure_training

    spec, other = job.spec, job.baseline
    assert job.weights is not None, "planned only for a cell with weights"
    beside = None
    if other is not None and other.cell != spec.cell and other.device == spec.device and job.baseline_weights:
        beside = Trainee(other, job.baseline_weights)
    result = measure_training(Trainee(spec, job.weights), beside, TrainingOptions.model_validate(options))
    return result.values, result.detail, None


def _agreement(options: dict[str, Any], cell: LazyCell, job: Job, progress: Counted) -> Measured:
    from harness.measure.agreement import measure_agreement

    result = measure_agreement(cell.get(), AgreementOptions.model_validate(options))
    return result.values, result.detail, None


def _quality(options: dict[str, Any], cell: LazyCell, job: Job, progress: Counted) -> Measured:
    from harness.quality.evaluate import SeedBlock, score
    from harness.sample.making import generate_shards
    from harness.suite.identity import seed_blocks

    chosen = QualityOptions.model_validate(options)
    bound, blocks = cell.get(), []
    specs = seed_blocks(job.spec, chosen.seed_blocks)
    for done, (spec, folder) in enumerate(zip(specs, job.samples_folders, strict=True)):
        seeded = replace(bound, spec=spec)
        shown = partial(_offset, progress, done, len(specs))
        blocks.append(SeedBlock(spec.seed, generate_shards(seeded, chosen.samples, chosen.shard, folder, shown)))
    result = score(blocks, chosen, job.features_folder, job.spec.device)
    return result.values, result.detail, result.protocol


def _offset(progress: Counted, block: int, blocks: int, done: int, total: int) -> None:
    progress(block * total + done, blocks * total)


def _paired(options: dict[str, Any], cell: LazyCell, job: Job, progress: Counted) -> Measured:
    from harness.quality.paired import pair
    from harness.sample.making import existing_shards, generate_shards

    folder, size, count = job.baseline_samples, options["shard"], options["samples"]
    assert folder is not None, "planned only beside a baseline"
    ours = generate_shards(cell.get(), count, size, job.samples_folders[0], progress)
    if (theirs := existing_shards(folder, count, size)) is None:
        theirs = generate_shards(cell.any_baseline(), count, size, folder, progress)
    result = pair(ours, theirs, count, options["lpips"], options["lpips_sha256"], job.spec.device)
    return result.values, result.detail, None


# Counting first, because it is sure to end and does not touch the cell's model; then the clock, so that loading,
# compiling and the first call are cold.
MEASURES: dict[str, Callable[[dict[str, Any], LazyCell, Job, Counted], Measured]] = {
    "flops": _flops,
    "latency": _latency,
    "memory": _memory,
    "kernels": _kernels,
    "training": _training,
    "agreement": _agreement,
    "quality": _quality,
    "paired": _paired,
}
ORDER = tuple(MEASURES)


def _failure(error: Exception) -> Failure:
    kind: FailureKind = "error"
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, ArithmeticError):
        kind, text = "not-finite", str(error)
    elif isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "allocate memory" in str(error):
        kind = "out-of-memory"
    return Failure(kind=kind, message=" ".join(text.split())[:500], traceback=traceback.format_exc())


def _die_with_parent() -> None:
    """Linux: a killed run takes its cell's process along, so that it cannot go on beside the next run."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle


def _write_output_to(log: Path) -> None:
    """Send this process's stdout and stderr to ``log``: a crash leaves its last words there, not in the bar."""
    log.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)

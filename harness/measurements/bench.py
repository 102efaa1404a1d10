"""What a measurement finds in its cell's process: the job, its models, built at first use, and where things lie."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ditbench.harness.store.records import CellSpec, Quantity
from ditbench.harness.store.store import RunStore
from ditbench.harness.strict import Strict

if TYPE_CHECKING:
    from ditbench.harness.sample.generate import BoundCell
    from ditbench.harness.sample.picture_decoder import PictureDecoder

O = TypeVar("O", bound=Strict)  # noqa: E741


@dataclass(frozen=True)
class Finding:
    """What a measurement found: figures by name, structured data behind them, and the quality protocol's id."""

    values: dict[str, Quantity]
    detail: dict[str, Any] = field(default_factory=dict)
    protocol: str | None = None


@dataclass(frozen=True)
class Task:
    """One measurement that a run wants.

    options   resolved
    identity  of its record
    timed     whether its figures are of the machine that makes them
    run       what makes it: a function at the top of a module, or a bound method, so that another process finds it
    """

    name: str
    options: Mapping[str, Any]
    identity: str
    timed: bool
    run: Callable[[Turn], Finding]


@dataclass(frozen=True)
class Job:
    """Everything that a cell's process needs. Paths are absolute.

    fingerprint      of the machine that it was planned for
    folder           the run's
    timeout_s        seconds after which the process is stopped
    log              file for what the process prints
    decoder_weights  file or folder of the cell's decoder; None: it has none, or random weights
    nproc            processes that share a cell's sampling
    """

    spec: CellSpec
    weights: Path | None
    baseline: CellSpec | None
    baseline_weights: Path | None
    tasks: tuple[Task, ...]
    folder: Path
    log: Path
    fingerprint: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 3600.0
    decoder_weights: Path | None = None
    baseline_decoder_weights: Path | None = None
    nproc: int = 1

    @property
    def store(self) -> RunStore:
        return RunStore(self.folder)


class Bench:
    """The bound cell, baseline and decoders of a job, built at first use: counting FLOPs needs none of them."""

    def __init__(self, job: Job) -> None:
        import torch

        torch.set_num_threads(job.spec.threads or torch.get_num_threads())
        self.job = job
        self._cell: BoundCell | None = None
        self._decoder: PictureDecoder | None = None
        self.load_ms = 0.0

    def cell(self) -> BoundCell:
        """The cell of the job's spec."""
        if self._cell is None:
            from ditbench.harness.sample.generate import bind

            begin = time.perf_counter()
            self._cell = bind(self.job.spec, self.job.weights)
            self.load_ms = (time.perf_counter() - begin) * 1e3
        return self._cell

    def decoder(self) -> PictureDecoder:
        """The decoder of the job's spec."""
        if self._decoder is None:
            from ditbench.harness.sample.picture_decoder import bind_decoder

            spec = self.job.spec
            assert spec.decoder is not None, "asked for only where the cell decodes"
            self._decoder = bind_decoder(spec.decoder, self.job.decoder_weights, spec.device)
        return self._decoder

    def baseline_decoder(self) -> PictureDecoder | None:
        """The decoder of the baseline that is timed beside the cell, the cell's own when it is the same one."""
        other = self.job.baseline
        if other is None or other.decoder is None:
            return None
        if other.decoder == self.job.spec.decoder:
            return self.decoder()
        from ditbench.harness.sample.picture_decoder import bind_decoder

        return bind_decoder(other.decoder, self.job.baseline_decoder_weights, other.device)

    def release(self) -> None:
        """Give up the models' memory, for other processes that need it. They are built again at the next use."""
        import torch

        self._cell = self._decoder = None
        if self.job.spec.device == "cuda":
            torch.cuda.empty_cache()

    def baseline(self) -> BoundCell | None:
        """The baseline to time beside the cell; None if the cell is it, or if it runs on another device."""
        spec, other = self.job.spec, self.job.baseline
        if other is None or other.cell == spec.cell or other.device != spec.device:
            return None
        return self.any_baseline()

    def any_baseline(self) -> BoundCell:
        """The baseline, bound, sharing the cell's model when it is the same one."""
        from ditbench.harness.sample.generate import BoundCell, bind, bind_sampler

        spec, other = self.job.spec, self.job.baseline
        assert other is not None, "asked for only where the suite names one"
        same = ("method", "config", "weights_sha256", "device", "dtype", "mode", "attention", "seed", "modifiers")
        if all(getattr(spec, name) == getattr(other, name) for name in same):
            model = self.cell().model
            return BoundCell(other, model, *bind_sampler(other, model))
        return bind(other, self.job.baseline_weights)


@dataclass(frozen=True)
class Turn:
    """One task's turn on the bench. ``progress``: is told what is done and what there is in all."""

    task: Task
    bench: Bench
    progress: Callable[[int, int], None]

    @property
    def job(self) -> Job:
        return self.bench.job

    @property
    def spec(self) -> CellSpec:
        return self.job.spec

    @property
    def folder(self) -> Path:
        """For arrays that are too large for a record."""
        return self.job.store.samples_folder(self.task.identity)

    def options(self, kind: type[O]) -> O:
        """The task's options that are also the suite's."""
        return kind.model_validate(
            {name: value for name, value in self.task.options.items() if name in kind.model_fields}
        )

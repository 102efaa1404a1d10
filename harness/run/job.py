"""What a run and a cell's process say to each other: a job, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ditbench.harness.store.records import CellSpec, Failure, Quantity

Counted = Callable[[int, int], None]
Measured = tuple[dict[str, Quantity], dict[str, Any], str | None]


@dataclass(frozen=True)
class Task:
    """One measurement that the parent wants: its name and resolved options."""

    name: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """Everything that a cell's process needs. Paths are absolute.

    decoder_weights   file or folder of the cell's decoder; None: it has none, or random weights
    samples_folders   shards of the cell's samples, one folder a seed block
    baseline_samples  shards of the baseline's samples, where paired figures are wanted
    features_folder   cache of extracted features
    maps_folder       token maps of ``flops``
    nproc             processes that share a cell's sampling
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
    decoder_weights: Path | None = None
    baseline_decoder_weights: Path | None = None
    nproc: int = 1


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

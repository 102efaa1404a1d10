"""Where jobs are done: the contract, and the executors by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ditbench.harness.errors import InputError, did_you_mean
from ditbench.harness.measurements.bench import Job
from ditbench.harness.run.isolation import process_context, run_cell
from ditbench.harness.run.outcome import Outcome, Progress


class Reports(Protocol):
    """What the run wants to hear of a job."""

    def progress(self, progress: Progress) -> None: ...

    def outcome(self, outcome: Outcome) -> None: ...


class Executor(Protocol):
    """Does jobs. Whatever happens to the processes that do them, each task of a job gets exactly one outcome."""

    def submit(self, job: Job, reports: Reports) -> None:
        """Take a job on. Its outcomes are told as they come, the last one before ``finish`` returns."""
        ...

    def finish(self) -> None:
        """Wait for the jobs that are not done yet."""
        ...


class LocalExecutor:
    """One job after another, each in a fresh process on this machine, so that no cell disturbs another one's clock."""

    def __init__(self) -> None:
        self._context = process_context()

    def submit(self, job: Job, reports: Reports) -> None:
        """Returns when the job is done."""
        run_cell(self._context, job, job.timeout_s, reports.progress, reports.outcome)

    def finish(self) -> None:
        """Nothing is left to wait for."""


EXECUTORS: dict[str, Callable[[], Executor]] = {"local": LocalExecutor}


def executor_of(name: str) -> Executor:
    """Raises InputError for an unknown name."""
    if name not in EXECUTORS:
        hint = did_you_mean(name, EXECUTORS) or f" (known: {', '.join(EXECUTORS)})"
        raise InputError(f"--executor {name}: unknown{hint}")
    return EXECUTORS[name]()

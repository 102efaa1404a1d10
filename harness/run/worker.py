"""What happens inside a cell's own process: bind the cell, run its measurements, send each outcome as it is ready."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ditbench.harness.environment import environment, fingerprint
from ditbench.harness.errors import InputError
from ditbench.harness.lifetime import die_with_parent
from ditbench.harness.measurements.bench import Bench, Finding, Job, Task, Turn
from ditbench.harness.run.outcome import Outcome, Progress
from ditbench.harness.store.failures import failure_of


def work(job: Job, connection: Connection) -> None:
    """Entry point of the process. Sends Progress and Outcome objects, then None, then ends."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _write_output_to(job.log)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler announces itself on stderr otherwise
    here = environment(job.spec.device)
    elsewhere = _differences(job.fingerprint, fingerprint(here))
    bench = Bench(job)
    for task in job.tasks:
        connection.send(Progress(task.name))
        begin = time.perf_counter()
        try:
            if task.timed and elsewhere:
                raise InputError(f"planned for another machine than the one that measures ({elsewhere}): plan it there")
            found = _measure(task, bench, connection)
            seconds = time.perf_counter() - begin
            outcome = Outcome(task.name, seconds, found.values, found.detail, found.protocol, environment=here)
        except Exception as error:
            with contextlib.suppress(OSError):  # the log's disk may be what is full
                traceback.print_exc()
            seconds = time.perf_counter() - begin
            outcome = Outcome(task.name, seconds, {}, {}, failure=failure_of(error), environment=here)
        connection.send(outcome)
    connection.send(None)
    connection.close()


def _measure(task: Task, bench: Bench, connection: Connection) -> Finding:
    def counted(done: int, total: int) -> None:
        connection.send(Progress(task.name, done, total))

    return task.run(Turn(task, bench, counted))


def _differences(planned: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """In words; empty where the machines are alike."""
    names = [name for name in planned if planned[name] != here.get(name)]
    return "; ".join(f"{name}: {planned[name]}, here {here.get(name)}" for name in names)


def _write_output_to(log: Path) -> None:
    """Send this process's stdout and stderr to ``log``: a crash leaves its last words there, not in the bar."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    except OSError:  # a full disk: the words are lost, the measurement need not be
        handle = os.open(os.devnull, os.O_WRONLY)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)

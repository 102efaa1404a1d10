"""What happens inside a cell's own process: bind the cell, run its measurements, send each outcome as it is ready."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

from ditbench.harness.lifetime import die_with_parent
from ditbench.harness.run.cells import LazyCell
from ditbench.harness.run.job import Job, Measured, Outcome, Progress, Task
from ditbench.harness.run.measures import MEASURES
from ditbench.harness.store.failures import failure_of


def work(job: Job, connection: Connection) -> None:
    """Entry point of the process. Sends Progress and Outcome objects, then None, then ends."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
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
            with contextlib.suppress(OSError):  # the log's disk may be what is full
                traceback.print_exc()
            outcome = Outcome(task.name, time.perf_counter() - begin, {}, {}, failure=failure_of(error))
        connection.send(outcome)
    connection.send(None)
    connection.close()


def _measure(task: Task, cell: LazyCell, job: Job, connection: Connection) -> Measured:
    def counted(done: int, total: int) -> None:
        connection.send(Progress(task.name, done, total))

    return MEASURES[task.name](task.options, cell, job, counted)


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

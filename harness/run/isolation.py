"""A fresh process a cell: started from a server that has imported torch but run nothing, stopped at its deadline."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess

from ditbench.harness.environment import USABLE_CPUS
from ditbench.harness.imports import importing_alike
from ditbench.harness.measurements.bench import Job
from ditbench.harness.measurements.registry import measurements
from ditbench.harness.run.outcome import Outcome, Progress
from ditbench.harness.run.worker import work
from ditbench.harness.store.records import Failure, FailureKind
from ditbench.methods.code import own_origin
from ditbench.methods.registry import methods

_FIRST = "ditbench.harness.environment"  # before torch: it looks at the cores


def process_context() -> ForkServerContext:
    """Fork server with torch imported: each cell starts clean and at once, without paying the import again."""
    context = multiprocessing.get_context("forkserver")
    measured = [module for kind in measurements() for module in kind.preload]
    built = [entry.target.partition(":")[0] for entry in methods() if entry.origin == own_origin()]
    always = [_FIRST, "torch", "ditbench.harness.run.worker", "ditbench.harness.sample.generate"]
    context.set_forkserver_preload([*dict.fromkeys(always + measured + built)])
    return context


def run_cell(
    context: ForkServerContext,
    job: Job,
    timeout_s: float,
    on_progress: Callable[[Progress], None],
    on_outcome: Callable[[Outcome], None],
) -> None:
    """Run a job in its own process. Every task of it gets exactly one outcome, whatever happens to the process."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(job, sender), name=job.spec.cell)
    deadline = time.monotonic() + timeout_s
    with importing_alike(), _on_all_cores():  # the first one starts the server
        process.start()
    sender.close()
    open_tasks = [task.name for task in job.tasks]
    failure: Failure | None = None
    ended = False
    try:
        while True:
            if not receiver.poll(max(0.0, deadline - time.monotonic())):
                failure = Failure(kind="timeout", message=f"stopped after its limit of {timeout_s:g} s")
                break
            try:
                message = receiver.recv()
            except EOFError:
                process.join()
                failure = _crash(process, job)
                break
            if message is None:
                ended = True
                break
            if isinstance(message, Outcome):
                open_tasks.remove(message.task)
                on_outcome(message)
            else:
                on_progress(message)
    finally:
        if ended:
            process.join(10)
        process.kill()
        process.join()
        receiver.close()
    if failure is not None:
        elapsed = timeout_s - max(0.0, deadline - time.monotonic())
        for task in open_tasks:
            on_outcome(Outcome(task, elapsed, {}, {}, failure=failure))


@contextmanager
def _on_all_cores() -> Iterator[None]:
    """What is started meanwhile may use all cores that this process began with, whatever OpenMP has bound it to."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    bound = os.sched_getaffinity(0)
    os.sched_setaffinity(0, USABLE_CPUS)
    try:
        yield
    finally:
        os.sched_setaffinity(0, bound)


def _crash(process: BaseProcess, job: Job) -> Failure:
    code = process.exitcode or 0
    kind: FailureKind = "crash"
    text = f"process ended with exit code {code}"
    if code < 0:
        text = f"process was ended by {signal.Signals(-code).name}"
        if -code == signal.SIGKILL:
            kind, text = "out-of-memory", f"{text}; most often the system is out of memory"
    last_words = job.log.read_text(errors="replace")[-4000:] if job.log.is_file() else ""
    return Failure(kind=kind, message=text, traceback=last_words)

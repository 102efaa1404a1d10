"""Several processes for one order of samples: started, watched, and ended with the process that asked for them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Thread
from typing import IO, Any

from ditbench.harness.imports import import_variables
from ditbench.harness.lifetime import named_parent
from ditbench.harness.sample.order import Order
from ditbench.harness.sample.rank_launcher import ENDED
from ditbench.harness.sample.ranks import FAILURE
from ditbench.harness.store.failures import FailedError
from ditbench.harness.store.records import Failure
from ditbench.harness.store.store import write_atomic

_WATCH_S = 1.0
# Every rank has as many threads as one process would, for equal bits. Where cores are fewer, threads that wait must
# sleep, not spin.
_PATIENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def make_in_ranks(order: Order, nproc: int, file: Path, progress: Callable[[int, int], None]) -> None:
    """Write ``order`` to ``file`` and make what it lacks in ``nproc`` processes; ``progress`` gets files made and all.

    Raises FailedError, which says the rank and the reason; every file that is finished stays.
    """
    write_atomic(file, (order.model_dump_json(indent=1) + "\n").encode())
    command = [sys.executable, "-m", "ditbench.harness.sample.rank_launcher", str(nproc), str(file)]
    environment = {name: value for name, value in os.environ.items() if not _of_another_world(name)}
    said: list[dict[str, Any]] = []
    # A session of its own: Ctrl-C reaches the run alone, which ends its processes in order.
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
        env={**_PATIENT, **named_parent(environment), **import_variables()},
    ) as agent:
        assert agent.stdout is not None, "asked for above"
        listener = Thread(target=_listen, args=(agent.stdout, said), daemon=True)
        listener.start()
        try:
            while not _ended(agent):
                progress(*order.made())
        finally:
            agent.kill()
        listener.join(10)
    made, total = order.made()
    progress(made, total)
    if agent.returncode != 0 or made < total:
        raise FailedError(_failure(said, agent.returncode, nproc, f"{made} of {total} files of samples are made"))


def _ended(agent: subprocess.Popen[str]) -> bool:
    try:
        agent.wait(_WATCH_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _of_another_world(name: str) -> bool:
    """What an outer ``torchrun`` has set for its own ranks."""
    return name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK", "ROLE_RANK") or name.startswith(
        ("LOCAL_", "TORCHELASTIC_", "ROLE_", "GROUP_")
    )


def _listen(stream: IO[str], said: list[dict[str, Any]]) -> None:
    for line in stream:
        if line.startswith(FAILURE):
            said.append(json.loads(line.removeprefix(FAILURE)))
            continue
        with contextlib.suppress(OSError):  # the log's disk may be full; the pipe must be read on
            print(line, end="", flush=True)


def _failure(said: list[dict[str, Any]], code: int, nproc: int, state: str) -> Failure:
    """What began it: a rank that was ended, else the first that raised; the others' complaints follow from it."""
    again = f"{state}; run again to go on"
    if not said:
        return Failure(kind="crash", message=f"the processes ended with exit code {code}; {again}")
    ended = [each for each in said if each["message"].startswith(ENDED)]
    first: Mapping[str, Any] = (ended or said)[0]
    text = f"rank {first['rank']} of {nproc}{' ' if ended else ': '}{first['message']}; {again}"
    return Failure(kind=first["kind"], message=text, traceback=first["traceback"])

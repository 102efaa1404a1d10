"""A run that ``torchrun`` has started, perhaps on several machines: all ranks make samples, then the first goes on."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path

from ditbench.harness.errors import InputError
from ditbench.harness.run.planned_job import job_of
from ditbench.harness.run.runner import check_inputs, lock, todo, verify_inputs
from ditbench.harness.sample.order import Order
from ditbench.harness.sample.ranks import World, joined, make_share
from ditbench.harness.store.failures import failure_of
from ditbench.harness.store.store import RunStore, remove_temporary
from ditbench.harness.suite.plan import Plan
from ditbench.harness.suite.refusal import refuse_waiting


def sample_together(plan: Plan, folder: Path, world: World) -> None:
    """Make the samples that ``folder`` lacks, shared out over the ranks of ``world``. Every rank calls it.

    A cell that fails is left to the first rank, which meets the failure again in the cell's own process and records
    it. Raises InputError on every rank where the plan cannot run, or ``folder`` is not one that all ranks see.
    """
    with joined(world), ExitStack() as held:
        orders: list[Order] = []
        problem = None
        if world.rank == 0:
            try:
                orders = _orders(plan, folder)
                held.enter_context(lock(folder))
                remove_temporary(folder)
            except InputError as error:
                problem = error
        _agree(world, problem)
        unseen = "" if (folder / ".lock").is_file() else f"rank {world.rank} of {world.size} does not see the folder"
        if blind := [each for each in world.told_by_all(unseen) if each]:
            raise InputError(f"--out {folder}: {blind[0]}: it must lie on a file system that all machines share")
        for order, missing in world.told_by_first([(order, order.missing()) for order in orders]):
            try:
                make_share(order, missing, world)
            except Exception as error:
                text = failure_of(error).message
                print(f"{order.spec.cell}: rank {world.rank} of {world.size}: {text}", file=sys.stderr)
        world.wait()
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        os.environ.pop(name)  # what follows is a run of one process


def _orders(plan: Plan, folder: Path) -> list[Order]:
    refuse_waiting(plan)
    store = RunStore(folder)
    missing = todo(plan, store)
    check_inputs(plan, missing)
    verify_inputs(plan, missing)
    cells = [(cell, missing[cell.spec.cell]) for cell in plan.cells if cell.spec.cell in missing]
    jobs = [(job_of(plan, cell, wanted, store), wanted) for cell, wanted in cells]
    return [order for job, wanted in jobs for each in wanted for order in each.kind.orders(job, each.options)]


def _agree(world: World, problem: InputError | None) -> None:
    """Raise the first rank's problem on all ranks: no rank waits for one that has ended."""
    told = world.told_by_first(None if problem is None else (problem.message, problem.position))
    if told is not None:
        raise InputError(*told)

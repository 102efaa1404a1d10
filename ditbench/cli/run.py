"""``run`` and ``report``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from ditbench.harness.errors import InputError
from ditbench.harness.run.across_machines import sample_together
from ditbench.harness.run.runner import RunSummary, run
from ditbench.harness.sample.ranks import world_of_environment
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import Plan, make_plan


def default_folder(plan: Plan) -> Path:
    """Where a suite runs when no folder is given."""
    return Path("runs") / plan.suite.suite


@dataclass(frozen=True)
class Carried:
    """A suite that was run: its folder, its plan, how it ended, and the file of its report."""

    folder: Path
    plan: Plan
    summary: RunSummary
    report: Path


def run_suite(suite: str, out: Path | None, only: str | None, device: str | None, limit: int | None, nproc: int) -> int:
    """Run, report, summarise. Returns the exit code: 0, or 1 if a cell failed."""
    try:
        carried = carry_out(suite, out, only, device, limit, nproc)
    except OtherRankError:
        return 0
    done, plan = carried.summary, carried.plan
    print(f"report: {carried.report}")
    print(f"{plan.suite.suite}: {done.ran - len(done.failures)} measured, {done.reused} reused", end="")
    if not done.failed_cells:
        print()
        return 0
    print(f", {len(done.failed_cells)} of {len(plan.cells)} cells failed:")
    for failure in done.failures:
        print(f"  {failure}")
    return 1


class OtherRankError(Exception):
    """This process is not the first of its world: its share of the samples is made, the first one does the rest."""


def carry_out(
    suite: str, out: Path | None, only: str | None, device: str | None, limit: int | None, nproc: int
) -> Carried:
    """Run a suite and write its report. Raises InputError, StoreError; OtherRankError under ``torchrun``."""
    loaded = load_suite(suite)
    whole = make_plan(loaded, device=device, limit=limit)
    plan = make_plan(loaded, only=only, device=device, limit=limit) if only else whole
    folder = out or default_folder(plan)
    world = world_of_environment()
    if world is not None:
        if nproc > 1:
            raise InputError("--nproc is for a run that torchrun has not started: torchrun itself says how many")
        sample_together(plan, folder, world)
        if world.rank > 0:
            raise OtherRankError
    done = run(loaded, plan, whole, folder, nproc)
    return Carried(folder, plan, done, written_report(folder))


def report_folder(folder: Path) -> None:
    """Write the report of the run in ``folder`` and say where it is."""
    print(f"report: {written_report(folder)}")


def written_report(folder: Path) -> Path:
    """Write the report of the run in ``folder``, and say on stderr what of it could not be made."""
    from ditbench.report.document import write_report

    files = write_report(folder)
    if files.notice:
        print(files.notice, file=sys.stderr)
    return files.pdf or files.html

"""``run`` and ``report``."""

from __future__ import annotations

import sys
from pathlib import Path

from ditbench.harness.errors import InputError
from ditbench.harness.run.across_machines import sample_together
from ditbench.harness.run.runner import run
from ditbench.harness.sample.ranks import world_of_environment
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import Plan, make_plan


def default_folder(plan: Plan) -> Path:
    """Where a suite runs when no folder is given."""
    return Path("runs") / plan.suite.suite


def run_suite(suite: str, out: Path | None, only: str | None, device: str | None, limit: int | None, nproc: int) -> int:
    """Run, report, summarise. Returns the exit code: 0, or 1 if a cell failed."""
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
            return 0
    done = run(loaded, plan, whole, folder, nproc)
    report_folder(folder)
    print(f"{plan.suite.suite}: {done.ran - len(done.failures)} measured, {done.reused} reused", end="")
    if not done.failed_cells:
        print()
        return 0
    print(f", {len(done.failed_cells)} of {len(plan.cells)} cells failed:")
    for failure in done.failures:
        print(f"  {failure}")
    return 1


def report_folder(folder: Path) -> None:
    """Write the report of the run in ``folder`` and say where it is."""
    from ditbench.report.document import write_report

    files = write_report(folder)
    if files.notice:
        print(files.notice, file=sys.stderr)
    print(f"report: {files.pdf or files.html}")

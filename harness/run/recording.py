"""From what a cell's process tells to records, and to the words beside the bar."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tqdm import tqdm

from ditbench.harness.measurements.registry import measurements
from ditbench.harness.run.outcome import Outcome, Progress
from ditbench.harness.store.records import CellSpec, Provenance, Record
from ditbench.harness.store.store import RunStore
from ditbench.harness.suite.plan import Plan, PlannedMeasurement


@dataclass(frozen=True)
class CellReports:
    """Commits a cell's outcomes the moment they arrive, and shows how it goes."""

    plan: Plan
    spec: CellSpec
    wanted: Mapping[str, PlannedMeasurement]
    store: RunStore
    here: Mapping[str, Any]
    bar: tqdm[Any]

    def progress(self, progress: Progress) -> None:
        share = f" {progress.done}/{progress.total}" if progress.total else ""
        self.bar.set_postfix_str(f"{self.spec.cell}: {progress.task}{share}", refresh=sys.stderr.isatty())

    def outcome(self, outcome: Outcome) -> None:
        here = outcome.environment or self.here
        self.store.commit(_record(self.plan, self.spec, outcome, self.wanted[outcome.task], here))
        if outcome.failure is not None:
            message = f"{self.spec.cell}: {outcome.task} failed: {outcome.failure.message}"
            self.bar.write(message, file=sys.stderr)
        self.bar.update()


def _record(
    plan: Plan, spec: CellSpec, outcome: Outcome, planned: PlannedMeasurement, here: Mapping[str, Any]
) -> Record:
    """``here``: the environment of the process that measured."""
    started = datetime.now(UTC) - timedelta(seconds=outcome.seconds)
    return Record(
        identity=planned.identity,
        suite=plan.suite.suite,
        spec=spec,
        measurement=outcome.task,
        options=planned.options,
        status="failed" if outcome.failure else "ok",
        values=outcome.values,
        detail={**outcome.detail, **_shown(outcome)},
        protocol=outcome.protocol,
        failure=outcome.failure,
        provenance=Provenance(
            command=f"{plan.command} --only {shlex.quote(spec.cell)}",
            started=started.isoformat(timespec="seconds"),
            seconds=round(outcome.seconds, 3),
            seed=spec.seed,
            device=spec.device,
            device_name=str(here["device_name"]),
            threads=spec.threads,
            versions={"python": str(here["python"]), **here["versions"]},
            git=here["git"],
            weights_sha256=spec.weights_sha256,
        ),
    )


def _shown(outcome: Outcome) -> dict[str, Any]:
    """How a report that knows nothing of this measurement shows its values."""
    columns = [] if outcome.failure else [each.model_dump() for each in measurements()[outcome.task].columns]
    return {"columns": columns + outcome.detail.get("columns", [])} if columns else {}

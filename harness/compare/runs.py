"""The two sides of a comparison: a run's folder, or one cell of it, and what may differ beside the figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ditbench.harness.environment import fingerprint
from ditbench.harness.errors import InputError, Position, did_you_mean
from ditbench.harness.stats.compare import Spread, spread_of
from ditbench.harness.store.records import CellSpec, Record
from ditbench.harness.store.store import RunStore

# What does not change what a baseline is: names, limits, the path (not the digest) of its weights, the seed.
_NAMES = {"cell", "variant", "measure", "timeout_s", "weights", "batch", "cost_only", "threads", "seed"}
# What environment.json adds to a record's own provenance.
_MACHINE = ("cpu", "machine", "physical_cores")
_SOFTWARE = ("python", "torch", "triton")
_CONDITIONS = ("tf32", "cuda")


@dataclass(frozen=True)
class Run:
    """A run's folder as read: its plan, its environment, and cell -> measurement -> record (complete or failed)."""

    folder: Path
    plan: Mapping[str, Any]
    environment: Mapping[str, Any]
    cells: Mapping[str, Mapping[str, Record]]

    @property
    def command(self) -> str:
        return str(self.plan.get("command", ""))

    @property
    def baseline(self) -> CellSpec | None:
        """The spec of the cell that ratios are against."""
        name = self.plan.get("baseline")
        planned = next((cell["spec"] for cell in self.plan["cells"] if cell["name"] == name), None)
        try:
            return None if planned is None else CellSpec.model_validate(planned)
        except ValidationError as error:
            first = str(error).splitlines()[0]
            raise InputError(f"unreadable cell {name}: {first}", Position(self.folder / "plan.json")) from None

    def records(self) -> list[Record]:
        return [record for records in self.cells.values() for record in records.values()]

    def lost(self, cell: str, measurement: str) -> bool:
        """Whether a measurement was planned and has no complete record: it failed or did not run."""
        planned = next(each["measurements"] for each in self.plan["cells"] if each["name"] == cell)
        record = self.cells[cell].get(measurement)
        return measurement in planned and (record is None or record.status != "ok")

    def spread(self, level: str) -> Spread | None:
        """How much the baseline's time at ``level`` differs from process to process; None below three processes.

        Each cell's process timed the baseline in turns with the cell; the baseline's own process timed it too. Times of
        unequal batches stand in groups of their own.
        """
        groups: dict[Any, list[float]] = {}
        for name, records in self.cells.items():
            record = records.get("latency")
            if record is None or record.status != "ok":
                continue
            own = name == self.plan.get("baseline")
            levels = record.detail.get("levels" if own else "baseline_levels") or {}
            if level in levels:
                groups.setdefault(record.detail.get("batch"), []).append(float(levels[level]["median_ms"]))
        return spread_of(list(groups.values()))


@dataclass(frozen=True)
class Sides:
    """A and B, the cells to compare (name in A, name in B), and the cells of a whole run that the other side lacks."""

    a: Run
    b: Run
    pairs: tuple[tuple[str, str], ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]


def open_sides(a: str, b: str) -> Sides:
    """Read two runs, ``FOLDER`` or ``FOLDER:CELL``. Whole runs are joined by the names of their cells; a cell against a
    whole run meets the cell of its name; two cells meet each other.

    Raises InputError: no such run or cell, or nothing in common.
    """
    (run_a, cell_a), (run_b, cell_b) = _open(a), _open(b)
    if cell_a is None and cell_b is None:
        shared = tuple((name, name) for name in run_a.cells if name in run_b.cells)
        if not shared:
            raise InputError(
                f"{a} and {b} have no cell in common ({_some(run_a.cells)}; {_some(run_b.cells)}): "
                "name one of each, as FOLDER:CELL"
            )
        only_a = tuple(name for name in run_a.cells if name not in run_b.cells)
        only_b = tuple(name for name in run_b.cells if name not in run_a.cells)
        return Sides(run_a, run_b, shared, only_a, only_b)
    names = (cell_a or cell_b or "", cell_b or cell_a or "")
    for run, name in zip((run_a, run_b), names, strict=True):
        if name not in run.cells:
            hint = did_you_mean(name, run.cells) or f" (it has {_some(run.cells)})"
            raise InputError(f"{run.folder} has no cell {name!r}{hint}")
    return Sides(run_a, run_b, (names,), (), ())


def same_noise(a: CellSpec, b: CellSpec) -> bool:
    """Whether sample i of both begins with the same noise and label."""
    return a.seed == b.seed and a.dataset == b.dataset


def baselines_differ(a: Run, b: Run) -> str | None:
    """Why figures against the baseline of A and against that of B mean different things; None if the two are alike."""
    one, two = a.baseline, b.baseline
    if one is None or two is None:
        return None if one is two else f"{'A' if one is None else 'B'} has no baseline"
    mine, theirs = (spec.model_dump(mode="json", exclude=_NAMES) for spec in (one, two))
    apart = [name for name, value in mine.items() if theirs[name] != value]
    return f"the baselines differ in {', '.join(apart)}" if apart else None


def surroundings_differ(a: Run, b: Run, one: Record, two: Record) -> str | None:
    """What differs of the hardware and software that times depend on ('torch 2.13.0 in A, 2.12.1 in B'), or None."""
    mine, theirs = _surroundings(a, one), _surroundings(b, two)
    apart = [
        f"{name} {mine[name] or 'unknown'} in A, {theirs[name] or 'unknown'} in B"
        for name in mine
        if mine[name] != theirs[name]
    ]
    return "; ".join(apart) or None


def _surroundings(run: Run, record: Record) -> dict[str, Any]:
    blank = dict.fromkeys((*_MACHINE, "device", "device_name", "python"))
    machine = fingerprint({**blank, "gpu": None, "versions": {}, **run.environment})
    made, conditions = record.provenance, record.detail.get("conditions") or {}
    return {
        "device": made.device,
        "device name": made.device_name,
        "threads": made.threads,
        **{name: made.versions.get(name) for name in _SOFTWARE},
        **{name.replace("_", " "): machine[name] for name in _MACHINE},
        "driver": machine["driver"] if made.device == "cuda" else None,
        **{name: conditions.get(name) for name in _CONDITIONS},
    }


def _open(text: str) -> tuple[Run, str | None]:
    folder, colon, cell = text.rpartition(":")
    if not colon or Path(text).is_dir():
        folder, cell = text, ""
    store = RunStore(Path(folder))
    run = Run(store.folder, store.plan(), store.environment(), store.cells())
    return run, cell or None


def _some(names: Iterable[str]) -> str:
    """The first few names, for an error's line."""
    known = list(names)
    return ", ".join(known[:8]) + (", …" if len(known) > 8 else "")

"""A measurement that the report has never heard of is still in every table and page."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
import report_fixtures as fixtures

from ditbench.harness.store.records import Quantity, Record
from ditbench.harness.store.store import RunStore, write_json
from ditbench.report.document import ReportFiles, write_report
from ditbench.report.run_view import load_run
from ditbench.report.tables.more import more_figures_table

COLUMNS = [{"name": "colour_shift", "title": "Colour shift ↓", "unit": "ΔE", "digits": 1}]


def measured(folder: Path, cell: str, name: str, detail: dict[str, Any], **values: Quantity) -> None:
    """Add a record of a measurement to a run, in its plan too."""
    store = RunStore(folder)
    plan = store.plan()
    entry = next(entry for entry in plan["cells"] if entry["name"] == cell)
    identity = fixtures.identity_of(cell, name)
    entry["measurements"][name] = identity
    write_json(folder / "plan.json", plan)
    other = store.load(fixtures.identity_of(cell, "flops"))
    assert other is not None
    changes = {"identity": identity, "measurement": name, "values": values, "detail": detail, "options": {}}
    store.commit(Record.model_validate(other.model_dump() | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = fixtures.write_run(tmp_path / "run", fixtures.digits_cells()[:3])
    shift = Quantity(value=3.14159, unit="ΔE", low=3.0, high=3.3, interval="bootstrap over images")
    measured(run, "ddim-50", "colour", {"columns": COLUMNS}, colour_shift=shift)
    measured(run, "ddim-50", "bandwidth", {}, params=Quantity(value=77.25, unit="GB/s", interval="one pass"))
    return run


@pytest.fixture
def files(folder: Path) -> ReportFiles:
    return write_report(folder)


def rows(text: str) -> dict[str, dict[str, str]]:
    return {row["cell"]: row for row in csv.DictReader(io.StringIO(text))}


def test_its_figures_stand_at_the_end_of_both_csv_files(files: ReportFiles) -> None:
    for path in (files.cells, files.folder / "table.csv"):
        found = rows(path.read_text())
        assert float(found["ddim-50"]["colour_shift"]) == 3.14159 and found["ddpm-50"]["colour_shift"] == ""
        assert float(found["ddim-50"]["bandwidth_params"]) == 77.25, "a name that is taken says whose it is"
        last = [name for name in found["ddim-50"] if not name.endswith(("_low", "_high"))][-2:]
        assert last == ["colour_shift", "bandwidth_params"]
    assert float(rows((files.folder / "table.csv").read_text())["ddim-50"]["colour_shift_low"]) == 3.0


def test_they_are_shown_as_they_are_declared_or_else_as_they_are_called(files: ReportFiles, folder: Path) -> None:
    table = more_figures_table(load_run(folder))
    assert table is not None and [column.title for column in table.columns] == ["Cell", "Colour shift ↓", "params"]
    assert [(column.unit, column.values[0].shown) for column in table.columns[1:]] == [("ΔE", "3.1"), ("GB/s", "77.2")]
    assert "bootstrap over images" in table.notes[0]
    for path in (files.markdown, files.html):
        text = path.read_text()
        assert "More figures" in text and "Colour shift" in text and "3.1" in text and "GB/s" in text
    assert files.pdf is not None and files.notice is None


def test_a_run_without_such_measurements_has_no_such_table(tmp_path: Path) -> None:
    view = load_run(fixtures.write_run(tmp_path, fixtures.digits_cells()[:2]))
    assert more_figures_table(view) is None


def test_a_failed_one_is_told_as_any_other(folder: Path) -> None:
    store = RunStore(folder)
    record = store.load(fixtures.identity_of("ddim-50", "bandwidth"))
    assert record is not None
    store.record_path(record.identity).unlink()
    failed = {"status": "failed", "values": {}, "failure": {"kind": "error", "message": "no counter here"}}
    store.commit(Record.model_validate(record.model_dump() | failed))
    text = write_report(folder).markdown.read_text()
    assert "no counter here" in text and "GB/s" not in text and "Colour shift" in text

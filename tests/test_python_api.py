"""The Python API answers what the command line and its files say."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import ditbench
from ditbench.harness.errors import InputError

RESULTS = Path(__file__).parent.parent / "results"


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> ditbench.Run:
    folder = tmp_path_factory.mktemp("run") / "quick"
    shutil.copytree(RESULTS / "quick-cpu", folder)
    return ditbench.load_run(folder)


def test_cells_are_the_rows_of_the_plan_with_numbers_in_stored_units(quick):
    names = [cell["name"] for cell in json.loads((quick.folder / "plan.json").read_text())["cells"]]
    assert list(quick.cells.index) == names and len(names) > 5
    assert {"gmacs_image", "frechet", "frechet_low", "status", "protocol"} <= {*quick.cells.columns}
    assert quick.cells.loc[names[0], "gmacs_image"] > 0


def test_records_have_a_row_a_figure_with_its_interval(quick):
    records = quick.records
    row = records[(records.measurement == "quality") & (records.figure == "frechet")].iloc[0]
    assert row.low <= row.value <= row.high and row.interval and len(row.identity) == 64
    assert quick.cells.loc[row.cell, "frechet"] == row.value


def test_the_front_has_every_cell_that_no_other_beats_and_none_that_one_does(quick):
    front, cells = quick.front(), quick.cells[["gmacs_image", "frechet"]].apply(pd.to_numeric).dropna()
    assert front and [cells.gmacs_image[c] for c in front] == sorted(cells.gmacs_image[c] for c in front)
    for cell, row in cells.iterrows():
        beaten = ((cells <= row).all(axis=1) & (cells < row).any(axis=1)).any()
        assert (cell in front) == (not beaten), cell


def test_the_best_under_a_limit_is_within_it_and_no_other_within_it_is_better(quick):
    cells = quick.cells[["gmacs_image", "frechet", "precision"]].apply(pd.to_numeric).dropna()
    limit, least = cells.gmacs_image.median(), cells.precision.quantile(0.2)
    best = quick.best("frechet", gmacs_image=limit, precision=least)
    inside = cells[(cells.gmacs_image <= limit) & (cells.precision >= least)]
    assert len(inside) > 1 and best.name == inside.frechet.idxmin()
    with pytest.raises(InputError, match="no cell"):
        quick.best("frechet", gmacs_image=0)
    with pytest.raises(InputError, match="did you mean 'frechet'"):
        quick.best("frechett")


def test_a_figure_is_a_file_of_the_report_or_a_line_that_lists_them(quick):
    assert quick.figure("pareto_gmacs").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="did you mean"):
        quick.figure("pareto_gmac")
    with pytest.raises(InputError, match=r"plan\.json"):
        ditbench.load_run(quick.folder / "report")


def test_run_makes_what_the_command_makes_and_a_second_one_measures_nothing(tmp_path):
    run = ditbench.run("testing", out=tmp_path / "out", only="digits-ddim")
    assert list(run.records.cell.unique()) == ["digits-ddim"] and (run.records.status == "ok").all()
    before = {path: path.stat().st_mtime_ns for path in (run.folder / "records").iterdir()}
    again = ditbench.run("testing", out=tmp_path / "out", only="digits-ddim")
    assert {path: path.stat().st_mtime_ns for path in (again.folder / "records").iterdir()} == before


def test_importing_ditbench_imports_neither_torch_nor_pandas():
    code = "import sys, ditbench; from ditbench import methods; assert not {'torch', 'pandas'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)

"""The report is a pure function of the records: what it shows, what it must not, and that it repeats."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from ditbench.harness.errors import InputError
from ditbench.harness.store.store import RunStore
from ditbench.report.document import ReportFiles, write_report
from ditbench.report.fronts import front_probabilities, percent, unsettled
from ditbench.report.numbers import decimals_for, fixed, scale_for
from ditbench.report.plots import pareto
from ditbench.report.plots.style import BLUE, GREY, Picture
from ditbench.report.run_view import RunView, load_run
from ditbench.report.tables.formats import latex_escaped, to_csv, to_markdown
from ditbench.report.tables.results import cost_table, quality_table
from ditbench.report.tables.table import Table, number_column, text_column
from ditbench.report.words.summary import summary

sys.path.insert(0, str(Path(__file__).parent))
import report_fixtures as fixtures

CONTRACT = [
    *("cell", "method", "variant", "sampler", "steps", "guidance", "device", "dtype", "batch", "params"),
    *("gmacs_step", "gmacs_image", "flops_ratio", "latency_ms", "latency_low", "latency_high"),
    *("images_per_s", "speedup", "speedup_low", "speedup_high", "realised"),
    *("frechet", "frechet_low", "frechet_high", "frechet_delta", "frechet_delta_low", "frechet_delta_high"),
    *("kid", "precision", "recall", "protocol", "status"),
]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    folder = fixtures.write_run(tmp_path_factory.mktemp("digits") / "run", fixtures.digits_cells())
    return write_report(folder)


def cells_of(files: ReportFiles) -> dict[str, dict[str, str]]:
    return {row["cell"]: row for row in csv.DictReader(io.StringIO(files.cells.read_text()))}


def edit(folder: Path, cell: str, measurement: str, **changes: Any) -> None:
    """Replace parts of a stored record, as if it had been measured so."""
    store = RunStore(folder)
    identity = fixtures.identity_of(cell, measurement)
    record = store.load(identity)
    assert record is not None
    store.record_path(identity).unlink()
    store.commit(record.model_copy(update=changes))


def test_every_file_of_the_contract_is_written(digits: ReportFiles) -> None:
    names = {path.relative_to(digits.folder).as_posix() for path in digits.folder.rglob("*") if path.is_file()}
    figures = ("pareto_gmacs", "pareto_time", "profile", "kernels")
    expected = {f"{name}.{ending}" for name in figures for ending in ("svg", "png")}
    expected |= {"report.pdf", "report.md", "report.html", "table.csv", "table.md", "table.tex"}
    assert expected <= names
    assert {name for name in names if name.startswith("samples/")} == {
        f"samples/{cell.spec.cell}.png" for cell in fixtures.digits_cells()[:8]
    }
    assert digits.notice is None and digits.pdf is not None
    assert digits.pdf.read_bytes().startswith(b"%PDF")


def test_cells_csv_begins_with_the_contract_and_has_one_row_a_planned_cell(digits: ReportFiles) -> None:
    lines = list(csv.reader(io.StringIO(digits.cells.read_text())))
    assert lines[0][: len(CONTRACT)] == CONTRACT
    assert [line[0] for line in lines[1:]] == [cell.spec.cell for cell in fixtures.digits_cells()]


def test_cells_csv_keeps_full_precision(digits: ReportFiles) -> None:
    record = RunStore(digits.cells.parent).load(fixtures.identity_of("ddim-25", "latency"))
    assert record is not None
    row = cells_of(digits)["ddim-25"]
    assert float(row["latency_ms"]) == record.values["latency_ms"].value
    assert float(row["latency_low"]) == record.values["latency_ms"].low
    assert row["params"] == "1237504"


def test_same_records_give_the_same_bytes(digits: ReportFiles, tmp_path: Path) -> None:
    again = write_report(fixtures.write_run(tmp_path / "elsewhere", fixtures.digits_cells()))
    for path in digits.folder.rglob("*"):
        if path.is_file():
            other = again.folder / path.relative_to(digits.folder)
            assert other.read_bytes() == path.read_bytes(), path.name
    assert again.cells.read_bytes() == digits.cells.read_bytes()


def test_realised_is_speedup_times_compute_ratio_and_one_for_the_baseline(digits: ReportFiles) -> None:
    rows = cells_of(digits)
    row = rows["ddim-10"]
    assert float(row["flops_ratio"]) == pytest.approx(0.2)
    assert float(row["realised"]) == pytest.approx(float(row["speedup"]) * float(row["flops_ratio"]))
    baseline = rows["ddpm-50"]
    assert (baseline["speedup"], baseline["flops_ratio"], baseline["realised"]) == ("1.0", "1.0", "1.0")


def test_time_is_compared_as_ratios_so_that_drift_between_cells_cancels(tmp_path: Path) -> None:
    folder = fixtures.write_run(tmp_path, fixtures.digits_cells())
    before = {row.cell: row.on_front_time for row in load_run(folder).rows}
    record = RunStore(folder).load(fixtures.identity_of("ddim-10", "latency"))
    assert record is not None
    slow = {name: value.model_copy(update={"value": 100.0, "low": 90.0, "high": 110.0})
            for name, value in record.values.items() if name in ("latency_ms", "sample_ms", "image_ms")}  # fmt: skip
    edit(folder, "ddim-10", "latency", values=record.values | slow)
    view = load_run(folder)
    assert view.time_axis == "time_ratio"
    assert {row.cell: row.on_front_time for row in view.rows} == before


def test_without_a_baseline_time_is_compared_in_milliseconds(tmp_path: Path) -> None:
    folder = fixtures.write_run(tmp_path, fixtures.digits_cells(), baseline=None)
    assert load_run(folder).time_axis == "image_ms"


def test_a_speedup_against_another_cell_is_not_shown(tmp_path: Path) -> None:
    folder = fixtures.write_run(tmp_path, fixtures.digits_cells())
    record = RunStore(folder).load(fixtures.identity_of("ddim-10", "latency"))
    assert record is not None
    edit(folder, "ddim-10", "latency", detail=record.detail | {"baseline": "ddim-50"})
    row = next(row for row in load_run(folder).rows if row.cell == "ddim-10")
    assert row.speedup is None and row.realised is None


def test_no_realised_share_is_shown_where_the_solver_chooses_its_steps(tmp_path: Path) -> None:
    folder = fixtures.write_run(tmp_path, fixtures.digits_cells())
    plan = json.loads((folder / "plan.json").read_text())
    entry = next(entry for entry in plan["cells"] if entry["name"] == "ddim-10")
    entry["spec"]["steps"] = 0
    (folder / "plan.json").write_text(json.dumps(plan))
    row = next(row for row in load_run(folder).rows if row.cell == "ddim-10")
    assert row.speedup is not None and row.flops_ratio is not None
    assert row.realised is None, "its work was counted at one batch size and timed at another"


def test_status_and_reason_tell_what_is_missing(tmp_path: Path) -> None:
    cells = fixtures.digits_cells()
    cells[3] = replace(cells[3], skip=frozenset(fixtures.MEASUREMENTS))
    cells[4] = replace(cells[4], skip=frozenset({"memory"}))
    rows = {row.cell: row for row in load_run(fixtures.write_run(tmp_path, cells)).rows}
    assert rows["ddpm-50"].status == "ok" and rows["ddpm-50"].reason == ""
    assert rows["merged-ddim-25"].status == "failed"
    assert rows["ddim-5"].status == "failed" and "quality: not-finite: samples of" in rows["ddim-5"].reason
    assert rows["ddim-50-g1.5"].status == "pending"
    assert rows["ddim-25"].status == "partial" and rows["ddim-25"].reason == "memory: not run yet"


def test_cost_only_cells_show_no_quality_and_say_so(digits: ReportFiles) -> None:
    row = cells_of(digits)["dydit-half-ddim-25"]
    record = RunStore(digits.cells.parent).load(fixtures.identity_of("dydit-half-ddim-25", "quality"))
    assert record is not None and "frechet" in record.values
    figures = (
        "frechet",
        "frechet_low",
        "kid",
        "precision",
        "recall",
        "accuracy",
        "protocol",
        "on_front_gmacs",
    )
    assert [row[name] for name in figures] == [""] * len(figures)
    assert row["cost_only"] == "true" and row["speedup"] != ""
    view = load_run(digits.cells.parent)
    cost = cost_table(view)
    assert cost is not None and "dydit-half-ddim-25 (cost only)" in to_markdown(cost)
    for name in ("table.md", "table.tex"):
        assert "cost only" in (digits.folder / name).read_text()


def test_a_speed_without_quality_beside_it_is_marked(digits: ReportFiles) -> None:
    cost = cost_table(load_run(digits.cells.parent))
    assert cost is not None and "ddim-5 (failed, no quality)" in to_markdown(cost)


def test_two_protocols_in_one_run_are_refused_and_both_named(tmp_path: Path) -> None:
    folder = fixtures.write_run(tmp_path, fixtures.digits_cells())
    edit(folder, "ddim-25", "quality", protocol="digits-v2-0000beef")
    with pytest.raises(InputError, match=r"digits-v1-3fa9c2d1.*digits-v2-0000beef"):
        write_report(folder)
    assert not (folder / "cells.csv").exists()


def test_fronts_in_the_table_are_those_of_the_figures(digits: ReportFiles) -> None:
    rows = cells_of(digits)
    placed = [row for row in rows.values() if row["on_front_gmacs"]]
    for row in placed:
        x, y = float(row["gmacs_image"]), float(row["frechet"])
        beaten = any(
            float(o["gmacs_image"]) <= x
            and float(o["frechet"]) <= y
            and (float(o["gmacs_image"]), float(o["frechet"])) != (x, y)
            for o in placed
        )
        assert row["on_front_gmacs"] == ("false" if beaten else "true"), row["cell"]
    assert {row["on_front_gmacs"] for row in placed} == {"true", "false"}


def test_times_of_two_devices_have_a_front_each(tmp_path: Path) -> None:
    folder = fixtures.write_run(tmp_path, fixtures.digits_cells()[:6])
    record = RunStore(folder).load(fixtures.identity_of("ddim-50", "latency"))
    assert record is not None
    other = record.provenance.model_copy(update={"device_name": "another machine"})
    edit(folder, "ddim-50", "latency", provenance=other)
    rows = {row.cell: row for row in load_run(folder).rows}
    assert rows["ddim-50"].on_front_gmacs is False
    assert rows["ddim-50"].on_front_time is True


def test_the_summary_names_the_best_cell_and_what_is_not_told_apart_from_it(tmp_path: Path) -> None:
    folder = fixtures.write_run(tmp_path, fixtures.digits_cells())
    text = " ".join(summary(load_run(folder)))
    assert "12 cells: 9 complete and 3 failed." in text
    assert "1.98 [1.90, 2.09], of ddpm-50-g1.5." in text
    record = RunStore(folder).load(fixtures.identity_of("ddpm-50", "quality"))
    assert record is not None
    wide = record.values["frechet"].model_copy(update={"low": 2.0})
    edit(folder, "ddpm-50", "quality", values=record.values | {"frechet": wide})
    assert "ddpm-50 is not told apart from it" in " ".join(summary(load_run(folder)))


def test_a_run_that_only_counts_speaks_of_neither_time_nor_quality(tmp_path: Path) -> None:
    files = write_report(fixtures.write_flops_run(tmp_path))
    assert {path.stem for path in files.figures} == {"profile"} and files.samples == ()
    text = files.markdown.read_text()
    for word in ("Fréchet", "Speed-up", "Realised", "Timings", "KID", "launch"):
        assert word not in text
    assert "without norm" in text and "118.69" in text


def test_a_run_in_which_all_failed_is_still_a_report(tmp_path: Path) -> None:
    files = write_report(fixtures.write_failed_run(tmp_path))
    assert files.pdf is not None and files.figures == ()
    assert {row["status"] for row in cells_of(files).values()} == {"failed"}
    assert "out-of-memory" in files.markdown.read_text()


def test_a_run_without_any_record_is_still_a_report(tmp_path: Path) -> None:
    cells = [replace(c, skip=frozenset(fixtures.MEASUREMENTS)) for c in fixtures.digits_cells()]
    files = write_report(fixtures.write_run(tmp_path, cells))
    assert files.pdf is not None
    assert {row["status"] for row in cells_of(files).values()} == {"pending"}


def test_without_typst_the_rest_comes_out_and_one_line_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fixtures.write_failed_run(tmp_path)
    assert write_report(folder).pdf is not None
    monkeypatch.setattr("ditbench.report.pdf.importlib.util.find_spec", lambda name: None)
    files = write_report(folder)
    assert files.pdf is None and files.notice is not None
    assert "typst" in files.notice and "\n" not in files.notice
    assert not (files.folder / "report.pdf").exists(), "an older PDF would pass for this one"
    assert files.markdown.is_file() and files.html.is_file()


def test_figures_of_an_older_report_are_removed(tmp_path: Path) -> None:
    folder = fixtures.write_run(tmp_path, fixtures.digits_cells())
    assert (write_report(folder).folder / "samples" / "ddim-10.png").is_file()
    shutil.rmtree(folder / "records")
    files = write_report(folder)
    assert not list(files.folder.rglob("*.png")) and not list(files.folder.rglob("*.svg"))


def test_text_of_a_suite_is_never_read_as_markup(tmp_path: Path) -> None:
    hostile = '#panic("typst") $x$ *b* <script>alert(1)</script> \\input{x} | a & b_c "quoted"'
    folder = fixtures.write_run(tmp_path, fixtures.digits_cells()[:2], title=hostile, description=hostile * 3)
    files = write_report(folder)
    assert files.notice is None
    assert "<script>" not in files.html.read_text()


def test_latex_text_is_escaped() -> None:
    assert latex_escaped("a_b & 50 % #1 ~ \\x") == (r"a\_b \& 50 \% \#1 \textasciitilde{} \textbackslash{}x")


def test_pipes_do_not_break_a_markdown_table() -> None:
    table = Table("t", "c", (text_column("a", "A", ["x|y"]), text_column("b", "B", ["z"])), ("plain",))
    assert "| x\\|y | z |" in to_markdown(table)


def test_numbers_of_a_column_share_decimals_and_unit_but_csv_keeps_what_was_stored() -> None:
    column = number_column("gmacs", "MACs", "GMAC", [0.0142, 0.1, None])
    assert column.unit == "MMAC"
    assert [value.shown for value in column.values] == ["14.2", "100.0", ""]
    table = Table("t", "c", (column,), ("plain",) * 3)
    assert to_csv(table).splitlines() == ["gmacs", "0.0142", "0.1", '""']


@pytest.mark.parametrize(
    ("values", "decimals"),
    [([118.69, 5.46], 2), ([1234.5, 1.2], 1), ([0.0123], 4), ([0.0], 0), ([50000.0], 0)],
)
def test_decimals_serve_the_smallest_without_overloading_the_largest(values: list[float], decimals: int) -> None:
    assert decimals_for(values) == decimals


def test_negative_zero_is_shown_as_zero_and_minus_is_a_minus() -> None:
    assert fixed(-0.0004, 2) == "0.00"
    assert fixed(-1.5, 1) == "−1.5"


def test_units_follow_the_size_of_the_whole_column() -> None:
    assert scale_for([2e4, 3e5], "ms").unit == "s"
    assert scale_for([5.0, 3e5], "ms").unit == "ms"
    assert scale_for([33e6], "#") == scale_for([33e6, 12.0], "#")


def test_grey_marks_dominated_rows_in_results_and_nowhere_else(digits: ReportFiles) -> None:
    quality = quality_table(load_run(digits.cells.parent))
    assert quality is not None
    marks = dict(zip((v.shown for v in quality.columns[0].values), quality.marks, strict=True))
    assert marks["ddpm-50"] == "baseline" and marks["ddim-50"] == "dominated" and marks["ddim-10"] == "plain"


def test_the_report_never_loads_torch_or_a_method() -> None:
    code = (
        "import sys, json, ditbench.report.document, ditbench.report.pdf;"
        "print(json.dumps([m for m in sys.modules if m.split('.')[0] == 'torch' or '.dydit' in m or '.flexidit' in m]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == []


def test_a_folder_that_is_no_run_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run's folder"):
        write_report(tmp_path)


def pareto_axes(folder: Path, monkeypatch: pytest.MonkeyPatch, by_time: bool = False) -> tuple[Axes, Picture]:
    """The Pareto plot of a run as it was drawn, and its words."""
    drawn: list[Figure] = []

    def kept(figure: Figure, name: str, caption: str, alt: str) -> Picture:
        drawn.append(figure)
        return Picture(name, b"", b"", caption, alt, 0.0)

    monkeypatch.setattr(pareto, "picture", kept)
    view = load_run(folder)
    where = ("latency", view.time_axis) if by_time else ("flops", "gmacs_image")
    made = pareto.pareto_picture(view, *where, "cost", "cost")
    assert made is not None
    return drawn[0].axes[0], made


def near_cells() -> list[fixtures.Planned]:
    """Fourteen cells with long names whose intervals are much wider than what lies between them; one far off."""
    steps = (10, 12, 14, 15, 17, 20, 22, 25, 28, 32, 36, 40, 50)
    cells = [
        fixtures.Planned(fixtures.spec(f"a-long-name-{n}", "ddim", n, 1.0), 2.4 - 0.02 * (n % 5) - 0.0005 * n)
        for n in steps
    ]
    return [*cells, fixtures.Planned(fixtures.spec("far-off", "ddim", 45, 1.0), 4.0)]


def marker_faces(axes: Axes, view: RunView, name: str) -> dict[str, str]:
    """Cell -> colour inside its marker."""
    faces = {}
    for row in view.rows:
        x, y = row.value("flops", name), row.value("quality", "frechet")
        for line in axes.lines:
            if line.get_marker() == "o" and np.allclose(line.get_xydata(), [[x, y]]) and line.get_markersize() < 8:
                faces[row.cell] = to_hex(line.get_markerfacecolor())
    return faces


def test_the_markers_of_a_pareto_plot_are_open_where_the_place_is_not_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fixtures.write_run(tmp_path, near_cells(), baseline=None)
    view = load_run(folder)
    axes, made = pareto_axes(folder, monkeypatch)
    probabilities, faces = front_probabilities(view).gmacs, marker_faces(axes, view, "gmacs_image")
    labels = {text.get_text().split(",")[0]: text.get_text() for text in axes.texts}
    for row in view.rows:
        p = probabilities[row.cell]
        assert (faces[row.cell] == "#ffffff") == unsettled(row.on_front_gmacs, p), row.cell
        shown = row.on_front_gmacs or p >= pareto.LEAST_SHOWN
        suffix = f", {percent(p)}" if unsettled(row.on_front_gmacs, p) and shown else ""
        assert labels[row.cell] == row.cell + suffix
    assert faces["a-long-name-10"] == to_hex(BLUE) and faces["far-off"] == to_hex(GREY)
    assert [text.get_text() for text in axes.get_legend().texts] == ["Pareto front", "dominated", "not settled"]
    assert "Open: on or off the front with less than 95 % probability." in made.caption
    member = next(row for row in view.rows if row.on_front_gmacs and unsettled(True, probabilities[row.cell]))
    assert f"(on the front with {percent(probabilities[member.cell])})" in made.alt


def test_a_pareto_plot_whose_places_are_settled_speaks_of_no_probability(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [
        fixtures.Planned(fixtures.spec(f"s-{n}", "ddim", n, 1.0), far) for n, far in ((10, 9.0), (20, 3.0), (50, 1))
    ]
    axes, made = pareto_axes(fixtures.write_run(tmp_path, cells, baseline=None), monkeypatch)
    assert "%" not in made.caption.removeprefix("Quality against cost; lower left is better. Bars: 95 % intervals.")
    assert {text.get_text() for text in axes.texts} == {"s-10", "s-20", "s-50"}


@pytest.mark.parametrize("by_time", [False, True])
@pytest.mark.parametrize("make", [near_cells, fixtures.flexible_cells, fixtures.dynamic_cells, fixtures.digits_cells])
def test_names_in_a_pareto_plot_are_apart_and_intervals_inside_it(
    make: Callable[[], list[fixtures.Planned]], by_time: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fixtures.write_run(tmp_path, make(), baseline=None if make is near_cells else "ddpm-50")
    axes, _ = pareto_axes(folder, monkeypatch, by_time)
    axes.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) >= 6
    for place, box in enumerate(boxes):
        words = axes.texts[place].get_text()
        assert not [axes.texts[i].get_text() for i in range(place) if Bbox.intersection(box, boxes[i])], words
        assert box.x0 >= 0 and box.x1 <= axes.figure.bbox.x1, words
    (left, right), (foot, top) = axes.get_xlim(), axes.get_ylim()
    view = load_run(folder)
    for row in view.rows:
        x = row.quantity("latency", view.time_axis) if by_time else row.quantity("flops", "gmacs_image")
        y = row.quantity("quality", "frechet")
        if x is not None and y is not None:
            assert left <= (x.low or x.value) <= (x.high or x.value) <= right
            assert foot <= (y.low or y.value) <= (y.high or y.value) <= top

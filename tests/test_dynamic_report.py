"""The report on dynamic methods: what they promise, what arrives, what is on at which step, and what is imposed."""

from __future__ import annotations

import csv
import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ditbench.harness.store.records import Quantity
from ditbench.harness.store.store import RunStore
from ditbench.report.document import ReportFiles, write_report
from ditbench.report.facets import NOTHING, facets_of, is_dynamic
from ditbench.report.plots.kernels import kernels_picture
from ditbench.report.plots.profile import profile_picture
from ditbench.report.plots.shares import MOST_COLUMNS, MOST_ROWS, shares_picture
from ditbench.report.plots.token_maps import MOST_CELLS, token_map_pictures
from ditbench.report.row import Row
from ditbench.report.run_view import RunView, load_run
from ditbench.report.tables.delivered import delivered_table, excess_time, lost_time_table
from ditbench.report.tables.formats import to_markdown
from ditbench.report.tables.operators import operators_table
from ditbench.report.tables.results import cost_table
from ditbench.report.tables.rows import tag_of
from ditbench.report.tables.table import Table
from ditbench.report.tables.timing import timing_table
from ditbench.report.words.reading import reading_notes
from ditbench.report.words.summary import summary

sys.path.insert(0, str(Path(__file__).parent))
import report_fixtures as fixtures

CLASSES = ("router", "gather", "linear", "attention", "pointwise", "other", "gap")
IMPOSED = "cost only, imposed activity"


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    return write_report(fixtures.write_run(tmp_path_factory.mktemp("dynamic") / "run", fixtures.dynamic_cells()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fixtures.write_run(tmp_path / "run", fixtures.dynamic_cells())


def edit(folder: Path, cell: str, measurement: str, **changes: Any) -> None:
    """Replace parts of a stored record, as if it had been measured so."""
    store = RunStore(folder)
    identity = fixtures.identity_of(cell, measurement)
    record = store.load(identity)
    assert record is not None
    store.record_path(identity).unlink()
    store.commit(record.model_copy(update=changes))


def without(folder: Path, cell: str, measurement: str, *names: str) -> None:
    """A record as an older version would have written it."""
    record = RunStore(folder).load(fixtures.identity_of(cell, measurement))
    assert record is not None
    edit(
        folder,
        cell,
        measurement,
        values={name: value for name, value in record.values.items() if name not in names},
        detail={name: value for name, value in record.detail.items() if name not in names},
    )


def rows_of(view: RunView) -> dict[str, Row]:
    return {row.cell: row for row in view.rows}


def entries(table: Table | None, key: str) -> dict[str, Any]:
    assert table is not None
    column = next(column for column in table.columns if column.key == key)
    return {cell.shown: value.raw for cell, value in zip(table.columns[0].values, column.values, strict=True)}


def test_a_dynamic_run_has_its_figures_tables_and_explanations(dynamic: ReportFiles) -> None:
    assert dynamic.notice is None
    names = {path.name for path in dynamic.figures}
    assert {"shares.svg", "shares.png", "token_maps-dydit-0.5.svg", "token_maps-dydit-sdt-0.5.png"} <= names
    text = dynamic.markdown.read_text()
    for words in (
        "## Promised and delivered",
        "Where the rest went",
        "**Attention heads, MLP channel groups.**",
        "**Tokens.**",
        "TDW",
        "SDT",
        "shares.svg",
    ):
        assert words in text, words


def test_the_same_records_give_the_same_dynamic_report(dynamic: ReportFiles, tmp_path: Path) -> None:
    again = write_report(fixtures.write_run(tmp_path / "elsewhere", fixtures.dynamic_cells()))
    for path in dynamic.folder.rglob("*"):
        if path.is_file():
            assert (again.folder / path.relative_to(dynamic.folder)).read_bytes() == path.read_bytes(), path.name


def test_a_static_run_has_no_dynamic_section(tmp_path: Path) -> None:
    cells = [cell for cell in fixtures.digits_cells() if cell.spec.method == "dit-digits"]
    files = write_report(fixtures.write_run(tmp_path, cells))
    text = files.markdown.read_text()
    for words in ("Promised", "Where the rest went", "Activity", "Prepare", "dynamic", "slicing", "Imposed", "routers"):
        assert words not in text, words
    assert not [path for path in files.figures if path.stem.startswith(("shares", "token_maps"))]


def test_the_classes_excess_adds_up_to_the_time_beyond_the_promise(dynamic: ReportFiles) -> None:
    rows = rows_of(load_run(dynamic.cells.parent))
    base, row = rows["ddpm-50"], rows["dydit-0.5-g1.5"]
    excess = excess_time(row, base)
    ratio = 2 * row.records["flops"].values["gmacs_step"].value / base.records["flops"].values["gmacs_step"].value
    spent, usual = (sum(c["ms"] for c in each.detail("kernels")["classes"]) for each in (row, base))
    assert excess["sum"] == pytest.approx(100 * (spent / (ratio * usual) - 1))
    assert sum(excess[name] for name in CLASSES) == pytest.approx(excess["sum"])
    table = lost_time_table(load_run(dynamic.cells.parent))
    assert entries(table, "sum")["dydit-0.5-g1.5"] == pytest.approx(excess["sum"])


def test_a_class_that_the_report_does_not_know_is_still_in_the_sum(folder: Path) -> None:
    record = RunStore(folder).load(fixtures.identity_of("dydit-0.5", "kernels"))
    assert record is not None
    before = excess_time(rows_of(load_run(folder))["dydit-0.5"], rows_of(load_run(folder))["ddpm-50"])
    classes = [*record.detail["classes"], {"class": "sorting", "ms": 1.0, "share": 0.1, "calls": 1}]
    edit(folder, "dydit-0.5", "kernels", detail=record.detail | {"classes": classes})
    rows = rows_of(load_run(folder))
    excess = excess_time(rows["dydit-0.5"], rows["ddpm-50"])
    assert excess["other"] - before["other"] == pytest.approx(100 / excess["promised_ms"])
    assert sum(excess[name] for name in CLASSES) == pytest.approx(excess["sum"])


def test_a_cell_that_computes_the_same_in_the_same_time_has_lost_nothing(folder: Path) -> None:
    rows = rows_of(load_run(folder))
    excess = excess_time(rows["ddim-10"], rows["ddpm-50"])
    assert [excess[name] for name in (*CLASSES, "sum")] == pytest.approx([0.0] * 8)


def test_profiles_of_two_devices_are_not_set_against_each_other(folder: Path) -> None:
    record = RunStore(folder).load(fixtures.identity_of("dydit-0.5", "kernels"))
    assert record is not None
    other = record.provenance.model_copy(update={"device_name": "another machine"})
    edit(folder, "dydit-0.5", "kernels", provenance=other)
    assert "dydit-0.5" not in entries(lost_time_table(load_run(folder)), "sum")


def test_without_the_baselines_profile_nothing_is_said_of_where_the_rest_went(tmp_path: Path) -> None:
    cells = fixtures.dynamic_cells()
    cells[0] = replace(cells[0], skip=frozenset({"kernels"}))
    view = load_run(fixtures.write_run(tmp_path, cells))
    assert lost_time_table(view) is None and delivered_table(view) is not None


def test_the_promise_is_the_inverse_of_the_compute_ratio_and_only_methods_make_one(dynamic: ReportFiles) -> None:
    view = load_run(dynamic.cells.parent)
    promised = entries(delivered_table(view), "promised")
    assert set(promised) == {row.cell for row in view.rows if row.spec.method == "dydit-digits"}
    for cell, value in promised.items():
        row = rows_of(view)[cell]
        assert row.flops_ratio is not None and row.speedup is not None and row.realised is not None
        assert value == pytest.approx(1 / row.flops_ratio)
        assert row.realised == pytest.approx(row.speedup.value / value)


def test_a_smaller_static_method_promises_too_and_a_larger_one_does_not(folder: Path) -> None:
    for cell, factor in (("dydit-tdw-0.5", 0.9), ("dydit-sdt-0.5", 2.0)):
        without(folder, cell, "flops", "facets", "parts", "token_maps", "probe")
        record = RunStore(folder).load(fixtures.identity_of(cell, "flops"))
        assert record is not None
        step = Quantity(value=fixtures.STEP_GMACS * factor, unit="GMAC", interval="exact count")
        edit(folder, cell, "flops", values=record.values | {"gmacs_step": step})
    listed = entries(delivered_table(load_run(folder)), "promised")
    assert "dydit-tdw-0.5" in listed and "dydit-sdt-0.5" not in listed


def test_router_share_and_operator_columns_come_from_the_parts(dynamic: ReportFiles) -> None:
    view = load_run(dynamic.cells.parent)
    row = rows_of(view)["dydit-0.5"]
    parts = row.detail("flops")["parts"]
    share = 100 * sum(parts.values()) / row.records["flops"].values["gmacs_step"].value
    assert entries(delivered_table(view), "router_share")["dydit-0.5"] == pytest.approx(share)
    assert entries(operators_table(view), "token routers")["dydit-0.5"] == parts["token routers"]
    assert entries(operators_table(view), "token routers")["dydit-tdw-0.5"] is None


def test_imposed_cells_are_marked_in_every_format(dynamic: ReportFiles) -> None:
    for name in ("report.md", "report.html", "table.md", "table.tex"):
        assert f"({IMPOSED})" in (dynamic.folder / name).read_text(), name
    lines = {row["cell"]: row for row in csv.DictReader(io.StringIO((dynamic.folder / "table.csv").read_text()))}
    assert {cell for cell, row in lines.items() if row["cell_tag"] == IMPOSED} == {"dydit-imposed"}
    cells = {row["cell"]: row for row in csv.DictReader(io.StringIO(dynamic.cells.read_text()))}
    assert {cell: row["imposed"] for cell, row in cells.items()} == {
        cell: "activity" if cell == "dydit-imposed" else "" for cell in cells
    }
    view = load_run(dynamic.cells.parent)
    tables = (cost_table, operators_table, timing_table, delivered_table, lost_time_table)
    for table in tables:
        made = table(view)
        assert made is not None and f"dydit-imposed ({IMPOSED}" in to_markdown(made), table.__name__
    assert "**Imposed activity.**" in dynamic.markdown.read_text()


def test_a_cost_only_cell_without_imposed_activity_is_not_called_imposed(tmp_path: Path) -> None:
    files = write_report(fixtures.write_run(tmp_path, fixtures.digits_cells()))
    text = files.markdown.read_text()
    assert "dydit-half-ddim-25 (cost only" in text and "mposed" not in text.replace("Random weights or an imposed", "")


def test_every_figure_that_names_an_imposed_cell_marks_it(dynamic: ReportFiles, monkeypatch: Any) -> None:
    view = load_run(dynamic.cells.parent)
    row = rows_of(view)["dydit-imposed"]
    assert row.named("x") == f"x ({IMPOSED})" and tag_of(row) == IMPOSED
    # The figures' words are outlines: what is drawn is seen where it is given to the renderer.
    drawn: list[str] = []
    from matplotlib.text import Text

    original = Text.draw
    monkeypatch.setattr(Text, "draw", lambda self, *a, **k: (drawn.append(self.get_text()), original(self, *a, **k))[1])
    for maker in (shares_picture, profile_picture, kernels_picture):
        drawn.clear()
        assert maker(view) is not None
        named = [text for text in drawn if "imposed" in text]
        assert named and all(text.endswith(f"({IMPOSED})") for text in named), maker.__name__


def test_old_records_without_the_new_fields_still_render(folder: Path) -> None:
    for cell in fixtures.dynamic_cells():
        name = cell.spec.cell
        without(folder, name, "flops", "facets", "parts", "probe", "token_maps")
        without(folder, name, "latency", "prepare_ms")
        without(folder, name, "memory", "prepared_mib")
    files = write_report(folder)
    assert files.pdf is not None
    text = files.markdown.read_text()
    assert "slicing" not in text and "Prepare" not in text
    assert not [path for path in files.figures if path.stem.startswith(("shares", "token_maps"))]


def test_cells_of_the_same_shares_share_a_row_and_parts_left_whole_are_not_claimed(dynamic: ReportFiles) -> None:
    view = load_run(dynamic.cells.parent)
    shares = {each.name: each for each in facets_of(rows_of(view)["dydit-tdw-0.5"]).shares}
    assert list(shares) == ["attention heads", "MLP channel groups"]
    made = shares_picture(view)
    assert made is not None and made.alt.count("attention heads") == 3
    assert "dydit-0.5, dydit-0.5-g1.5 attention heads" in made.alt
    assert f"attention heads {100 * shares['attention heads'].mean:.0f} %" in made.alt


def test_shares_beyond_the_limit_are_named_in_the_caption(tmp_path: Path) -> None:
    cells = [fixtures.dynamic_cells()[0]]
    for steps in range(5, 5 + MOST_ROWS + 2):
        spec = fixtures.dynamic_spec(f"dydit-{steps}").model_copy(update={"steps": steps, "measure": ("flops",)})
        cells.append(fixtures.Planned(spec, dynamic=fixtures.Dynamic()))
    made = shares_picture(load_run(fixtures.write_run(tmp_path, cells)))
    assert made is not None and "Not drawn: dydit-13, dydit-14." in made.caption


def facets(timesteps: list[float], *values: Any) -> dict[str, Any]:
    shares = [{"name": f"part {place}", "values": each} for place, each in enumerate(values)]
    return {"timesteps": timesteps, "shares": shares, "labels": []}


@pytest.mark.parametrize(
    "stored",
    [None, {}, facets([], []), facets([9, 0], [[0.5]]), facets([9, 0], [[0.5], [0.5, 1.0]]), facets([9, 0], None)],
)
def test_shares_that_fit_no_step_are_none(folder: Path, stored: Any) -> None:
    record = RunStore(folder).load(fixtures.identity_of("dydit-0.5", "flops"))
    assert record is not None
    edit(folder, "dydit-0.5", "flops", detail=record.detail | {"facets": stored, "parts": {}})
    row = rows_of(load_run(folder))["dydit-0.5"]
    assert facets_of(row) == NOTHING and not is_dynamic(row)


def test_one_step_and_flow_times_can_be_drawn(folder: Path) -> None:
    record = RunStore(folder).load(fixtures.identity_of("dydit-0.5", "flops"))
    assert record is not None
    for times in ([0.98], [1.0, 0.5, 0.0]):
        stored = facets(times, [[0.5, 1.0]] * len(times))
        edit(folder, "dydit-0.5", "flops", detail=record.detail | {"facets": stored})
        assert shares_picture(load_run(folder)) is not None


def test_shares_of_the_whole_model_have_no_layers_and_parts_beyond_the_limit_are_named(folder: Path) -> None:
    record = RunStore(folder).load(fixtures.identity_of("dydit-0.5", "flops"))
    assert record is not None
    stored = facets([9.0, 0.0], *[[[0.25], [0.75]]] * (MOST_COLUMNS + 1))
    edit(folder, "dydit-0.5", "flops", detail=record.detail | {"facets": stored})
    made = shares_picture(load_run(folder))
    assert made is not None and "Not drawn: " in made.caption and "part 1 50 %" in made.alt


def test_token_maps_beyond_the_limit_are_named_and_cost_only_cells_have_none(tmp_path: Path) -> None:
    cells = fixtures.dynamic_cells()
    more = fixtures.Planned(fixtures.dynamic_spec("dydit-sdt-0.7"), 2.9, dynamic=fixtures.Dynamic(width=False))
    pictures = token_map_pictures(load_run(fixtures.write_run(tmp_path, [*cells, more])))
    assert len(pictures) == MOST_CELLS
    assert "Not drawn: the maps of dydit-sdt-0.7." in pictures[-1].caption
    assert all("imposed" not in picture.name + picture.caption for picture in pictures)


def test_token_maps_that_cannot_be_read_are_left_out(folder: Path) -> None:
    rows = rows_of(load_run(folder))
    paths = [folder / rows[cell].detail("flops")["token_maps"] for cell in ("dydit-0.5", "dydit-sdt-0.5")]
    paths[0].write_bytes(b"PK not an archive")
    with np.load(paths[1]) as stored:
        arrays = dict(stored)
    np.savez(paths[1], **(arrays | {"kept": arrays["kept"][:, :3]}))
    assert [picture.name for picture in token_map_pictures(load_run(folder))] == ["token_maps-dydit-0.5-g1.5"]


def test_token_maps_of_an_older_report_are_removed(folder: Path) -> None:
    report = write_report(folder).folder
    assert (report / "token_maps-dydit-0.5.svg").is_file()
    without(folder, "dydit-0.5", "flops", "token_maps")
    write_report(folder)
    assert not list(report.glob("token_maps-dydit-0.5.*"))
    assert (report / "token_maps-dydit-0.5-g1.5.svg").is_file()


def test_the_summary_says_what_the_dynamic_cells_save_at_which_quality(folder: Path) -> None:
    def sentence() -> str:
        return " ".join(summary(load_run(folder)))

    assert (
        "Of 5 dynamic cells, dydit-tdw-0.5 computes 31 % less an image than ddpm-50, at a Fréchet distance of 2.60 "
        "(0.200 higher, within the interval); its realised share is 0.82, the best of them."
    ) in sentence()
    record = RunStore(folder).load(fixtures.identity_of("dydit-tdw-0.5", "quality"))
    assert record is not None
    apart = record.values["frechet"].model_copy(update={"low": 2.55, "high": 2.7})
    edit(folder, "dydit-tdw-0.5", "quality", values=record.values | {"frechet": apart})
    assert "of 2.60 (0.200 higher); its" in sentence()


def test_the_summary_claims_no_quality_and_no_time_that_was_not_measured(tmp_path: Path) -> None:
    skip = frozenset({"latency", "kernels", "memory", "quality"})
    cells = [replace(cell, skip=skip) for cell in fixtures.dynamic_cells()]
    text = " ".join(summary(load_run(fixtures.write_run(tmp_path, cells))))
    assert "Of 5 dynamic cells, dydit-0.5 computes 41 % less an image than ddpm-50." in text
    assert "realised" not in text and "Fréchet" not in text


def test_how_tokens_were_counted_is_explained_and_csv_keeps_the_interval(dynamic: ReportFiles) -> None:
    view = load_run(dynamic.cells.parent)
    assert "mean and 95 % t interval over 100 samples" in dict(reading_notes(view))["MACs"]
    lines = {row["cell"]: row for row in csv.DictReader(io.StringIO((dynamic.folder / "table.csv").read_text()))}
    step = rows_of(view)["dydit-0.5"].records["flops"].values["gmacs_step"]
    assert float(lines["dydit-0.5"]["gmacs_step_low"]) == step.low
    assert lines["ddpm-50"]["gmacs_step_low"] == ""


def test_prepared_weights_are_shown_beside_the_peak(dynamic: ReportFiles) -> None:
    table = cost_table(load_run(dynamic.cells.parent))
    assert entries(table, "prepared_mib") | {"ddim-10": None} == entries(table, "prepared_mib")
    assert entries(table, "prepared_mib")["dydit-0.5"] == pytest.approx(3.3)

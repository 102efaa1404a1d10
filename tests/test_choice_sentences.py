"""The report on flexible models: what its summary and notes say of schedules, orders and layouts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import report_fixtures as fixtures
from choice_views import UNEQUAL, edit, edit_labels, notes_of, rows_of, shown, view_of
from report_fixtures import Flexible, Planned, flexible_cell

from ditbench.harness.store.store import RunStore
from ditbench.report.agreement import agreement_of
from ditbench.report.document import write_report
from ditbench.report.facets import NOTHING, Labels, facets_of, in_words
from ditbench.report.run_view import load_run
from ditbench.report.tables.alternatives import alternatives_table
from ditbench.report.tables.choices import choices_table
from ditbench.report.tables.formats import to_markdown
from ditbench.report.tables.operators import operators_table
from ditbench.report.tables.results import quality_table
from ditbench.report.tables.table import Table
from ditbench.report.tables.timing import timing_table
from ditbench.report.words.choices import MOST_ORDERS
from ditbench.report.words.reading import reading_notes
from ditbench.report.words.summary import summary


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fixtures.write_run(tmp_path / "run", fixtures.flexible_cells())


def measured(folder: Path, cell: str, measurement: str, **values: tuple[float, float | None, float | None]) -> None:
    """Replace figures of a stored record: value, low, high."""
    store = RunStore(folder)
    identity = fixtures.identity_of(cell, measurement)
    record = store.load(identity)
    assert record is not None
    store.record_path(identity).unlink()
    changed = {
        name: record.values[name].model_copy(update={"value": value, "low": low, "high": high})
        for name, (value, low, high) in values.items()
    }
    store.commit(record.model_copy(update={"values": record.values | changed}))


def test_the_preparation_of_a_static_run_is_neither_slicing_nor_projecting(tmp_path: Path) -> None:
    folder = fixtures.write_run(tmp_path, fixtures.digits_cells()[:2])
    store = RunStore(folder)
    record = store.load(fixtures.identity_of("ddpm-50", "latency"))
    assert record is not None
    store.record_path(record.identity).unlink()
    planned = record.values["latency_ms"].model_copy(update={"value": 0.02, "low": 0.01, "high": 0.03})
    store.commit(record.model_copy(update={"values": record.values | {"prepare_ms": planned}}))
    text = write_report(folder).markdown.read_text()
    assert "planning the cell's steps" in text and "slic" not in text and "kernels or" not in text


def test_a_figure_of_both_branches_is_not_said_to_leave_guidance_out(tmp_path: Path) -> None:
    plain = flexible_cell("plain", Flexible(UNEQUAL.patch), guidance=1.5)
    unequal = flexible_cell("unequal", UNEQUAL, guidance=1.5)
    for name, cell in (("plain", plain), ("unequal", unequal)):
        view = view_of(tmp_path / name, cell)
        note, macs = notes_of(operators_table(view)), dict(reading_notes(view))["MACs"]
        assert ("guidance is not counted" in note) is (name == "plain")
        assert ("over both branches where they run otherwise" in note) is (name == "unequal")
        assert "one forward of one sequence, the mean over the steps" in macs
        assert ("and over both branches where" in macs) is (name == "unequal")


@pytest.mark.parametrize("cells", [fixtures.digits_cells(), fixtures.dynamic_cells()], ids=["static", "dynamic"])
def test_words_on_calls_and_counts_of_other_runs_stay(tmp_path: Path, cells: list[Planned]) -> None:
    view = load_run(fixtures.write_run(tmp_path, cells))
    notes = dict(reading_notes(view))
    assert "guidance doubles its rows. Time an image" in notes["Time"]
    assert "A step's figure is one forward of one sequence; an image's" in notes["MACs"]
    assert "mean over the steps; guidance is not counted. Many" in notes_of(operators_table(view))
    assert alternatives_table(view) is None and "no call was the first" not in notes_of(timing_table(view))
    assert not any("schedule" in text or "orders" in text for text in summary(view))


def test_layouts_are_those_of_the_record_and_the_fastest_is_the_used_one(tmp_path: Path) -> None:
    three = Flexible(UNEQUAL.patch, (8,) * 20 + (4,) * 20 + (2,) * 10, sizes=(2, 4, 8))
    view_of(tmp_path, *(flexible_cell(n, f, guidance=1.5) for n, f in (("a", UNEQUAL), ("b", three))))
    times = {"packed": 4.7, "separate": 7.8, "padded": 6.0, "joined": 4.65}
    edit(tmp_path, "a", "latency", choices_ms={"patch 2, guidance 4": times})
    table = alternatives_table(load_run(tmp_path))
    assert table is not None
    assert [c.title for c in table.columns] == [
        *("Cell", "Step", "Batch"), *("packed", "separate", "padded", "joined"), "Used"
    ]  # fmt: skip
    texts = [[value.shown for value in column.values] for column in table.columns]
    assert texts[0] == ["a", "b", ""]
    assert texts[1] == ["patch 2, guidance 4", "patch 4, guidance 8", "patch 2, guidance 4"]
    assert [column[0] for column in texts[2:]] == ["8", "4.70", "7.80", "6.00", "4.65", "joined"]
    raw = {column.key: column.values[0].raw for column in table.columns}
    assert {layout: raw[layout] for layout in times} == times
    assert texts[-1][1:] == ["packed", "packed"]
    assert "same output" in table.notes[0] and "counted MACs are those of separate" in table.notes[1]


def sentences(folder: Path) -> str:
    return " ".join(summary(load_run(folder)))


def test_the_summary_names_the_cheapest_schedule_within_the_baselines_interval(folder: Path) -> None:
    assert (
        "Of the cells with a patch size by step whose Fréchet distance is not above the interval of ddpm-50, 2.40 "
        "[2.30, 2.53], flexi-64 is the cheapest: 2.52 [2.42, 2.66] at 64.4 % of its compute; its own interval reaches "
        "higher."
    ) in sentences(folder)
    measured(folder, "flexi-40", "quality", frechet=(2.2, 2.1, 2.25))
    assert "flexi-40 is the cheapest: 2.20 [2.10, 2.25] at 40.6 % of its compute." in sentences(folder)


def test_no_schedule_within_the_interval_is_said_with_the_nearest(folder: Path) -> None:
    for cell in fixtures.flexible_cells()[2:]:
        measured(folder, cell.spec.cell, "quality", frechet=(3.0, 2.5, 3.5))
    measured(folder, "flexi-75", "quality", frechet=(2.9, 2.5, 3.2))
    told = (
        "No cell with a patch size by step that saves compute has a Fréchet distance within the interval of ddpm-50, "
        "2.40 [2.30, 2.53]; the nearest is flexi-75 with 2.90 [2.50, 3.20] at 74.8 % of its compute"
    )
    assert f"{told} (the intervals overlap)." in sentences(folder)
    measured(folder, "flexi-75", "quality", frechet=(2.9, 2.6, 3.2))
    assert f"{told.replace('2.50, 3', '2.60, 3')}." in sentences(folder)


def test_a_schedule_that_samples_otherwise_than_the_baseline_is_named_only_where_all_do(tmp_path: Path) -> None:
    view_of(tmp_path / "one", flexible_cell("few", Flexible((4,) * 5 + (2,) * 5), 2.3, sampler="ddim"))
    assert "few is the cheapest" in sentences(tmp_path / "one")
    assert "of its compute, its other sampling included" in sentences(tmp_path / "one")
    half = flexible_cell("half", Flexible((4,) * 25 + (2,) * 25), 2.3)
    view_of(tmp_path / "two", flexible_cell("few", Flexible((4,) * 5 + (2,) * 5), 2.3, sampler="ddim"), half)
    assert "half is the cheapest" in sentences(tmp_path / "two")


@pytest.mark.parametrize("lacking", ["quality", "interval", "baseline", "saving"])
def test_without_quality_interval_baseline_or_saving_no_schedule_is_praised(tmp_path: Path, lacking: str) -> None:
    patch = (2,) * 50 if lacking == "saving" else (4,) * 25 + (2,) * 25
    flexi = flexible_cell("flexi", Flexible(patch), 2.3)
    flexi = replace(flexi, skip=frozenset({"quality"} if lacking == "quality" else ()))
    cells = [fixtures.flexible_cells()[0], flexi]
    folder = fixtures.write_run(tmp_path, cells, baseline=None if lacking == "baseline" else "ddpm-50")
    if lacking == "interval":
        measured(folder, "ddpm-50", "quality", frechet=(2.4, None, None))
    assert "by step" not in sentences(folder)


def test_orders_at_equal_compute_are_compared_and_overlapping_intervals_said(folder: Path) -> None:
    told = (
        "The same steps in other orders, at 64.4 % of the compute of patch size 2 throughout: Fréchet distance 2.52 "
        "[2.42, 2.66] with cheap steps first (flexi-64), 2.62 [2.52, 2.77] in mixed order (flexi-64-interleaved) and "
        "3.40 [3.26, 3.59] with cheap steps last (flexi-64-last); "
    )
    assert f"{told}flexi-64-interleaved is not told apart from flexi-64 (the intervals overlap)." in sentences(folder)
    measured(folder, "flexi-64-interleaved", "quality", frechet=(2.8, 2.7, 2.9))
    assert "flexi-64 is the best of them (the intervals do not overlap)." in sentences(folder)
    measured(folder, "flexi-64", "quality", frechet=(2.5, None, None))
    assert "orders" in sentences(folder) and "best of them" not in sentences(folder)


@pytest.mark.parametrize("unlike", ["steps", "guidance", "weights", "compute", "nothing"])
def test_cells_that_differ_in_more_than_the_order_are_not_compared_as_orders(tmp_path: Path, unlike: str) -> None:
    patch = (4,) * 25 + (2,) * 25
    other = (4,) * 24 + (2,) * 26 if unlike == "steps" else patch
    more: dict[str, Any] = {"guidance": 1.5} if unlike == "guidance" else {}
    more |= {"weights": "other.safetensors"} if unlike == "weights" else {}
    first = flexible_cell("first", Flexible(patch), config={"schedule": 0.5}, variant="first")
    second = flexible_cell("last", Flexible(other[::-1]), config={"schedule": {"target": 0.5}}, variant="last", **more)
    view_of(tmp_path, first, second)
    if unlike == "compute":
        measured(tmp_path, "last", "flops", gmacs_image=(0.5, None, None))
    assert ("same steps in other orders" in sentences(tmp_path)) is (unlike == "nothing")


def test_groups_of_orders_beyond_the_limit_are_counted(tmp_path: Path) -> None:
    cells = []
    for weak in range(1, MOST_ORDERS + 3):
        patch = (4,) * weak + (2,) * (50 - weak)
        cells += [flexible_cell(f"first-{weak}", Flexible(patch)), flexible_cell(f"last-{weak}", Flexible(patch[::-1]))]
    view_of(tmp_path, *cells)
    assert sentences(tmp_path).count("same steps in other orders") == MOST_ORDERS
    assert "2 further groups differ in their order alone." in sentences(tmp_path)


def test_a_mean_over_unequal_forwards_is_not_called_the_cost_of_one(tmp_path: Path) -> None:
    skip = frozenset({"latency", "kernels", "memory", "quality"})
    cells = {
        "even": flexible_cell("even", Flexible((4,) * 50)),
        "mixed": flexible_cell("mixed", Flexible((4,) * 25 + (2,) * 25)),
        "guided": flexible_cell("guided", Flexible((2,) * 50, (4,) * 50), guidance=1.5),
    }
    for name, cell in cells.items():
        view_of(tmp_path / name, replace(cell, skip=skip))
        folder = tmp_path / name
        for measurement in skip:
            RunStore(folder).record_path(fixtures.identity_of("ddpm-50", measurement)).unlink()
        text = sentences(folder)
        assert f"({name}; the mean over its steps) to 14.3 MMAC (ddpm-50)." in text or name == "even"
        assert f"({name}) to 14.3 MMAC (ddpm-50)." in text or name != "even"


def test_what_guides_is_a_column_only_where_unequal_branches_differ_in_it(tmp_path: Path) -> None:
    def table_of(name: str, *kinds: str) -> Table:
        cells = [flexible_cell(f"flexi-{k}", UNEQUAL, guidance=1.5, guidance_weak=k) for k in kinds]
        cells.append(flexible_cell("equal", Flexible(UNEQUAL.patch), guidance=1.5, guidance_weak="unconditional"))
        made = quality_table(view_of(tmp_path / name, *cells))
        assert made is not None
        return made

    both = table_of("both", "conditional", "unconditional")
    words = {"flexi-conditional": "cond.", "flexi-unconditional": "uncond.", "equal": "", "ddpm-50": ""}
    assert shown(both, "weak_guidance") == words
    note = dict(reading_notes(load_run(tmp_path / "both")))["Weak"]
    assert "for the class itself (cond.) or for no class (uncond.)" in note
    alone = table_of("alone", "unconditional")
    assert "weak_guidance" not in [column.key for column in alone.columns] and "| uncond" not in to_markdown(alone)
    assert "Weak" not in dict(reading_notes(load_run(tmp_path / "alone")))


def test_the_schedule_table_says_what_the_guidance_branch_predicts(tmp_path: Path) -> None:
    said = {
        "conditional": "for the class itself, in the others for no class.",
        "unconditional": "It predicts for no class.",
    }
    cells = {kind: flexible_cell(kind, UNEQUAL, guidance=1.5, guidance_weak=kind) for kind in said}
    for kind, words in said.items():
        table = choices_table(view_of(tmp_path / kind, cells[kind]))
        assert notes_of(table).count(words) == 1 and "guidance: 45" in shown(table, "patch_size")[kind]
    both = choices_table(view_of(tmp_path / "both", *cells.values()))
    assert "itself (conditional) or for no class (unconditional)" in notes_of(both)
    assert all(f"guidance ({kind}): 45 × patch size 4" in shown(both, "patch_size")[kind] for kind in said)


def test_cells_that_guide_by_different_predictions_do_not_sample_alike(tmp_path: Path) -> None:
    cell = flexible_cell("flexi", UNEQUAL, 2.3, guidance=1.5, guidance_weak="unconditional")
    for kind, words in (("conditional", "its other sampling included"), ("unconditional", "is the cheapest")):
        full = Flexible((2,) * 50, (4,) * 5 + (2,) * 45)
        base = flexible_cell("base", full, 2.4, guidance=1.5, guidance_weak=kind)
        fixtures.write_run(tmp_path / kind, [base, cell], baseline="base")
        assert words in sentences(tmp_path / kind)
        assert ("its other sampling" in sentences(tmp_path / kind)) is (kind == "conditional")


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ((4,) * 24 + (2,) * 26, "24 × patch size 4, then 26 × patch size 2"),
        ((2,) * 26 + (4,) * 24, "26 × patch size 2, then 24 × patch size 4"),
        ((2,) * 50, "50 × patch size 2"),
        ((8, 8, 4, 2, 2), "2 × patch size 8, then 1 × patch size 4, then 2 × patch size 2"),
        ((4, 2) * 24 + (2, 2), "interleaved: 24 × patch size 4, 26 × patch size 2"),
        ((4, 4, 2, 2, 4), "2 × patch size 4, then 2 × patch size 2, then 1 × patch size 4"),
        ((8, 4, 2, 8, 4), "interleaved: 2 × patch size 8, 2 × patch size 4, 1 × patch size 2"),
    ],
)
def test_choices_in_words_give_order_and_counts(patch: tuple[int, ...], words: str) -> None:
    values = tuple(map(str, patch))
    assert in_words(Labels("patch size", values, None, ("2", "4", "8")), values) == words


def test_labels_that_are_words_stand_alone_and_layers_are_counted() -> None:
    labels = Labels("cache", ("fresh", ("reuse", "reuse", "fresh")), None, ("fresh", "reuse"))
    assert in_words(labels, labels.values) == "1 × fresh, then 1 × (reuse in 2 layers, fresh in 1 layer)"


def test_labels_that_fit_no_step_are_none(folder: Path) -> None:
    whole = facets_of(rows_of(load_run(folder))["flexi-64"])
    assert [len(labels.values) for labels in whole.labels] == [50]
    for changes in ({"values": []}, {"values": ["2"]}, {"levels": []}, {"guidance": ["4"]}):
        edit_labels(folder, "flexi-75", **changes)
        assert facets_of(rows_of(load_run(folder))["flexi-75"]) == NOTHING, changes
    for stored in (None, {}, {"timesteps": [999, 0]}):
        edit(folder, "flexi-75", "flops", facets=stored)
        assert facets_of(rows_of(load_run(folder))["flexi-75"]) == NOTHING, stored


def test_an_agreement_of_other_length_than_its_timesteps_is_none(folder: Path) -> None:
    assert agreement_of(rows_of(load_run(folder))["flexi-64"]) is not None
    edit(folder, "flexi-64", "agreement", timesteps=[999, 0])
    assert agreement_of(rows_of(load_run(folder))["flexi-64"]) is None

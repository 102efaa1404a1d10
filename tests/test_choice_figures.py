"""The report on flexible models: figures and tables show the stored schedules, compute and agreement."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import report_fixtures as fixtures
from choice_views import UNEQUAL, edit, labels_of, notes_of, rows_of, shown, view_of
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from report_fixtures import Dynamic, Flexible, Planned, dynamic_spec, flexible_cell

from ditbench.report.document import ReportFiles, write_report
from ditbench.report.plots import agreement, choices
from ditbench.report.run_view import load_run
from ditbench.report.tables.alternatives import alternatives_table
from ditbench.report.tables.choices import choices_table
from ditbench.report.tables.delivered import delivered_table, lost_time_table
from ditbench.report.tables.results import cost_table
from ditbench.report.tables.timing import timing_table
from ditbench.report.words.reading import reading_notes

CELLS_CSV = (
    "cell,method,variant,sampler,steps,guidance,device,dtype,batch,params,gmacs_step,gmacs_image,flops_ratio,"
    "latency_ms,latency_low,latency_high,images_per_s,speedup,speedup_low,speedup_high,realised,frechet,frechet_low,"
    "frechet_high,frechet_delta,frechet_delta_low,frechet_delta_high,kid,precision,recall,protocol,status,accuracy,"
    "image_ms,image_ms_low,image_ms_high,peak_mib,"
    "on_front_gmacs,on_front_time,cost_only,imposed,reason,front_probability_gmacs,front_probability_time,"
    "frechet_infinity,sfid,inception_score,rbf_mmd,density,coverage,frechet_infinity_low,frechet_infinity_high,"
    "psnr,ssim,lpips,latent_error,evaluations,trainable,training_peak_mib,training_image_ms,training_ratio"
)


@pytest.fixture(scope="module")
def flexible(tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    return write_report(fixtures.write_run(tmp_path_factory.mktemp("flexible") / "run", fixtures.flexible_cells()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fixtures.write_run(tmp_path / "run", fixtures.flexible_cells())


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """Figures by name, as they are given to the renderer."""
    drawn: dict[str, Figure] = {}
    for module in (choices, agreement):
        original = module.picture

        def keep(figure: Figure, name: str, *words: str, original: Any = original) -> Any:
            drawn[name] = figure
            return original(figure, name, *words)

        monkeypatch.setattr(module, "picture", keep)
    return drawn


def colours_at(axes: Axes, y: float, steps: int) -> list[str]:
    """The colour of the block in the middle of every step, at height ``y``."""
    found = []
    for step in range(steps):
        x = 100 * (step + 0.5) / steps
        blocks = [
            block
            for block in axes.collections
            if isinstance(block, PolyCollection) and any(p.get_extents().contains(x, y) for p in block.get_paths())
        ]
        assert len(blocks) == 1
        found.append(to_hex(blocks[0].get_facecolor()[0]))
    return found


def legend_of(axes: Axes) -> dict[str, str]:
    """label -> colour"""
    legend = axes.get_legend()
    assert legend is not None
    return {t.get_text(): to_hex(h.get_facecolor()) for t, h in zip(legend.texts, legend.legend_handles, strict=True)}


def heights(axes: Axes) -> dict[str, float]:
    """Row name -> its middle on the y axis."""
    return {t.get_text(): float(y) for t, y in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)}


def test_a_flexible_run_has_its_figures_table_and_explanation_in_the_section_on_compute(flexible: ReportFiles) -> None:
    assert flexible.notice is None and flexible.pdf is not None
    assert {f"{n}.{e}" for n in ("choices", "agreement") for e in ("svg", "png")} <= {p.name for p in flexible.figures}
    text = flexible.markdown.read_text()
    compute = text[text.index("## Compute") : text.index("## Time")]
    places = [compute.index(words) for words in ("choices.svg", "| Patch size |", "agreement.svg", "by operator")]
    assert places == sorted(places)
    notes = dict(reading_notes(load_run(flexible.cells.parent)))
    assert "pre-trained" in notes["Patch size"]
    assert "difference: 95 % bootstrap over 64 samples" in notes["Difference"]


@pytest.mark.parametrize("cells", [fixtures.digits_cells(), fixtures.dynamic_cells()], ids=["static", "dynamic"])
def test_a_run_without_flexible_cells_says_nothing_of_patch_sizes(tmp_path: Path, cells: list[Planned]) -> None:
    view = load_run(fixtures.write_run(tmp_path, cells))
    assert choices.choices_picture(view) is None and agreement.agreement_picture(view) is None
    assert choices_table(view) is None and "Patch size" not in dict(reading_notes(view))


def test_every_block_has_the_colour_of_the_stored_patch_size(flexible: ReportFiles, figures: dict[str, Figure]) -> None:
    view = load_run(flexible.cells.parent)
    assert choices.choices_picture(view) is not None
    axes = figures["choices"].axes[0]
    colours, middles = legend_of(axes), heights(axes)
    assert (
        list(colours) == ["patch size 2 (reference)", "patch size 4", "patch size 8"]
        and len(set(colours.values())) == 3
    )
    by_size = {words.split()[2]: colour for words, colour in colours.items()}
    flexible_rows = [row for row in view.rows if "facets" in row.detail("flops")]
    assert list(middles) == [row.cell for row in flexible_rows] and len(middles) == 9
    for row in flexible_rows:
        stored = labels_of(row)
        strips = [(0.25, stored["values"]), (-0.25, stored["guidance"] or stored["values"])]
        for offset, sizes in strips:
            drawn = colours_at(axes, middles[row.cell] + offset, len(sizes))
            assert drawn == [by_size[size] for size in sizes], row.cell


def test_the_strips_name_branches_and_compute(flexible: ReportFiles, figures: dict[str, Figure]) -> None:
    view = load_run(flexible.cells.parent)
    made = choices.choices_picture(view)
    words = [text.get_text().strip("\N{FIGURE SPACE}") for text in figures["choices"].axes[0].texts]
    assert words.count("conditional") == words.count("guidance") == 1
    shares = [row.detail("flops")["compute"]["share"] for row in view.rows[1:]]
    assert [w for w in words if "%" in w] == [
        f"{100 * share:.1f} % ({row.spec.steps} steps)" for share, row in zip(shares, view.rows[1:], strict=True)
    ]
    assert made is not None and "Each row spans the whole loop" in made.caption
    assert "flexi-64-last: 26 × patch size 2, then 24 × patch size 4, 64.4 % of the compute" in made.alt
    assert (
        "flexi-20-5-g1.5: 30 × patch size 4, then 20 × patch size 2 (guidance 45 × patch size 4, then 5 × patch size 2)"
        in made.alt
    )


def test_equal_schedules_share_a_row_and_unequal_ones_do_not(tmp_path: Path, figures: dict[str, Figure]) -> None:
    patch = (4,) * 5 + (2,) * 5
    same = [flexible_cell(name, Flexible(patch), sampler=name) for name in ("ddpm", "ddim", "dpm")]
    plain = flexible_cell("guided-alike", Flexible(patch, patch), guidance=1.5)
    # of the same compute
    guided = [flexible_cell(f"guided-{g[0]}", Flexible((2,) * 10, g), guidance=1.5) for g in (patch, patch[::-1])]
    made = choices.choices_picture(view_of(tmp_path / "b", *same, *guided, plain))
    assert list(heights(figures["choices"].axes[0])) == ["ddpm and 3 more", "guided-4", "guided-2"]
    assert made is not None and "The same choices: ddpm, ddim, dpm, guided-alike." in made.caption


def test_cells_whose_samples_mean_nothing_are_marked(tmp_path: Path, figures: dict[str, Figure]) -> None:
    cell = flexible_cell("flexi", Flexible((4, 2), agreement=True))
    view = view_of(tmp_path, replace(cell, spec=cell.spec.model_copy(update={"cost_only": True})))
    assert choices.choices_picture(view) and agreement.agreement_picture(view)
    assert list(heights(figures["choices"].axes[0])) == ["flexi (cost only)"]
    assert figures["agreement"].axes[0].get_title(loc="left") == "flexi (cost only)"
    table = choices_table(view)
    assert table is not None and "cost only" in table.columns[0].values[0].tag


def test_schedules_beyond_the_limit_are_counted_in_the_caption(tmp_path: Path, figures: dict[str, Figure]) -> None:
    steps = choices.MOST_ROWS + 3
    cells = [flexible_cell(f"flexi-{weak}", Flexible((4,) * weak + (2,) * (steps - weak))) for weak in range(steps)]
    made = choices.choices_picture(view_of(tmp_path, *cells))
    assert len(heights(figures["choices"].axes[0])) == choices.MOST_ROWS
    assert made is not None and made.caption.endswith("3 further rows are not drawn.")


def test_the_table_says_sizes_steps_and_compute_by_every_convention(flexible: ReportFiles) -> None:
    view = load_run(flexible.cells.parent)
    table = choices_table(view)
    sizes = shown(table, "patch_size")
    assert (
        "ddpm-50" not in sizes and sizes["flexi-64-interleaved"] == "interleaved: 24 × patch size 4, 26 × patch size 2"
    )
    assert (
        sizes["flexi-20-5-g1.5"]
        == "30 × patch size 4, then 20 × patch size 2; guidance: 45 × patch size 4, then 5 × patch size 2"
    )
    assert shown(table, "steps")["flexi-8-ddim-10"] == "10"
    stored = rows_of(view)["flexi-75"].detail("flops")["compute"]
    (other,) = stored["by_convention"].values()
    assert shown(table, "compute")["flexi-75"] == f"{100 * stored['share']:.2f}" != f"{100 * other:.2f}"
    assert shown(table, "compute_a")["flexi-75"] == f"{100 * other:.2f}"
    assert table is not None and "(a): adaLN excluded, as in arXiv 2502.20126." in table.notes[0]
    difference = rows_of(view)["flexi-64"].records["agreement"].values["difference"]
    assert float(shown(table, "difference")["flexi-64"]) == pytest.approx(difference.value, abs=1e-4)
    assert shown(table, "difference")["flexi-75"] == ""


def test_what_was_not_measured_has_no_column_and_no_note(tmp_path: Path) -> None:
    view_of(tmp_path, flexible_cell("flexi", Flexible((4, 2))))
    stored = rows_of(load_run(tmp_path))["flexi"].detail("flops")["compute"]
    edit(tmp_path, "flexi", "flops", compute=stored | {"by_convention": {}})
    table = choices_table(load_run(tmp_path))
    assert table is not None and [c.key for c in table.columns] == ["cell", "steps", "patch_size", "compute"]
    assert len(table.notes) == 1 and "(a)" not in table.notes[0]
    assert agreement.agreement_picture(load_run(tmp_path)) is None


def test_curves_and_bands_are_those_of_the_record(flexible: ReportFiles, figures: dict[str, Figure]) -> None:
    view = load_run(flexible.cells.parent)
    made = agreement.agreement_picture(view)
    first, second = figures["agreement"].axes
    assert made is not None and first.get_title(loc="left") == "flexi-64, flexi-20-5-g1.5"
    for axes, cell in ((first, "flexi-64"), (second, "flexi-8-ddim-10")):
        stored = rows_of(view)[cell].detail("agreement")
        assert axes.get_yscale() == "log" and axes.get_xlim()[0] > axes.get_xlim()[1] and cell in made.alt
        assert len(axes.lines) == len(axes.collections) == len(stored["variants"])
        for line, band, size in zip(axes.lines, axes.collections, stored["variants"].values(), strict=True):
            assert list(line.get_xdata()) == stored["timesteps"] and list(line.get_ydata()) == size["mean"]
            corners = {(float(x), float(y)) for x, y in band.get_paths()[0].vertices}
            ends = [*zip(stored["timesteps"], size["low"], strict=True)]
            assert corners == {*ends, *zip(stored["timesteps"], size["high"], strict=True)}
    assert "patch size 8 0.139 (0.0320 at the noise, 0.416 at the image)" in made.alt and "64 samples" in made.caption


def test_a_patch_size_has_one_colour_in_both_figures(flexible: ReportFiles, figures: dict[str, Figure]) -> None:
    view = load_run(flexible.cells.parent)
    assert choices.choices_picture(view) and agreement.agreement_picture(view)
    blocks = legend_of(figures["choices"].axes[0])
    lines = {text.get_text(): line for text, line in _handles(figures["agreement"])}
    assert list(lines) == ["patch size 4 against patch size 2", "patch size 8 against patch size 2"]
    for words, line in lines.items():
        assert to_hex(line.get_color()) == blocks[words.split(" against")[0]]
    drawn = [to_hex(line.get_color()) for line in figures["agreement"].axes[1].lines]
    assert drawn == [to_hex(line.get_color()) for line in lines.values()]
    # grey print: the finer, the darker
    assert [sum(to_rgb(colour)) for colour in blocks.values()] == sorted(sum(to_rgb(c)) for c in blocks.values())


def _handles(figure: Figure) -> list[tuple[Any, Any]]:
    (legend,) = figure.legends
    return list(zip(legend.texts, legend.legend_handles, strict=True))


def test_cells_beyond_four_panels_are_named_in_the_caption(tmp_path: Path, figures: dict[str, Figure]) -> None:
    cells = [flexible_cell(f"flexi-{n}", Flexible((4,) * n, agreement=True)) for n in range(2, 8)]
    made = agreement.agreement_picture(view_of(tmp_path, *cells))
    assert len(figures["agreement"].axes) == agreement.MOST_PANELS
    assert made is not None and made.caption.endswith("Not drawn: flexi-6, flexi-7.")


def test_differences_of_zero_and_ends_below_it_are_left_out_of_the_logarithm(tmp_path: Path) -> None:
    view_of(tmp_path, flexible_cell("flexi", Flexible((4, 2), agreement=True)))
    for mean, low, high, drawn in (
        ([0.0, 0.1], [-0.1, -0.2], [0.1, 0.3], True),
        ([0.0, 0.0], [0.0, 0.0], [0.0, 0.0], False),
    ):
        edit(tmp_path, "flexi", "agreement", variants={"patch size 4": {"mean": mean, "low": low, "high": high}})
        assert (agreement.agreement_picture(load_run(tmp_path)) is not None) is drawn


def test_a_single_sample_gives_curves_without_bands(tmp_path: Path, figures: dict[str, Figure]) -> None:
    view_of(tmp_path, flexible_cell("flexi", Flexible((4, 2), agreement=True)))
    for low, high, samples, bands in (([None, None], [None, None], 1, 0), ([None, 0.1], [None, 0.3], 8, 1)):
        variants = {"patch size 4": {"mean": [0.1, 0.2], "low": low, "high": high}}
        edit(tmp_path, "flexi", "agreement", variants=variants, samples=samples)
        made = agreement.agreement_picture(load_run(tmp_path))
        axes = figures["agreement"].axes[0]
        assert len(axes.lines) == 1 and len(axes.collections) == bands
        assert made is not None and ("Band" in made.caption) is bool(bands)


def test_one_step_and_flow_times_can_be_drawn(tmp_path: Path) -> None:
    for steps, times in ((1, [0.0]), (1, [0.98]), (3, [1.0, 0.5, 0.0])):
        folder = tmp_path / f"{steps}-{times[0]}"
        view_of(folder, flexible_cell("flexi", Flexible((4,) * steps, agreement=True)))
        edit(folder, "flexi", "agreement", timesteps=times)
        view = load_run(folder)
        assert choices.choices_picture(view) is not None and agreement.agreement_picture(view) is not None


def test_the_same_records_give_the_same_report_and_older_figures_go(flexible: ReportFiles, folder: Path) -> None:
    again = write_report(folder)
    for path in flexible.folder.rglob("*"):
        if path.is_file():
            assert (again.folder / path.relative_to(flexible.folder)).read_bytes() == path.read_bytes(), path.name
    for cell in fixtures.flexible_cells()[1:]:
        edit(folder, cell.spec.cell, "flops", facets=None)
    write_report(folder)
    assert not (again.folder / "choices.svg").exists() and (again.folder / "agreement.svg").exists()


def test_what_is_prepared_is_named_by_what_the_cells_do(tmp_path: Path, flexible: ReportFiles) -> None:
    sliced, projected = "lanning, and slicing all weights", "projecting kernels or merging LoRA updates"
    tdw = Planned(dynamic_spec("dydit-tdw"), 2.6, dynamic=Dynamic(tokens=False))
    flexi = flexible_cell("flexi", Flexible((4,) * 25 + (2,) * 25))
    runs = {"sliced": [tdw], "projected": [flexi], "both": [tdw, flexi]}
    for name, cells in runs.items():
        view = view_of(tmp_path / name, *cells)
        made = dict(reading_notes(view))["Prepare"]
        texts = [made, notes_of(delivered_table(view)), notes_of(timing_table(view)), notes_of(lost_time_table(view))]
        for text in texts:
            assert (sliced in text) is (name != "projected") and (projected in text) is (name != "sliced"), text
            assert name != "both" or f"{sliced} that the cell's steps need; {projected}" in text
        assert "Prepared is the memory" in made
        for table, title in ((cost_table(view), "Prepared"), (lost_time_table(view), "prepare")):
            assert table is not None and title in [column.title for column in table.columns]
    assert "slic" not in flexible.markdown.read_text().lower()


def test_a_time_a_call_is_said_to_be_a_mean_over_kinds_of_step(tmp_path: Path, flexible: ReportFiles) -> None:
    time = dict(reading_notes(load_run(flexible.cells.parent)))["Time"]
    assert "each kind of step is timed and weighs as many steps as are like it" in time
    assert "doubles its rows" not in time and "doubles its sequences" in time
    unguided = dict(reading_notes(view_of(tmp_path, flexible_cell("flexi", Flexible((4, 2))))))["Time"]
    assert "doubles its rows" in unguided and "each kind of step" in unguided


def test_the_columns_of_cells_csv_are_the_same_for_flexible_cells(flexible: ReportFiles) -> None:
    lines = list(csv.reader(io.StringIO(flexible.cells.read_text())))
    assert ",".join(lines[0]) == CELLS_CSV and {len(line) for line in lines} == {len(lines[0])}


def test_layouts_stand_behind_the_timings_and_only_where_there_was_a_choice(
    flexible: ReportFiles, tmp_path: Path
) -> None:
    text = flexible.markdown.read_text()
    time = text[text.index("## Time") : text.index("## Environment")]
    assert (
        time.index("| Level |") < time.index("| Batch | separate [ms] |")
        and text.count("| Batch | separate [ms] |") == 1
    )
    view_of(tmp_path, flexible_cell("flexi", UNEQUAL, guidance=1.5))
    for stored in (None, {}, {"patch 2, guidance 4": {"separate": 7.8}}):
        edit(tmp_path, "flexi", "latency", choices_ms=stored)
        assert alternatives_table(load_run(tmp_path)) is None


def test_a_first_call_that_was_not_timed_is_a_gap_in_the_table_and_no_column_where_none_was(
    flexible: ReportFiles, tmp_path: Path
) -> None:
    table = timing_table(load_run(flexible.cells.parent))
    assert table is not None and shown(table, "first_call_ms")["flexi-20-5-g1.5"] == ""
    assert shown(table, "first_call_ms")["flexi-64"] == "72.5" and "Load and first call are" in notes_of(table)
    assert "no call was the first" in notes_of(table)
    view_of(tmp_path, flexible_cell("flexi", UNEQUAL, guidance=1.5))
    edit(tmp_path, "ddpm-50", "latency", cold={"load_ms": 41.5, "first_call_ms": None})
    table = timing_table(load_run(tmp_path))
    assert table is not None and "first_call_ms" not in [column.key for column in table.columns]
    assert "Load is a cold cost" in notes_of(table) and write_report(tmp_path).pdf is not None

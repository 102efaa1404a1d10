"""Published beside measured: printed figures, the conventions that lead to them, what the report says of both."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from ditbench.cli.listing import show_list
from ditbench.harness.errors import InputError
from ditbench.harness.measure.count_cell import measure_flops
from ditbench.harness.published.conventions import CONVENTIONS, ROUTERS, Count, NotHeldError, at_digits, implied_share
from ditbench.harness.published.load import collect, fault_of, library
from ditbench.harness.published.schema import COST, QUANTITIES, Paper, Protocol, resolve
from ditbench.harness.store.records import CellSpec, Failure, Provenance, Quantity, Record
from ditbench.harness.suite.expand import expand
from ditbench.harness.suite.load import load_suite, shipped_suites
from ditbench.harness.suite.plan import make_plan
from ditbench.report.content import compose
from ditbench.report.published import Match, count_of, matches, summary_of, unfollowed
from ditbench.report.row import Row
from ditbench.report.run_view import RunView
from ditbench.report.tables.published import costs_table, misfit, quality_printed_table, speed_table, unfollowed_table
from ditbench.report.tables.table import Table

SIZES = {"s": (12, 384), "b": (12, 768), "l": (24, 1024), "xl": (28, 1152)}  # depth, width
# s/image, speed-up, GFLOPs, FID: arXiv 2410.03456, table 8
TABLE_8 = {
    "s": ("0.65", "1.00", "6.07", "21.46"),
    "s-0.9": ("0.63", "1.03", "5.72", "21.06"),
    "s-0.8": ("0.56", "1.16", "4.94", "21.95"),
    "s-0.7": ("0.51", "1.27", "4.34", "23.01"),
    "s-0.5": ("0.42", "1.54", "3.16", "28.75"),
    "s-0.4": ("0.38", "1.71", "2.63", "36.21"),
    "s-0.3": ("0.32", "2.03", "1.96", "59.28"),
    "b": ("2.09", "1.00", "23.02", "9.07"),
    "b-0.9": ("1.97", "1.05", "21.28", "8.78"),
    "b-0.8": ("1.76", "1.18", "18.53", "8.79"),
    "b-0.7": ("1.57", "1.32", "16.28", "9.40"),
    "b-0.5": ("1.22", "1.70", "11.90", "12.92"),
    "b-0.4": ("1.06", "1.95", "9.71", "15.54"),
    "b-0.3": ("0.89", "2.33", "7.51", "23.34"),
    "xl": ("10.22", "1.00", "118.69", "2.27"),
    "xl-0.7": ("7.76", "1.32", "84.33", "2.12"),
    "xl-0.6": ("6.86", "1.49", "67.83", "2.18"),
    "xl-0.5": ("5.91", "1.73", "57.88", "2.07"),
    "xl-0.3": ("4.26", "2.40", "38.85", "3.36"),
}
DIT = {
    "s-2": "6.06",
    "s-4": "1.41",
    "s-8": "0.36",
    "b-2": "23.01",
    "b-4": "5.56",
    "b-8": "1.42",
    "l-2": "80.71",
    "l-4": "19.70",
    "l-8": "5.01",
    "xl-2": "118.64",
    "xl-4": "29.05",
    "xl-8": "7.39",
    "xl-2-512": "524.60",
}
FLEXIDIT = {
    "flexidit/weak-50": "84.9",
    "flexidit/weak-100": "69.7",
    "flexidit/weak-150": "54.6",
    "flexidit/weak-200": "39.5",
    "flexidit-6/130-130": "64",
    "flexidit-6/70-70": "46",
    "flexidit-6/90-50": "46",
    "flexidit-6/30-0": "29",
    "flexidit-t2i/weak-10": "92.9",
    "flexidit-t2i/weak-20": "85.8",
    "flexidit-t2i/weak-30": "78.8",
    "flexidit-t2i/weak-40": "71.7",
    "flexidit-t2i/weak-50": "64.6",
    "flexidit-t2i/weak-60": "57.5",
}
PAPER_SUITES = ("dit-cost", "paper-dydit", "paper-flexidit")


# --- the files ---------------------------------------------------------------------------------------------


def paper(**row: Any) -> Paper:
    rows = [{"key": "r", "label": "R", **row}]
    return Paper.model_validate({"paper": "P", "title": "T", "tables": [{"id": "t", "table": "table 1", "rows": rows}]})


def test_every_row_of_table_8_is_as_printed():
    for key, printed in TABLE_8.items():
        row = library()[f"dydit-8/{key}"]
        assert tuple(row.printed(name) for name in ("latency_s_image", "speedup", "gflops", "fid")) == printed
        assert row.hardware == "V100 32 GB" and row.arxiv == "2410.03456"
        assert row.against == f"dydit-8/{key.partition('-')[0]}"


def test_every_dit_and_every_flexidit_percentage_is_as_printed():
    assert {key: library()[f"dit/{key}"].printed("gflops") for key in DIT} == DIT
    assert {key: library()[key].printed("flops_percent") for key in FLEXIDIT} == FLEXIDIT


def test_every_figure_keeps_its_digits_and_every_cost_has_a_convention_or_a_reason():
    for row in library().values():
        assert row.figures, row.key
        for figure in row.figures:
            assert figure.quantity in QUANTITIES and float(figure.printed) > 0
            assert (figure.quantity in COST) == (figure.convention is not None or figure.reason is not None), row.key


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"gflops": 6.07}, "valid string"),
        ({"gflops": "6.07 G"}, "pattern"),
        ({"gflop": "6.07"}, "gflop"),
        ({"gflops": "6.07", "cut": ["fid"]}, "fid, which it does not print"),
        ({"gflops": "6.07", "reasons": {"params_m": "no"}}, "params_m, which it does not print"),
    ],
    ids=str,
)
def test_a_file_that_could_lose_a_digit_or_says_something_of_nothing_is_refused(row, words):
    with pytest.raises(ValidationError, match=words):
        paper(**row)


def test_keys_are_unique_conventions_known_and_baselines_there():
    with pytest.raises(ValueError, match="t/r is there twice"):
        collect([paper(fid="2.27"), paper(fid="2.27")])
    with pytest.raises(ValueError, match="against t/s"):
        collect([paper(speedup="1.73", against="s")])
    with pytest.raises(ValueError, match="no known convention"):
        resolve(paper(gflops="6.07", conventions={"gflops": "thumb"}))
    with pytest.raises(ValueError, match="no known convention"):
        resolve(paper(tflops_image="5.72"))


def test_every_cost_that_follows_is_named_by_a_cell_that_is_counted():
    named = {
        key
        for suite in PAPER_SUITES
        for draft in expand(load_suite(suite))
        for key in draft.settings.published
        if "flops" in draft.settings.measure
    }
    follow = {row.key for row in library().values() if any(figure.reason is None for figure in row.of(*COST))}
    assert follow <= named


def test_an_unknown_key_is_refused_where_it_stands(tmp_path: Path):
    suite = tmp_path / "mine.yaml"
    suite.write_text("suite: mine\ncells:\n  - method: dit-s-2\n    published: [dit/s-2, dydit-8/xl-07]\n")
    with pytest.raises(InputError) as caught:
        make_plan(load_suite(suite))
    assert str(caught.value).startswith(f"{suite}:4:26: ") and "(did you mean 'dydit-8/xl-0.7'?)" in str(caught.value)
    assert fault_of("dit/s-2") is None


def test_the_list_names_every_row_in_one_line_and_needs_no_torch(capsys: pytest.CaptureFixture[str]):
    show_list("published", True)
    listed = {entry["name"]: entry["summary"] for entry in json.loads(capsys.readouterr().out)}
    assert set(listed) == set(library())
    assert listed["dydit-8/xl-0.5"] == (
        "DyDiT (arXiv 2410.03456), table 8: DyDiT-XL, λ = 0.5: 57.88 G, 1.73×, 5.91 s, FID 2.07"
    )
    code = (
        "import sys; from ditbench.cli.listing import show_list as s;"
        "s('published', False); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\nFalse\n")


# --- conventions, by hand ----------------------------------------------------------------------------------


def by_hand(size: str, side: int = 32, patch: int = 2, steps: int = 250, guided: bool = False) -> Count:
    """A static DiT's record from its formulas alone; see ``docs/published.md``."""
    depth, width = SIZES[size]
    tokens = (side // patch) ** 2
    linear = depth * (12 * tokens * width**2 + 6 * width**2) + 2 * width**2 + 256 * width + width**2
    by_operator = {
        "linear": (linear + side**2 * 8 * width) / 1e9,
        "conv": side**2 * 4 * width / 1e9,
        "attention": depth * 2 * tokens**2 * width / 1e9,
        "layer_norm": 4 * (2 * depth + 1) * tokens * width / 1e9,
    }
    step = sum(by_operator.values())
    return Count(675_129_632, step, step * steps * (1 + guided), steps, guided, by_operator, positions=tokens * width)


@pytest.mark.parametrize(
    ("convention", "count", "printed"),
    [
        ("fvcore", by_hand("s"), "6.07"),
        ("fvcore", by_hand("b"), "23.02"),
        ("fvcore", by_hand("xl"), "118.69"),
        *(
            ("norm-once", by_hand(key[:-2], patch=int(key[-1])), printed)
            for key, printed in DIT.items()
            if "512" not in key
        ),
        ("opcounter", by_hand("xl"), "28.61"),
        ("opcounter", by_hand("xl", steps=50), "5.72"),
        ("opcounter", by_hand("xl", side=64, steps=50), "22.85"),
        ("flops-of-pairs", by_hand("xl", steps=50, guided=True), "23.74"),
        ("parameters", by_hand("xl"), "675"),
        ("without-routers", replace(by_hand("s"), gmacs_step=6.5, parts={ROUTERS[0]: 0.4, ROUTERS[1]: 0.1}), "6.00"),
        ("implied-share", replace(by_hand("s"), gmacs_step=6.5, parts={ROUTERS[0]: 0.4, ROUTERS[1]: 0.1}), "6.00"),
        ("without-adaln", replace(by_hand("xl"), shares={"adaLN excluded, as in arXiv 2502.20126": 0.45525}), "45.5"),
    ],
    ids=str,
)
def test_a_convention_gives_the_printed_digits_and_another_count_does_not(convention, count: Count, printed):
    counted = CONVENTIONS[convention].counted
    cut = printed in ("5.56",)
    assert at_digits(counted(count), printed, cut) == printed
    off = replace(
        count,
        params=count.params * 1.01,
        gmacs_step=count.gmacs_step * 1.02,
        gmacs_image=count.gmacs_image * 1.01,
        shares={name: share + 0.01 for name, share in count.shares.items()},
    )
    assert at_digits(counted(off), printed, cut) != printed


def test_every_convention_is_checked_by_hand():
    marks = test_a_convention_gives_the_printed_digits_and_another_count_does_not.pytestmark
    assert {case[0] for case in marks[0].args[1]} == set(CONVENTIONS)


@pytest.mark.parametrize(
    ("convention", "words"),
    [
        ("norm-once", "layer_norm"),
        ("opcounter", "layer_norm"),
        ("flops-of-pairs", "not guided"),
        ("without-adaln", "adaLN"),
        ("parameters", "positions"),
    ],
)
def test_what_a_record_does_not_hold_is_said_and_not_taken_for_zero(convention, words):
    bare = Count(params=1, gmacs_step=1, gmacs_image=1, evaluations=1, guided=False)
    with pytest.raises(NotHeldError, match=words):
        CONVENTIONS[convention].counted(bare)


def test_digits_are_rounded_or_cut_as_the_figure_says():
    assert at_digits(5.5664, "5.56") == "5.57" and at_digits(5.5664, "5.56", cut=True) == "5.56"
    assert at_digits(118.6887, "118") == "119" and at_digits(118.6887, "118", cut=True) == "118"
    assert at_digits(0.29, "0.29", cut=True) == "0.29"
    assert at_digits(11.9, "11.90") == "11.90"


def test_the_512_px_model_of_the_dit_paper_is_cut_not_rounded():
    whole = CONVENTIONS["norm-once"].counted(by_hand("xl", side=64))
    assert at_digits(whole, "524.60") == "524.61" and at_digits(whole, "524.60", cut=True) == "524.60"


def test_shares_of_patch_sizes_lead_to_the_percentages_of_the_paper():
    def blocks(patch: int) -> float:
        count = by_hand("xl", patch=patch)
        return count.gmacs_step - count.operator("layer_norm") - (28 * 6 + 2 + 1) * 1152**2 / 1e9 - 256 * 1152 / 1e9

    r = blocks(4) / blocks(2)
    assert r == pytest.approx(0.2434, abs=5e-5)
    for weak, printed in ((50, "84.9"), (100, "69.7"), (150, "54.6"), (200, "39.5")):
        assert at_digits(100 * (1 - weak / 250 * (1 - r)), printed) == printed
    for x, y, printed in ((130, 130, "64"), (70, 70, "46"), (90, 50, "46"), (30, 0, "29")):
        assert at_digits(100 * (x + y + r * (500 - x - y)) / 500, printed) == printed


# --- the share that a printed figure implies ----------------------------------------------------------------


def dynamic_cells() -> list[tuple[str, str, float | dict[str, float], int]]:
    found = []
    for draft in expand(load_suite("paper-dydit")):
        config = draft.settings.config
        for key in draft.settings.published:
            (cost,) = library()[key].of("gflops")
            if cost.convention == "implied-share":
                found.append((draft.name, key, config["activity"], config.get("input_size", 32)))
    return found


@pytest.mark.parametrize(("cell", "key", "activity", "side"), dynamic_cells(), ids=lambda value: str(value))
def test_the_activity_of_a_cell_is_the_share_that_its_figure_implies(cell, key, activity, side):
    size = cell.removeprefix("512-").split("-")[1]
    depth, width = SIZES[size]
    tokens = activity["tokens"] if isinstance(activity, dict) else None
    share = activity["target"] if isinstance(activity, dict) else activity
    implied = implied_share(float(library()[key].printed("gflops")), depth=depth, width=width, side=side, tokens=tokens)
    assert share == pytest.approx(implied, abs=6e-6)


def test_all_dynamic_rows_of_table_8_are_there():
    keys = {key.removeprefix("dydit-8/") for _, key, _, _ in dynamic_cells() if key.startswith("dydit-8/")}
    assert keys == {key for key in TABLE_8 if "-" in key} and len(keys) == 16


@pytest.mark.parametrize("gflops", [0.01, 6.5])
def test_a_figure_outside_the_model_implies_no_share(gflops):
    with pytest.raises(ValueError, match="no share"):
        implied_share(gflops, depth=12, width=384)


# --- counted --------------------------------------------------------------------------------------------------


@cache
def specs(suite: str) -> Mapping[str, CellSpec]:
    return {cell.spec.cell: cell.spec for cell in make_plan(load_suite(suite)).cells}


def record(spec: CellSpec, measurement: str, values: Mapping[str, Quantity], **fields: Any) -> Record:
    provenance = Provenance(
        command="ditbench run x", started="2026-01-01T00:00:00+00:00", seconds=1, seed=0, device="cpu",
        device_name="Some CPU", threads=1, versions={}, git=None, weights_sha256=None,
    )  # fmt: skip
    return Record(
        identity=f"{spec.cell}-{measurement}", suite="x", spec=spec, measurement=measurement,
        values=dict(values), provenance=provenance, **{"status": "ok", **fields},
    )  # fmt: skip


def of(value: float, unit: str = "1", low: float | None = None, high: float | None = None) -> Quantity:
    return Quantity(value=value, unit=unit, low=low, high=high, interval="95 %")


@cache
def counted(suite: str, cell: str) -> Record:
    torch.set_num_threads(1)
    result = measure_flops(specs(suite)[cell])
    return record(specs(suite)[cell], "flops", result.values(), detail=result.detail())


def row_of(spec: CellSpec, *records: Record, **fields: Any) -> Row:
    return Row(spec.cell, spec, spec.measure, {each.measurement: each for each in records}, **fields)


def view_of(*rows: Row) -> RunView:
    return RunView(Path(), "x", "x", "", "", next((row.cell for row in rows if row.is_baseline), None), rows)


def counted_row(suite: str, cell: str) -> Row:
    return row_of(specs(suite)[cell], counted(suite, cell))


COUNTED = [
    *(("dit-cost", name) for name in ("dit-s-2", "dit-s-4", "dit-s-8", "dit-b-4", "ddim-9", "ddim-40", "ddim-16")),
    *(("paper-dydit", name) for name in ("dit-s-2", "dydit-s-0.9", "dydit-s-0.7", "dydit-s-0.3", "dydit-s-half")),
    ("paper-dydit", "dydit-b-0.9"),
    *(("paper-flexidit", name) for name in ("weak-200", "guided-90-50")),
]


@pytest.mark.parametrize(("suite", "cell"), COUNTED, ids=lambda value: str(value))
def test_a_cell_s_count_comes_out_to_the_digits_of_every_figure_that_it_names(suite, cell):
    found = [match for match in matches(view_of(counted_row(suite, cell))) if match.figure.reason is None]
    assert found
    for match in found:
        assert match.reproduced, (match.entry.key, match.value)
        if match.figure.cut:
            assert match.value is not None
            assert at_digits(match.value, match.figure.printed) != match.figure.printed, "the flag is needed"


def changed(row: Row, **values: float) -> Row:
    """The row with other values in its record."""
    old = row.records["flops"]
    new = {**old.values, **{name: of(value) for name, value in values.items()}}
    return replace(row, records={"flops": old.model_copy(update={"values": new})})


def columns(table: Table | None, *keys: str) -> list[tuple[str, ...]]:
    assert table is not None
    found = {column.key: [f"{v.shown} {v.interval}".strip() for v in column.values] for column in table.columns}
    return list(zip(*(found[key] for key in keys), strict=True))


# --- what the report says ---------------------------------------------------------------------------------------


def test_the_page_shows_printed_counted_and_our_own_number():
    view = view_of(counted_row("paper-dydit", "dit-s-2"), counted_row("paper-dydit", "dydit-s-0.7"))
    table = costs_table(view)
    assert columns(table, "label", "printed", "counted", "verdict", "by", "ours") == [
        ("DiT-S", "6.07 G", "6.07 G", "=", "a", "6.07 G"),
        ("DyDiT-S, λ = 0.7", "4.34 G", "4.34 G", "=", "b", "4.37 G"),
    ]
    assert table is not None and "taken from the printed figure" in table.notes[0]
    assert summary_of(view) == (
        "2 of 2 printed costs are reproduced to their digits (for 1 the share of the blocks' work is itself taken from "
        "the printed figure)."
    )


def test_a_wrong_count_is_shown_as_a_difference_and_counted_as_one():
    good = counted_row("paper-dydit", "dit-s-2")
    bad = changed(good, gmacs_step=6.08)
    view = view_of(bad)
    assert columns(costs_table(view), "printed", "counted", "verdict") == [("6.07 G", "6.08 G", "+0.01")]
    assert columns(costs_table(view_of(changed(good, gmacs_step=6.05))), "verdict") == [("\N{MINUS SIGN}0.02",)]
    assert summary_of(view) == (
        "0 of 1 printed costs are reproduced to their digits. 1 does not come out, and no reason is known."
    )
    tags = [value.tag for column in (costs_table(view) or pytest.fail()).columns for value in column.values]
    assert "not reproduced" in tags


def test_a_share_that_routers_learned_is_not_said_to_be_taken_from_the_print():
    imposed = counted_row("paper-dydit", "dydit-s-0.7")
    learned = replace(imposed, spec=imposed.spec.model_copy(update={"config": {}, "weights": "x.pt"}))
    table = costs_table(view_of(changed(learned, gmacs_step=4.5)))
    assert table is not None and columns(table, "verdict") == [("+0.13",)]
    assert "taken from the printed figure" not in " ".join(table.notes) and "routers left out" in table.notes[0]
    assert "taken from the printed figure" not in summary_of(view_of(learned))


def test_a_figure_that_does_not_follow_is_listed_with_its_reason_and_not_passed_over():
    spec = specs("paper-dydit")["512-dit-xl-2"]
    values = {
        "params": of(676_014_368),
        "gmacs_step": of(524.807, "GMAC"),
        "gmacs_image": of(2 * 250 * 524.807, "GMAC"),
    }
    view = view_of(row_of(spec, record(spec, "flops", values, detail={"positions": 1024 * 1152})))
    shown = columns(costs_table(view), "printed", "counted", "verdict")
    assert ("514.80 G", "524.81 G", "+10.01") in shown and ("675 M", "675 M", "=") in shown
    assert "1 of 3 printed costs" in summary_of(view) and "2 do not follow" in summary_of(view)
    listed = {(each.source, label): each.reason for each in unfollowed(view) for label, _ in each.rows}
    assert "misprint" in listed["DyDiT, table 12", "DiT-XL, 250 steps"]
    assert ("DyDiT, table 13", "PixArt-α") in listed, "rows of the same paper that no cell names"
    assert not any(source.startswith("FlexiDiT") for source, _ in listed), "other papers' rows are not this run's"


def test_text_to_image_rows_stand_in_one_line_with_their_reason():
    table = unfollowed_table(view_of(counted_row("paper-flexidit", "weak-200")))
    rows = columns(table, "source", "printed", "reason")
    (line,) = [row for row in rows if row[0] == "FlexiDiT, text to image, PixArt-like"]
    assert "92.9 %" in line[1] and "57.5 %" in line[1] and "cross-attention" in line[2]


def test_what_was_not_counted_says_why():
    spec = specs("paper-dydit")["dit-s-2"]
    failed = record(spec, "flops", {}, status="failed", failure=Failure(kind="error", message="x"))
    old = counted_row("dit-cost", "dit-s-2")
    bare = replace(old, records={"flops": old.records["flops"].model_copy(update={"detail": {}})})
    verdicts = [
        columns(costs_table(view_of(row)), "verdict")[0][0] for row in (row_of(spec), row_of(spec, failed), bare)
    ]
    assert verdicts == ["not run yet", "failed", "the record does not hold the MACs of layer_norm"]
    assert summary_of(view_of(row_of(spec))).endswith("1 is not counted.")
    assert count_of(row_of(spec)) is None


def test_a_run_that_names_nothing_has_no_such_page():
    row = replace(counted_row("dit-cost", "dit-s-2"))
    plain = replace(row, spec=row.spec.model_copy(update={"published": ()}))
    unknown = replace(row, spec=row.spec.model_copy(update={"published": ("gone/row",)}))
    for each in (plain, unknown):
        titles = [section.title for section in compose(view_of(each), {}, []).sections]
        assert "Published beside measured" not in titles
    assert "Published beside measured" in [s.title for s in compose(view_of(row), {}, []).sections]


# --- speed and quality ---------------------------------------------------------------------------------------------


def timed(cell: str, **changes: Any) -> Row:
    spec = specs("paper-dydit")[cell].model_copy(update=changes)
    values = {"image_ms": of(1500.0, "ms", 1400.0, 1600.0), "latency_ms": of(6.0, "ms")}
    return row_of(spec, record(spec, "latency", values, options={"batch": 8}), speedup=of(1.2, "1", 1.1, 1.3))


def test_times_of_two_machines_never_stand_in_one_column():
    base = replace(timed("dit-s-2"), is_baseline=True)
    table = speed_table(view_of(base, timed("dydit-s-0.5")))
    rows = columns(
        table, "printed_speedup", "printed_latency_s_image", "hardware", "measured_speedup", "measured_image", "device"
    )
    assert rows[1] == (
        "1.54", "0.42", "V100 32 GB", "1.20 [1.10, 1.30]", "1.50 [1.40, 1.60]", "Some CPU, float32, batch 8",
    )  # fmt: skip


def test_a_measured_speed_up_stands_there_only_against_the_printed_baseline_and_for_the_printed_loop():
    other = replace(timed("dit-xl-2"), is_baseline=True, speedup=None)
    table = speed_table(view_of(timed("dydit-s-0.5"), other))
    assert table is not None and "measured_speedup" not in {column.key for column in table.columns}
    short = timed("dydit-s-0.5", steps=10)
    table = speed_table(view_of(short, replace(timed("dit-s-2"), is_baseline=True)))
    assert columns(table, "measured_image", "device")[0] == ("", "other steps")
    untimed = speed_table(view_of(counted_row("paper-dydit", "dydit-s-0.7")))
    assert untimed is not None and untimed.notes == ("This run timed nothing.",)


def scored(protocol: str = "adm-v1-0123abcd", samples: int = 50_000, **changes: Any) -> Row:
    spec = specs("paper-dydit")["dit-s-2"].model_copy(update={"weights": "x.pt", "cost_only": False, **changes})
    values = {"frechet": of(21.5, "1", 21.3, 21.7)}
    quality = record(spec, "quality", values, protocol=protocol, options={"samples": samples})
    return row_of(spec, quality)


def test_measured_quality_stands_there_where_the_protocol_is_the_printed_one():
    table = quality_printed_table(view_of(scored()))
    assert columns(table, "printed_fid", "measured_frechet") == [("21.46", "21.5 [21.3, 21.7]")]
    assert table is not None
    assert columns(table, "loop") == [("250 × DDPM",)]
    assert table.notes == ("(a) guidance 1.5, 50,000 samples, ADM evaluator, 256×256.",)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (lambda: scored(protocol="clean-v1-0123abcd"), "other evaluator"),
        (lambda: scored(samples=10_000), "other samples"),
        (lambda: scored(steps=50, sampler="ddim"), "other sampler, steps"),
        (lambda: scored(guidance_scale=4.0), "other guidance"),
        (lambda: scored(config={"input_size": 64}), "other resolution"),
        (lambda: counted_row("paper-dydit", "dit-s-2"), "no weights"),
        (lambda: row_of(specs("paper-dydit")["dit-s-2"].model_copy(update={"cost_only": False})), "not measured"),
    ],
    ids=["evaluator", "samples", "loop", "guidance", "resolution", "cost only", "nothing"],
)
def test_quality_of_another_protocol_is_named_and_not_shown(row, words):
    row = row()
    assert misfit(row, library()["dydit-8/s"]) == words
    keys = {column.key for column in (quality_printed_table(view_of(row)) or pytest.fail()).columns}
    assert "measured_frechet" not in keys


def test_protocols_are_said_in_words():
    assert (Protocol().loop, Protocol().scoring) == ("", "not stated")
    stated = Protocol(steps=250, guidance=1.5, resolution=512)
    assert (stated.loop, stated.scoring) == ("250 × steps", "guidance 1.5, 512×512")


def test_a_match_without_a_convention_is_never_reproduced():
    row = counted_row("dit-cost", "dit-s-2")
    entry = library()["flexidit-video/shown"]
    assert not Match(row, entry, entry.figures[0], None, "not counted").reproduced


def test_paper_suites_are_shipped_and_cost_only():
    assert set(PAPER_SUITES) <= set(shipped_suites()) and "flexidit-cost" not in shipped_suites()
    assert all(spec.cost_only for suite in PAPER_SUITES for spec in specs(suite).values())


@pytest.mark.parametrize(
    ("side", "steps", "printed", "without"), [(32, 250, "28.61", "28.60"), (64, 50, "22.85", "22.84")]
)
def test_without_layer_norm_the_operation_counter_would_miss_the_printed_digits(side, steps, printed, without):
    count = by_hand("xl", side=side, steps=steps)
    bare = count.without_norm(1.0) - count.operator("attention")
    assert at_digits(CONVENTIONS["opcounter"].counted(count), printed) == printed
    assert at_digits(bare * steps / 1e3, printed) == without

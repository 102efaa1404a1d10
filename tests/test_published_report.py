"""Published beside measured: what the report says of printed and of measured figures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from published_rows import PAPER_SUITES, counted_row, record, row_of, specs, view_of

from ditbench.harness.published.load import library
from ditbench.harness.published.schema import Protocol
from ditbench.harness.store.records import Failure, Quantity
from ditbench.harness.suite.load import shipped_suites
from ditbench.report.content import compose
from ditbench.report.published import count_of, summary_of, unfollowed
from ditbench.report.row import Row
from ditbench.report.tables.published import costs_table, misfit, quality_printed_table, speed_table, unfollowed_table
from ditbench.report.tables.table import Table


def of(value: float, unit: str = "1", low: float | None = None, high: float | None = None) -> Quantity:
    return Quantity(value=value, unit=unit, low=low, high=high, interval="95 %")


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
    learned = replace(imposed, spec=imposed.spec.model_copy(update={"config": {}, "imposed": "", "weights": "x.pt"}))
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


def test_paper_suites_are_shipped_and_cost_only():
    assert set(PAPER_SUITES) <= set(shipped_suites()) and "flexidit-cost" not in shipped_suites()
    assert all(spec.cost_only for suite in PAPER_SUITES for spec in specs(suite).values())

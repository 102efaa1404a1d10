"""Published beside measured: the conventions that lead to the printed figures, by hand and counted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from published_rows import DIT, TABLE_8, counted_row, view_of

from ditbench.harness.published.conventions import CONVENTIONS, ROUTERS, Count, NotHeldError, at_digits, implied_share
from ditbench.harness.published.load import library
from ditbench.harness.suite.expand import expand
from ditbench.harness.suite.load import load_suite
from ditbench.report.published import Match, matches

SIZES = {"s": (12, 384), "b": (12, 768), "l": (24, 1024), "xl": (28, 1152)}  # depth, width


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


# --- speed and quality ---------------------------------------------------------------------------------------------


def test_a_match_without_a_convention_is_never_reproduced():
    row = counted_row("dit-cost", "dit-s-2")
    entry = library()["flexidit-video/shown"]
    assert not Match(row, entry, entry.figures[0], None, "not counted").reproduced


@pytest.mark.parametrize(
    ("side", "steps", "printed", "without"), [(32, 250, "28.61", "28.60"), (64, 50, "22.85", "22.84")]
)
def test_without_layer_norm_the_operation_counter_would_miss_the_printed_digits(side, steps, printed, without):
    count = by_hand("xl", side=side, steps=steps)
    bare = count.without_norm(1.0) - count.operator("attention")
    assert at_digits(CONVENTIONS["opcounter"].counted(count), printed) == printed
    assert at_digits(bare * steps / 1e3, printed) == without

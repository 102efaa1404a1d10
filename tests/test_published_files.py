"""Published beside measured: the files of printed figures keep every digit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from published_rows import DIT, PAPER_SUITES, TABLE_8
from pydantic import ValidationError

from ditbench.cli.listing import show_list
from ditbench.harness.errors import InputError
from ditbench.harness.published.load import collect, fault_of, library
from ditbench.harness.published.schema import COST, QUANTITIES, Paper, resolve
from ditbench.harness.suite.expand import expand
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import make_plan

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

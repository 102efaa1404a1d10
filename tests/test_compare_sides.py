"""Comparing two runs: cells that one side lacks, the sides that are named, and what is shown."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from compare_runs import ENVIRONMENT, PROTOCOL, QUICK, blocks, made_run, outcome, write

from ditbench.cli.compare import show_compare
from ditbench.harness.compare.runs import open_sides
from ditbench.harness.errors import InputError


@pytest.fixture
def runs(tmp_path: Path) -> tuple[str, str]:
    """Two runs that differ by noise alone."""
    return write(tmp_path / "a", made_run(1)), write(tmp_path / "b", made_run(2))


# --- sides ---


def test_cells_of_one_side_only_are_listed_and_a_gate_does_not_overlook_what_went_missing(tmp_path, capsys) -> None:
    one, two = made_run(1), made_run(2)
    a = write(tmp_path / "a", {name: one[name] for name in ("base", "fast", "slow")})
    b = write(tmp_path / "b", {name: two[name] for name in ("base", "fast", "guided")})
    assert show_compare(a, b, [], False) == 0
    text = capsys.readouterr().out
    assert "only in A: slow\n" in text and "only in B: guided\n" in text
    assert show_compare(a, b, ["frechet>+50%"], False) == 1
    assert "cannot be judged: slow: no such cell in B\n" in capsys.readouterr().out
    assert outcome((b, b), "frechet>+50%")[0] == 0


@pytest.mark.parametrize("both", [False, True])
def test_a_gate_does_not_pass_over_a_measurement_that_failed(tmp_path, both: bool) -> None:
    one, two = made_run(1), made_run(2)
    two["fast"] = replace(two["fast"], failed=frozenset({"quality"}))
    if both:
        one["fast"] = replace(one["fast"], failed=frozenset({"quality"}))
    runs = write(tmp_path / "a", one), write(tmp_path / "b", two)
    code, shown = outcome(runs, "frechet>+50%")
    (lost,) = [cell for cell in shown["thresholds"][0]["cells"] if cell["state"] != "held"]
    assert (code, lost["cell"], lost["state"]) == (1, "fast", "not judged")
    assert "failed in B: stopped after 60 s" in lost["reason"]


def test_cost_only_cells_have_no_quality_to_compare(tmp_path) -> None:
    one, two = made_run(1), made_run(2)
    one["fast"], two["fast"] = (replace(run["fast"], figures={}) for run in (one, two))
    code, shown = outcome((write(tmp_path / "a", one), write(tmp_path / "b", two)), "frechet>+50%")
    assert code == 0
    assert ("fast", "frechet") not in {(c["cell_a"], c["metric"]) for c in shown["comparisons"]}


def test_a_cell_meets_another_cell_or_its_namesake(runs) -> None:
    a, b = runs
    assert open_sides(f"{a}:fast", f"{a}:slow").pairs == (("fast", "slow"),)
    assert open_sides(f"{a}:fast", b).pairs == open_sides(a, f"{b}:fast").pairs == (("fast", "fast"),)


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ("{a}:fsat", "{b}", "did you mean 'fast'"),
        ("{a}/nowhere", "{b}", "is not a run's folder"),
        ("{a}", str(QUICK), "no cell in common"),
    ],
)
def test_sides_that_are_not_there_are_one_line(runs, a: str, b: str, words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        open_sides(*(text.format(a=runs[0], b=runs[1]) for text in (a, b)))


# --- what is shown ---


def test_json_holds_every_number_and_where_it_comes_from(runs) -> None:
    _, shown = outcome(runs, "frechet>+5%")
    assert set(shown) == {"a", "b", "only_in_a", "only_in_b", "verdicts", "comparisons", "thresholds", "exit_code"}
    assert shown["a"]["command"] == "ditbench run made" and shown["b"]["git"] == ENVIRONMENT["git"]
    assert len(shown["comparisons"]) == 4 * 7 - 1, "the baseline has no speed-up"
    for each in shown["comparisons"]:
        assert set(each) == {
            "cell_a", "cell_b", "metric", "measurement", "unit", "better", "protocol", "a", "b",
            "change", "value", "low", "high", "p", "p_holm", "method", "verdict", "reason",
        }  # fmt: skip
        for side in ("a", "b"):
            record = json.loads(
                (Path(shown[side]["folder"]) / "records" / f"{each[side]['identity']}.json").read_text()
            )
            assert each[side]["value"] == record["values"][each["metric"]]["value"]
            assert each[side]["command"] == record["provenance"]["command"]
    frechet = next(each for each in shown["comparisons"] if each["metric"] == "frechet")
    assert frechet["protocol"] == PROTOCOL and frechet["p_holm"] >= frechet["p"]
    assert frechet["value"] == frechet["b"]["value"] - frechet["a"]["value"]
    assert shown["thresholds"][0]["cells"][0].keys() == {"cell", "state", "change", "reason"}


def test_the_table_cuts_no_name_and_keeps_to_its_width(tmp_path, capsys) -> None:
    long = "a-cell-whose-name-says-all-that-is-special-about-it-and-more-ddpm-50-g1.5"
    one, two = made_run(1), made_run(2)
    one[long], two[long] = one.pop("slow"), replace(two.pop("slow"), figures=blocks(5, mean=3.5))
    runs = write(tmp_path / "a", one), write(tmp_path / "b", two)
    assert show_compare(*runs, ["frechet>+5%"], False) == 1
    text = capsys.readouterr().out
    assert max(len(line) for line in text.splitlines() if str(tmp_path) not in line) <= 100
    assert f"\n{long}\n" in text
    assert f"\nfrechet: worse in 1 of 4 cells ({long}), no difference in 3\n" in text.replace("\n    ", " ")
    assert re.search(
        r"^  frechet +3\.0\d+ +3\.5\d+ +\+0\.[45]\d+ +\+0\.[45]\d+ to \+0\.[45]\d+ +worse$", text, re.MULTILINE
    )
    assert "  identical: peak_mib 30.00, gmacs_image 0.2500, params 1060424\n" in text
    assert re.search(rf"crossed: {re.escape(long)} \(\+1\d\.\d%\)", text.replace("\n    ", " "))


def test_comparing_never_imports_torch(runs) -> None:
    code = (
        "import sys; from ditbench.cli.compare import show_compare\n"
        f"show_compare({runs[0]!r}, {runs[1]!r}, ['frechet>+5%'], True)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0

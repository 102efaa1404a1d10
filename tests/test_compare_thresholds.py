"""Comparing two runs: which thresholds are crossed, and which cannot be read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from compare_runs import BLOCKS, Made, blocks, changed, made_run, outcome, write

from ditbench.cli.compare import show_compare
from ditbench.harness.compare.thresholds import parse_threshold
from ditbench.harness.errors import InputError


@pytest.fixture
def runs(tmp_path: Path) -> tuple[str, str]:
    """Two runs that differ by noise alone."""
    return write(tmp_path / "a", made_run(1)), write(tmp_path / "b", made_run(2))


SHIFTED = {"figures": blocks(2, mean=3.3), "step_ms": 12.0, "speedup": 1.5, "peak": 33.0}


@pytest.mark.parametrize(
    ("threshold", "state"),
    [
        ("frechet>+5%", "crossed"),  # 3.0 -> 3.3
        ("frechet > 0.2", "crossed"),
        ("frechet>+20%", "held"),
        ("frechet>0.5", "held"),
        ("frechet<-5%", "held"),
        ("precision<-0.0001", "within noise"),
        ("latency_ms>+50%", "crossed"),  # 6 -> 12
        ("latency_ms>+5.5", "crossed"),
        ("latency_ms>+6.5", "held"),
        ("speedup<-10%", "crossed"),  # 2 -> 1.5
        ("speedup<-0.4", "crossed"),
        ("speedup<-40%", "held"),
        ("peak_mib>+5%", "crossed"),  # 30 -> 33, exact
        ("peak_mib>+15%", "held"),
        ("params>0", "held"),
    ],
)
def test_a_threshold_is_crossed_where_the_change_is_past_it_and_real(tmp_path, threshold: str, state: str) -> None:
    figures = SHIFTED["figures"] | {"precision": tuple(p - 0.0004 for p in blocks(11)["precision"])}
    noisy = {**figures, "precision": tuple(np.array(figures["precision"]) + np.linspace(-0.01, 0.01, BLOCKS))}
    code, shown = outcome(changed(tmp_path, "fast", **{**SHIFTED, "figures": noisy}), threshold)
    states = {cell["cell"]: cell["state"] for cell in shown["thresholds"][0]["cells"]}
    assert states["fast"] == state
    assert code == int(state == "crossed") == int(shown["thresholds"][0]["failed"])


def test_one_crossed_threshold_of_several_fails(tmp_path) -> None:
    runs = changed(tmp_path, "fast", **SHIFTED)
    assert outcome(runs, "frechet>+20%", "params>0")[0] == 0
    assert outcome(runs, "frechet>+20%", "peak_mib>0", "params>0")[0] == 1


def test_a_relative_threshold_is_a_share_of_the_size_of_a_and_not_judged_where_that_is_zero(tmp_path) -> None:
    for place, (before, state) in enumerate(((-0.004, "crossed"), (0.0, "not judged"))):
        a, b = (
            write(
                tmp_path / f"{name}{place}",
                {"base": Made({"kid": tuple(mean + np.linspace(-1, 1, 10) * 1e-5 * (k + 1))})},
            )
            for k, (name, mean) in enumerate((("a", before), ("b", before + 0.001)))
        )
        if state == "not judged":
            path = next(p for p in (Path(a) / "records").iterdir() if '"kid"' in p.read_text())
            record = json.loads(path.read_text())
            record["values"]["kid"]["value"] = 0.0
            path.write_text(json.dumps(record))
        (cell,) = outcome((a, b), "kid>+20%")[1]["thresholds"][0]["cells"]
        assert cell["state"] == state


def test_a_threshold_on_a_figure_that_no_cell_has_fails(runs) -> None:
    code, shown = outcome(runs, "lpips>+5%")
    assert (code, shown["thresholds"][0]["cells"][0]["reason"]) == (1, "none has lpips")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("frechte>+5%", "unknown figure 'frechte' (did you mean 'frechet'?)"),
        ("frechet=5%", "not a threshold; write 'frechet>+5%'"),
        ("frechet>", "not a threshold"),
        ("frechet>+5%%", "not a threshold"),
        ("frechet>nan", "not a threshold"),
        (">5", "not a threshold"),
        ("frechet>-5%", "'>' goes with a rise, as in frechet>+5%"),
        ("precision<0.02", "'<' goes with a fall, as in precision<-5%"),
    ],
)
def test_a_bad_threshold_is_one_line(runs, text: str, words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        show_compare(*runs, [text], False)


def test_a_threshold_reads_as_written() -> None:
    read = parse_threshold(" latency_ms > +2.5% ")
    assert (read.metric, read.rise, read.size, read.relative) == ("latency_ms", True, 0.025, True)
    assert parse_threshold("kid<-1e-3").size == -0.001


def test_figures_are_chosen_by_a_glob_and_only_they_share_the_error(runs) -> None:
    _, shown = outcome(runs, metrics="frech*")
    assert {c["metric"] for c in shown["comparisons"]} == {"frechet"}
    assert shown["verdicts"]["comparisons"] == 4
    for metrics, fail_if, words in (
        ("frech", [], "did you mean 'frechet'"),
        ("kid", ["frechet>1"], "leaves frechet out"),
    ):
        with pytest.raises(InputError, match=words):
            show_compare(*runs, fail_if, False, metrics)

"""Comparing two runs: what is compared with what, what is paired and what is refused."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from compare_runs import BLOCKS, PROTOCOL, QUICK, Made, blocks, changed, made_run, outcome, width, write
from scipy import stats

from ditbench.cli.compare import show_compare
from ditbench.harness.compare.comparison import Compared, compare
from ditbench.harness.compare.runs import open_sides
from ditbench.harness.errors import InputError
from ditbench.harness.stats.compare import Spread, Time, ratio_of_times


@pytest.fixture
def runs(tmp_path: Path) -> tuple[str, str]:
    """Two runs that differ by noise alone."""
    return write(tmp_path / "a", made_run(1)), write(tmp_path / "b", made_run(2))


def found(a: str, b: str, metric: str, cell: str = "fast") -> Compared:
    matching = [c for c in compare(open_sides(a, b)).compared if c.metric.name == metric and c.cell_a == cell]
    assert len(matching) == 1
    return matching[0]


def test_runs_that_differ_by_noise_show_no_difference_and_planted_ones_are_found(tmp_path, runs) -> None:
    assert {c.verdict for c in compare(open_sides(*runs)).compared} == {"no difference", "identical"}
    planted = changed(tmp_path / "p", "fast", figures=blocks(2, mean=3.4), step_ms=12.0, speedup=1.2, peak=29.0)
    verdicts = {(c.cell, c.metric.name): c.verdict for c in compare(open_sides(*planted)).compared}
    assert {key: verdict for key, verdict in verdicts.items() if verdict in ("better", "worse")} == {
        ("fast", "frechet"): "worse",
        ("fast", "latency_ms"): "worse",
        ("fast", "speedup"): "worse",
        ("fast", "peak_mib"): "better",
    }


def test_blocks_are_paired_only_where_both_sides_have_the_same_noise(tmp_path, runs) -> None:
    together = found(*runs, "frechet").change
    apart = found(*changed(tmp_path / "s", "fast", seed=7), "frechet").change
    assert together is not None and apart is not None
    assert together.method.startswith("95% paired by 10 blocks") and "Welch" in apart.method
    assert together.value == apart.value and width(together) < 0.5 * width(apart)


def test_seeds_are_paired_from_three_on(tmp_path) -> None:
    def seeded(folder: Path, seed: int, seeds: int) -> str:
        figures = {name: each[:seeds] for name, each in blocks(seed).items()}
        return write(folder, {"base": Made(figures, by_seed=True)})

    three = found(seeded(tmp_path / "a", 1, 3), seeded(tmp_path / "b", 2, 3), "frechet", "base").change
    assert three is not None and three.method == "95% paired by 3 seeds, Student t"
    uneven = found(seeded(tmp_path / "c", 1, 3), seeded(tmp_path / "d", 2, 4), "frechet", "base").change
    assert uneven is not None and uneven.method == "95% 3 and 4 independent seeds, Welch t"
    two = found(seeded(tmp_path / "e", 1, 2), seeded(tmp_path / "f", 2, 2), "frechet", "base").change
    assert two is not None and "no leave-one-outs in A and B" in two.method


def test_blocks_of_psnr_are_not_paired_where_equal_images_were_left_out_of_them(tmp_path) -> None:
    psnr = {
        name: {"psnr": tuple(20 + np.random.default_rng(seed).normal(size=BLOCKS))} for seed, name in enumerate("ab")
    }
    made = {name: Made(psnr[name], detail={"identical": int(name == "b")}) for name in "ab"}
    a, b = (write(tmp_path / name, {"base": made[name]}) for name in "ab")
    change = found(a, b, "psnr", "base").change
    assert change is not None and "Welch" in change.method


def test_a_run_is_identical_to_itself_and_to_its_copy(tmp_path) -> None:
    copy = shutil.copytree(QUICK, tmp_path / "copy", ignore=shutil.ignore_patterns("samples", "report"))
    for other in (QUICK, copy):
        code, shown = outcome((str(QUICK), str(other)), "frechet>+0%", "latency_ms>+0%", "params>0")
        assert code == 0
        assert {c["verdict"] for c in shown["comparisons"]} == {"identical"}
        assert {c["value"] for c in shown["comparisons"]} == {0.0, 1.0}
        assert shown["verdicts"]["comparisons"] == 0


def test_records_without_leave_one_outs_are_compared_by_their_intervals(tmp_path) -> None:
    a, b = (
        shutil.copytree(QUICK, tmp_path / name, ignore=shutil.ignore_patterns("samples", "report")) for name in "ab"
    )
    records = {p.name: json.loads(p.read_text()) for p in (a / "records").iterdir()}
    name, record = next(
        (name, record)
        for name, record in records.items()
        if record["measurement"] == "quality" and record["spec"]["cell"] == "ddpm-50"
    )
    del record["detail"]["leave_one_out"]
    (a / "records" / name).write_text(json.dumps(record))
    frechet = record["values"]["frechet"]
    reach = frechet["high"] - frechet["value"]
    for end in ("value", "low", "high"):
        frechet[end] += 3 * reach
    (b / "records" / name).write_text(json.dumps(record))
    compared = found(str(a), str(b), "frechet", "ddpm-50")
    assert compared.change is not None
    assert compared.change.method == "intervals of A and B combined as independent; no leave-one-outs in A and B"
    assert width(compared.change) == pytest.approx(2 * math.sqrt(2) * reach)
    # seven figures of this record are compared by intervals; the equal ones say nothing alone
    assert compared.verdict == "worse"
    assert found(str(a), str(b), "recall", "ddpm-50").verdict == "no difference"
    assert found(str(a), str(b), "recall", "ddpm-25").verdict == "identical"


def test_figures_of_two_protocols_are_refused_and_the_rest_can_still_be_compared(tmp_path, runs) -> None:
    other = write(tmp_path / "c", made_run(2), protocol="digits-v3-99999999@1000")
    with pytest.raises(InputError) as refused:
        show_compare(runs[0], other, [], False)
    assert str(refused.value).startswith(
        f"cannot be compared: A's base has quality by {PROTOCOL}, B's base by digits-v3-99999999@1000;"
    )
    assert show_compare(runs[0], other, [], False, "latency_ms") == 0


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("torch 2.13.0+cpu in A, 2.12.1+cpu in B", {"environment": {"versions": {"torch": "2.12.1+cpu"}}}),
        ("device name Some CPU in A, Other CPU in B", {"environment": {"device_name": "Other CPU"}}),
        ("physical cores 2 in A, 8 in B", {"environment": {"physical_cores": 8}}),
        ("threads 2 in A, 4 in B", {"threads": 4}),
    ],
)
def test_times_of_other_hardware_or_software_are_not_compared_and_it_is_said(tmp_path, capsys, words, changes) -> None:
    a, b = write(tmp_path / "a", made_run(1)), write(tmp_path / "b", made_run(1), **changes)
    assert show_compare(a, b, ["speedup<-50%"], False) == 1, "a gate that cannot judge must not pass"
    text = capsys.readouterr().out
    assert f"not compared: latency_ms, speedup: {words}" in text.replace("\n    ", " ")
    assert not re.search(r"^  latency_ms", text, re.MULTILINE), "no two times of two machines stand side by side"
    assert "frechet: identical in 4 of 4 cells" in text


def test_times_and_memory_of_unequal_batches_are_not_compared(tmp_path) -> None:
    runs = changed(tmp_path, "fast", batch=16)
    for metric in ("latency_ms", "peak_mib"):
        assert found(*runs, metric).reason == "batch 8 in A, 16 in B"


def test_a_speed_up_against_another_baseline_is_not_compared(tmp_path, runs) -> None:
    reseeded = {name: replace(cell, seed=1) for name, cell in made_run(2).items()}
    assert found(runs[0], write(tmp_path / "s", reseeded), "speedup").verdict == "no difference"
    other = write(tmp_path / "c", made_run(2), baseline_steps=100)
    assert found(runs[0], other, "speedup").reason == "the baselines differ in steps"
    assert found(runs[0], other, "latency_ms").change is not None


def test_times_have_no_interval_below_three_processes(tmp_path) -> None:
    few = {name: made_run(1)[name] for name in ("base", "fast")}
    a, b = write(tmp_path / "a", few), write(tmp_path / "b", few | {"fast": replace(few["fast"], step_ms=7.0)})
    compared = found(a, b, "latency_ms")
    assert compared.change is not None and compared.change.low is None
    assert (compared.verdict, compared.change.value) == ("cannot tell", pytest.approx(7.0 / few["fast"].step_ms))
    assert "fewer than 3 processes" in compared.reason
    assert outcome((a, b), "latency_ms>+3%")[0] == 1, "past the threshold, and nobody knows whether it is noise"
    assert outcome((a, b), "latency_ms>+90%")[0] == 0


def test_the_baseline_s_times_of_all_processes_and_equal_batches_make_the_spread(tmp_path) -> None:
    made = made_run(1)
    times = [cell.baseline_ms for cell in made.values()]
    run = open_sides(*[write(tmp_path / "a", made)] * 2).a
    assert run.spread("step") == Spread(pytest.approx(np.std(np.log(times), ddof=1)), 3)
    assert run.spread("sample") is None
    made["slow"] = replace(made["slow"], batch=16, baseline_ms=50.0)
    del times[2]
    run = open_sides(*[write(tmp_path / "b", made)] * 2).a
    assert run.spread("step") == Spread(pytest.approx(np.std(np.log(times), ddof=1)), 2)


def test_two_cells_of_one_run_have_one_spread_with_its_degrees_of_freedom(runs) -> None:
    spread = open_sides(*runs).a.spread("step")
    assert spread is not None
    fast, slow = (Time(ms, ms * 0.995, ms * 1.005, spread) for ms in (6.01, 7.01))
    change = found(f"{runs[0]}:fast", f"{runs[0]}/../a:slow", "latency_ms").change
    expected = ratio_of_times(fast, slow, one_run=True)
    assert change is not None and (change.low, change.high) == pytest.approx((expected.low, expected.high))


def test_what_one_interval_tells_apart_a_family_of_lines_may_not(tmp_path) -> None:
    noise = np.random.default_rng(9).standard_normal(BLOCKS)
    scaled = (noise - noise.mean()) / noise.std(ddof=1)
    before = {"frechet": tuple(3.0 + 0.01 * np.arange(BLOCKS)), "precision": blocks(1)["precision"]}
    after = before | {"frechet": tuple(np.array(before["frechet"]) + 0.01 * (scaled + 2.6 / math.sqrt(BLOCKS)))}
    one, two = made_run(1), made_run(2)
    one["fast"], two["fast"] = replace(one["fast"], figures=before), replace(two["fast"], figures=after)
    runs = write(tmp_path / "a", one), write(tmp_path / "b", two)
    compared = found(*runs, "frechet")
    assert compared.change is not None and compared.change.p == pytest.approx(2 * stats.t.sf(2.6, 9))
    assert compared.apart and compared.verdict == "no difference"
    assert outcome(runs, "frechet>0")[0] == 1, "a threshold asks for the ordinary interval"

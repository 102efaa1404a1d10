"""Comparing two runs: what the intervals cover, what is refused, what a threshold does, and what is shown."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ditbench.cli.compare import show_compare
from ditbench.harness.compare.comparison import Compared, compare
from ditbench.harness.compare.runs import open_sides
from ditbench.harness.compare.thresholds import parse_threshold
from ditbench.harness.errors import InputError
from ditbench.harness.quality.frechet import frechet_from_features
from ditbench.harness.stats.compare import (
    Change,
    Draws,
    Spread,
    Time,
    difference_of_intervals,
    holm,
    paired,
    pseudo_values,
    ratio_of_intervals,
    ratio_of_times,
    spread_of,
    unpaired,
)
from ditbench.harness.stats.intervals import Estimate, jackknife_interval, proportion_interval
from ditbench.harness.store.records import CellSpec, Failure, Provenance, Quantity, Record
from ditbench.harness.store.store import RunStore, write_json

ROOT = Path(__file__).parent.parent
QUICK = ROOT / "results" / "quick-cpu"
BLOCKS = 10
NULLS = 300
Rng = np.random.Generator


def most(rate: float, n: int) -> int:
    """More than so many of n happen by chance once in a thousand."""
    return int(stats.binom.ppf(0.999, n, rate))


def width(change: Change) -> float:
    assert change.low is not None and change.high is not None
    return change.high - change.low


def covers(change: Change, truth: float) -> bool:
    assert change.low is not None and change.high is not None
    return change.low <= truth <= change.high


def twins(rng: Rng, alike: float, n: int = BLOCKS) -> tuple[Draws, Draws]:
    """Two sides of n draws with the same mean; ``alike``: their correlation."""
    shared, own = rng.standard_normal(n), rng.standard_normal((2, n))
    a, b = math.sqrt(alike) * shared + math.sqrt(1 - alike) * own
    return Draws(float(a.mean()), tuple(a)), Draws(float(b.mean()), tuple(b))


# --- statistics ---


def test_paired_and_unpaired_are_the_t_tests_of_scipy() -> None:
    for seed in range(20):
        a, b = twins(np.random.default_rng(seed), 0.5)
        for ours, theirs in (
            (paired(a, b, "blocks"), stats.ttest_rel(b.draws, a.draws)),
            (unpaired(a, b, "blocks"), stats.ttest_ind(b.draws, a.draws, equal_var=False)),
        ):
            interval = theirs.confidence_interval()
            assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)
            assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_pseudo_values_of_a_mean_are_its_blocks() -> None:
    blocks = np.random.default_rng(0).standard_normal(BLOCKS)
    made = pseudo_values(float(blocks.mean()), list((blocks.sum() - blocks) / (BLOCKS - 1)))
    assert made.draws == pytest.approx(tuple(blocks))


def leave_one_out(features: np.ndarray, reference: np.ndarray) -> Draws:
    parts = np.array_split(np.arange(len(features)), BLOCKS)
    without = [frechet_from_features(np.delete(features, part, axis=0), reference) for part in parts]
    return pseudo_values(frechet_from_features(features, reference), without)


def test_the_paired_interval_of_a_frechet_distance_covers_zero_as_often_as_it_says_and_pairing_narrows_it() -> None:
    rng = np.random.default_rng(1)
    reference = rng.standard_normal((2000, 4))
    missed, narrower, tries = 0, [], 120
    for _ in range(tries):
        shared = rng.standard_normal((300, 4))
        sides = [0.9 * shared + math.sqrt(1 - 0.81) * rng.standard_normal((300, 4)) + 0.3 for _ in range(2)]
        a, b = (leave_one_out(side, reference) for side in sides)
        change = paired(a, b, "blocks")
        missed += not covers(change, 0.0)
        narrower.append(width(change) / width(unpaired(a, b, "blocks")))
    assert missed <= most(0.05, tries)
    assert np.median(narrower) < 0.75


def test_a_whole_family_of_null_comparisons_is_rarely_called_different_and_hardly_ever_without_holm_called_equal() -> (
    None
):
    rng, family = np.random.default_rng(2), 60
    wrong, wrong_alone = 0, 0
    for _ in range(NULLS):
        p_values = [change.p or 1.0 for change in (paired(*twins(rng, 0.7), "blocks") for _ in range(family))]
        wrong += min(holm(p_values)) <= 0.05
        wrong_alone += min(p_values) <= 0.05
    assert wrong <= most(0.05, NULLS)
    assert wrong_alone > 0.8 * NULLS


def test_holm_gives_the_textbook_values_in_the_order_asked() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([]) == ()
    assert holm([0.9, 0.8]) == (1.0, 1.0)


def test_equal_draws_are_identical_and_a_shift_without_spread_has_no_interval() -> None:
    a = Draws(0.5, (0.4, 0.5, 0.6))
    assert paired(a, a, "blocks") == Change(0.0, 0.0, 0.0, None, "equal in all 3 blocks", identical=True)
    rounded = Draws(0.5 * (1 + 1e-12), tuple(each * (1 + 1e-12) for each in a.draws))
    assert paired(a, rounded, "blocks").identical, "the last digits of a sum are no difference"
    shifted = paired(a, Draws(0.75, (0.65, 0.75, 0.85)), "seeds")
    assert not shifted.identical
    assert shifted.value == 0.25
    assert paired(Draws(1.0, (1.0, 1.0)), Draws(2.0, (2.0, 2.0)), "seeds").low is None


def test_the_difference_of_two_wilson_intervals_is_newcombes() -> None:
    # Newcombe 1998, Statistics in Medicine 17:873, table II, method 10: 56/70 - 48/80.
    change = difference_of_intervals(proportion_interval(48, 80), proportion_interval(56, 70), math.inf)
    assert (change.value, change.low, change.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_p_and_interval_agree_about_no_difference() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        low, high = rng.uniform(0.01, 0.1, (2, 2))
        values = rng.uniform(0.9, 1.1, 2)
        a, b = (Estimate(v, v - lo, v + hi, "") for v, lo, hi in zip(values, low, high, strict=True))
        for change, none in ((difference_of_intervals(a, b, 9), 0.0), (ratio_of_intervals(a, b, 4), 1.0)):
            assert change.p is not None
            assert (change.p > 0.05) == covers(change, none)


def test_the_ratio_of_times_covers_one_though_processes_differ_more_than_their_own_intervals_say() -> None:
    rng, between, inside = np.random.default_rng(4), 0.08, 0.005
    missed, missed_inside = 0, 0
    for _ in range(NULLS):
        times = []
        for _ in range(2):
            spread = spread_of([np.exp(rng.normal(0, between, 8))])
            value = 5.0 * math.exp(rng.normal(0, math.hypot(between, inside)))
            assert spread is not None
            times.append(Time(value, value * math.exp(-1.96 * inside), value * math.exp(1.96 * inside), spread))
        a, b = times
        missed += not covers(ratio_of_times(a, b), 1.0)
        missed_inside += not covers(ratio_of_intervals(*(Estimate(t.value, t.low, t.high, "") for t in times), 99), 1.0)
    assert missed <= most(0.05, NULLS)
    assert missed_inside > 0.5 * NULLS


def test_one_spread_that_both_sides_share_counts_once() -> None:
    spread = Spread(0.1, 4)
    a, b = Time(1.0, None, None, spread), Time(1.3, None, None, spread)
    reach = stats.t.ppf(0.975, 4) * 0.1 * math.sqrt(2)
    assert width_of_log(ratio_of_times(a, b, one_run=True)) == pytest.approx(2 * reach)
    assert width_of_log(ratio_of_times(a, b)) == pytest.approx(
        2 * reach * stats.t.ppf(0.975, 8) / stats.t.ppf(0.975, 4)
    )


def width_of_log(change: Change) -> float:
    assert change.low is not None and change.high is not None
    return math.log(change.high / change.low)


def test_a_spread_needs_three_processes_and_pools_groups_of_other_levels() -> None:
    assert spread_of([[1.0, 1.1], [5.0]]) is None
    pooled = spread_of([[1.0, 1.1, 0.9], [10.0, 11.0, 9.0]])
    single = spread_of([[1.0, 1.1, 0.9]])
    assert pooled is not None and single is not None
    assert (pooled.sd, pooled.freedom, single.freedom) == (pytest.approx(single.sd), 4, 2)


# --- runs made by hand ---

ENVIRONMENT: dict[str, Any] = {
    "device": "cpu",
    "device_name": "Some CPU",
    "cpu": "Some CPU",
    "machine": "x86_64",
    "physical_cores": 2,
    "python": "3.11.2",
    "versions": {"torch": "2.13.0+cpu"},
    "gpu": None,
    "git": "0123456789abcdef+dirty",
}
PROTOCOL = "digits-v2-0a1b2c3d@1000"
NAMES = ("base", "fast", "slow", "guided")


@dataclass(frozen=True)
class Made:
    """A made-up cell. figures: name -> pseudo-values of its blocks; baseline_ms: of the baseline in its process."""

    figures: dict[str, tuple[float, ...]] = field(default_factory=dict)
    step_ms: float = 5.0
    baseline_ms: float = 5.0
    speedup: float = 2.0
    peak: float = 30.0
    seed: int = 0
    batch: int = 8
    by_seed: bool = False
    failed: frozenset[str] = frozenset()
    detail: dict[str, Any] = field(default_factory=dict)


def blocks(seed: int, *, mean: float = 3.0, noise: float = 0.1, own: float = 0.02) -> dict[str, tuple[float, ...]]:
    """frechet and precision; what blocks have in common comes from the noise, which all sides share."""
    shared = np.random.default_rng(0).normal(0, noise, (2, BLOCKS))
    drawn = shared + np.random.default_rng(seed).normal(0, own, (2, BLOCKS))
    return {"frechet": tuple(mean + drawn[0]), "precision": tuple(0.8 + 0.1 * drawn[1])}


def made_run(seed: int) -> dict[str, Made]:
    """Four cells whose processes timed the baseline within 2 % of each other."""
    return {
        name: Made(blocks(10 * seed + place), step_ms=5.0 + place + 0.01 * seed, baseline_ms=5.0 + 0.05 * place)
        for place, name in enumerate(NAMES)
    }


def write(
    folder: Path,
    cells: dict[str, Made],
    *,
    protocol: str = PROTOCOL,
    environment: dict[str, Any] | None = None,
    threads: int = 2,
    baseline_steps: int = 50,
) -> str:
    store, found = RunStore(folder), {**ENVIRONMENT, **(environment or {})}
    planned = []
    for name, cell in cells.items():
        steps = baseline_steps if name == "base" else 25
        spec = CellSpec(cell=name, method="dit-digits", sampler="ddpm", steps=steps, dataset="digits", seed=cell.seed)
        identities = {m: hashlib.sha256(f"{name}/{m}".encode()).hexdigest() for m in measurements(name, cell)}
        planned.append({"name": name, "spec": spec.model_dump(mode="json"), "measurements": identities})
        for measurement, (values, detail) in measurements(name, cell).items():
            failed = measurement in cell.failed
            store.commit(
                Record(
                    identity=identities[measurement],
                    suite="made",
                    spec=spec,
                    measurement=measurement,
                    status="failed" if failed else "ok",
                    values={} if failed else values,
                    detail={} if failed else {**detail, **cell.detail},
                    protocol=protocol if measurement == "quality" and not failed else None,
                    failure=Failure(kind="timeout", message="stopped after 60 s") if failed else None,
                    provenance=Provenance(
                        command=f"ditbench run made --only {name}",
                        started="2026-03-01T12:00:00Z",
                        seconds=1.0,
                        seed=cell.seed,
                        device="cpu",
                        device_name=found["device_name"],
                        threads=threads,
                        versions={"python": found["python"], **found["versions"]},
                        git=found["git"],
                        weights_sha256=None,
                    ),
                )
            )
    store.write_plan({"suite": "made", "baseline": "base", "command": "ditbench run made", "cells": planned})
    write_json(folder / "environment.json", found)
    return str(folder)


def measurements(name: str, cell: Made) -> dict[str, tuple[dict[str, Quantity], dict[str, Any]]]:
    def level(median: float) -> dict[str, Any]:
        return {"step": {"median_ms": median, "rounds_ms": [[median] * 4] * 3}}

    def around(value: float, unit: str, share: float) -> Quantity:
        return Quantity(value=value, unit=unit, low=value * (1 - share), high=value * (1 + share), interval="95 %")

    own = name == "base"
    times = {"latency_ms": around(cell.step_ms, "ms", 0.005)} | (
        {} if own else {"speedup": around(cell.speedup, "1", 0.02)}
    )
    timing = {
        "batch": cell.batch,
        "levels": level(cell.baseline_ms if own else cell.step_ms),
        "baseline_levels": {} if own else level(cell.baseline_ms),
    }
    counts = {
        "gmacs_image": Quantity(value=0.25, unit="GMAC", interval="exact count"),
        "params": Quantity(value=1_060_424, unit="1", interval="exact count"),
    }
    peak = Quantity(value=cell.peak, unit="MiB", interval="peak of one pass; no interval")
    found = {
        "latency": (times, timing),
        "memory": ({"peak_mib": peak}, {"batch": cell.batch}),
        "flops": (counts, {}),
    }
    kind = "paired" if "psnr" in cell.figures else "quality"
    return found | ({kind: scored(cell)} if cell.figures else {})


def scored(cell: Made) -> tuple[dict[str, Quantity], dict[str, Any]]:
    values, without = {}, {}
    for name, each in cell.figures.items():
        full = float(np.mean(each))
        without[name] = [float(np.delete(each, block).mean()) for block in range(len(each))]
        estimate = jackknife_interval(full, without[name])
        values[name] = Quantity(value=full, unit="1", low=estimate.low, high=estimate.high, interval=estimate.method)
    by_seed = {name: list(each) for name, each in cell.figures.items()}
    return values, {"samples": 1000, **({"by_seed": by_seed} if cell.by_seed else {"leave_one_out": without})}


@pytest.fixture
def runs(tmp_path: Path) -> tuple[str, str]:
    """Two runs that differ by noise alone."""
    return write(tmp_path / "a", made_run(1)), write(tmp_path / "b", made_run(2))


def changed(tmp_path: Path, cell: str, **changes: Any) -> tuple[str, str]:
    """Two runs of which one cell of B is changed."""
    other = made_run(2)
    other[cell] = replace(other[cell], **changes)
    return write(tmp_path / "a", made_run(1)), write(tmp_path / "b", other)


def found(a: str, b: str, metric: str, cell: str = "fast") -> Compared:
    matching = [c for c in compare(open_sides(a, b)).compared if c.metric.name == metric and c.cell_a == cell]
    assert len(matching) == 1
    return matching[0]


def outcome(runs: tuple[str, str], *fail_if: str, metrics: str | None = None) -> tuple[int, dict[str, Any]]:
    with redirect_stdout(StringIO()) as text:
        code = show_compare(*runs, fail_if, True, metrics)
    shown: dict[str, Any] = json.loads(text.getvalue())
    assert shown["exit_code"] == code
    return code, shown


# --- what is compared, and how ---


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


# --- thresholds ---

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

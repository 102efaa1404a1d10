"""Runs: what is kept, what is run again, and how a cell's failure stays its own."""

import csv
import json
import random
import time
from pathlib import Path

import psutil
import pytest
import torch
from commands import ditbench, start
from safetensors.torch import load_file, save_file

from ditbench import methods

SUITE = """
suite: small
baseline: ddim-3
defaults:
  method: dit-digits
  weights: zoo:dit-digits
  dataset: digits
  sampler: {name: ddim, clip: true}
  measure: [flops, latency, quality]
cells:
  - {name: "ddim-{steps}", matrix: {steps: [3, 4]}}
  - {name: guided, steps: 3, guidance: 1.5}
latency: {batch: 2, budget_s: 0.2, warmup_s: 0.0}
quality: {samples: 60, shard: 20}
"""


def figures(folder: Path) -> dict[str, dict[str, str]]:
    """cell -> what does not depend on the clock."""
    kept = ("gmacs_step", "gmacs_image", "flops_ratio", "params", "protocol", "status",
            "frechet", "frechet_low", "frechet_high", "kid", "precision", "recall", "accuracy")  # fmt: skip
    with (folder / "cells.csv").open() as file:
        return {row["cell"]: {name: row[name] for name in kept} for row in csv.DictReader(file)}


def records(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "records").glob("*.json")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "small.yaml").write_text(SUITE)
    done = ditbench("run", "small.yaml", "--out", "out", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_leaves_the_documented_folder(undisturbed):
    out = undisturbed / "out"
    for name in ("suite.yaml", "environment.json", "cells.csv", "report/report.pdf", "report/table.tex"):
        assert (out / name).stat().st_size > 0, name
    assert list((out / "report").glob("pareto_*.svg")) and list((out / "report" / "samples").glob("*.png"))
    assert len(records(out)) == 9
    row = figures(out)["guided"]
    assert row["status"] == "ok" and float(row["gmacs_image"]) == pytest.approx(2 * 3 * float(row["gmacs_step"]))
    assert row["protocol"].startswith("digits-v2-")


SHARED = """
suite: shared
cells:
  - {name: "b{batch}", method: dit-testing, measure: [flops, latency], matrix: {batch: [1, 2]}}
latency: {levels: [step], budget_s: 0.2, warmup_s: 0.0}
"""


def test_cells_that_share_a_record_each_keep_their_own_command_and_a_cold_first_call(tmp_path):
    (tmp_path / "shared.yaml").write_text(SHARED)
    assert ditbench("run", "shared.yaml", "--out", "out", "--only", "b1", cwd=tmp_path).returncode == 0
    done = ditbench("run", "shared.yaml", "--out", "out", "--only", "b2", cwd=tmp_path)
    assert done.returncode == 0 and "1 measured, 1 reused" in done.stdout
    text = (tmp_path / "out" / "report" / "report.md").read_text()
    for cell in ("b1", "b2"):
        assert f"ditbench run shared.yaml --only {cell}\n" in text
    stored = [json.loads(path.read_text()) for path in (tmp_path / "out" / "records").glob("*.json")]
    assert {record["provenance"]["command"].split(" --only ")[0] for record in stored} == {"ditbench run shared.yaml"}
    for latency in (record for record in stored if record["measurement"] == "latency"):
        assert latency["detail"]["cold"]["load_ms"] > 0


def test_a_second_run_measures_nothing_and_touches_no_record(undisturbed):
    before = records(undisturbed / "out")
    done = ditbench("run", "small.yaml", "--out", "out", cwd=undisturbed)
    assert done.returncode == 0 and "0 measured, 9 reused" in done.stdout
    assert records(undisturbed / "out") == before


def test_a_run_in_another_folder_gives_identical_quality(undisturbed):
    done = ditbench("run", "small.yaml", "--out", "again", "--only", "ddim-4", cwd=undisturbed)
    assert done.returncode == 0, done.stderr
    again, first = figures(undisturbed / "again"), figures(undisturbed / "out")
    ratio_needs_baseline = {"flops_ratio"}
    assert {k: v for k, v in again["ddim-4"].items() if k not in ratio_needs_baseline} == {
        k: v for k, v in first["ddim-4"].items() if k not in ratio_needs_baseline
    }
    assert again["guided"]["status"] == "pending"


def test_the_stored_suite_runs_again_by_itself(undisturbed):
    done = ditbench("plan", "out/suite.yaml", "--out", "out", "--json", cwd=undisturbed)
    assert done.returncode == 0, done.stderr
    assert all(not cell["missing"] for cell in json.loads(done.stdout)["cells"])


@pytest.mark.slow
def test_five_kills_leave_finished_records_untouched_and_change_no_figure(undisturbed, tmp_path):
    (tmp_path / "small.yaml").write_text(SUITE)
    chance, seen = random.Random(5), {}
    for _ in range(5):
        process = start("run", "small.yaml", "--out", "out", cwd=tmp_path)
        time.sleep(chance.uniform(2.5, 9.0))
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive, "a killed run's processes go with it"
        for name, mtime in records(tmp_path / "out").items():
            assert seen.setdefault(name, mtime) == mtime
    assert seen, "no kill came after a record: the test would show nothing"
    done = ditbench("run", "small.yaml", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    final = records(tmp_path / "out")
    assert all(final[name] == mtime for name, mtime in seen.items())
    assert figures(tmp_path / "out") == figures(undisturbed / "out")


def test_two_runs_in_one_folder_exclude_each_other(tmp_path):
    (tmp_path / "small.yaml").write_text(SUITE)
    first = start("run", "small.yaml", "--out", "out", cwd=tmp_path)
    try:
        while not (tmp_path / "out" / "plan.json").is_file():
            time.sleep(0.1)
        second = ditbench("run", "small.yaml", "--out", "out", cwd=tmp_path)
    finally:
        first.kill()
        first.wait()
    assert second.returncode == 2 and "another run is working in" in second.stderr


FAULTY = """
suite: faulty
baseline: good
limits: {timeout_s: 60}
defaults: {steps: 2, sampler: ddim, measure: [flops, latency]}
cells:
  - {name: breaks, method: raises}
  - {name: crashes, method: dies}
  - {name: too-slow, method: sleeps, timeout_s: 4}
  - {name: not-a-number, method: dit-testing, weights: nan.safetensors, dataset: digits, measure: [flops, quality]}
  - {name: good, method: dit-testing}
latency: {batch: 2, budget_s: 0.2, warmup_s: 0.0}
quality: {samples: 20, shard: 20}
"""


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faulty")
    state = methods.build("dit-testing").state_dict()
    state["final_layer.linear.bias"][0] = torch.nan
    save_file(state, folder / "nan.safetensors")
    (folder / "faulty.yaml").write_text(FAULTY)
    return folder, ditbench("run", "faulty.yaml", "--out", "out", cwd=folder, plugin=True)


def failures(folder: Path) -> dict[str, dict[str, str]]:
    loaded = [json.loads(path.read_text()) for path in (folder / "out" / "failures").glob("*.json")]
    return {record["spec"]["cell"]: record["failure"] for record in loaded}


def test_a_failing_cell_does_not_stop_the_others(faulty):
    folder, done = faulty
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    rows = figures(folder / "out")
    assert rows["good"]["status"] == "ok"
    assert {name for name, row in rows.items() if row["status"] == "failed"} == {
        "breaks", "crashes", "too-slow", "not-a-number"
    }  # fmt: skip


def test_each_failure_says_what_happened(faulty):
    folder, _ = faulty
    found = failures(folder)
    assert {cell: failure["kind"] for cell, failure in found.items()} == {
        "breaks": "error", "crashes": "crash", "too-slow": "timeout", "not-a-number": "not-finite"
    }  # fmt: skip
    assert found["breaks"]["message"] == "RuntimeError: the forward pass broke on two lines"
    assert "raise RuntimeError" in found["breaks"]["traceback"]
    assert "SIGABRT" in found["crashes"]["message"] and "last words" in found["crashes"]["traceback"]
    assert found["too-slow"]["message"] == "stopped after its limit of 4 s"
    assert "20 of 20 samples" in found["not-a-number"]["message"]


def test_the_report_shows_each_failed_cell_with_its_reason(faulty):
    folder, _ = faulty
    text = (folder / "out" / "report" / "report.md").read_text()
    for cell, failure in failures(folder).items():
        assert cell in text and failure["message"].split(":")[0] in text


def test_what_a_failing_cell_finished_before_is_kept(faulty):
    folder, _ = faulty
    kept = [json.loads(path.read_text()) for path in (folder / "out" / "records").glob("*.json")]
    assert ("breaks", "flops") in {(record["spec"]["cell"], record["measurement"]) for record in kept}


def test_a_mended_cell_runs_again_and_the_failure_goes(faulty, tmp_path):
    folder, _ = faulty
    before = records(folder / "out")
    save_file(methods.build("dit-testing").state_dict(), folder / "nan.safetensors")
    done = ditbench("run", "faulty.yaml", "--out", "out", "--only", "not-a-number", cwd=folder, plugin=True)
    assert done.returncode == 0, done.stderr
    assert figures(folder / "out")["not-a-number"]["status"] == "ok"
    assert before.items() <= records(folder / "out").items()
    assert load_file(folder / "nan.safetensors")

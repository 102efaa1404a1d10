"""The command line: exit codes, one-line errors, documented JSON, and speed of starting."""

import json
import re
import time
from pathlib import Path

import pytest
import torch
from commands import ditbench
from PIL import Image
from safetensors.torch import save_file

from ditbench import methods
from ditbench.harness.measurements.registry import measurements

HEAD = "suite: s\ncells:\n"
CELL = "  - {name: a, method: dit-testing}\n"
BROKEN: dict[str, str | bytes] = {
    "bad YAML": "suite: s\ncells: [\n",
    "unknown key": HEAD + "  - {method: dit-testing, stpes: 4}\n",
    "wrong type": HEAD + "  - {method: dit-testing, steps: many}\n",
    "unknown method": HEAD + "  - {method: dit-testin}\n",
    "missing file": HEAD + "  - {method: dit-testing, weights: nowhere.safetensors}\n",
    "negative steps": HEAD + "  - {method: dit-testing, steps: -4}\n",
    "empty matrix": HEAD + "  - {method: dit-testing, matrix: {steps: []}}\n",
    "include cycle": "extends: broken.yaml\n" + HEAD + CELL,
    "duplicate cell": HEAD + CELL + CELL,
    "huge sweep": HEAD + f"  - {{method: dit-testing, matrix: {{steps: {list(range(1, 900))}}}}}\n",
    "wrong checkpoint": HEAD + "  - {method: dit-testing, weights: wrong.safetensors}\n",
    "binary file": bytes(range(256)),
}
WORDS = {
    "unknown key": "did you mean 'steps'",
    "unknown method": "did you mean 'dit-testing'",
    "missing file": "nowhere.safetensors",
    "negative steps": "-4",
    "include cycle": "circle",
    "duplicate cell": "duplicate",
    "huge sweep": "899",
    "wrong checkpoint": "does not fit dit-testing",
}


@pytest.mark.parametrize("verb", ["run", "plan"])
@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_suite_is_one_line_with_its_place_and_exit_code_2(tmp_path: Path, fault: str, verb: str) -> None:
    content = BROKEN[fault]
    (tmp_path / "broken.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    save_file(methods.build("dit-digits").state_dict(), tmp_path / "wrong.safetensors")
    done = ditbench(verb, "broken.yaml", cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert re.fullmatch(r"[^\n]*broken\.yaml:\d+:\d+: [^\n]+\n", done.stderr), done.stderr
    assert WORDS.get(fault, "") in done.stderr
    assert not (tmp_path / "runs").exists(), "nothing was begun"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_suite_for_a_gpu_says_at_once_that_there_is_none(tmp_path):
    done = ditbench("run", "dit-time", cwd=tmp_path)
    assert done.returncode == 2
    expected = r"[^\n]*dit-time\.yaml:11:11: this machine's torch sees no GPU[^\n]*\n"
    assert re.fullmatch(expected, done.stderr), done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "quikc"),
        ("run", "testing", "--only", "nothing*"),
        ("run", "testing", "--limit", "3"),
        ("flops", "dit-xl2"),
        ("flops", "dit-xl-2", "--set", "depht=3"),
        ("flops", "dit-xl-2", "--set", "depth"),
        ("time", "dit-testing", "--dtype", "float8"),
        ("time", "dit-testing", "--against", "nobody"),
        ("sample", "dit-s-2"),
        ("sample", "dit-digits", "--sampler", "ddmp"),
        ("list", "method"),
        ("train", "dit-digit"),
        ("report", "nowhere"),
        ("run",),
        ("run", "quick", "--nope"),
        ("time", "dit-testing", "--batch", "0"),
        ("fly",),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2(tmp_path, arguments):
    done = ditbench(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr, done.stderr


def best_of(times: int, *arguments: str, cwd: Path) -> float:
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        assert ditbench(*arguments, cwd=cwd).returncode == 0
        taken.append(time.perf_counter() - begin)
    return min(taken)


def test_help_comes_in_half_a_second_and_lists_in_one(tmp_path):
    assert best_of(3, "--help", cwd=tmp_path) < 0.5
    assert best_of(3, "list", "methods", cwd=tmp_path) < 1.0


def test_lists_name_everything_that_a_suite_can_say(tmp_path):
    def listed(kind: str) -> list[str]:
        return [entry["name"] for entry in json.loads(ditbench("list", kind, "--json", cwd=tmp_path).stdout)]

    assert set(methods.names()) == set(listed("methods"))
    assert {"quick", "testing", "dit-cost"} <= set(listed("suites"))
    assert listed("samplers") == ["ddpm", "ddim", "dpm-solver++", "euler", "heun", "dopri5", "euler-maruyama"]
    assert listed("metrics") == measurements().names()


def test_time_answers_with_the_documented_names_and_a_true_ratio(tmp_path):
    done = ditbench(
        "time", "dit-testing", "--against", "dit-digits", "--batch", 2, "--budget", 1, "--json", cwd=tmp_path
    )
    answer = json.loads(done.stdout)
    for name in ("latency_ms", "latency_low", "latency_high", "images_per_s", "speedup", "realised", "flops_ratio"):
        assert answer[name] > 0, name
    assert answer["latency_level"].startswith("step")
    assert answer["speedup"] > 1, "the tiny model is the faster one"
    assert answer["realised"] == pytest.approx(answer["speedup"] * answer["flops_ratio"])


def test_timing_a_model_against_itself_finds_a_ratio_near_one(tmp_path):
    done = ditbench(
        "time",
        "dit-digits",
        "--against",
        "dit-digits",
        "--batch",
        8,
        "--threads",
        1,
        "--budget",
        6,
        "--json",
        cwd=tmp_path,
    )
    answer = json.loads(done.stdout)
    assert answer["flops_ratio"] == 1.0
    assert 0.8 < answer["speedup"] < 1.25, "wide, because a busy machine disturbs even turns of A B B A"


def test_sample_draws_a_grid_of_all_classes(tmp_path):
    done = ditbench(
        "sample", "dit-digits", "--sampler", "ddim", "--steps", 5, "--rows", 2, "--out", "g.png", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "g.png").size == (460, 92)


def test_the_testing_suite_runs_and_plans(tmp_path):
    planned = json.loads(ditbench("plan", "testing", "--json", cwd=tmp_path).stdout)
    assert all(cell["missing"] for cell in planned["cells"])
    done = ditbench("run", "testing", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    planned = json.loads(ditbench("plan", "testing", "--json", cwd=tmp_path).stdout)
    assert not any(cell["missing"] for cell in planned["cells"])
    assert "cost only" in (tmp_path / "runs" / "testing" / "report" / "report.md").read_text().lower()


@pytest.mark.slow
def test_the_cost_suite_counts_all_presets_in_under_three_minutes(tmp_path):
    begin = time.perf_counter()
    done = ditbench("run", "dit-cost", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - begin < 180
    assert len(list((tmp_path / "runs" / "dit-cost" / "records").glob("*.json"))) == 27

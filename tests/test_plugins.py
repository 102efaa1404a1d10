"""Other distributions' methods, modifiers, samplers and metrics are measured as ditbench's own are."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from plugin_folders import PLUGINS, command, with_distributions

from ditbench.harness.store.records import Record
from ditbench.harness.store.store import RunStore
from ditbench.methods.weights import randomise, save_state

MEASURED = ("flops", "latency", "kernels", "memory", "quality")
SUITE = """
suite: plugins
threads: 1
baseline: dit
defaults:
  method: dit-digits
  weights: zoo:dit-digits
  dataset: digits
  sampler: {name: ddim, clip: true}
  steps: 6
  measure: [flops, latency, kernels, memory, quality]
cells:
  - {name: dit, measure: [flops, quality]}
  - name: skipped
    method: {name: dit-digits, with: [{layer-skip: {layers: [3], every: 2}}]}
    guidance: &some {scale: 1.5, interval: [200, 700]}
  - name: cached
    method: {name: dit-digits, with: [{step-cache: {interval: 2}}]}
    guidance: *some
  - {name: sampled, sampler: {name: ab2, weight: 0.5}, guidance: *some}
  - name: flow
    method: tiny-flow/tiny-flow
    weights: flow.safetensors
    sampler: {name: euler, clip: false}
    guidance: {scale: 1.5, interval: [0.2, 0.7]}
  - {name: lying, method: liar, weights: null, measure: [flops]}
latency: {batch: 2, rounds: 3, budget_s: 0.1, warmup_s: 0.0}
kernels: {batch: 2, steps: 2}
memory: {batch: 2}
quality: {protocol: digits, samples: 20, shard: 20, metrics: [edges]}
"""
PLUGGED = ("skipped", "cached", "sampled", "flow")
IDENTITIES = """
import json
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import make_plan
print(json.dumps(make_plan(load_suite("s.yaml")).to_json()))
"""
# times of six steps, the noisiest first: 999 799 599 400 200 0; three guide
GUIDED = [1, 1, 2, 2, 2, 1]


@dataclass(frozen=True)
class Ran:
    folder: Path
    env: dict[str, str]
    code: int
    stdout: str
    records: dict[str, dict[str, Record]]

    def missing(self) -> dict[str, list[str]]:
        """Cell -> what a run would measure now, where there is something."""
        done = subprocess.run(
            [sys.executable, "-c", IDENTITIES],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            check=True,
        )
        store = RunStore(self.folder / "out")
        wanted = {
            cell["name"]: [name for name, each in cell["measurements"].items() if not store.has(each)]
            for cell in json.loads(done.stdout)["cells"]
        }
        return {cell: names for cell, names in wanted.items() if names}


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Ran:
    folder = tmp_path_factory.mktemp("plugins")
    shutil.copytree(PLUGINS, folder / "sources", ignore=shutil.ignore_patterns("__pycache__"))
    env = with_distributions(sorted((folder / "sources").iterdir()), folder / "site")
    sys.path.insert(0, str(folder / "sources" / "tiny-flow" / "src"))
    try:
        from tiny_flow.model import build
    finally:
        del sys.path[0]
    flow = build()
    randomise(flow, seed=0)
    save_state(folder / "flow.safetensors", flow.state_dict(), {})
    (folder / "s.yaml").write_text(SUITE)
    done = command("ditbench", "run", "s.yaml", "--out", "out", cwd=folder, env=env)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return Ran(folder, env, done.returncode, done.stdout, RunStore(folder / "out").cells())


@pytest.mark.parametrize("cell", PLUGGED)
def test_every_measurement_has_its_record_and_the_count_its_proof(ran, cell):
    found = ran.records[cell]
    assert {name: each.status for name, each in found.items()} == dict.fromkeys(MEASURED, "ok")
    assert found["flops"].detail["proof"]["distinct_calls"] >= 2, "guided and not"
    assert [step["rows"] for step in found["flops"].detail["profile"]] == GUIDED
    assert found["latency"].values and found["kernels"].values
    assert found["memory"].values["peak_mib"].value > 0
    assert found["quality"].values["frechet"].value > 0


def test_what_is_left_out_is_in_no_count(ran):
    gmacs = {cell: each["flops"].values["gmacs_image"].value for cell, each in ran.records.items() if cell != "lying"}
    assert gmacs["skipped"] < gmacs["sampled"] and gmacs["cached"] < 0.8 * gmacs["sampled"]
    assert gmacs["dit"] * sum(GUIDED) / 6 == pytest.approx(gmacs["sampled"])


def test_a_cache_computes_where_guidance_begins_and_its_memory_is_told(ran):
    cached = ran.records["cached"]
    (shown,) = cached["flops"].detail["facets"]["labels"]
    # the fourth and the sixth would be reused of any interval of 2 that began at the first
    assert shown["values"] == ["computed", "reused", "computed", "reused", "computed", "reused"]
    assert shown["name"] == "cache" and shown["levels"] == ["computed", "reused"]
    remembered = cached["memory"].values["remembered_mib"].value
    # two units a layer, six layers, 16 tokens of width 96, two images in two branches, float32
    assert remembered == pytest.approx(2 * 6 * 16 * 96 * 2 * 2 * 4 / 2**20)
    assert "remembered_mib" not in ran.records["skipped"]["memory"].values


def test_a_metric_stands_beside_the_protocol_s_own_in_every_cell(ran):
    for cell in ("dit", *PLUGGED):
        found = ran.records[cell]["quality"]
        assert found.values["edges"].low < found.values["edges"].value < found.values["edges"].high
        assert any(stamp.startswith("edges 1: edges 0.1.0 sources ") for stamp in found.detail["protocol"]["metrics"])


def test_the_report_names_all_of_them(ran):
    report = ran.folder / "out" / "report"
    assert (report / "report.pdf").read_bytes().startswith(b"%PDF")
    told = (report / "report.md").read_text()
    assert all(word in told for word in (*PLUGGED, "lying", "layer-skip", "step-cache", "ab2", "tiny-flow", "edges"))


def test_a_method_that_declares_less_than_it_runs_fails_with_the_operator_and_no_other_cell_does(ran):
    failed = ran.records["lying"]["flops"].failure
    assert failed is not None and "declares other work than it executes in a call at timestep" in failed.message
    assert "linear: " in failed.message and "declared" in failed.message and "attention: " not in failed.message
    assert ran.code == 1 and "1 of 6 cells failed:\n  lying: flops: " in ran.stdout


@contextmanager
def changed(file: Path) -> Iterator[None]:
    """One byte more."""
    before = file.read_bytes()
    file.write_bytes(before + b"\n")
    yield
    file.write_bytes(before)


def test_changed_sources_are_measured_anew_and_only_what_they_made(ran):
    sources = ran.folder / "sources"
    nothing = {"lying": ["flops"]}  # it failed: a run tries it again
    with changed(sources / "layer-skip" / "src" / "layer_skip" / "modifier.py"):
        again = ran.missing()
    assert again == {**nothing, "skipped": list(MEASURED)}
    with changed(sources / "edges" / "src" / "edges" / "metric.py"):
        again = ran.missing()
    assert again == {
        **nothing,
        **{name: ["quality"] for name in ("dit", *PLUGGED)},
    }


def test_a_solver_that_calls_out_of_order_refuses_what_remembers_in_one_line(ran):
    cell = "{name: a, method: {name: sit-digits, with: [step-cache]}, sampler: heun}"
    (ran.folder / "heun.yaml").write_text(f"suite: heun\ncells:\n  - {cell}\n")
    done = command("ditbench", "run", "heun.yaml", cwd=ran.folder, env=ran.env)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("heun.yaml:3:")
    assert "does not evaluate once a step, in order" in done.stderr


def distribution(folder: Path, group: str, source: str) -> Path:
    """One that registers ``broken`` in a group."""
    made = folder / "broken"
    (made / "src").mkdir(parents=True)
    (made / "src" / "broken.py").write_text(source)
    (made / "pyproject.toml").write_text(
        f'[project]\nname = "broken"\nversion = "3.1"\n[project.entry-points."{group}"]\nbroken = "broken:ENTRY"\n'
    )
    return made


@pytest.mark.parametrize(
    ("group", "cell", "word"),
    [
        ("methods", "{name: a, method: broken}", "method"),
        ("modifiers", "{name: a, method: {name: dit-testing, with: [broken]}}", "modifier"),
        ("samplers", "{name: a, method: dit-testing, sampler: broken}", "sampler"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_one_line_for_who_names_it_and_nothing_for_others(
    group, cell, word, tmp_path
):
    made = distribution(tmp_path, f"ditbench.{group}", "import gone_for_good\n")
    env = with_distributions([made], tmp_path / "site")
    (tmp_path / "s.yaml").write_text(f"suite: s\ncells:\n  - {cell}\n")
    done = command("ditbench", "plan", "s.yaml", "--no-timing", cwd=tmp_path, env=env)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("s.yaml:3:")
    assert (
        f"{word} 'broken' of broken 3.1 cannot be imported: ModuleNotFoundError: No module named 'gone" in done.stderr
    )
    listed = command("ditbench", "list", group, "--json", cwd=tmp_path, env=env)
    assert "broken" in [each["name"] for each in json.loads(listed.stdout)] and listed.stderr == ""


def test_a_group_that_nobody_reads_is_told_once_and_beside_the_answer(tmp_path):
    made = distribution(tmp_path, "ditbench.method", "ENTRY = None\n")
    env = with_distributions([made], tmp_path / "site")
    done = command("ditbench", "list", "samplers", "--json", cwd=tmp_path, env=env)
    assert done.returncode == 0 and json.loads(done.stdout)
    assert done.stderr == ("warning: broken 3.1: no group is called ditbench.method (did you mean ditbench.methods?)\n")

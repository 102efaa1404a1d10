"""Where jobs are done, and whose environment a record holds."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import commands
import pytest

from ditbench.harness.environment import environment, fingerprint
from ditbench.harness.errors import InputError
from ditbench.harness.run.executor import LocalExecutor, executor_of
from ditbench.harness.run.outcome import Outcome
from ditbench.harness.run.runner import run
from ditbench.harness.store.records import Failure, Quantity
from ditbench.harness.store.store import RunStore
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import make_plan

SUITE = """
suite: executed
cells:
  - {name: a, method: dit-testing, steps: 2, measure: [flops, memory]}
  - {name: b, method: dit-testing, steps: 3, measure: [flops, memory]}
memory: {batch: 1}
"""


@pytest.fixture
def loaded(tmp_path):
    (tmp_path / "s.yaml").write_text(SUITE)
    return load_suite(tmp_path / "s.yaml")


class Elsewhere:
    """Takes jobs on and does them at the end, as on a machine of its own."""

    def __init__(self) -> None:
        self.taken = []

    def submit(self, job, reports):
        self.taken.append((job, reports))

    def finish(self):
        there = {**environment("cpu"), "device_name": "the other machine"}
        for job, reports in self.taken:
            for task in job.tasks:
                if (job.spec.cell, task.name) == ("b", "memory"):
                    failure = Failure(kind="crash", message="the node went away")
                    reports.outcome(Outcome(task.name, 1.0, {}, {}, failure=failure))
                    continue
                value = Quantity(value=1.0, unit="1", interval="exact")
                reports.outcome(Outcome(task.name, 1.0, {"x": value}, {}, environment=there))


def test_an_executor_takes_all_jobs_on_and_records_are_of_the_machine_that_did_them(loaded, tmp_path):
    plan, elsewhere = make_plan(loaded), Elsewhere()
    done = run(loaded, plan, plan, tmp_path / "out", executor=elsewhere)
    assert [job.spec.cell for job, _ in elsewhere.taken] == ["a", "b"] and done.failed_cells == ("b",)
    cells = RunStore(tmp_path / "out").cells()
    assert cells["a"]["flops"].provenance.device_name == "the other machine"
    assert cells["b"]["memory"].provenance.device_name == environment("cpu")["device_name"], "it could not tell"


def test_a_clock_that_was_planned_for_another_machine_is_refused_and_a_count_is_not(loaded, tmp_path):
    there = {**fingerprint(environment("cpu")), "device_name": "the planner's", "torch": "0"}
    plan = replace(make_plan(loaded, only="a"), fingerprints={"cpu": there})
    run(loaded, plan, plan, tmp_path / "out", executor=LocalExecutor())
    cells = RunStore(tmp_path / "out").cells()["a"]
    assert cells["flops"].status == "ok" and cells["flops"].provenance.versions["torch"] != "0"
    assert cells["memory"].failure is not None
    message = cells["memory"].failure.message
    assert "device_name: the planner's, here" in message and "torch: 0, here" in message and "cpu:" not in message


def test_an_unknown_executor_is_said_in_one_line():
    with pytest.raises(InputError, match=r"--executor locl: unknown \(did you mean 'local'\?\)"):
        executor_of("locl")


@pytest.mark.slow
def test_threads_that_are_bound_to_cores_leave_a_cell_the_cores_that_it_was_planned_for(loaded, tmp_path):
    command = [sys.executable, "-m", "ditbench", "run", "s.yaml", "--out", "out", "--only", "a"]
    bound = {**commands.environment(), "OMP_PROC_BIND": "true"}
    done = subprocess.run(command, cwd=tmp_path, env=bound, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "2 measured" in done.stdout, done.stdout + done.stderr


def test_a_job_is_as_patient_as_its_cell(loaded, tmp_path):
    (tmp_path / "s.yaml").write_text(SUITE.replace("steps: 3", "steps: 3, timeout_s: 7"))
    again, elsewhere = load_suite(tmp_path / "s.yaml"), Elsewhere()
    plan = make_plan(again)
    run(again, plan, plan, Path(tmp_path / "out"), executor=elsewhere)
    assert [job.timeout_s for job, _ in elsewhere.taken] == [3600.0, 7.0]

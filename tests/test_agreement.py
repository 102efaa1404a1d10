"""Measuring a flexible model: its agreement, its steps' shares of the clock, its count, and what the verbs answer."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from flexidit_models import sizes_of
from test_flexidit import SMALL, enlivened, lively
from test_flexidit_schedule import cell, closed_formula, counts

from ditbench import methods
from ditbench.cli import main
from ditbench.harness.assets.locations import weights_path
from ditbench.harness.errors import InputError
from ditbench.harness.measure import latency
from ditbench.harness.measure.agreement import measure_agreement
from ditbench.harness.measure.count_cell import measure_flops
from ditbench.harness.measure.flops import WorkCounter
from ditbench.harness.measure.options import AgreementOptions
from ditbench.harness.measurements.bench import Bench, Job, Task, Turn
from ditbench.harness.measurements.registry import measurements
from ditbench.harness.run.runner import check_inputs, todo
from ditbench.harness.sample.generate import BoundCell, bind, bind_sampler, checkpoint_problem
from ditbench.harness.store.store import RunStore
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import make_plan
from ditbench.methods.weights import save_state
from ditbench.methods.work import WorkLedger

# Agreement


def bound_cell(schedule: Any = None, scale: float = 1.0, steps: int = 4, **config: Any) -> BoundCell:
    spec = cell(schedule, scale, steps, sampler_options={"clip": True})
    model = lively(schedule=schedule, **config)
    return BoundCell(spec, model, *bind_sampler(spec, model))


def planted(bound: BoundCell, differences) -> list[tuple[int, torch.Tensor, torch.Tensor]]:
    """Let every size predict as the pre-trained one, and off by ``differences(size, t)``; collects (size, x, y)."""
    seen, real = [], bound.model.forward

    def forward(x, t, y, *, call):
        size, _ = sizes_of(call.plan)
        seen.append((size, x.clone(), y.clone()))
        out = real(x, t, y, patch_size=2)
        out[:, :1] += differences(size, call.plan.timestep)
        out[:, 1:] += size  # variances are not compared
        return out

    bound.model.forward = forward
    return seen


def test_sizes_that_predict_the_same_agree():
    bound = bound_cell()
    planted(bound, lambda size, t: 0.0)
    result = measure_agreement(bound, AgreementOptions(samples=20))
    assert result.values["difference"].value == 0.0
    assert all(each == 0.0 for size in ("4", "8") for each in result.detail["variants"][f"patch size {size}"]["mean"])


def test_a_planted_difference_is_found_by_step_and_size():
    bound, rows = bound_cell({"steps": {8: 1, 2: 3}}), torch.linspace(-1, 1, 20).view(20, 1, 1, 1)

    def difference(size: int, t: float):
        return {2: 0.0, 4: t / 1000, 8: rows * 0.5}[size]  # size 8: from sample to sample, with both signs

    planted(bound, difference)
    result = measure_agreement(bound, AgreementOptions(samples=20))
    times = list(bound.sampler.timesteps)
    assert result.detail["timesteps"] == times and result.detail["samples"] == 20
    assert result.detail["reference"] == "patch size 2"
    four, eight = (result.detail["variants"][f"patch size {size}"] for size in (4, 8))
    assert four["mean"] == pytest.approx([t / 1000 for t in times], abs=1e-5)
    assert eight["mean"] == pytest.approx([rows.abs().mean().item() / 2] * 4, abs=1e-5)
    assert all(a < b < c for a, b, c in zip(eight["low"], eight["mean"], eight["high"], strict=True))
    found = result.values["difference"]
    assert found.value == pytest.approx((sum(four["mean"]) + sum(eight["mean"])) / 8) and found.low < found.value


def test_sizes_are_compared_along_the_cell_s_own_loop_for_its_classes_without_guidance():
    schedule = {"steps": {4: 2, 2: 2}}
    bound = bound_cell(schedule, 3.0)
    seen = planted(bound, lambda size, t: 0.01 * size)
    measure_agreement(bound, AgreementOptions(samples=20))
    compared = [entry for entry in seen if len(entry[1]) == 20]
    assert [size for size, *_ in compared] == [2, 4, 8] * 4
    labels = bound.streams(range(20)).conditions["label"]
    assert all(torch.equal(y, labels) for *_, y in compared)
    loop = bound_cell(schedule, 3.0)
    own = planted(loop, lambda size, t: 0.01 * size)
    loop.generate(range(20))
    assert [size for size, *_ in own] == [4, 4, 2, 2]
    for step, (_, x, _) in enumerate(own):
        assert all(torch.equal(each, x[:20]) for _, each, _ in compared[3 * step : 3 * step + 3])


def test_a_run_can_ask_for_it(tmp_path):
    path = tmp_path / "w.safetensors"
    save_state(path, enlivened(methods.build("flexidit-testing")).state_dict(), {})
    task = Task("agreement", {"samples": 20}, "0" * 64, False, measurements()["agreement"].run)
    job = Job(cell(0.6), path, None, None, (task,), tmp_path, tmp_path / "log")
    found = task.run(Turn(task, Bench(job), lambda *_: None))
    assert found.values["difference"].value > 0.01 and found.protocol is None
    assert set(found.detail["variants"]) == {"patch size 4"}
    assert json.loads(json.dumps(found.detail)) == found.detail


def test_the_shipped_model_s_weak_prediction_departs_near_the_image_so_that_it_goes_first():
    def shipped(schedule: Any = None) -> BoundCell:
        spec = cell(schedule, method="flexidit-digits", sampler_options={"clip": True})
        return bind(spec, weights_path("zoo:flexidit-digits"))

    differences = measure_agreement(shipped(), AgreementOptions(samples=20)).detail["variants"]["patch size 4"]["mean"]
    assert differences[-1] > 10 * differences[0] and differences[-1] == max(differences)
    expected = shipped().generate(range(20))[0]
    first, last = (
        (shipped({"fractions": {4: 0.5, 2: 0.5}, "order": order}).generate(range(20))[0] - expected).abs().mean()
        for order in ("weak-first", "weak-last")
    )
    assert 0 < first < 0.5 * last


def test_only_models_of_many_sizes_with_weights_are_compared(tmp_path):
    misfits = [measurements()["agreement"].misfit]
    for single in ({"method": "dit-testing"}, {"config": {"patch_sizes": [2]}}):
        found = checkpoint_problem(cell(measure=("agreement",), **single), None, misfits)
        assert found is not None and found.field == "measure" and "agreement compares a method's ways" in found.message
    assert checkpoint_problem(cell(measure=("agreement",)), None, misfits) is None
    text = "suite: s\ncells:\n  - {name: a, method: flexidit-testing, measure: [flops, agreement]}\n"
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(InputError, match="random weights means nothing") as caught:
        make_plan(load_suite(tmp_path / "s.yaml"))
    assert (caught.value.position.line, caught.value.position.column) == (3, 58)


# The clock


@pytest.mark.parametrize(("schedule", "scale", "expected"), [
    (None, 1.0, {(2,): 1.0}),
    ({"steps": {4: 3, 2: 5}}, 1.0, {(4,): 3 / 8, (2,): 5 / 8}),
    ({"steps": {4: 3, 2: 5}, "order": "interleaved"}, 2.0, {(4,): 3 / 8, (2,): 5 / 8}),
    ({"steps": {8: 1, 4: 2, 2: 5}}, 1.0, {(8,): 1 / 8, (4,): 2 / 8, (2,): 5 / 8}),
    ("5/2", 2.0, {(4,): 3 / 8, (2, 4): 3 / 8, (2,): 2 / 8}),
], ids=str)  # fmt: skip
def test_a_cycle_has_one_call_of_each_kind_and_weighs_it_by_its_steps(schedule, scale, expected):
    bound = bound_cell(schedule, scale, 8, layout="separate")
    call, weights = latency.step_call(bound, 2)
    assert sum(weights) == pytest.approx(1.0)
    seen, real = [], bound.model.forward
    bound.model.forward = lambda x, t, y, *, call: seen.append(sizes_of(call.plan)[0]) or real(x, t, y, call=call)
    found = {}
    for index, weight in enumerate(weights):
        seen.clear()
        call(index)
        found[tuple(seen)] = weight
    assert found == expected


def test_timed_calls_run_as_tuned_for_their_batch_and_a_loop_begins_with_nothing_projected(monkeypatch):
    import ditbench.methods.flexidit.model as module

    bound, projected, real = bound_cell("3/1", 2.0), [], module.project_embedding
    monkeypatch.setattr(module, "project_embedding", lambda w, size: projected.append(size) or real(w, size))
    pair, tuned = bound.model.predict_pair, []
    bound.model.predict_pair = lambda *given, **how: tuned.append(how["tuned"]) or pair(*given, **how)
    call = latency.sample_call(bound, 3)
    assert set(bound.model.layouts) == {(2, 4, 3, True)}
    for index in range(2):
        projected.clear()
        call(index)
        assert sorted(projected) == [2, 4]
    latency.step_call(bound, 2)[0](1)
    assert (2, 4, 2, True) in bound.model.layouts and tuned == [True] * 5, "two loops of two mixed steps, and one"
    projected.clear()
    latency.prepare_call(bound, 8)(0)
    assert sorted(projected) == [2, 4]


# Counting


def numbers(labels: list[str]) -> tuple[int, ...]:
    return tuple(map(int, labels))


@pytest.mark.parametrize(("schedule", "scale", "main", "guide"), [
    ({"steps": {4: 6, 2: 4}}, 1.0, {4: 6, 2: 4}, {}),
    ({"fractions": {4: 0.57, 2: 0.43}, "order": "interleaved"}, 1.0, {4: 6, 2: 4}, {}),
    (0.64, 1.0, {4: 5, 2: 5}, {}),
    (0.64, 1.5, {4: 5, 2: 5}, {4: 5, 2: 5}),
    ("7/3", 1.5, {4: 3, 2: 7}, {4: 7, 2: 3}),
    ({"steps": {8: 2, 4: 3, 2: 5}}, 1.0, {8: 2, 4: 3, 2: 5}, {}),
    ({"target": 0.15}, 1.0, {8: 5, 4: 5}, {}),
    ({"steps": {2: 10}, "guidance": {"steps": {8: 10}}}, 4.0, {2: 10}, {8: 10}),
], ids=str)  # fmt: skip
def test_a_loop_costs_the_sum_over_its_steps_and_its_fraction_is_their_ratio(schedule, scale, main, guide):
    result = measure_flops(cell(schedule, scale, method="flexidit-s-2", config={"patch_sizes": [2, 4, 8]}))
    with torch.device("meta"):
        config = methods.build("flexidit-s-2").config

    def macs(size: int) -> int:
        return closed_formula(config, size) + 4 * 25 * (32 // size) ** 2 * 384  # and layer norms

    whole = sum(count * macs(size) for amounts in (main, guide) for size, count in amounts.items())
    assert result.gmacs_image * 1e9 == pytest.approx(whole, rel=1e-9)
    facets, compute = result.detail()["facets"], result.detail()["compute"]
    (found,) = facets["labels"]
    assert counts(numbers(found["values"])) == main
    assert counts(numbers(found["guidance"] or found["values"])) == (guide or main)
    assert compute["share"] == pytest.approx(whole / macs(2) / (20 if guide else 10), rel=1e-9)
    assert compute["of"] == "patch size 2 throughout"
    assert found["name"] == "patch size" and numbers(found["levels"]) == (2, 4, 8) and facets["timesteps"][0] == 999
    assert not facets["shares"]


@pytest.mark.parametrize("config", [{}, {"recipe": "lora", "adapter": {"folded": False}}], ids=str)
@pytest.mark.parametrize(("schedule", "scale"), [(0.5, 1.0), (0.5, 2.0), ("3/1", 2.0)])
def test_what_a_cell_s_loop_executes_is_what_was_planned_and_counted(schedule, scale, config):
    shape = {**SMALL, **config}
    spec = cell(schedule, scale, 5, method="flexidit", config=shape)
    model = lively(schedule=schedule, patch_sizes=[2, 4], **config)
    bound = BoundCell(spec, model, *bind_sampler(spec, model))
    ledger = WorkLedger()
    bound.generate(range(3), ledger)
    executed = WorkCounter(bound.model).ledger(ledger.entries)
    assert executed.total() / 3 == pytest.approx(measure_flops(spec).gmacs_image * 1e9, rel=1e-12)


# The verbs


SUITE = """suite: s
defaults: {{method: flexidit-testing, steps: 10, guidance: {guidance}, measure: [flops]}}
cells:
  - name: good
    config: {{schedule: 1.0}}
  - name: wrong
    config:
      patch_sizes: [2, 4]
      schedule: {schedule}
"""


def problem_of(text: str, folder: Path) -> str:
    (folder / "s.yaml").write_text(text)
    plan = make_plan(load_suite(folder / "s.yaml"))
    with pytest.raises(InputError) as caught:
        check_inputs(plan, todo(plan, RunStore(folder)))
    return str(caught.value)


@pytest.mark.parametrize(("guidance", "schedule"), [
    ("1.0", "0.1"), ("1.0", "5/3"), ("1.5", "{steps: {4: 3, 2: 4}}"), ("{scale: 1.5, interval: [5, 6]}", "5/3"),
])  # fmt: skip
def test_a_wrong_schedule_is_found_at_its_place_in_the_suite(tmp_path, guidance, schedule):
    found = problem_of(SUITE.format(guidance=guidance, schedule=schedule), tmp_path)
    assert re.fullmatch(r".*s\.yaml:9:17: flexidit-testing: [^\n]*schedule[^\n]*", found), found


def test_cells_that_differ_only_in_where_they_are_guided_are_both_looked_at(tmp_path):
    text = SUITE.format(guidance="{scale: 1.5}", schedule="5/3")
    text = text.replace("{schedule: 1.0}", "{patch_sizes: [2, 4], schedule: 5/3}")
    assert "not guided" in problem_of(text + "    guidance: {scale: 1.5, interval: [5, 6]}\n", tmp_path)


def test_a_wrong_value_of_a_sweep_is_found_at_its_place(tmp_path):
    text = (
        SUITE.format(guidance=1.0, schedule=0.5)
        + "  - {name: 'x-{config.schedule}', matrix: {config.schedule: [0.6, 0.1]}}\n"
    )
    column = text.splitlines()[-1].index("0.1") + 1
    assert f"s.yaml:10:{column}: flexidit-testing: schedule's target 0.1 is below" in problem_of(text, tmp_path)


def ditbench(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    """A verb in this process: exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["ditbench", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0), *capsys.readouterr()


@pytest.mark.parametrize(("arguments", "place"), [
    (("run", "s.yaml"), r"[^\n]*s\.yaml:9:17"),
    (("plan", "s.yaml"), r"[^\n]*s\.yaml:9:17"),
    (("flops", "flexidit-s-2", "--set", "schedule=0.1"), "error"),
    (("time", "flexidit-testing", "--set", "schedule=0.1"), "error"),
], ids=str)  # fmt: skip
def test_a_wrong_schedule_is_one_line_with_exit_code_2(tmp_path, monkeypatch, capsys, arguments, place):
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(SUITE.format(guidance=1.0, schedule=0.1))
    code, out, error = ditbench(monkeypatch, capsys, *arguments)
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"{place}: [^\n]*target 0\.1 is below the floor[^\n]* works[^\n]*\n", error), error
    assert not Path("runs").exists(), "nothing was begun"


def test_flops_answers_with_the_schedule(monkeypatch, capsys):
    given = ("flops", "flexidit-testing", "--steps", "10", "--set", "schedule=0.6")
    answer = json.loads(ditbench(monkeypatch, capsys, *given, "--json")[1])
    (found,), compute = answer["facets"]["labels"], answer["compute"]
    assert found["values"] == ["4"] * 6 + ["2"] * 4 and found["guidance"] is None and found["levels"] == ["2", "4"]
    assert len(answer["facets"]["timesteps"]) == 10 and compute["share"] == pytest.approx(0.571, abs=5e-4)
    assert list(compute["by_convention"]) == ["adaLN excluded, as in arXiv 2502.20126"]
    text = ditbench(monkeypatch, capsys, *given)[1]
    assert "patch size: 6 x 4, 4 x 2" in text and f"{compute['share']:.4f} (as counted)" in text
    guided = "schedule={steps: {4: 5, 2: 5}, order: interleaved, guidance: {steps: {4: 10}}}"
    text = ditbench(monkeypatch, capsys, *given[:-1], guided, "--guidance", "1.5")[1]
    assert "patch size: 5 x 4, 5 x 2, interleaved" in text and "guidance branch: 10 x 4" in text

"""Captured graphs: a replay computes what plain calls do. What only a GPU has is stood in for by fakes."""

from __future__ import annotations

import pytest
import torch
from device_cells import QUICK, spec
from torch import Tensor

from ditbench.harness.measure.compare_times import measure_latency
from ditbench.harness.measure.latency import step_call
from ditbench.harness.measure.memory import measure_memory
from ditbench.harness.measure.options import MemoryOptions
from ditbench.harness.sample.execution import Execution
from ditbench.harness.sample.generate import BoundCell, bind, checkpoint_problem
from ditbench.harness.sample.graphs import CaptureError, Graphs, Recorded, tensors_read


class FakeRecorder:
    """Replays by calling again, so that a test sees which tensors a graph would read and write."""

    def __init__(self) -> None:
        self.captures = 0

    def __call__(self, call) -> Recorded:
        self.captures += 1
        output = call().clone()

        def replay() -> None:
            output.copy_(call())

        return Recorded(replay, output)


def graphed(**fields: object) -> tuple[BoundCell, FakeRecorder]:
    eager = bind(spec(**fields), None)
    cell = BoundCell(eager.spec.model_copy(update={"mode": "graph"}), eager.model, eager.sampler, eager.rule)
    recorder = FakeRecorder()
    cell.__dict__["execution"] = Execution(cell.spec, cell.model, recorder)
    return cell, recorder


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_replayed_samples_are_those_of_plain_calls(sampler):
    fields = {"sampler": sampler, "guidance_scale": 2.0, "guidance_interval": (300, 700)}
    cell, _ = graphed(**fields)
    plain = bind(spec(**fields), None)
    assert torch.equal(cell.generate(range(2))[0], plain.generate(range(2))[0])
    assert torch.equal(cell.generate(range(2, 4))[0], plain.generate(range(2, 4))[0]), "other labels, other noise"


def test_a_solver_that_keeps_several_outputs_gets_each_its_own():
    fields = {"method": "sit-testing", "sampler": "heun", "steps": 4}
    assert torch.equal(graphed(**fields)[0].generate(range(2))[0], bind(spec(**fields), None).generate(range(2))[0])


def test_equal_work_is_captured_once_and_other_work_and_row_counts_apart():
    cell, recorder = graphed()
    cell.generate(range(2))
    assert recorder.captures == 1, "six steps of one plan"
    cell.generate(range(2, 4))
    assert recorder.captures == 1
    cell.generate(range(3))
    assert recorder.captures == 2
    partly, recorder = graphed(guidance_scale=2.0, guidance_interval=(300, 700))
    partly.generate(range(2))
    assert recorder.captures == 2, "guided steps and others"
    flexible, recorder = graphed(method="flexidit-testing", config={"schedule": {"fractions": {4: 0.5, 2: 0.5}}})
    flexible.generate(range(2))
    assert recorder.captures == 2, "one a patch size"


def test_what_is_forgotten_is_captured_anew_and_what_capturing_takes_is_told():
    cell, recorder = graphed()
    cell.generate(range(2))
    cell.execution.forget()
    cell.generate(range(2))
    assert recorder.captures == 2 == cell.execution.graphs.captures and cell.execution.graphs.capture_ms > 0


def test_a_ledger_sees_every_call_of_a_graphed_cell():
    from ditbench.methods.work import WorkLedger

    cell, ledger = graphed()[0], WorkLedger()
    cell.generate(range(2), ledger)
    assert len(ledger.entries) == 6


def test_capture_is_a_cold_cost_of_its_own():
    cold = measure_latency(graphed()[0], None, QUICK, 1.0).detail["cold"]
    assert cold["capture_ms"] > 0 and cold["captures"] == 1 and cold["compile_ms"] is None
    assert measure_latency(bind(spec(), None), None, QUICK, 1.0).detail["cold"]["capture_ms"] is None


def test_inputs_are_copied_in_and_an_answer_is_not_overwritten():
    graphs = Graphs(FakeRecorder())
    x, times, labels = torch.ones(2), torch.zeros(2), torch.zeros(2, dtype=torch.long)

    def run(x: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        return x + 10 * times + 100 * labels

    first = graphs("a", run, (x, times, labels))
    x.add_(1)  # a sampler may write to its state
    second = graphs("a", run, (x, times, labels))
    third = graphs("a", run, (x, torch.ones(2), labels + 1))
    assert [answer[0].item() for answer in (first, second, third)] == [1, 2, 112]


def test_a_call_that_cannot_be_captured_says_so():
    def refuses(call) -> Recorded:
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might …")

    cell = graphed()[0]
    cell.__dict__["execution"] = Execution(cell.spec, cell.model, refuses)
    with pytest.raises(CaptureError, match=r"cannot be captured \(operation not permitted when stream is capturing\)"):
        cell.generate(range(1))


def test_a_graph_keeps_what_it_reads_and_not_what_it_makes():
    weight, other = torch.ones(3, 3), torch.ones(3)

    def call() -> Tensor:
        made = weight.view(9)[:3] * other
        return made + made.view(3, 1).sum()

    read = tensors_read(call)
    places = {tensor.untyped_storage().data_ptr() for tensor in read}
    assert places == {weight.untyped_storage().data_ptr(), other.untyped_storage().data_ptr()}


def test_a_graph_keeps_the_slices_that_a_model_may_drop():
    cell = bind(spec(method="dydit-testing", config={"activity": 0.5, "sdt": False}), None)
    call, _ = step_call(cell, 2)
    call(0)
    slices = [vars(value) for _, value, _ in cell.model.prepared._kept.values()]
    places = {each.untyped_storage().data_ptr() for value in slices for each in value.values() if torch.is_tensor(each)}
    read = {tensor.untyped_storage().data_ptr() for tensor in tensors_read(lambda: call(0))}
    assert len(places) > 4 and places <= read


def test_memory_of_a_graphed_cell_is_that_of_capturing():
    cell, recorder = graphed()
    measured = measure_memory(cell, MemoryOptions(batch=2)).values["activations_mib"].value
    assert recorder.captures == 2, "for the first call and again in the measured pass"
    assert measured >= measure_memory(bind(spec(), None), MemoryOptions(batch=2)).values["activations_mib"].value


@pytest.mark.parametrize("config", [{}, {"activity": 0.5}])
def test_token_selection_is_refused_in_graph_mode_also_where_it_is_imposed(config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = checkpoint_problem(spec(method="dydit-testing", mode="graph", device="cuda", config=config), None)
    assert found is not None and found.field == "mode" and "gathers tokens" in found.message
    narrow = spec(method="dydit-testing", mode="graph", device="cuda", config={**config, "sdt": False})
    assert checkpoint_problem(narrow, None) is None


def test_layouts_chosen_by_the_clock_are_refused_in_graph_mode():
    config = {"schedule": {"fractions": {4: 0.5, 2: 0.5}, "guidance": {"fractions": {4: 1.0}}}}
    cell = bind(spec(method="flexidit-testing", config=config, guidance_scale=2.0), None)
    field, message = cell.model.graph_problem(cell.plans())
    assert field == "config.schedule" and "config.layout" in message
    settled = bind(spec(method="flexidit-testing", config={**config, "layout": "packed"}, guidance_scale=2.0), None)
    assert settled.model.graph_problem(settled.plans()) is None

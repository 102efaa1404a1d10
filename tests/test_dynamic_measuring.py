"""Measurements of dynamic methods count, time and profile what their routers left to do."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import ditbench

from ditbench import methods
from ditbench.harness.errors import InputError
from ditbench.harness.measure import latency
from ditbench.harness.measure.count_cell import measure_flops
from ditbench.harness.measure.flops import FlopsResult, WorkCounter, count_steps
from ditbench.harness.measure.kernels import measure_kernels
from ditbench.harness.measure.memory import measure_memory
from ditbench.harness.measure.options import FlopsOptions, KernelsOptions, MemoryOptions
from ditbench.harness.sample.generate import bind
from ditbench.harness.store.records import CellSpec
from ditbench.harness.suite.load import load_suite
from ditbench.harness.suite.plan import make_plan
from ditbench.methods.diffusion.guidance import GuidanceRule
from ditbench.methods.weights import randomise, save_state
from ditbench.methods.work import WorkLedger


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A tiny DyDiT whose routers say yes about as often as no."""
    model = methods.build("dydit-testing")
    randomise(model, 3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "router" in name or "token_selection" in name:
                parameter.normal_(0, 1.0 if name.endswith("weight") else 0.1, generator=generator)
    path = tmp_path_factory.mktemp("weights") / "routed.safetensors"
    save_state(path, model.state_dict(), {})
    return path


def cell(**fields):
    return CellSpec(
        **{"cell": "c", "method": "dydit-testing", "sampler": "ddim", "steps": 5, "sampler_options": {}} | fields
    )


def shares_of(result: FlopsResult, name: str) -> list[list[float]] | None:
    """Shares a layer, a step, of this facet; None where the loop has none."""
    found = [shown["values"] for shown in result.facets["shares"] if shown["name"] == name]
    return found[0] if found else None


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_learned_routers_are_counted_on_samples_and_every_image_as_it_ran(checkpoint, tmp_path, scale):
    spec = cell(guidance_scale=scale)
    result = measure_flops(spec, checkpoint, FlopsOptions(samples=12), tmp_path / "maps")
    ledger, bound = WorkLedger(keep_maps=True), bind(spec, checkpoint)
    bound.generate(range(12), ledger)
    counter, rows = WorkCounter(bound.model), 1 if scale == 1.0 else 2
    kept = np.stack([entry.maps.sum(2).numpy() for entry in ledger.entries])  # (steps, layers, rows)
    for image, gmacs in enumerate(result.gmacs_images):
        mine = [image] if rows == 1 else [image, image + 12]
        macs = sum(
            counter.call(entry.plan, rows, tuple(int(kept[step, layer, mine].sum()) for layer in range(2))).total()
            for step, entry in enumerate(ledger.entries)
        )
        assert gmacs == pytest.approx(macs / 1e9, rel=1e-12)
    assert len(set(result.gmacs_images)) > 1, "images differ in their tokens"
    quantity = result.values()["gmacs_image"]
    assert quantity.low < quantity.value < quantity.high and "12 samples" in quantity.interval
    shares = np.array(shares_of(result, "tokens"))
    assert shares == pytest.approx(kept.mean(2) / 16, abs=1e-6)


def test_a_routed_cell_costs_less_than_the_same_model_with_open_routers(checkpoint, tmp_path):
    learned = measure_flops(cell(), checkpoint, FlopsOptions(samples=4))
    unloaded = measure_flops(cell())
    assert learned.gmacs_step < 0.95 * unloaded.gmacs_step
    assert set(learned.parts) == {"token routers", "width routers"}
    assert sum(learned.by_operator.values()) == pytest.approx(learned.gmacs_step, rel=1e-12)


def test_token_maps_hold_samples_timesteps_and_shares(checkpoint, tmp_path):
    result = measure_flops(cell(steps=7), checkpoint, FlopsOptions(samples=12), tmp_path / "0123")
    assert result.extra["token_maps"] == "samples/0123/token_maps.npz"
    with np.load(tmp_path / "0123" / "token_maps.npz") as maps:
        count = len(maps["labels"])
        assert maps["images"].shape == (count, 8, 8, 1) and maps["images"].dtype == np.uint8
        assert maps["kept"].shape == (5, count, 4, 4)
        assert 0 <= maps["kept"].min() < maps["kept"].max() <= 1
        assert list(maps["timesteps"]) == sorted(maps["timesteps"], reverse=True)
        assert len(set(maps["labels"].tolist())) == count <= 6


def test_width_alone_needs_the_weights_but_no_samples(checkpoint, tmp_path):
    state = {k: v for k, v in methods.weights.read_state(checkpoint).items() if "token_selection" not in k}
    save_state(tmp_path / "tdw.safetensors", state, {})
    spec = cell(config={"sdt": False})
    result = measure_flops(spec, tmp_path / "tdw.safetensors")
    assert len(result.gmacs_images) == 1 and result.values()["gmacs_image"].interval == "exact count"
    assert shares_of(result, "tokens") is None and shares_of(result, "attention heads") is not None
    assert result.gmacs_step < measure_flops(spec).gmacs_step


def test_a_count_under_imposed_activity_needs_neither_weights_nor_memory():
    result = measure_flops(cell(method="dydit-xl-2", config={"activity": 0.5}, steps=2))
    static = measure_flops(cell(method="dit-xl-2", steps=2))
    assert result.gmacs_step / static.gmacs_step == pytest.approx(0.5, abs=0.01)
    assert np.mean(shares_of(result, "attention heads")) == pytest.approx(0.5, abs=0.01)


def test_guidance_plans_a_step_once_for_both_sequences():
    model = methods.build("dydit-testing", activity=0.5)
    one = count_steps(model, model.plan([500, 0]), GuidanceRule())
    two = count_steps(model, model.plan([500, 0]), GuidanceRule(2.0))
    planning = one.parts["width routers"] * 2
    assert two.gmacs_image == pytest.approx(2 * one.gmacs_image - planning, rel=1e-12)


def test_a_timed_loop_plans_and_slices_inside_the_clock_and_steps_reuse(checkpoint, monkeypatch):
    bound, made = bind(cell(), checkpoint), []
    import ditbench.methods.dydit.model as module

    real = module.slice_attention
    monkeypatch.setattr(module, "slice_attention", lambda *given: made.append(given) or real(*given))
    call = latency.sample_call(bound, 2)
    assert not made
    call(0)
    first = len(made)
    call(1)
    assert len(made) == 2 * first > 0, "each loop begins with nothing sliced"
    step, weights = latency.step_call(bound, 2)
    for index in range(len(weights)):
        step(index)
    before = len(made)
    for index in range(len(weights)):
        step(index)
    assert len(made) == before, "steps of plans seen before slice nothing"
    latency.prepare_call(bound, 8)(0)
    assert len(made) > before


def test_steps_of_a_routed_model_are_timed_on_the_inputs_of_a_real_loop(checkpoint, monkeypatch):
    bound, seen = bind(cell(), checkpoint), []
    real = type(bound.model)._run
    monkeypatch.setattr(
        type(bound.model),
        "_run",
        lambda self, x, t, *rest: seen.append((float(t[0]), x.clone())) or real(self, x, t, *rest),
    )
    step, weights = latency.step_call(bound, 3)
    loop = dict(seen)
    assert len(weights) == 5 == len(loop)
    seen.clear()
    for index in range(len(weights)):
        step(index)
    assert all(torch.equal(loop[t], x) for t, x in seen)


def test_profiles_show_routers_and_gathering_apart_and_leave_no_hooks(checkpoint):
    bound = bind(cell(), checkpoint)
    found = {entry["class"] for entry in measure_kernels(bound, KernelsOptions(batch=4, steps=5)).detail["classes"]}
    assert {"router", "gather", "linear", "gap"} <= found
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in bound.model.modules())
    static = bind(cell(method="dit-testing"), None)
    classes = {entry["class"] for entry in measure_kernels(static, KernelsOptions(batch=4, steps=5)).detail["classes"]}
    assert not classes & {"router", "gather"}


def test_peak_memory_holds_the_prepared_slices(checkpoint):
    values = measure_memory(bind(cell(), checkpoint), MemoryOptions(batch=2)).values
    parts = [values[name].value for name in ("weights_mib", "prepared_mib", "activations_mib")]
    assert min(parts) > 0 and values["peak_mib"].value == pytest.approx(sum(parts))


SUITE = """suite: s
cells:
  - name: a
    method: dydit-testing
    config: {{activity: {activity}}}
    weights: {weights}
    dataset: digits
    measure: [flops, quality]
"""


def test_quality_under_an_imposed_activity_is_refused_at_its_place(checkpoint, tmp_path):
    (tmp_path / "s.yaml").write_text(SUITE.format(activity=0.5, weights=checkpoint))
    with pytest.raises(InputError, match="imposed activity means nothing") as caught:
        make_plan(load_suite(tmp_path / "s.yaml"))
    assert caught.value.position.line == 8


def test_imposed_activity_makes_a_cell_cost_only_with_or_without_weights(checkpoint, tmp_path):
    for weights in (checkpoint, "null"):
        text = SUITE.format(activity=0.5, weights=weights).replace("[flops, quality]", "[flops]")
        (tmp_path / "s.yaml").write_text(text)
        (planned,) = make_plan(load_suite(tmp_path / "s.yaml")).cells
        assert planned.spec.cost_only and planned.spec.imposed == "activity"


def test_a_wrong_activity_is_one_line_with_exit_code_2(tmp_path):
    done = ditbench("flops", "dydit-testing", "--set", "activity=1.5", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "activity" in done.stderr


def test_flops_and_time_say_what_the_activity_is_and_that_it_is_imposed(checkpoint, tmp_path):
    options = ("dydit-testing", "--set", "activity=0.5", "--json")
    counted = json.loads(ditbench("flops", *options, cwd=tmp_path).stdout)
    assert counted["weights"] == "cost only, imposed activity" and counted["gmacs_by_part"]["token routers"] > 0
    timed = json.loads(ditbench("time", *options, "--against", "dit-testing", "--budget", 0.5, cwd=tmp_path).stdout)
    assert timed["weights"] == "cost only, imposed activity"
    assert timed["flops_ratio"] < 1 and timed["prepare_ms"] > 0
    assert timed["realised"] == pytest.approx(timed["speedup"] * timed["flops_ratio"])
    learned = json.loads(
        ditbench("flops", "dydit-testing", "--weights", checkpoint, "--steps", 4, "--json", cwd=tmp_path).stdout
    )
    assert learned["samples"] == 100 and learned["steps"] == 4 and learned["weights"] == str(checkpoint)

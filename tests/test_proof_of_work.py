"""A flops measurement is proved by traces of what runs: what a method declares otherwise is found, and named."""

import re
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ditbench import methods
from ditbench.harness.assets.locations import weights_path
from ditbench.harness.measure import proof
from ditbench.harness.measure.count_cell import measure_flops
from ditbench.harness.measure.flops import FlopsResult, WorkCounter
from ditbench.harness.measure.operators import UncountedOperatorError
from ditbench.harness.measure.options import FlopsOptions
from ditbench.harness.measure.proof import WorkMismatchError, prove_plans
from ditbench.harness.store.records import CellSpec
from ditbench.methods.backbones.dit import DiT, dit
from ditbench.methods.call import Call
from ditbench.methods.diffusion.guidance import GuidanceRule, loop_plans
from ditbench.methods.dydit.model import DyDiT, dydit
from ditbench.methods.entries import MethodEntry
from ditbench.methods.flexidit.model import FlexiDiT, flexidit
from ditbench.methods.modifiers import fewer
from ditbench.methods.plans import StepPlan
from ditbench.methods.registry import methods as registered
from ditbench.methods.work import WorkUnit

TINY: dict[str, Any] = {"input_size": 8, "in_channels": 1, "hidden_size": 32, "depth": 2, "num_heads": 2}
TIMED = {"rank": 2, "experts": 3}
FEW = FlopsOptions(samples=2)
MIXED = {"fractions": {2: 1}, "guidance": {"fractions": {4: 0.7, 2: 0.3}}}
LAYOUTS = ("auto", "padded", "joined", "packed")


def cell(method: str = "dit-testing", config: dict[str, Any] | None = None, **fields: Any) -> CellSpec:
    return CellSpec(**{"cell": "c", "method": method, "config": config or {}, "sampler": "ddim", "steps": 4, **fields})


def on_meta(make, **config: Any):
    with torch.device("meta"):
        return make(**{**TINY, **config}).eval()


# What is proved


@pytest.mark.parametrize(("method", "config"), [
    ("dit-testing", {}),
    ("dit-testing", {"adapter": {"rank": 2}}),
    ("dit-testing", {"adapter": {"rank": 2, "folded": False}}),
    ("dit-testing", {"adapter": TIMED}),
    ("dit-testing", {"adapter": {**TIMED, "folded": False}}),
    ("dydit-testing", {}),
    ("dydit-testing", {"activity": 0.5}),
    ("dydit-testing", {"activity": "published"}),
    ("dydit-testing", {"activity": {"tokens": 0.0}}),
    ("dydit-testing", {"activity": 0.5, "sdt": False}),
    ("dydit-testing", {"activity": 0.5, "adapter": TIMED}),
    ("flexidit-testing", {"schedule": 0.6}),
    ("flexidit-testing", {"schedule": "2/2", "size_norm": True}),
    ("flexidit-testing", {"schedule": 0.6, "adapter": TIMED}),
    ("flexidit-testing", {"schedule": 0.6, "recipe": "lora", "adapter": {**TIMED, "folded": False}}),
], ids=str)  # fmt: skip
def test_every_count_by_plans_is_proved_by_each_distinct_call(method, config):
    """Guided ones and others."""
    found = measure_flops(cell(method, config, guidance_scale=2.0, guidance_interval=(300, 700)))
    plans = on_meta(registered()[method].load(), **{**registered()[method].preset, **config}).plan([999, 666, 333, 0])
    rule = GuidanceRule(2.0, (300, 700))
    kinds = {(plan.work_key, rule.guides(plan.timestep)) for plan in plans}
    assert found.proof["distinct_calls"] == len(kinds) and found.proof["second_witness"] == 1
    assert 0 < found.proof["traced_gmacs"] <= found.gmacs_image * (1 + 1e-9)
    assert found.detail()["proof"] == found.proof


@pytest.mark.parametrize(
    ("layout", "weak"), [*((layout, "conditional") for layout in LAYOUTS), ("packed", "unconditional")]
)
def test_unequal_branches_are_proved_as_they_run_and_counted_as_two_calls(layout, weak):
    fields = {"guidance_scale": 2.0, "guidance_weak": weak}
    found = measure_flops(cell("flexidit-testing", {"schedule": MIXED, "layout": layout}, **fields))
    plain = in_two_calls()
    assert found.proof["distinct_calls"] == 2, "one of two sizes, one of one"
    assert found.gmacs_image == plain.gmacs_image and found.facets == plain.facets
    masked = layout in LAYOUTS[1:]
    assert (found.proof["traced_gmacs"] != plain.proof["traced_gmacs"]) == masked, "of what runs, with its padding"


@cache
def in_two_calls() -> FlopsResult:
    return measure_flops(cell("flexidit-testing", {"schedule": MIXED}, guidance_scale=2.0))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_unequal_branches_under_an_adaptive_solver_are_proved_and_counted_as_two_calls(layout):
    config = {"schedule": MIXED, "layout": layout}
    spec = cell("flexisit-testing", config, sampler="dopri5", steps=0, guidance_scale=2.0)
    found = measure_flops(spec, None, FEW)
    assert found.proof["distinct_calls"] == 2
    (sizes,) = found.facets["labels"]
    assert {*sizes["values"]} == {"2"} and {*sizes["guidance"]} == {"2", "4"}
    with torch.device("meta"):
        model = methods.build("flexisit-testing", **config)
    counter = WorkCounter(model)
    plans = [model.plan_at(t) for t in found.facets["timesteps"]]
    expected = sum(counter.call(branch).total() for plan in plans for branch in plan.branches)
    assert found.gmacs_image * 1e9 == pytest.approx(expected, rel=1e-9)
    assert found.gmacs_step * 1e9 == pytest.approx(expected / 2 / len(plans), rel=1e-9)
    share = expected / (2 * len(plans) * counter.call(model.plan_at(1.0)).total())
    assert found.extra["compute"]["share"] == pytest.approx(share, rel=1e-9)


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_what_routers_decide_is_proved_on_real_inputs(scale):
    spec = cell("dydit-digits", steps=3, guidance_scale=scale)
    found = measure_flops(spec, weights_path("zoo:dydit-digits-0.5"), FEW)
    assert found.proof["distinct_calls"] == 3 and found.extra["probe"] == {"samples": 2}
    assert 0 < found.proof["traced_gmacs"] < 1.2 * max(found.gmacs_images)


@pytest.mark.parametrize(("method", "config"), [
    ("sit-testing", {}), ("sit-testing", {"adapter": TIMED}), ("dysit-testing", {"activity": 0.5}),
    ("dysit-testing", {}), ("flexisit-testing", {"schedule": 0.5}),
], ids=str)  # fmt: skip
def test_an_adaptive_solver_s_calls_are_proved(method, config):
    found = measure_flops(cell(method, config, sampler="dopri5", steps=0, guidance_scale=2.0), None, FEW)
    assert found.proof["distinct_calls"] == (2 if method == "flexisit-testing" else 1)


def test_width_by_learned_weights_is_proved():
    spec = cell("dydit-digits", {"sdt": False}, steps=3)
    found = measure_flops(spec, weights_path("zoo:dydit-digits-tdw-0.5"))
    assert found.proof["distinct_calls"] == found.distinct_plans > 1 and len(found.gmacs_images) == 1


def test_a_count_can_be_asked_for_without_its_proof(monkeypatch):
    monkeypatch.setattr(proof, "count_module", lambda *given: pytest.fail("traced"))
    routed = cell("dydit-digits", steps=2), weights_path("zoo:dydit-digits-0.5")
    narrow = cell("dydit-digits", {"sdt": False}, steps=2), weights_path("zoo:dydit-digits-tdw-0.5")
    for spec, weights in ((cell(), None), routed, narrow):
        assert measure_flops(spec, weights, FEW, prove=False).proof == {}


def test_the_model_is_left_as_it_was():
    model = on_meta(dydit, activity=0.5, adapter=TIMED)
    plans = model.plan([900, 100])
    prove_plans(model, plans, GuidanceRule())
    assert not model.training and not any(module._forward_hooks for module in model.modules())
    assert model.plan([900, 100]) == plans


# What is found


class FewerLayers(DiT):
    """Declares one layer's ``left_out`` less than it runs."""

    left_out = "mlp"

    def work(self, plan: StepPlan, rows: int = 1, decided: tuple[int, ...] | None = None) -> list[WorkUnit]:
        units = super().work(plan, rows, decided)
        return [fewer(unit, unit.layers[1:]) if unit.unit == self.left_out else unit for unit in units]


class MoreLayers(DiT):
    """Declares an attention more than it runs."""

    def work(self, plan: StepPlan, rows: int = 1, decided: tuple[int, ...] | None = None) -> list[WorkUnit]:
        units = super().work(plan, rows, decided)
        return [replace(unit, repeats=unit.repeats + 1) if unit.unit == "attention" else unit for unit in units]


class Silent(DyDiT):
    """Declares no token router."""

    def work(self, plan: StepPlan, rows: int = 1, decided: tuple[int, ...] | None = None) -> list[WorkUnit]:
        return [unit for unit in super().work(plan, rows, decided) if unit.key != "token-router"]


class Planless(DyDiT):
    """Declares that planning runs in the call."""

    def work(self, plan: StepPlan, rows: int = 1, decided: tuple[int, ...] | None = None) -> list[WorkUnit]:
        return [replace(unit, when="call") for unit in super().work(plan, rows, decided)]


class Coarse(FlexiDiT):
    """Declares coarse sequences in the guidance branch throughout."""

    def work(self, plan: StepPlan, rows: int = 1, decided: tuple[int, ...] | None = None) -> list[WorkUnit]:
        return super().work(self.alternatives(plan)["patch size 4"], rows, decided)


class Inverts(DiT):
    """Runs an operator that has no rule."""

    def predict(self, x, t, conditions, call: Call):
        return super().predict(x, t, conditions, call) + torch.linalg.inv(x)


def of_kind(kind: type[DiT], make, **config: Any):
    model = on_meta(make, **config)
    model.__class__ = kind
    return model


def mismatch(model, plans, rule: GuidanceRule | None = None) -> str:
    with pytest.raises(WorkMismatchError) as caught:
        prove_plans(model, plans, rule or GuidanceRule())
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("rule", [GuidanceRule(), GuidanceRule(2.0)], ids=["plain", "guided"])
def test_a_method_that_declares_less_than_it_runs_fails_by_the_operators_that_differ(rule):
    model = of_kind(FewerLayers, dit)
    found = mismatch(model, model.plan([500]), rule)
    assert "linear:" in found and "layer_norm:" in found and "attention:" not in found and "timestep 500" in found
    rows = 2 if rule.scale != 1 else 1
    plain = WorkCounter(on_meta(dit)).call(StepPlan(0.0), rows)["linear"]
    assert f"{(plain - rows * 16 * 8 * 32 * 32) / 1e6:,.6f} MMAC declared, {plain / 1e6:,.6f} executed" in found


def test_a_method_that_declares_more_than_it_runs_fails_too():
    model = of_kind(MoreLayers, dit)
    found = mismatch(model, model.plan([500]))
    assert "attention:" in found and "linear:" in found and "conv:" not in found


def test_the_first_wrong_call_of_a_loop_is_found_wherever_it_is():
    model = of_kind(Coarse, flexidit)
    coarse, fine = model.alternatives(StepPlan(700.0))["patch size 4"], StepPlan(300.0).having(model.patch(2))
    prove_plans(model, [coarse], GuidanceRule())
    assert "timestep 300" in mismatch(model, [coarse, coarse, fine])


@pytest.mark.parametrize("activity", [0.5, 1.0, {"tokens": 0.0}, {"heads": 0.5, "tokens": 0.5}], ids=str)
def test_an_imposed_model_s_token_routers_are_in_what_is_traced(activity):
    """Their verdict is overruled; a tracer would drop them if nothing needed it."""
    model = on_meta(dydit, activity=activity)
    plans = model.plan([500])
    prove_plans(model, plans, GuidanceRule())
    model.__class__ = Silent
    found, routers = mismatch(model, plans), 2 * 16 * (32 * 2 + 2)
    assert "linear:" in found and found.count("declared,") == 1, "and nothing else"
    numbers = re.search(r"linear: ([\d.]+) MMAC declared, ([\d.]+) executed", found).groups()
    declared, executed = map(float, numbers)
    assert executed - declared == pytest.approx(routers / 1e6, abs=2e-6)


def test_planning_is_no_part_of_a_call():
    model = of_kind(Planless, dydit, activity=0.5)
    assert "linear:" in mismatch(model, model.plan([500]))


def test_a_measurement_of_such_a_method_fails(monkeypatch):
    entry = MethodEntry(f"{__name__}:fewer_layers", name="fewer", facts=registered()["dit"].facts)
    monkeypatch.setitem(registered()._entries, "fewer", entry)
    with pytest.raises(WorkMismatchError, match="linear"):
        measure_flops(cell("fewer", TINY))
    spec = cell("fewer", {**TINY, "flow": "linear"}, sampler="dopri5", steps=0)
    with pytest.raises(WorkMismatchError, match="linear"):
        measure_flops(spec, None, FEW)


def fewer_layers(**config: Any) -> DiT:
    model = dit(**config)
    model.__class__ = FewerLayers
    return model


def test_an_operator_that_nobody_counts_is_named():
    model = of_kind(Inverts, dit, learn_sigma=False)
    with pytest.raises(UncountedOperatorError, match="linalg_inv"):
        prove_plans(model, model.plan([500]), GuidanceRule())


def test_two_counters_that_disagree_are_an_error(monkeypatch):
    real = FlopCounterMode.get_total_flops
    monkeypatch.setattr(FlopCounterMode, "get_total_flops", lambda self: real(self) + 2_000_000)
    model = on_meta(dit)
    assert "two counters disagree" in mismatch(model, loop_of(model))


def loop_of(model) -> list[StepPlan]:
    from ditbench.methods.diffusion.ddim import DDIM

    return loop_plans(model, DDIM(3), GuidanceRule())


def test_a_method_that_plans_less_than_it_runs_and_records_fails_too(monkeypatch):
    """Its ledger is honest and its pieces are those of the ledger: only the plan, which is counted, is not."""

    def finest(self, x, t, y, *, patch_size=None, plan=None, ledger=None, call=None):
        given = call or Call(plan, ledger)
        fine = StepPlan(given.plan.timestep, (self.patch(2),))
        return forward(self, x, t, y, call=given.at(fine, given.branches))

    forward = FlexiDiT.forward
    monkeypatch.setattr(FlexiDiT, "forward", finest)
    spec = CellSpec(cell="c", method="flexidit-testing", config={"schedule": 0.6}, sampler="ddim", steps=5)
    with pytest.raises(WorkMismatchError, match="records another plan than it was given"):
        measure_flops(spec)

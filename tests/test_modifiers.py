"""Modifiers change what they say and nothing else; what is left out does not run; what is kept ends with the loop."""

from typing import Any

import pytest
import torch
from example_modifiers import Again, Halves, Nothing, Repeats, Reuses, Skips, registered
from torch import nn

from ditbench import methods
from ditbench.harness.assets.locations import weights_path
from ditbench.harness.measure.count_cell import measure_flops
from ditbench.harness.measure.flops import WorkCounter
from ditbench.harness.measure.memory import most_remembered
from ditbench.harness.measure.options import FlopsOptions
from ditbench.harness.measure.proof import WorkMismatchError, prove_plans
from ditbench.harness.measurements.registry import measurements
from ditbench.harness.sample.generate import BoundCell, bind, bind_sampler, checkpoint_problem
from ditbench.harness.store.records import CellSpec
from ditbench.methods.call import Call
from ditbench.methods.conditions import of_labels, zeros
from ditbench.methods.diffusion.guidance import GuidanceRule, loop_plans
from ditbench.methods.errors import ConfigError
from ditbench.methods.memory import Memory
from ditbench.methods.modifiers import Modified, Modifier, made_modifiers, without_units
from ditbench.methods.plans import StepPlan
from ditbench.methods.protocols import Denoiser, StaticWork
from ditbench.methods.work import WorkLedger, WorkUnit

usable = pytest.mark.usefixtures("registered")
__all__ = ["registered"]

DIGITS = {
    "dit": ("dit-digits", "zoo:dit-digits", {}),
    "dydit": ("dydit-digits", "zoo:dydit-digits-0.5", {}),
    "flexidit": ("flexidit-digits", "zoo:flexidit-digits", {"schedule": {"fractions": {4: 0.4, 2: 0.6}}}),
    "unequal": ("flexidit-digits", "zoo:flexidit-digits", {"schedule": "4/2"}),
    "layout": ("flexidit-digits", "zoo:flexidit-digits", {"schedule": "4/2", "layout": "separate"}),
}
GUIDED: dict[str, Any] = {"guidance_scale": 2.0}
INTERVAL: dict[str, Any] = {**GUIDED, "guidance_interval": (300, 900)}
COUNTED = [
    ("dit-testing", {}),
    ("dit-testing", {"adapter": {"rank": 2, "folded": False}}),
    ("dydit-testing", {"activity": 0.5}),
    ("dydit-testing", {"activity": {"tokens": 0.0, "heads": 0.5}}),
    ("flexidit-testing", {"schedule": 0.6}),
    ("flexidit-testing", {"schedule": "3/1"}),
    ("flexidit-testing", {"schedule": "3/1", "layout": "joined"}),
]
counted = pytest.mark.parametrize(("method", "config"), COUNTED, ids=str)


def spec(method: str = "dit-testing", config: dict[str, Any] | None = None, *around: Any, **fields: Any) -> CellSpec:
    named = {"cell": "c", "method": method, "config": config or {}, "modifiers": around, "sampler": "ddim", "steps": 6}
    return CellSpec(**{**named, **fields})


def around(cell: BoundCell, *modifiers: Modifier) -> BoundCell:
    """The cell with the same weights and modifiers around it."""
    model = Modified(cell.model, modifiers)
    return BoundCell(cell.spec, model, *bind_sampler(cell.spec, model))


def digits(name: str, **fields: Any) -> BoundCell:
    method, weights, config = DIGITS[name]
    options = {"sampler_options": {"clip": True}, "weights": weights, **fields}
    return bind(spec(method, config, **options), weights_path(weights))


def counted_calls(model: nn.Module, kind: str) -> list[str]:
    """Names of modules called so that are called from now on."""
    seen: list[str] = []
    for name, module in model.named_modules():
        if name.endswith(kind):
            module.register_forward_hook(lambda *_, name=name: seen.append(name))
    return seen


# Nothing


@pytest.mark.parametrize("fields", [{}, GUIDED, INTERVAL], ids=["plain", "guided", "interval"])
@pytest.mark.parametrize("name", DIGITS)
def test_what_does_nothing_changes_nothing_to_the_bit(name, fields):
    plain = digits(name, **fields)
    ledgers = [WorkLedger(keep_maps=True) for _ in range(3)]
    expected = plain.generate(range(3), ledgers[0])[0]
    for ledger, modifiers in zip(ledgers[1:], ([Nothing()], [Nothing(), Nothing()]), strict=True):
        assert torch.equal(around(plain, *modifiers).generate(range(3), ledger)[0], expected)
        for entry, other in zip(ledgers[0].entries, ledger.entries, strict=True):
            assert (entry.plan, entry.rows, entry.decided) == (other.plan, other.rows, other.decided)
            assert entry.evaluation == other.evaluation
            assert entry.maps is None if other.maps is None else torch.equal(entry.maps, other.maps)


@usable
@counted
def test_what_does_nothing_costs_nothing(method, config):
    plain = measure_flops(spec(method, config, **INTERVAL))
    same = measure_flops(spec(method, config, {"nothing": {}}, **INTERVAL))
    assert same.values() == plain.values() and same.facets == plain.facets and same.by_operator == plain.by_operator


def test_a_modified_model_is_for_all_else_the_model():
    model = methods.build("dydit-testing", activity=0.5)
    modified = Modified(model, [Nothing()])
    assert isinstance(modified, Denoiser) and modified.facts == model.facts and modified.process == model.process
    assert not modified.remembers and modified.plan([5.0]) == model.plan([5.0]) == [modified.plan_at(5.0)]
    x, t, y = torch.randn(2, 1, 8, 8), torch.full((2,), 5), torch.tensor([1, 2])
    with torch.no_grad():
        assert torch.equal(modified(x, t, y, plan=model.plan([5])[0]), model(x, t, y, plan=model.plan([5])[0]))


def test_a_modifier_of_weights_alone_leaves_pairs_to_the_model():
    class Scales(Modifier):
        wants = ("weights",)

        def fit(self, model: Denoiser) -> None:
            model.final_layer.linear.weight.data.mul_(2)

    cell = digits("unequal", **GUIDED)
    before = cell.model.final_layer.linear.weight.clone()
    scaled = around(cell, Scales())
    assert torch.equal(cell.model.final_layer.linear.weight, 2 * before), "once, before the first call"
    assert set(scaled.tune(2)) == {"patch 2, guidance 4"} and around(cell, Nothing()).tune(2) == {}


# What is left out


def test_units_are_wrapped_in_every_layer_in_order_inside_out():
    inner, outer = Skips({}), Skips({})
    model = Modified(methods.build("dit-testing"), [inner, outer])
    with torch.no_grad():
        model.predict(torch.randn(2, 1, 8, 8), torch.zeros(2), zeros(model.facts, 2), Call(StepPlan(0.0)))
    assert inner.places == outer.places
    found = [(place.layer, place.unit, place.depth) for place in outer.places]
    assert found == [(layer, unit, 2) for layer in range(2) for unit in ("block", "attention", "mlp")]


@torch.no_grad()
@pytest.mark.parametrize("name", ["dit", "dydit", "flexidit"])
@pytest.mark.parametrize(("unit", "kind"), [("attention", "norm1"), ("mlp", "norm2"), ("block", "adaLN_modulation")])
def test_what_is_skipped_is_not_computed(name, unit, kind):
    cell = digits(name, **GUIDED)
    skipped = around(cell, Skips({1: [unit], 4: [unit]}))
    seen = counted_calls(cell.model, kind)
    samples = skipped.generate(range(2))[0]
    calls = {layer: seen.count(f"blocks.{layer}.{kind}") for layer in range(6)}
    assert calls == {layer: 0 if layer in (1, 4) else 6 for layer in range(6)}
    assert not torch.allclose(samples, cell.generate(range(2))[0], atol=1e-2), "and it matters"


@torch.no_grad()
@pytest.mark.parametrize("name", ["dit", "dydit", "flexidit"])
def test_a_skipped_unit_adds_nothing_to_the_stream(name):
    """As if its gate were closed; a skipped block, as if both were."""
    cell, closed = digits(name), digits(name)
    for skipped, rows in (("attention", (2,)), ("mlp", (5,)), ("block", (2, 5))):
        layer = closed.model.blocks[3].adaLN_modulation[1]
        kept = layer.weight.clone(), layer.bias.clone()
        for row in rows:
            for tensor in (layer.weight, layer.bias):
                tensor.unflatten(0, (6, -1))[row].zero_()
        expected = closed.generate(range(2))[0]
        layer.weight.copy_(kept[0]), layer.bias.copy_(kept[1])
        found = around(cell, Skips({3: [skipped]})).generate(range(2))[0]
        assert torch.allclose(found, expected, atol=1e-4), skipped


@usable
@counted
@pytest.mark.parametrize(
    "left_out", [{1: ["mlp"]}, {0: ["attention"]}, {0: ["mlp", "attention"]}, {1: ["block"]}], ids=str
)
def test_what_a_skipping_modifier_declares_is_what_runs(method, config, left_out):
    less = measure_flops(spec(method, config, {"skips": {"left_out": left_out}}, steps=4, **INTERVAL))
    plain = measure_flops(spec(method, config, steps=4, **INTERVAL), prove=False)
    assert less.proof["distinct_calls"] >= 2 and less.gmacs_image < plain.gmacs_image
    assert less.params == plain.params


@usable
def test_a_skipping_modifier_that_declares_nothing_is_found(monkeypatch):
    monkeypatch.setattr(Skips, "work", Modifier.work)
    for method, config in (("dit-testing", {}), ("dydit-testing", {"activity": 0.5}), ("flexidit-testing", {})):
        with pytest.raises(WorkMismatchError, match="linear"):
            measure_flops(spec(method, config, {"skips": {"left_out": {1: ["mlp"]}}}))


@usable
@pytest.mark.parametrize(
    "left_out", [{2: ["block"]}, {2: ["mlp"]}, {0: ["attention"], 5: ["mlp", "attention"]}], ids=str
)
def test_layers_are_left_out_of_a_model_that_selects_tokens_too(left_out):
    method, weights, config = DIGITS["dydit"]
    given = weights_path(weights), FlopsOptions(samples=3)
    found = measure_flops(spec(method, config, {"skips": {"left_out": left_out}}, steps=3, **GUIDED), *given)
    assert found.proof["distinct_calls"] == 3 and len(found.gmacs_images) == 3
    tokens = next(shown["values"] for shown in found.facets["shares"] if shown["name"] == "tokens")
    assert all(len(step) == 6 for step in tokens), "a share a layer, of those that were left out too"
    if "block" in left_out.get(2, ()):
        assert all(step[2] == 0 for step in tokens)


def test_pieces_are_left_out_by_unit_and_layer():
    pieces = [
        WorkUnit("embed", 1, nn.Identity(), tuple),
        WorkUnit("mlp", 3, nn.Identity(), tuple, unit="mlp", layers=(0, 1, 2)),
        WorkUnit("one token's mlp", 40, nn.Identity(), tuple, unit="mlp", layers=(3,)),
        WorkUnit("router", 8, nn.Identity(), tuple, unit="router", layers=(0, 1, 2, 3)),
    ]

    def left(left_out: dict[int, list[str]]) -> list[tuple[str, int, tuple[int, ...]]]:
        return [(piece.key, piece.repeats, piece.layers) for piece in without_units(pieces, left_out)]

    whole = [("embed", 1, ()), ("mlp", 3, (0, 1, 2)), ("one token's mlp", 40, (3,)), ("router", 8, (0, 1, 2, 3))]
    assert left({}) == whole == left({1: ["attention"]})
    assert left({1: ["mlp"], 3: ["mlp"]}) == [whole[0], ("mlp", 2, (0, 2)), whole[3]]
    assert left({1: ["block"]}) == [whole[0], ("mlp", 2, (0, 2)), whole[2], ("router", 6, (0, 2, 3))]
    with pytest.raises(ConfigError, match="layer 4"):
        left({4: ["mlp"]})


# What is reused


@pytest.mark.parametrize("kind", [Reuses, Repeats])
@pytest.mark.parametrize("fields", [{}, GUIDED, INTERVAL, {**GUIDED, "guidance_interval": (0, 500)}], ids=str)
@pytest.mark.parametrize("name", DIGITS)
def test_what_is_reused_is_of_the_step_before_whatever_is_guided(name, fields, kind):
    cell = digits(name, **fields)
    reusing = around(cell, kind())
    plans = loop_plans(reusing.model, reusing.sampler, reusing.rule)
    reuse = [plan.get(Again).reuse for plan in plans]
    assert any(reuse) and not all(reuse) and not reuse[0]
    seen = counted_calls(cell.model, "blocks.0.norm1")
    guided = reusing.denoiser(reusing.streams(range(2)).conditions)
    assert len(guided.memory) == 0
    first = reusing.generate(range(2))[0]
    branches = [2 if plan.guidance is not None and reusing.rule.guides(plan.timestep) else 1 for plan in plans]
    assert len(seen) == sum(count for count, again in zip(branches, reuse, strict=True) if not again)
    assert torch.equal(reusing.generate(range(2))[0], first), "the next loop begins with nothing"
    assert not torch.allclose(first, cell.generate(range(2))[0], atol=1e-3), "and it matters"
    apart = torch.cat([reusing.generate(range(k, k + 1))[0] for k in range(2)])
    assert torch.allclose(first, apart, atol=1e-3), "neighbours do not"


def test_a_loop_begins_with_an_empty_memory_and_keeps_its_own():
    reusing = around(digits("dit", **GUIDED), Reuses())
    loops = []
    for _ in range(2):
        streams = reusing.streams(range(2))
        guided = reusing.denoiser(streams.conditions)
        assert len(guided.memory) == 0 and guided.memory.rows == 2
        reusing.loop(guided, streams.noise(), streams.noise)
        loops.append(guided.memory)
    assert loops[0] is not loops[1] and [len(memory) for memory in loops] == [24, 24], "units of layers of branches"
    assert most_remembered(reusing, 2) == loops[0].bytes == 2 * 12 * 2 * 16 * 96 * 4


@torch.no_grad()
def test_a_guidance_branch_that_does_not_run_is_remembered_as_it_was():
    model = Modified(methods.build("dit-testing"), [Reuses(["mlp"])])
    methods.weights.randomise(model.model, 0)
    memory, x, t = Memory(2), torch.randn(2, 1, 8, 8), torch.zeros(4)
    told = of_labels(model.facts, torch.tensor([1, 2]))
    fresh, again = (StepPlan(0.0, (Again(reuse),)) for reuse in (False, True))

    def step(plan: StepPlan, guides: bool) -> torch.Tensor:
        branches = ("conditional", "guidance") if guides else ("conditional",)
        given, rows = (told.cat(told.null()), torch.cat([x, x])) if guides else (told, x)
        return model.predict(rows, t[: len(rows)], given, Call(plan, memory=memory, branches=branches))

    both = step(fresh, True)
    assert torch.equal(step(again, True), both)
    before, x = x, x + 1
    step(fresh, False)
    mixed = step(again, True)
    x = before
    assert torch.equal(step(again, True)[2:], both[2:]), "of the guided step"
    assert not torch.equal(mixed[:2], both[:2])


@usable
@counted
@pytest.mark.parametrize("name", ["reuses", "repeats"])
def test_what_a_reusing_modifier_declares_is_what_runs(method, config, name):
    longer = {**INTERVAL, "steps": 12}
    found = measure_flops(spec(method, config, {name: {}}, **longer))
    plain = measure_flops(spec(method, config, **longer), prove=False)
    shown = next(facet for facet in found.facets["labels"] if facet["name"] == "units")
    assert set(shown["values"]) == {"computed", "reused"} and found.gmacs_image < plain.gmacs_image
    less = [step["gmacs"] < full["gmacs"] for step, full in zip(found.profile, plain.profile, strict=True)]
    assert less == [value == "reused" for value in shown["values"]]


@usable
@pytest.mark.parametrize("name", ["reuses", "repeats"])
def test_reuse_is_counted_in_a_model_that_selects_tokens_step_by_step(name):
    method, weights, config = DIGITS["dydit"]
    found = measure_flops(
        spec(method, {**config, "tdw": True}, {name: {}}, steps=4, **GUIDED),
        weights_path(weights),
        FlopsOptions(samples=2),
    )
    assert len(found.profile) == 4 and found.proof["distinct_calls"] >= 3
    bound = bind(spec(method, config, {name: {}}, steps=4, **GUIDED), weights_path(weights))
    ledger = WorkLedger()
    bound.generate(range(2), ledger)
    whole = WorkCounter(bound.model).ledger(ledger.entries).total()
    assert sum(found.gmacs_images) * 1e9 == pytest.approx(whole, rel=0.02), "planning is once an image there"


@usable
@pytest.mark.parametrize("sampler", ["heun", "dopri5"])
def test_what_is_remembered_is_refused_by_solvers_that_do_not_evaluate_once_a_step_in_order(sampler):
    given = spec("sit-testing", {}, {"reuses": {}}, sampler=sampler, steps=0 if sampler == "dopri5" else 4)
    found = checkpoint_problem(given, None)
    assert found is not None and "keeps something from step to step" in found.message and "\n" not in found.message
    with pytest.raises(ConfigError, match="does not evaluate once a step, in order"):
        bind(given, None).generate(range(1))
    with pytest.raises(ConfigError, match="does not evaluate once a step, in order"):
        measure_flops(given)
    for fine in ({"modifiers": ({"nothing": {}},)}, {"sampler": "euler", "steps": 4}):
        assert checkpoint_problem(given.model_copy(update=fine), None) is None


@usable
def test_what_is_remembered_is_refused_in_graphs_and_where_steps_are_asked_for_one_by_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    graph = checkpoint_problem(spec("dit-testing", {}, {"reuses": {}}, mode="graph", device="cuda"), None)
    assert graph is not None and graph.field == "mode" and "reuses what the step before it kept" in graph.message
    assert checkpoint_problem(spec("dit-testing", {}, {"nothing": {}}, mode="graph", device="cuda"), None) is None
    asked = [measurements()["agreement"].misfit]
    single = checkpoint_problem(spec("flexidit-testing", {}, {"reuses": {}}, measure=("agreement",)), None, asked)
    assert single is not None and single.field == "measure" and "one by one" in single.message


# Outputs, order, refusals


def test_outputs_are_wrapped_in_order():
    class Adds(Modifier):
        wants = ("output",)

        def output(self, x, run, call):
            return run(x) + 1

    model = methods.build("dit-testing")
    methods.weights.randomise(model, 0)
    given = torch.randn(2, 1, 8, 8), torch.zeros(2), zeros(model.facts, 2), Call(StepPlan(0.0))
    with torch.no_grad():
        plain = model.predict(*given)
        assert torch.equal(Modified(model, [Halves()]).predict(*given), plain / 2)
        assert torch.equal(Modified(model, [Halves(), Adds()]).predict(*given), plain / 2 + 1), "the first is innermost"
        assert torch.equal(Modified(model, [Adds(), Halves()]).predict(*given), (plain + 1) / 2)


@usable
def test_an_output_s_modifier_reaches_samples_and_pairs():
    for name in ("dit", "unequal"):
        cell = digits(name, **GUIDED)
        halved = around(cell, Halves())
        streams = cell.streams(range(2))
        x = streams.noise()
        with torch.no_grad():
            plain, half = (each.denoiser(streams.conditions)(x, 3) for each in (cell, halved))
        assert torch.allclose(half, plain / 2, atol=1e-5)
    assert measure_flops(spec("flexidit-testing", {"schedule": "3/1"}, {"halves": {}}, **GUIDED)).proof


def test_a_modifier_that_cannot_stand_where_it_shall_says_why():
    class Plain(StaticWork, nn.Module):
        in_channels, input_size, num_classes = 1, 8, 10

    class Alone(Nothing):
        def refuses(self, model: Denoiser) -> str:
            return "not twice" if isinstance(model, Modified) else ""

    with pytest.raises(ConfigError, match="Nothing wraps units of blocks, and Plain shows none"):
        Modified(Plain(), [Nothing()])
    model = methods.build("dit-testing")
    Modified(model, [Alone(), Nothing()])
    with pytest.raises(ConfigError, match="Alone: not twice"):
        Modified(model, [Nothing(), Alone()])


@usable
def test_modifiers_are_made_from_what_users_write():
    made = made_modifiers([{"skips": {"left_out": {0: ["mlp"]}}}, {"nothing": None}])
    assert [type(each) for each in made] == [Skips, Nothing]
    for wrong, words in (
        ([{"skips": {}}], "modifier skips: .*left_out"),
        ([{"a": {}, "b": {}}], "written as NAME"),
        (["nothing"], "written as NAME"),
    ):
        with pytest.raises(ConfigError, match=words):
            made_modifiers(wrong)
    found = checkpoint_problem(spec("dit-testing", {}, {"skips": {"wrong": 1}}), None)
    assert found is not None and found.field == "modifiers" and "skips" in found.message


@usable
def test_a_checkpoint_is_compared_with_the_model_before_modifiers_change_it(monkeypatch):
    class Grows(Nothing):
        def fit(self, model: Denoiser) -> None:
            model.extra = nn.Linear(2, 2)

    monkeypatch.setattr("example_modifiers.Nothing", Grows)
    given = spec("dit-digits", {}, {"nothing": {}})
    assert checkpoint_problem(given, weights_path("zoo:dit-digits")) is None
    bind(given.model_copy(update={"weights": "zoo:dit-digits"}), weights_path("zoo:dit-digits"))


def test_a_modified_model_s_loop_is_proved_where_branches_choose_apart():
    """A choice of the guidance branch alone: it reuses, the other computes."""

    class Half(Reuses):
        def schedule(self, plans, guided):
            return [
                StepPlan(plan.timestep, (Again(False),), (Again(number % 2 == 1),)) for number, plan in enumerate(plans)
            ]

    with torch.device("meta"):
        model = Modified(methods.build("dit-testing"), [Half()])
    plans = model.scheduled(model.plan([900.0, 600.0, 300.0, 0.0]), [True] * 4)
    assert prove_plans(model, plans, GuidanceRule(2.0))["distinct_calls"] == 2

"""Adapters of every backbone: folded they are free and exact, beside they cost what they execute, by time they vary."""

from itertools import product
from typing import Any

import pytest
import torch
from dydit_models import SMALL, agree, inputs, one_line, width_of
from dydit_models import vivid as vivid_dydit
from flexidit_models import patch_plan
from test_flexidit import enlivened

from ditbench import methods
from ditbench.harness.measure.flops import WorkCounter
from ditbench.methods.call import Call
from ditbench.methods.conditions import of_labels
from ditbench.methods.diffusion.schedules import timestep_map
from ditbench.methods.dydit.choices import Width
from ditbench.methods.errors import ConfigError
from ditbench.methods.lora.adapted import FoldedAt, folded_time
from ditbench.methods.plans import StepPlan
from ditbench.methods.training.accounting import accounting
from ditbench.methods.work import WorkLedger

TIMED: dict[str, Any] = {"rank": 3, "experts": 4}
KINDS: dict[str, dict[str, Any]] = {
    "lora": {"rank": 3, "alpha": 2.0},
    "up": TIMED,
    "down": {**TIMED, "expert_factor": "down", "alpha": 6.0},
    "some": {**TIMED, "targets": ["mlp.fc2", "attn.qkv"]},
}
GRID = [0, 1, 250, 501, 999]
kinds = pytest.mark.parametrize("kind", KINDS)
timed = pytest.mark.parametrize("kind", ["up", "down", "some"])


def lively(method: str, adapter: Any, seed: int = 0, **config: Any):
    """A small model with random weights of a size that matters; routers of tokens and widths about half open."""
    if method == "dydit":
        return vivid_dydit(seed, adapter=adapter, **config)
    if method != "dit":
        config = {"patch_sizes": [2, 4], "recipe": method, **config}
    return enlivened(methods.build("dit" if method == "dit" else "flexidit", **SMALL, adapter=adapter, **config), seed)


def twin(model, **changed: Any):
    """A model with the same weights and another adapter config."""
    fields = {name: getattr(model.config, name) for name in model.config.__dataclass_fields__}
    adapter = {name: getattr(model.config.adapter, name) for name in model.config.adapter.__dataclass_fields__}
    other = type(model)(type(model.config)(**{**fields, "adapter": {**adapter, **changed}})).eval()
    other.load_state_dict(model.state_dict())
    return other


def call(model, method: str, x, t, y, plan=None):
    if method == "lora":
        plan = None if plan is None else model.at_its_time(patch_plan(plan.timestep, 4))
        return model(x, t, y, plan=plan, patch_size=4)
    return model(x, t, y, plan=plan)


# Folded, beside, trained: one function


@torch.no_grad()
@kinds
@pytest.mark.parametrize("flow", [None, "linear"])
@pytest.mark.parametrize("method", ["dit", "shared", "lora"])
def test_folded_for_each_time_equals_beside_with_all_times_in_one_batch(method, kind, flow):
    folded = lively(method, KINDS[kind], flow=flow)
    beside = twin(folded, folded=False)
    x, t, y = inputs(len(GRID))
    t = torch.tensor(GRID) if flow is None else torch.tensor([0.0, 0.037, 0.5, 0.8125, 1.0])
    together = call(beside, method, x, t, y)
    agree(call(folded, method, x, t, y), together, 1e-5)
    plans = folded.plan(t.tolist())
    for row, plan in enumerate(plans):
        one = call(folded, method, x[row : row + 1], t[row : row + 1], y[row : row + 1], plan)
        agree(one, together[row : row + 1], 1e-5)
    trained = twin(folded).train()
    agree(call(trained, method, x, t, y), together, 1e-5)


@torch.no_grad()
@kinds
@pytest.mark.parametrize("flow", [None, "linear"])
@pytest.mark.parametrize("open_routers", [True, False])
def test_slices_of_folded_weights_equal_the_masked_path_beside_them(open_routers, flow, kind):
    model = lively("dydit", KINDS[kind], flow=flow)
    if open_routers:
        model.open_routers()
    x, t, y = inputs(len(GRID))
    t = torch.tensor(GRID) if flow is None else torch.tensor([0.0, 0.037, 0.5, 0.8125, 1.0])
    expected = model.masked(x, t, y).out
    agree(model(x, t, y), expected, 1e-5)
    for row, plan in enumerate(model.plan(t.tolist())):
        one = slice(row, row + 1)
        agree(model(x[one], t[one], y[one], plan=plan), expected[one], 1e-5)
        assert (min(map(len, width_of(plan).heads)) == 4) == open_routers


@torch.no_grad()
@kinds
@pytest.mark.parametrize("method", ["dit", "dydit", "shared", "lora"])
def test_new_adapters_change_nothing_to_the_bit(method, kind):
    torch.manual_seed(0)
    base = lively(method, {} if method == "lora" else None)
    model = type(base)(type(base.config)(**{**vars(base.config), "adapter": KINDS[kind]})).eval()
    state = {name: value for name, value in base.state_dict().items() if ".adapters." not in name}
    model.load_state_dict({**model.state_dict(), **state})
    base.switch.active = None
    for name, value in base.named_parameters():
        if name.endswith(".up"):
            value.zero_()
    x, _, y = inputs(3)
    t = torch.full((3,), 700)
    expected = call(base, method, x, t, y)
    (plan,) = model.plan([700])
    assert torch.equal(call(model, method, x, t, y, plan), expected), "folded"
    if method == "dydit":
        assert torch.equal(model.masked(x, t, y).out, base.masked(x, t, y).out)
    else:
        assert torch.equal(call(twin(model, folded=False), method, x, t, y), expected), "beside"


@torch.no_grad()
@pytest.mark.parametrize("factor", ["up", "down"])
def test_equal_experts_are_plain_lora(factor):
    plain = lively("dit", {"rank": 3})
    model = type(plain)(type(plain.config)(**{**vars(plain.config), "adapter": {**TIMED, "expert_factor": factor}}))
    state = plain.state_dict()
    spread = {k: v.expand(4, *v.shape) if k.endswith(f".{factor}") else v for k, v in state.items()}
    model.load_state_dict({**{k: v for k, v in model.state_dict().items() if k.endswith("router")}, **spread})
    args = inputs(4)
    agree(model.eval()(*args), plain(*args), 1e-5)
    (plan,) = model.plan([300])
    x, y = args[0], args[2]
    agree(model(x, torch.full((4,), 300), y, plan=plan), plain(x, torch.full((4,), 300), y), 1e-5)


@torch.no_grad()
@timed
def test_an_update_is_the_stated_mixture_of_its_experts(kind):
    """From scratch: W x + alpha / rank · up(t) · down(t) x with softmax(router · E_t)."""
    model, t = lively("dit", KINDS[kind]), 421
    model.fold(model.plan([t])[0])
    layer = model.blocks[1].mlp.fc2
    factors = layer.adapters["all"]
    weights = torch.softmax(factors.router @ model.t_embedder(torch.tensor([t]))[0], 0)
    up = sum(w * e for w, e in zip(weights, factors.up, strict=True)) if kind != "down" else factors.up
    down = sum(w * e for w, e in zip(weights, factors.down, strict=True)) if kind == "down" else factors.down
    scale = 2.0 if kind == "down" else 1.0
    agree(layer.folded(), layer.weight + scale * up @ down, 1e-6)


@torch.no_grad()
@timed
def test_updates_differ_by_time_and_only_through_the_router(kind):
    model = lively("dit", KINDS[kind])
    layer = model.blocks[0].attn.qkv

    def update(t: float):
        model.fold(model.plan([t])[0])
        return layer.folded() - layer.weight

    early, late = update(5), update(900)
    assert (early - late).abs().max() > 0.05 * early.abs().max()
    layer.adapters["all"].router.zero_()
    assert torch.equal(update(5), update(900))


def test_plans_differ_by_time_where_updates_do_and_only_there():
    for method, adapter, differ in (
        ("dit", None, False),
        ("dit", {}, False),
        ("dit", TIMED, True),
        ("dit", {**TIMED, "folded": False}, False),
        ("shared", TIMED, True),
        ("lora", TIMED, False),  # no schedule: the base at every step
        ("dydit", TIMED, True),
    ):
        first, second = lively(method, adapter, **({"sdt": True} if method == "dydit" else {})).plan([600.0, 601.0])
        same_masks = first.get(Width) == second.get(Width)
        assert (first.key != second.key) == (differ or not same_masks), (method, adapter)
        assert folded_time(first) == (600.0 if differ else None)
    weak, fine = lively("lora", TIMED, schedule={"steps": {4: 1, 2: 1}}).plan([600.0, 0.0])
    assert (folded_time(weak), folded_time(fine)) == (600.0, None), "the base has no update"


@torch.no_grad()
@pytest.mark.parametrize("adapter", [{"rank": 3}, TIMED, {"rank": 3, "folded": False}, {**TIMED, "folded": False}])
@pytest.mark.parametrize("layout", ["padded", "joined", "packed"])
def test_one_update_for_all_sizes_works_in_every_layout(layout, adapter):
    config = {"schedule": "1/0"}
    separate = lively("shared", adapter, layout="separate", **config)
    if adapter == {**TIMED, "folded": False}:
        with pytest.raises(ConfigError, match="timestep"):
            lively("shared", adapter, layout=layout, **config)
        return
    other = lively("shared", adapter, layout=layout, **config)
    x, _, y = inputs(3)
    t, plan = torch.full((3,), 40), separate.plan([40])[0]
    for y_guide in (y, torch.full_like(y, 10)):
        both = [of_labels(separate.facts, labels) for labels in (y, y_guide)]
        want, got = (model.predict_pair(x, t, *both, Call(plan)) for model in (separate, other))
        for first, second in zip(want, got, strict=True):
            agree(second, first, 1e-5)


# Memory


@torch.no_grad()
@pytest.mark.parametrize("method", ["dit", "dydit"])
@pytest.mark.parametrize(("kind", "part"), [
    ("lora", "down"), ("lora", "up"), *product(("up", "down", "some"), ("down", "up", "router", "t_embedder")),
])  # fmt: skip
def test_what_is_folded_follows_what_it_was_made_of(method, kind, part):
    model = lively(method, KINDS[kind])
    x, _, y = inputs(2)
    t, plan = torch.full((2,), 300), model.plan([300])[0]
    before = model(x, t, y, plan=plan)
    if part == "t_embedder":
        model.t_embedder.mlp[2].bias.add_(0.5)
    else:
        parameter = getattr(model.blocks[0].attn.qkv.adapters["all"], part)
        parameter.mul_(torch.linspace(0.5, 1.5, parameter.shape[-1]))
    after = model(x, t, y, plan=plan)
    model.forget()
    assert torch.equal(after, model(x, t, y, plan=plan))
    assert not torch.equal(after, before)


@torch.no_grad()
@pytest.mark.parametrize("method", ["dit", "dydit", "shared"])
def test_folded_weights_stay_within_their_memory_and_change_no_result(method):
    free, none = lively(method, TIMED), lively(method, TIMED, prepared_mib=0)
    some = lively(method, TIMED, prepared_mib=1)
    x, _, y = inputs(2)
    for plan in free.plan(timestep_map(8)):
        t = torch.full((2,), int(plan.timestep))
        want = free(x, t, y, plan=plan)
        assert torch.equal(none(x, t, y, plan=plan), want) and torch.equal(some(x, t, y, plan=plan), want)
        assert none.prepared_bytes == 0 and some.prepared_bytes <= 2**20
    assert free.prepared_bytes > 2**20
    kept = free.prepared_bytes
    for plan in free.plan(timestep_map(8)):
        free.prepare(plan)
    assert free.prepared_bytes == kept, "a call and prepare make the same"
    free.forget()
    assert free.prepared_bytes == 0


def test_a_plain_dit_keeps_one_folded_copy_for_all_times():
    model = lively("dit", {"rank": 3})
    for plan in model.plan(timestep_map(5)):
        model.prepare(plan)
    assert model.prepared_bytes == 4 * 3 * 12 * 64**2


# Work


def counted(name: str, adapter: Any, timestep: float = 300.0, **config: Any):
    with torch.device("meta"):
        model = methods.build(name, adapter=adapter, **config)
    return WorkCounter(model).call(model.plan([timestep])[0])


@pytest.mark.parametrize("adapter", [{"rank": 8}, {"rank": 8, "experts": 3}])
@pytest.mark.parametrize(
    ("name", "config"),
    [("dit-s-2", {}), ("dydit-s-2", {"activity": 0.5}), ("flexidit-s-2", {}), ("flexidit-s-2", {"schedule": 0.6})],
)
def test_folded_updates_cost_no_macs(name, config, adapter):
    assert counted(name, adapter, **config) == counted(name, None, **config)


def test_updates_beside_cost_their_products_and_their_mixing():
    n, d, depth, r, e = 256, 384, 12, 8, 3
    whole = counted("dit-s-2", None).total()
    assert counted("dit-s-2", {"rank": r, "folded": False}).total() - whole == depth * n * 16 * r * d
    embedding = 256 * d + d * d
    for factor, mixed in (("up", 9), ("down", 7)):
        adapter = {"rank": r, "experts": e, "expert_factor": factor, "folded": False}
        extra = depth * (n * 16 * r * d + 4 * e * d + e * mixed * r * d) + embedding
        assert counted("dit-s-2", adapter).total() - whole == extra


@pytest.mark.parametrize("method", ["dit", "shared", "lora"])
def test_a_call_without_a_plan_is_counted_as_it_ran(method):
    model, ledger = lively(method, TIMED), WorkLedger()
    args = inputs(2)
    (model(*args, ledger=ledger, patch_size=4) if method == "lora" else model(*args, ledger=ledger))
    (entry,) = ledger.entries
    ran = WorkCounter(model).ledger(ledger.entries).total()
    base = WorkCounter(lively(method, {} if method == "lora" else None)).call(entry.plan.without(FoldedAt), 2)
    n, d, depth, r, e = 4 if method == "lora" else 16, 64, 3, 3, 4
    mixing = depth * 2 * (4 * e * d + e * 9 * r * d) + 2 * (256 * d + d * d)
    assert ran - base.total() == depth * 2 * n * 16 * r * d + mixing


# Training


@kinds
@pytest.mark.parametrize("method", ["dit", "dydit", "shared", "lora"])
def test_gradients_reach_what_is_added_and_nothing_else(method, kind):
    model = lively(method, KINDS[kind]).train()
    model.freeze_base()
    x, t, y = inputs(4)
    if method == "dydit":
        output = model.masked(x, t, y, generator=torch.Generator().manual_seed(0))
        loss = output.out.square().sum() + model.masked(x, t, y, complete=True).out.square().sum()
    else:
        loss = call(model, method, x, t, y).square().sum()
    loss.backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    added = {name for name, _ in model.named_parameters() if model.is_added(name)}
    assert reached == added - ({"size_embed.4"} if method == "shared" else set())
    adapters = {name for name in reached if ".adapters." in name}
    targets = len(KINDS[kind].get("targets", range(4)))
    assert len(adapters) == 3 * targets * (2 if kind == "lora" else 3)
    assert all(model.get_parameter(name).grad.abs().max() > 0 for name in adapters)
    assert "pos_embed" not in added and not any("embedder.mlp" in name for name in added)


def test_experts_part_in_training():
    """With equal weights they would all get one gradient, at every step."""
    torch.manual_seed(0)
    model = methods.build("dit", **SMALL, adapter={"rank": 2, "experts": 3}).train()
    static = lively("dit", None)
    model.load_state_dict({**model.state_dict(), **static.state_dict()})
    model.freeze_base()
    model(*inputs(6)).square().sum().backward()
    up = model.blocks[0].mlp.fc1.adapters["all"].up
    assert (up.grad[0] - up.grad[1]).abs().max() > 1e-3 * up.grad.abs().max() > 0


# Accounting


def added_to(name: str, adapter: Any):
    with torch.device("meta"):
        model = methods.build(name, adapter=adapter)
    model.freeze_base()
    return accounting(model)


@pytest.mark.parametrize(
    ("adapter", "per_width", "percent"),
    [
        ({"rank": 8, "experts": 4}, 8 * 7 + 4 * 8 * 9 + 4 * 4, 2.16),
        ({"rank": 4, "experts": 4}, 4 * 7 + 4 * 4 * 9 + 4 * 4, 1.37),  # nearest to the paper's 1.4 %
        ({"rank": 6, "experts": 3, "expert_factor": "down"}, 3 * 6 * 7 + 6 * 9 + 4 * 3, 1.39),
        ({"rank": 12}, 12 * 16, 1.39),
    ],
)
def test_the_trainable_share_of_dydit_xl(adapter, per_width, percent):
    depth, width, routers, whole = 28, 1152, 3_295_012, 678_424_644
    found = added_to("dydit-xl-2", adapter)
    adapters = depth * width * per_width
    assert found.parameters == whole + adapters
    assert found.trainable == adapters + routers
    assert round(100 * found.share, 2) == percent
    assert (found.gradient_bytes, found.optimizer_bytes) == (4 * found.trainable, 8 * found.trainable)


def test_td_lora_of_rank_2_and_3_experts_has_the_parameters_of_lora_of_rank_5():
    timed, plain = added_to("dit-xl-2", {"rank": 2, "experts": 3}), added_to("dit-xl-2", {"rank": 5})
    assert timed == plain and plain.trainable == 28 * 80 * 1152


def test_without_adapters_all_but_the_positions_is_trained_in_the_type_of_the_weights():
    with torch.device("meta"):
        model = methods.build("dit-xl-2").bfloat16()
    model.freeze_base()
    found = accounting(model)
    assert found.parameters == 675_129_632 and found.trainable == found.parameters - 256 * 1152
    assert (found.gradient_bytes, found.optimizer_bytes) == (2 * found.trainable, 8 * found.trainable)


# What is refused


@pytest.mark.parametrize(("adapter", "words"), [
    (8, ["mapping", "rank"]),
    ({"ranks": 4}, ["did you mean 'rank'"]),
    ({"rank": 0}, ["rank", "at least 1"]),
    ({"rank": True}, ["rank", "whole number"]),
    ({"experts": 2.0}, ["experts", "whole number"]),
    ({"alpha": 0}, ["alpha", "positive"]),
    ({"alpha": float("nan")}, ["alpha", "positive"]),
    ({"expert_factor": "both"}, ["up or down"]),
    ({"targets": "attn.qkv"}, ["targets", "mlp.fc1"]),
    ({"targets": ["attn.q"]}, ["targets", "attn.qkv"]),
    ({"targets": []}, ["targets"]),
    ({"folded": "no"}, ["folded", "true or false"]),
], ids=str)  # fmt: skip
def test_an_impossible_adapter_is_refused_in_one_line(adapter, words):
    with pytest.raises(ConfigError) as caught:
        methods.build("dit-testing", adapter=adapter)
    text = one_line(caught.value)
    assert text.startswith("adapter") and all(word in text for word in words), text


def test_a_dydit_slices_folded_weights_only():
    with pytest.raises(ConfigError, match="slice"):
        methods.build("dydit-testing", adapter={"folded": False})
    model = lively("dydit", TIMED)
    with pytest.raises(ConfigError, match="plan"):
        model(*inputs(1), plan=StepPlan(400.0))


def test_a_conversion_starts_from_a_base_without_adapters():
    adapted = methods.build("dit-testing", adapter={})
    with pytest.raises(ConfigError, match="without adapters"):
        methods.convert(adapted, "dydit-testing")

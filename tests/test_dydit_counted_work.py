"""DyDiT: only what is active is computed, and the work that is counted is the work that runs."""

import pytest
import torch
from dydit_models import (
    MODES,
    Recorder,
    Whole,
    at_one_time,
    both_backbones,
    imposed_tokens,
    set_bias,
    spread_tokens,
    tokens_kept,
    told,
    vivid,
    width_of,
    width_plan,
)

from ditbench import methods
from ditbench.harness.measure.flops import WorkCounter
from ditbench.harness.measure.operators import count_module
from ditbench.methods.plans import StepPlan
from ditbench.methods.work import WorkLedger


@torch.no_grad()
@both_backbones
@pytest.mark.parametrize("seed", range(3))
def test_only_active_heads_groups_and_tokens_are_computed(seed, backbone):
    model, rows, t = vivid(seed, backbone=backbone), 2, 700
    x, times, y = at_one_time(rows, t, seed, backbone=backbone)
    (plan,) = model.plan([told(backbone, t)])
    first = width_of(plan)
    plan = width_plan(plan.timestep, (first.heads[0], (0, 2), (0, 1, 2, 3)), (first.groups[0], (0, 1, 3), (0,)))
    width = width_of(plan)
    model.prepare(plan)
    spread_tokens(model, (x, times, y))
    ledger = WorkLedger()
    with Recorder() as seen:
        model(x, times, y, plan=plan, ledger=ledger)
    kept = tokens_kept(ledger.entries[0])
    c, n, head, group = 64, 16, 16, 64  # width, tokens, head width, group width
    expected = []
    for layer in range(3):
        h, g = len(width.heads[layer]), len(width.groups[layer])
        expected += [
            (rows, c, 6 * c),
            (rows * n, c, 3 * h * head),
            (rows * n, h * head, c),
            (rows * n, c, c // 16),
            (rows * n, c // 16, 1),
            (kept[layer], c, g * group),
            (kept[layer], g * group, c),
        ]
    around = [(rows, 256, c), (rows, c, c), (rows, c, 2 * c), (rows * n, c, 8)]  # time MLP and final layer
    assert sorted(seen.products) == sorted(expected + around)
    assert seen.attentions == [(rows, len(layer), n, head) for layer in width.heads]
    assert all(0 < count < rows * n for count in kept), "every layer skips some tokens"
    assert not [product for product in seen.products if product[0] != rows and 4 * c in product[1:]]


@torch.no_grad()
@both_backbones
def test_with_imposed_activity_token_routers_run_and_imposed_tokens_are_gathered(backbone):
    model = vivid(activity={"heads": 0.5, "groups": 0.5, "tokens": 0.25}, backbone=backbone)
    given = at_one_time(2, 700, backbone=backbone)
    with Recorder() as seen:
        model(*given, plan=model.plan([told(backbone, 700)])[0])
    assert seen.products.count((32, 64, 4)) == seen.products.count((32, 4, 1)) == 3  # token routers on all tokens
    assert seen.products.count((8, 64, 128)) == seen.products.count((8, 128, 64)) == 3  # half the MLP on a quarter
    assert seen.attentions == [(2, 2, 16, 16)] * 3


@torch.no_grad()
@both_backbones
def test_nothing_is_multiplied_where_nothing_is_left(backbone):
    model, given = vivid(always_on=False, backbone=backbone), at_one_time(2, 700, backbone=backbone)
    nothing = width_plan(700, ((),) * 3, ((0,),) * 3)
    set_bias(model, "token_selection", -1e3)
    with Recorder() as seen:
        model(*given, plan=nothing)
    assert seen.attentions == []
    done = [product for product in seen.products if 0 not in product]  # of no rows nothing is multiplied
    assert len(done) == 3 * 3 + 4  # modulation and token router a block; time MLP and final layer


def part_macs(model, plan: StepPlan, rows: int, part: str) -> int:
    units = [unit for unit in model.work(plan, rows) if unit.part == part]
    return sum(count_module(unit.module, unit.inputs()).total() * unit.repeats for unit in units)


def assert_whole_is_counted(model, t: int, rows: int) -> None:
    backbone = "dit" if model.config.flow is None else "sit"
    given, (plan,), ledger = at_one_time(rows, t, backbone=backbone), model.plan([told(backbone, t)]), WorkLedger()
    imposed = model.config.activity is not None
    if not imposed:
        spread_tokens(model, given)
    with torch.no_grad():
        model(*given, plan=plan, ledger=ledger)  # also makes the imposed tokens, which is no part of a call
    tokens = tokens_kept(ledger.entries[0])
    assert imposed or not tokens or all(0 < kept < rows * 16 for kept in tokens)
    pieces, whole = WorkCounter(model).call(plan, rows, tokens), count_module(Whole(model, plan), given)
    planning = part_macs(model, plan, rows, "width routers")
    assert (planning > 0) == model.config.tdw
    assert pieces.total() - planning == whole.total()
    assert {name: macs for name, macs in pieces.items() if name != "linear"} == {
        name: macs for name, macs in whole.items() if name != "linear"
    }


@both_backbones
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_with_learned_routers_the_sum_over_pieces_equals_a_count_of_the_whole_call(mode, rows, backbone):
    assert_whole_is_counted(vivid(2, **mode, backbone=backbone), 250, rows)


@both_backbones
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("activity", [0.3, 0.7, "published", {"heads": 0.5, "tokens": 0.0}, 1.0], ids=str)
def test_with_imposed_activity_the_sum_over_pieces_equals_a_count_of_the_whole_call(activity, rows, backbone):
    assert_whole_is_counted(vivid(activity=activity, backbone=backbone), 450, rows)


def closed_formula(c, plan):
    n, d, parts, side, width = c.tokens, c.hidden_size, c.num_heads, c.input_size, width_of(plan)
    time_mlp = 256 * d + d * d
    around = time_mlp + side * side * c.in_channels * d + n * d * c.patch_size**2 * c.head_channels + 2 * d * d
    total = around + 4 * n * d  # final layer norm
    total += time_mlp + 2 * c.depth * (parts - 1) * d  # planning
    for heads, groups, kept in zip(width.heads, width.groups, imposed_tokens(plan), strict=True):
        total += len(heads) / parts * (4 * n * d * d + 2 * n * n * d)
        total += len(groups) / parts * kept / n * 8 * n * d * d
        total += 6 * d * d + n * (d * (d // 16) + d // 16)
        total += 4 * n * d + 4 * kept * d  # layer norms: before attention all tokens, before the MLP the kept ones
    return total


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("dydit-s-2", {"activity": 0.3}),
        ("dydit-s-2", {"activity": 0.9}),
        ("dydit-s-2", {"activity": {"profile": "published", "tokens": 0.6}}),
        ("dysit-s-2", {"activity": {"profile": "published", "tokens": 0.6}}),
        ("dydit-s-2", {"activity": 0.5, "input_size": 64}),
        ("dydit-b-2", {"activity": 0.7}),
        ("dydit-xl-2", {"activity": 0.5}),
    ],
    ids=str,
)
def test_imposed_activity_costs_what_the_closed_formula_says(name, config):
    with torch.device("meta"):
        model = methods.build(name, **config)
    counter = WorkCounter(model)
    ends = [model.process.noisiest, model.process.cleanest]
    plans = model.plan(ends if config["activity"] != 0.5 else ends[1:])
    for plan in plans:
        assert counter.call(plan).total() == pytest.approx(closed_formula(model.config, plan), rel=1e-9)

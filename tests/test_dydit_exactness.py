"""DyDiT: a timestep has one plan in every grid, and sliced and gathered computes what masked does.

Tests of exactness run on both backbones, so that a DySiT is held to what a DyDiT is.
"""

import pytest
import torch
from dydit_models import (
    MODES,
    SMALL,
    agree,
    at_one_time,
    both_backbones,
    imposed_tokens,
    inputs,
    set_bias,
    tokens_kept,
    told,
    vivid,
    width_of,
    width_plan,
)
from torch import Tensor

from ditbench import methods
from ditbench.methods.diffusion.flow import Euler, EulerMaruyama, Heun
from ditbench.methods.diffusion.sampler import SamplerOptions
from ditbench.methods.diffusion.schedules import timestep_map
from ditbench.methods.work import WorkLedger

# Plans


@both_backbones
@pytest.mark.parametrize("seed", range(3))
def test_a_timestep_has_the_same_plan_in_every_grid(seed, backbone):
    model = vivid(seed, backbone=backbone)
    fine, coarse = (tuple(told(backbone, t) for t in timestep_map(steps)) for steps in (250, 100))
    plans = dict(zip(fine, model.plan(fine), strict=True))
    common = sorted(set(fine) & set(coarse))
    assert {told(backbone, 0), told(backbone, 999)} < set(common) and len(common) > 5
    for t, plan in zip(coarse, model.plan(coarse), strict=True):
        if t in plans:
            assert plan == plans[t]
    for t in common:
        assert model.plan([t]) == [plans[t]] == [model.plan_at(t)]
    assert model.plan(fine[::-1]) == [plans[t] for t in fine[::-1]]
    assert len({plan.key for plan in plans.values()}) > 10, "verdicts vary with time"
    assert len({plans[t].key for t in common}) > 2


@pytest.mark.parametrize("seed", range(3))
def test_a_flow_time_has_the_same_plan_in_the_grids_of_all_solvers_and_by_itself(seed):
    model = vivid(seed, "sit")
    euler, heun = ({plan.timestep: plan for plan in sampler.plans(model)} for sampler in (Euler(20), Heun(10)))
    assert set(heun) - {1.0} < set(euler) and 1.0 in heun
    assert all(model.plan_at(t) == euler.get(t, plan) == plan for t, plan in heun.items())
    assert len({plan.key for plan in heun.values()}) > 3, "verdicts vary with time"
    sde = EulerMaruyama(6, SamplerOptions(last_step=0.25), model.process)  # at 0, 0.15, ... 0.75
    assert {0.0, 0.75} <= {t for plan in sde.plans(model) if (t := plan.timestep) in euler and plan == euler[t]}


@pytest.mark.parametrize("activity", ["published", {"profile": "published", "tokens": 0.5}, 0.4], ids=str)
def test_imposed_activity_is_that_of_the_diffusion_model_as_far_from_the_data(activity):
    noise, flow = (vivid(backbone=backbone, activity=activity) for backbone in ("dit", "sit"))
    times = (999, 800, 402, 250, 100, 0)
    keys = [plan.key for plan in noise.plan(times)]
    assert [plan.key for plan in flow.plan([told("sit", t) for t in times])] == keys
    assert (len(set(keys)) > 2) == (activity != 0.4)
    assert flow.plan_at(1.03).key == keys[-1], "an adaptive solver may look beyond the data"


@both_backbones
def test_plans_are_sorted_indices_of_what_the_masked_path_leaves_on(backbone):
    model, (x, t, y) = vivid(backbone=backbone), inputs(8, backbone=backbone)
    with torch.no_grad():
        masks = model.masked(x, t, y).masks
    for row, plan in enumerate(model.plan(t.tolist())):
        assert plan.timestep == t[row]
        assert imposed_tokens(plan) is None, "the data decide"
        for layer, mask in enumerate(masks):
            assert width_of(plan).heads[layer] == tuple(mask.heads[row].nonzero().flatten().tolist())
            assert width_of(plan).groups[layer] == tuple(mask.groups[row].nonzero().flatten().tolist())


@both_backbones
def test_the_number_type_of_the_weights_in_memory_does_not_move_a_verdict(backbone):
    rounded = vivid(backbone=backbone).bfloat16()
    grid = [told(backbone, t) for t in timestep_map(50)]
    assert rounded.plan(grid) == rounded.float().plan(grid)


def test_without_weights_routers_count_as_open():
    with torch.device("meta"):
        (plan,) = methods.build("dydit", **SMALL).plan([5])
    assert width_of(plan).heads == width_of(plan).groups == ((0, 1, 2, 3),) * 3
    assert imposed_tokens(plan) == (16,) * 3


# Sliced and gathered = masked


@torch.no_grad()
@both_backbones
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_sliced_and_gathered_equals_masked(mode, seed, backbone):
    model, given = vivid(seed, **mode, backbone=backbone), inputs(6, seed=seed, backbone=backbone)
    ledger = WorkLedger()
    out = model(*given, ledger=ledger)
    masked = model.masked(*given)
    agree(out, masked.out, 1e-5)
    complete = model.masked(*given, complete=True).out
    assert (out - complete).abs().max() > 0.05 * complete.abs().max(), "what is skipped matters"
    assert sum(entry.rows for entry in ledger.entries) == 6
    if model.config.tdw:
        assert len(ledger.entries) > 1, "several plans in one batch"
    if model.config.sdt:
        kept = torch.tensor([tokens_kept(entry) for entry in ledger.entries]).sum(0)
        assert kept.tolist() == [int(mask.tokens.sum()) for mask in masked.masks]
        assert 0 < kept.sum() < 6 * 16 * 3
    else:
        assert all(tokens_kept(entry) is None for entry in ledger.entries)


@torch.no_grad()
@both_backbones
@pytest.mark.parametrize("seed", range(3))
def test_sliced_and_gathered_equals_masked_in_bfloat16(seed, backbone):
    model = vivid(seed, backbone=backbone)
    for part in ("attn_rate", "mlp_rate", "token_selection"):  # far from the threshold: no rounding moves a verdict
        for name, weight in model.named_parameters():
            if f"{part}." in name and name.endswith(("router.bias", "mlp_head.2.bias")):
                weight.copy_(torch.where(torch.randn(weight.shape) > 0, 40.0, -40.0))
    model, (x, t, y) = model.bfloat16(), inputs(5, seed=seed, backbone=backbone)
    x = x.bfloat16()
    ledger = WorkLedger()
    out, masked = model(x, t, y, ledger=ledger), model.masked(x, t, y)
    assert out.dtype == torch.bfloat16
    (plan,) = {entry.plan.key for entry in ledger.entries}
    for layer, mask in enumerate(masked.masks):
        assert all(width_of(plan).heads[layer] == tuple(row.nonzero().flatten().tolist()) for row in mask.heads)
        assert all(width_of(plan).groups[layer] == tuple(row.nonzero().flatten().tolist()) for row in mask.groups)
    agree(out.float(), masked.out.float(), 0.05)


@torch.no_grad()
@both_backbones
def test_a_batch_equals_its_rows_one_by_one(backbone):
    model, (x, t, y) = vivid(backbone=backbone), inputs(5, backbone=backbone)
    rows = [model(x[k : k + 1], t[k : k + 1], y[k : k + 1]) for k in range(5)]
    agree(model(x, t, y), torch.cat(rows), 1e-5)


@torch.no_grad()
@both_backbones
def test_the_input_is_not_overwritten(backbone):
    model, (x, t, y) = vivid(backbone=backbone), inputs(3, backbone=backbone)
    kept = x.clone()
    first = model(x, t, y)
    assert torch.equal(x, kept)
    assert torch.equal(model(x, t, y), first)


@both_backbones
def test_gradients_flow_to_the_input_through_the_sliced_path(backbone):
    model, (x, t, y) = vivid(backbone=backbone), inputs(3, backbone=backbone)
    with torch.inference_mode():
        model(x, t, y)
    sliced, masked = (x.clone().requires_grad_() for _ in range(2))
    model(sliced, t, y).square().sum().backward()
    model.masked(masked, t, y).out.square().sum().backward()
    agree(sliced.grad, masked.grad, 1e-4)


# Extremes


@torch.no_grad()
@both_backbones
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(("bias", "kept"), [(-1e3, 0), (1e3, 16)])
def test_no_token_and_every_token(bias, kept, rows, backbone):
    model, ledger = vivid(backbone=backbone), WorkLedger()
    set_bias(model, "token_selection", bias)
    given = at_one_time(rows, 300, backbone=backbone)
    out = model(*given, ledger=ledger)
    assert tokens_kept(ledger.entries[0]) == (rows * kept,) * 3
    agree(out, model.masked(*given).out, 1e-5)


@torch.no_grad()
@both_backbones
@pytest.mark.parametrize("rows", [1, 3])
def test_exactly_one_token_of_the_batch(rows, backbone):
    model, given = vivid(sdt=True, depth=1, backbone=backbone), at_one_time(rows, 300, backbone=backbone)
    router = model.blocks[0].token_selection
    logits: list[Tensor] = []
    hook = router.register_forward_hook(lambda module, args, output: logits.append(output))
    model(*given)
    hook.remove()
    first, second = logits[0].flatten().topk(2).values.tolist()
    router.mlp_head[2].bias -= (first + second) / 2
    ledger = WorkLedger()
    out = model(*given, ledger=ledger)
    assert tokens_kept(ledger.entries[0]) == (1,)
    agree(out, model.masked(*given).out, 1e-5)


@torch.no_grad()
@both_backbones
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("tokens", [-1e3, None, 1e3])
@pytest.mark.parametrize("always_on", [True, False])
def test_closed_width_routers_leave_one_head_and_group_or_none(always_on, tokens, rows, backbone):
    model, given = vivid(always_on=always_on, backbone=backbone), at_one_time(rows, 300, backbone=backbone)
    set_bias(model, "attn_rate", -1e3)
    set_bias(model, "mlp_rate", -1e3)
    if tokens is not None:
        set_bias(model, "token_selection", tokens)
    left = ((0,) if always_on else (),) * 3
    assert model.plan([told(backbone, 300)]) == [width_plan(told(backbone, 300), left, left)]
    agree(model(*given), model.masked(*given).out, 1e-5)


@torch.no_grad()
@both_backbones
@pytest.mark.parametrize("closed", ["attn_rate", "mlp_rate"])
def test_only_heads_or_only_groups_closed(closed, backbone):
    model, given = vivid(always_on=False, backbone=backbone), at_one_time(2, 300, backbone=backbone)
    set_bias(model, closed, -1e3)
    agree(model(*given), model.masked(*given).out, 1e-5)

"""DyDiT: what it skips changes nothing but the work, and the work that is counted is the work that runs.

Tests of exactness run on both backbones, so that a DySiT is held to what a DyDiT is.
"""

import re
import shutil
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ditbench import methods
from ditbench.harness.measure.flops import WorkCounter, count_module
from ditbench.harness.sample.generate import checkpoint_problem
from ditbench.harness.store.records import CellSpec
from ditbench.methods.backbones.layers import timestep_embedding
from ditbench.methods.diffusion.flow import Euler, EulerMaruyama, Heun
from ditbench.methods.diffusion.sampler import SamplerOptions
from ditbench.methods.diffusion.schedules import timestep_map
from ditbench.methods.errors import CheckpointError, ConfigError
from ditbench.methods.protocols import StepPlan, WorkLedger
from ditbench.methods.registry import UnknownNameError
from ditbench.methods.weights import randomise, save_state

SMALL: dict[str, Any] = {
    "input_size": 8,
    "patch_size": 2,
    "in_channels": 1,
    "num_classes": 10,
    "hidden_size": 64,
    "depth": 3,
    "num_heads": 4,
}

both_backbones = pytest.mark.parametrize("backbone", ["dit", "sit"])


def told(backbone: str, t: float) -> float:
    """What the model is told at the training timestep ``t`` of noise prediction: a SiT, how near the data are."""
    return t if backbone == "dit" else 1 - t / 999


def vivid(seed=0, backbone="dit", **config):
    """A small one whose every part matters and whose routers close about a half, by timestep and by content."""
    model = methods.build(f"dy{backbone}", **{**SMALL, **config})
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not weight.requires_grad:
                continue
            fan_in = weight[0].numel() if weight.dim() > 1 else 25
            scale = 3.0 if "_rate.router.weight" in name else 1.0
            weight.normal_(0.0, scale * fan_in**-0.5, generator=generator)
            if name.endswith("mlp_head.0.bias"):
                weight += 1.0  # a unit that is off for all tokens tells none from another
        if backbone == "sit":  # times from 0 to 1 move few of the sinusoids: amplify what differs from the middle's
            first = model.t_embedder.mlp[0]
            first.weight *= 16.0
            first.bias -= first.weight @ timestep_embedding(torch.tensor([0.5]), 256)[0]
    spread_tokens(model, inputs(6, model.input_size, model.in_channels, backbone=backbone))
    return model


@torch.no_grad()
def spread_tokens(model, given: tuple[Tensor, Tensor, Tensor]) -> None:
    """Move the token routers' biases so that about half of the tokens of this input pass each MLP, none by a hair."""

    def split(module: nn.Module, args: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        ordered = logits.flatten().sort().values
        middle = ordered[len(ordered) // 4 : -(len(ordered) // 4)]
        widest = int(middle.diff().argmax())
        shift = middle[widest : widest + 2].mean()
        module.get_parameter("mlp_head.2.bias").sub_(shift)
        return logits - shift

    hooks = [
        module.register_forward_hook(split) for name, module in model.named_modules() if name.endswith("selection")
    ]
    if hooks:
        model(*given)
    for hook in hooks:
        hook.remove()
    model.forget()


def set_bias(model: nn.Module, part: str, bias: float) -> None:
    """Make all routers of ``part`` ('attn_rate', 'mlp_rate', 'token_selection') answer ``bias``."""
    last = {"token_selection": "mlp_head.2"}.get(part, "router")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if f"{part}.{last}." in name:
                weight.fill_(bias if name.endswith("bias") else 0.0)


def inputs(
    rows: int, side: int = 8, channels: int = 1, seed: int = 0, backbone: str = "dit"
) -> tuple[Tensor, Tensor, Tensor]:
    """x, t, y with as many different timesteps as rows, over the whole range."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.linspace(0, 999, rows).round().long() if rows > 1 else torch.tensor([400])
    return (
        torch.randn(rows, channels, side, side, generator=generator),
        torch.tensor([told(backbone, step) for step in t.tolist()]),
        torch.randint(11, (rows,), generator=generator),
    )


def at_one_time(rows: int, t: int, seed: int = 0, backbone: str = "dit") -> tuple[Tensor, Tensor, Tensor]:
    x, _, y = inputs(rows, seed=seed)
    return x, torch.full((rows,), told(backbone, t)), y


def agree(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    assert ours.shape == theirs.shape
    assert ours.isfinite().all()
    assert theirs.abs().max() > 1e-3, "nothing to compare"
    worst = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    assert worst <= tolerance, f"relative to the largest magnitude: {worst:.2e}"


def one_line(error: Exception) -> str:
    assert "\n" not in str(error)
    return str(error)


# Conversion from a static model

SHAPES = [
    {},
    {"hidden_size": 48, "num_heads": 3, "depth": 2},
    {"input_size": 16, "patch_size": 4, "in_channels": 3, "learn_sigma": False},
]


def static(seed: int = 1, backbone: str = "dit", **config: Any):
    model = methods.build(backbone, **{**SMALL, **config})
    randomise(model, seed)
    return model


@torch.no_grad()
@both_backbones
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("rank", "tolerance"), [(False, 1e-6), (True, 1e-5)])
def test_with_open_routers_it_computes_what_the_static_model_does(shape, rank, tolerance, rows, backbone):
    model = static(**shape, backbone=backbone)
    given = inputs(rows, model.input_size, model.in_channels, backbone=backbone)
    expected = model(*given)
    converted = methods.convert(model, f"dy{backbone}", rank=rank)
    assert not converted.training
    agree(converted(*given), expected, tolerance)
    agree(converted.masked(*given).out, expected, tolerance)
    agree(converted.masked(*given, complete=True).out, expected, tolerance)
    assert torch.equal(model(*given), expected), "the static model is left as it was"


@torch.no_grad()
@both_backbones
@pytest.mark.parametrize("off", ["tdw", "sdt"])
def test_with_one_kind_of_router_off_it_still_computes_what_the_static_model_does(off, backbone):
    model, given = static(backbone=backbone), inputs(4, backbone=backbone)
    agree(methods.convert(model, f"dy{backbone}", **{off: False})(*given), model(*given), 1e-5)


def part_norms(model) -> tuple[list[Tensor], list[Tensor]]:
    """Norms of heads and of MLP channels by block, head by head."""
    heads, channels = [], []
    for block in model.blocks:
        size = model.config.hidden_size // model.config.num_heads
        norms = []
        for head in range(model.config.num_heads):
            rows = [block.attn.qkv.weight[k * model.config.hidden_size + head * size :][:size] for k in range(3)]
            columns = block.attn.proj.weight[:, head * size : (head + 1) * size]
            norms.append(torch.cat([*(r.flatten() for r in rows), columns.flatten()]).norm())
        heads.append(torch.stack(norms))
        channels.append(torch.cat([block.mlp.fc1.weight, block.mlp.fc2.weight.T], 1).norm(dim=1))
    return heads, channels


@torch.no_grad()
@both_backbones
def test_ranking_puts_the_largest_heads_and_channels_first(backbone):
    model = static(backbone=backbone)
    ranked = methods.convert(model, f"dy{backbone}", rank=True)
    for before, after in zip(part_norms(model), part_norms(ranked), strict=True):
        for old, new in zip(before, after, strict=True):
            assert (old.diff() > 0).any(), "was not in order before"
            assert (new.diff() <= 1e-6).all()
            assert torch.allclose(old.sort(descending=True).values, new, rtol=1e-5)
    for old, new in zip(
        part_norms(model), part_norms(methods.convert(model, f"dy{backbone}", rank=False)), strict=True
    ):
        assert all(torch.equal(a, b) for a, b in zip(old, new, strict=True))


def test_conversion_keeps_the_number_type():
    converted = methods.convert(static().bfloat16(), "dydit")
    assert {p.dtype for p in converted.parameters()} == {torch.bfloat16}


def test_converting_into_an_unknown_name_suggests_one():
    with pytest.raises(UnknownNameError) as caught:
        methods.convert(static(), "dydit-xl-")
    assert "'dydit-xl-2'" in one_line(caught.value)


def test_converting_into_a_static_method_is_refused():
    with pytest.raises(ConfigError, match=r"'dit-xl-2'.*dydit-s-2") as caught:
        methods.convert(static(), "dit-xl-2")
    one_line(caught.value)


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("dydit-s-2", {}, ["64", "384"]),
        ("dydit", {"num_heads": 8}, ["num_heads", "4", "8"]),
        ("dydit", {"heads": 8}, ["unknown config key 'heads'"]),
        ("dydit", {"tdw": False, "sdt": False}, ["tdw", "sdt", "static"]),
    ],
)
def test_a_conversion_that_does_not_fit_is_refused_in_one_line(name, config, words):
    with pytest.raises(ConfigError) as caught:
        methods.convert(static(), name, **config)
    assert all(word in one_line(caught.value) for word in words), caught.value


def test_only_static_models_convert():
    with pytest.raises(ConfigError, match="static"):
        methods.convert(methods.build("dydit", **SMALL), "dydit")
    with pytest.raises(ConfigError, match="Linear"):
        methods.convert(nn.Linear(2, 2), "dydit")


@both_backbones
@pytest.mark.parametrize(("name", "count"), [("s-2", 33_120_740), ("b-2", 131_158_964), ("xl-2", 678_424_644)])
def test_presets_have_the_published_number_of_parameters(name, count, backbone):
    with torch.device("meta"):
        model = methods.build(f"dy{backbone}-{name}")
    assert sum(p.numel() for p in model.parameters()) == count


def test_initial_routers_are_open_with_the_published_biases():
    for name, value in methods.build("dydit", **SMALL).named_parameters():
        if name.endswith("_rate.router.bias"):
            assert (value == 15).all() and len(value) == 3
        if name.endswith("mlp_head.2.bias"):
            assert (value == 35).all()


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
        assert plan.tokens is None, "the data decide"
        for layer, mask in enumerate(masks):
            assert plan.heads[layer] == tuple(mask.heads[row].nonzero().flatten().tolist())
            assert plan.groups[layer] == tuple(mask.groups[row].nonzero().flatten().tolist())


@both_backbones
def test_the_number_type_of_the_weights_in_memory_does_not_move_a_verdict(backbone):
    rounded = vivid(backbone=backbone).bfloat16()
    grid = [told(backbone, t) for t in timestep_map(50)]
    assert rounded.plan(grid) == rounded.float().plan(grid)


def test_without_weights_routers_count_as_open():
    with torch.device("meta"):
        (plan,) = methods.build("dydit", **SMALL).plan([5])
    assert plan.heads == plan.groups == ((0, 1, 2, 3),) * 3
    assert plan.tokens == (16,) * 3


# Sliced and gathered = masked

MODES = [{}, {"sdt": False}, {"tdw": False}, {"always_on": False}]


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
        kept = torch.tensor([entry.tokens for entry in ledger.entries]).sum(0)
        assert kept.tolist() == [int(mask.tokens.sum()) for mask in masked.masks]
        assert 0 < kept.sum() < 6 * 16 * 3
    else:
        assert all(entry.tokens is None for entry in ledger.entries)


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
        assert all(plan.heads[layer] == tuple(row.nonzero().flatten().tolist()) for row in mask.heads)
        assert all(plan.groups[layer] == tuple(row.nonzero().flatten().tolist()) for row in mask.groups)
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
    assert ledger.entries[0].tokens == (rows * kept,) * 3
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
    assert ledger.entries[0].tokens == (1,)
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
    assert model.plan([told(backbone, 300)]) == [StepPlan(told(backbone, 300), heads=left, groups=left)]
    agree(model(*given), model.masked(*given).out, 1e-5)


@torch.no_grad()
@both_backbones
@pytest.mark.parametrize("closed", ["attn_rate", "mlp_rate"])
def test_only_heads_or_only_groups_closed(closed, backbone):
    model, given = vivid(always_on=False, backbone=backbone), at_one_time(2, 300, backbone=backbone)
    set_bias(model, closed, -1e3)
    agree(model(*given), model.masked(*given).out, 1e-5)


# Checkpoint formats


def rows_of_routers(model) -> set[int]:
    return {len(value) for name, value in model.state_dict().items() if name.endswith("_rate.router.weight")}


@torch.no_grad()
@both_backbones
@pytest.mark.parametrize(("always_on", "rows"), [(True, 3), (False, 4)])
def test_both_router_formats_load_into_the_default_model(always_on, rows, backbone):
    source, given = vivid(always_on=always_on, backbone=backbone), inputs(4, backbone=backbone)
    assert rows_of_routers(source) == {rows}
    model = methods.load_weights(methods.build(f"dy{backbone}", **SMALL), source.state_dict())
    assert rows_of_routers(model) == {rows}
    assert torch.equal(model(*given), source(*given))
    assert model.plan([0, 500]) == source.plan([0, 500])
    again = methods.load_weights(model, vivid(1, backbone=backbone).state_dict())
    assert torch.equal(again(*given), vivid(1, backbone=backbone)(*given)), "one model takes both in turn"


def with_router_rows(rows: int) -> dict[str, Tensor]:
    return {
        name: value.new_zeros(rows, *value.shape[1:]) if "_rate.router." in name else value
        for name, value in vivid().state_dict().items()
    }


@pytest.mark.parametrize("rows", [0, 1, 2, 5, 15])
def test_a_wrong_number_of_router_rows_is_refused_in_one_line(rows):
    with pytest.raises(CheckpointError, match=rf"router\.weight: file \[{rows}, 64\], model \[3, 64\]") as caught:
        methods.load_weights(methods.build("dydit", **SMALL), with_router_rows(rows))
    one_line(caught.value)


def test_routers_that_do_not_agree_in_format_are_refused():
    mixed, other = vivid().state_dict(), vivid(always_on=False).state_dict()
    mixed["blocks.1.mlp_rate.router.weight"] = other["blocks.1.mlp_rate.router.weight"]
    with pytest.raises(CheckpointError, match=r"1 have another shape, first blocks\.1\.mlp_rate"):
        methods.load_weights(methods.build("dydit", **SMALL), mixed)


def test_a_refused_checkpoint_leaves_the_weights_as_they_were():
    model = vivid(always_on=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError):
        methods.load_weights(model, with_router_rows(5))
    after = model.state_dict()
    assert [(name, value.shape) for name, value in after.items()] == [(n, v.shape) for n, v in before.items()]
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        (vivid().state_dict(), None),
        (vivid(always_on=False).state_dict(), None),
        (with_router_rows(2), r"router\.weight: file \[2, 64\]"),
        (static().state_dict(), r"tensors are missing, first blocks\.0\.attn_rate"),
    ],
    ids=["H-1 rows", "H rows", "other rows", "no routers"],
)
def test_a_checkpoint_is_judged_without_memory_for_the_model(tmp_path, state, problem):
    path = tmp_path / "w.safetensors"
    save_state(path, state, {})
    found = checkpoint_problem(CellSpec(cell="c", method="dydit", config=SMALL, sampler="ddim", steps=4), path)
    if problem is None:
        assert found is None
    else:
        assert found.field == "weights" and re.search(problem, found.message) and "\n" not in found.message


# What runs


class Recorder(TorchDispatchMode):
    """Shapes of the matrix products and attentions that run."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[tuple[int, int, int]] = []
        self.attentions: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("addmm", "mm", "bmm", "baddbmm"):
            left, right = args[-2:]
            self.products.append((left.shape[-2], left.shape[-1], right.shape[-1]))
        elif "linear" in name or "matmul" in name:
            raise AssertionError(f"{name} would run unseen")
        elif "scaled_dot_product" in name:
            self.attentions.append(tuple(args[0].shape))
        return func(*args, **(kwargs or {}))


@torch.no_grad()
@both_backbones
@pytest.mark.parametrize("seed", range(3))
def test_only_active_heads_groups_and_tokens_are_computed(seed, backbone):
    model, rows, t = vivid(seed, backbone=backbone), 2, 700
    x, times, y = at_one_time(rows, t, seed, backbone=backbone)
    (plan,) = model.plan([told(backbone, t)])
    plan = StepPlan(
        plan.timestep, heads=(plan.heads[0], (0, 2), (0, 1, 2, 3)), groups=(plan.groups[0], (0, 1, 3), (0,))
    )
    model.prepare(plan)
    spread_tokens(model, (x, times, y))
    ledger = WorkLedger()
    with Recorder() as seen:
        model(x, times, y, plan=plan, ledger=ledger)
    kept = ledger.entries[0].tokens
    c, n, head, group = 64, 16, 16, 64  # width, tokens, head width, group width
    expected = []
    for layer in range(3):
        h, g = len(plan.heads[layer]), len(plan.groups[layer])
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
    assert seen.attentions == [(rows, len(layer), n, head) for layer in plan.heads]
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
    nothing = StepPlan(700, heads=((),) * 3, groups=((0,),) * 3)
    set_bias(model, "token_selection", -1e3)
    with Recorder() as seen:
        model(*given, plan=nothing)
    assert seen.attentions == []
    done = [product for product in seen.products if 0 not in product]  # of no rows nothing is multiplied
    assert len(done) == 3 * 3 + 4  # modulation and token router a block; time MLP and final layer


class Whole(nn.Module):
    """The whole model under one plan, as one traced module."""

    def __init__(self, model: nn.Module, plan: StepPlan) -> None:
        super().__init__()
        self.model, self.plan = model, plan

    def forward(self, x, t, y):
        return self.model(x, t, y, plan=self.plan)


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
    tokens = ledger.entries[0].tokens
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
    n, d, parts, side = c.tokens, c.hidden_size, c.num_heads, c.input_size
    time_mlp = 256 * d + d * d
    around = time_mlp + side * side * c.in_channels * d + n * d * c.patch_size**2 * c.head_channels + 2 * d * d
    total = around + 4 * n * d  # final layer norm
    total += time_mlp + 2 * c.depth * (parts - 1) * d  # planning
    for heads, groups, kept in zip(plan.heads, plan.groups, plan.tokens, strict=True):
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


# Prepared weights


def spread_plan(heads: tuple[int, ...] = (0, 2), groups: tuple[int, ...] = (1, 3)) -> StepPlan:
    return StepPlan(0.0, heads=(heads,) * 3, groups=(groups,) * 3)


def slice_bytes(heads: int, groups: int) -> int:
    """float32 bytes of one layer's slices: qkv and proj of heads of width 16, fc1 and fc2 of groups of 64."""
    attention = (3 * 16 * 64 + 3 * 16 + 64 * 16) * heads
    return 4 * (attention + (64 * 64 * 2 + 64) * groups)


def test_prepared_bytes_are_those_of_the_slices():
    model = vivid()
    assert model.prepared_bytes == 0
    model.prepare(spread_plan())
    assert model.prepared_bytes == 3 * slice_bytes(2, 2)
    model.prepare(spread_plan())
    assert model.prepared_bytes == 3 * slice_bytes(2, 2)
    model.prepare(spread_plan(heads=(0, 1)))
    assert model.prepared_bytes == 3 * (slice_bytes(2, 2) + slice_bytes(2, 0)), "the groups' slices are shared"
    model.prepare(StepPlan(0.0))
    assert model.prepared_bytes == 3 * (slice_bytes(2, 2) + slice_bytes(2, 0)), "whole weights are not copied"
    model.forget()
    assert model.prepared_bytes == 0


def test_slices_are_reused_across_equal_plans():
    model, given = vivid(), at_one_time(2, 700)
    first = [model.slices(layer, spread_plan()) for layer in range(3)]
    with torch.no_grad():
        model(*given, plan=StepPlan(9.0, heads=((0, 2),) * 3, groups=((1, 3),) * 3))
    for layer, (attention, mlp) in enumerate(first):
        again = model.slices(layer, spread_plan())
        assert again[0] is attention and again[1] is mlp
        other = model.slices(layer, spread_plan(groups=(0, 1)))
        assert other[0] is attention and other[1] is not mlp


def test_a_second_sampling_loop_slices_nothing(monkeypatch):
    model, (x, t, y), made = vivid(), at_one_time(2, 0), []
    import ditbench.methods.dydit.model as module

    for name in ("slice_attention", "slice_mlp"):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, real=real: made.append(args) or real(*args))
    plans = model.plan(timestep_map(8))
    with torch.inference_mode():
        for plan in plans:
            model(x, t, y, plan=plan)
        distinct = {(layer, p.heads[layer], "h") for p in plans for layer in range(3)}
        distinct |= {(layer, p.groups[layer], "g") for p in plans for layer in range(3)}
        assert len(made) == len(distinct)
        for plan in plans:
            model(x, t, y, plan=plan)
    assert len(made) == len(distinct)


@torch.no_grad()
@pytest.mark.parametrize("mib", [0, 1])
def test_memory_for_slices_is_bounded_and_changes_no_result(mib):
    size = {"hidden_size": 128, "num_heads": 8}
    free, bounded = vivid(**size), vivid(**size, prepared_mib=mib)
    (x, t, y), grid = at_one_time(1, 0), timestep_map(12)
    for plan in free.plan(grid) * 2:
        assert torch.equal(free(x, t, y, plan=plan), bounded(x, t, y, plan=plan))
        assert bounded.prepared_bytes <= mib * 2**20
    assert free.prepared_bytes > 2 * 2**20, "would not have fitted"
    assert (bounded.prepared_bytes > 0) == (mib > 0)


def test_the_least_recently_used_slices_go_first():
    model = vivid(hidden_size=256, depth=1, prepared_mib=1)  # a head takes 0.25 MiB
    a, b, c = (StepPlan(0.0, heads=((k,),), groups=((0, 1, 2, 3),)) for k in range(3))
    room = {"a": model.slices(0, a)[0], "b": model.slices(0, b)[0], "c": model.slices(0, c)[0]}
    size = model.prepared_bytes
    assert 3 * 2**18 <= size < 2**20
    assert model.slices(0, a)[0] is room["a"]
    model.slices(0, StepPlan(0.0, heads=((3,),), groups=((0, 1, 2, 3),)))
    assert model.prepared_bytes == size, "one in, one out"
    assert model.slices(0, a)[0] is room["a"] and model.slices(0, c)[0] is room["c"]
    assert model.slices(0, b)[0] is not room["b"], "b was used longest ago"


def loaded(model) -> None:
    model.load_state_dict(vivid(1).state_dict())


def loaded_in_place_of_the_old(model) -> None:
    for seed in (1, 2):  # two fresh tensors in turn: each as little written to as the other
        model.load_state_dict({name: value.clone() for name, value in vivid(seed).state_dict().items()}, assign=True)
        with torch.no_grad():
            model(*at_one_time(2, 700), plan=spread_plan())


def stepped(model) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.SGD(model.parameters(), lr=0.1).step()


def scaled(model) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)


CHANGES = [
    loaded,
    loaded_in_place_of_the_old,
    stepped,
    scaled,
    lambda model: model.double(),
    lambda model: model.to(torch.bfloat16).float(),
]


@torch.no_grad()
@pytest.mark.parametrize("change", CHANGES, ids=["load", "load assign", "step", "in place", "double", "rounded"])
@pytest.mark.parametrize("inference", [False, True])
def test_slices_follow_the_weights(change, inference):
    model, (x, t, y), plan = vivid(), at_one_time(2, 700), spread_plan()
    with torch.inference_mode(inference):
        before = model(x, t, y, plan=plan)
    with torch.enable_grad():
        change(model)
    x = x.to(model.pos_embed.dtype)
    with torch.inference_mode(inference):
        out = model(x, t, y, plan=plan)
    model.forget()
    assert torch.equal(out, model(x, t, y, plan=plan))
    assert not torch.equal(out, before.to(out.dtype))


def test_slices_are_dropped_in_training_and_when_forgotten():
    model, plan = vivid(), spread_plan()
    for drop in (model.train, model.eval, model.forget, model.double):
        model.prepare(plan)
        first = model.slices(0, plan)
        assert model.prepared_bytes > 0
        drop()
        assert model.prepared_bytes == 0
        assert model.slices(0, plan)[0] is not first[0]


def test_prepared_slices_are_in_no_state_dict():
    model = vivid()
    names = set(model.state_dict())
    model.prepare(spread_plan())
    assert set(model.state_dict()) == names


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@torch.inference_mode()
def test_compiled_it_computes_the_same_under_changing_plans():
    eager, compiled = vivid(), vivid()
    compiled.compile()
    for t in (900, 0):
        given = at_one_time(2, t)
        (plan,) = eager.plan([t])
        assert torch.allclose(compiled(*given, plan=plan), eager(*given, plan=plan), atol=1e-5)

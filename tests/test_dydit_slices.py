"""DyDiT: prepared slices of the weights are reused, bounded in memory and follow the weights."""

import shutil

import pytest
import torch
from dydit_models import at_one_time, vivid, width_of, width_plan

from ditbench.methods.diffusion.schedules import timestep_map
from ditbench.methods.plans import StepPlan


def spread_plan(heads: tuple[int, ...] = (0, 2), groups: tuple[int, ...] = (1, 3)) -> StepPlan:
    return width_plan(0.0, (heads,) * 3, (groups,) * 3)


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
        model(*given, plan=width_plan(9.0, ((0, 2),) * 3, ((1, 3),) * 3))
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
        distinct = {(layer, width_of(p).heads[layer], "h") for p in plans for layer in range(3)}
        distinct |= {(layer, width_of(p).groups[layer], "g") for p in plans for layer in range(3)}
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
    a, b, c = (width_plan(0.0, ((k,),), ((0, 1, 2, 3),)) for k in range(3))
    room = {"a": model.slices(0, a)[0], "b": model.slices(0, b)[0], "c": model.slices(0, c)[0]}
    size = model.prepared_bytes
    assert 3 * 2**18 <= size < 2**20
    assert model.slices(0, a)[0] is room["a"]
    model.slices(0, width_plan(0.0, ((3,),), ((0, 1, 2, 3),)))
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

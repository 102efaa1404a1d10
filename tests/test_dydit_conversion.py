"""DyDiT: a converted model computes what the static one does, and only checkpoints that fit are loaded."""

import re

import pytest
import torch
from dydit_models import SMALL, agree, both_backbones, inputs, one_line, static, vivid
from torch import Tensor, nn

from ditbench import methods
from ditbench.harness.sample.generate import checkpoint_problem
from ditbench.harness.store.records import CellSpec
from ditbench.methods.errors import CheckpointError, ConfigError
from ditbench.methods.registry import UnknownNameError
from ditbench.methods.weights import save_state

# Conversion from a static model


SHAPES = [
    {},
    {"hidden_size": 48, "num_heads": 3, "depth": 2},
    {"input_size": 16, "patch_size": 4, "in_channels": 3, "learn_sigma": False},
]


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

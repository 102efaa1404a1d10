"""DyDiT agrees with vectors from the reference, sliced and gathered as well as masked."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from ditbench import methods
from ditbench.methods.dydit.choices import Width
from ditbench.methods.work import WorkLedger

GOLDEN = Path(__file__).parent / "golden" / "dydit.safetensors"


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with safe_open(GOLDEN, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def model(golden) -> torch.nn.Module:
    with safe_open(GOLDEN, "pt") as file:
        built = methods.build("dydit", **json.loads(file.metadata()["config"]))
    state = {key.removeprefix("state."): value for key, value in golden.items() if key.startswith("state.")}
    return methods.load_weights(built, state)


def agree(ours: Tensor, reference: Tensor, tolerance: float = 1e-5) -> None:
    assert ours.shape == reference.shape
    worst = ((ours - reference).abs().max() / reference.abs().max()).item()
    assert worst <= tolerance, f"relative to the largest magnitude: {worst:.2e}"


@torch.no_grad()
def test_the_sliced_and_gathered_forward_equals_the_reference(model, golden):
    agree(model(golden["x"], golden["t"], golden["y"]), golden["out"])


@torch.no_grad()
def test_the_masked_training_path_equals_the_reference(model, golden):
    agree(model.masked(golden["x"], golden["t"], golden["y"]).out, golden["out"])


@torch.no_grad()
def test_the_complete_model_equals_the_reference(model, golden):
    agree(model.masked(golden["x"], golden["t"], golden["y"], complete=True).out, golden["out.complete"])


@torch.no_grad()
def test_all_three_masks_of_the_masked_path_are_the_reference_s(model, golden):
    masks = model.masked(golden["x"], golden["t"], golden["y"]).masks
    assert torch.equal(torch.stack([mask.heads for mask in masks], 1), golden["attn_mask"])
    assert torch.equal(torch.stack([mask.groups for mask in masks], 1), golden["mlp_mask"])
    assert torch.equal(torch.stack([mask.tokens for mask in masks], 1).unsqueeze(3), golden["token_mask"])


def test_planned_heads_and_groups_are_the_reference_s(model, golden):
    for row, plan in enumerate(model.plan(golden["t"].tolist())):
        for layer in range(model.config.depth):
            assert plan.get(Width).heads[layer] == tuple(golden["attn_mask"][row, layer].nonzero().flatten().tolist())
            assert plan.get(Width).groups[layer] == tuple(golden["mlp_mask"][row, layer].nonzero().flatten().tolist())


@torch.no_grad()
def test_tokens_gathered_at_inference_are_the_reference_s(model, golden):
    for row in range(len(golden["t"])):
        ledger = WorkLedger(keep_maps=True)
        one = slice(row, row + 1)
        model(golden["x"][one], golden["t"][one], golden["y"][one], ledger=ledger)
        maps = ledger.entries[0].maps
        assert torch.equal(maps[:, 0].float(), golden["token_mask"][row, :, :, 0])
        assert ledger.entries[0].decided.counts == tuple(maps.sum((1, 2)).tolist())


def test_the_vectors_exercise_closed_heads_groups_and_tokens(golden):
    for name in ("attn_mask", "mlp_mask", "token_mask"):
        assert 0 < golden[name].mean() < 1

"""FlexiDiT: one model at many patch sizes starts as the static one, runs only its own tokens, and is counted so.

Tests of exactness run on both backbones, so that a FlexiSiT is held to what a FlexiDiT is.
"""

from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from dydit_models import Recorder, Whole, agree, both_backbones, inputs
from flexidit_models import patch_plan

import ditbench.methods.flexidit.model as model_module
from ditbench import methods
from ditbench.harness.measure.flops import WorkCounter
from ditbench.harness.measure.operators import count_module
from ditbench.methods.flexidit.patching import bilinear, embedding_matrix, head_matrix, lift_head, project_embedding
from ditbench.methods.weights import randomise
from ditbench.methods.work import WorkLedger

SMALL: dict[str, Any] = {
    **{"input_size": 16, "patch_size": 2, "in_channels": 1, "num_classes": 10},
    **{"hidden_size": 32, "depth": 2, "num_heads": 2},
}


def enlivened(model, seed: int = 0):
    """The model with random weights of a size that matters everywhere, in a frozen base and in updates too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name != "pos_embed":
                weight.normal_(0.0, (weight[0].numel() if weight.dim() > 1 else 25) ** -0.5, generator=generator)
    return model


def lively(backbone: str = "dit", **config: Any):
    return enlivened(methods.build(f"flexi{backbone}", **{**SMALL, "patch_sizes": [2, 4, 8], **config}))


def static(backbone: str = "dit", **config: Any):
    model = methods.build(backbone, **{**SMALL, **config})
    randomise(model, 1)
    return model


def given(model, rows: int = 3):
    backbone = "dit" if model.config.flow is None else "sit"
    return inputs(rows, model.input_size, model.in_channels, backbone=backbone)


# Conversion from a static model


@torch.no_grad()
@both_backbones
@pytest.mark.parametrize("recipe", ["shared", "lora"])
@pytest.mark.parametrize(
    ("shape", "config"),
    [
        ({}, {"patch_sizes": [2, 4]}),
        ({}, {"patch_sizes": [8, 4, 2]}),
        ({}, {"patch_sizes": [2, 4], "size_norm": True, "positions": "corner"}),
        ({}, {"patch_sizes": [2, 4], "underlying_size": 2}),
        ({}, {"patch_sizes": [2, 8], "underlying_size": 8}),
        ({"patch_size": 4}, {"patch_sizes": [2, 4]}),
        ({"in_channels": 3, "learn_sigma": False, "hidden_size": 48, "num_heads": 3}, {"patch_sizes": [2, 4, 8]}),
    ],
    ids=str,
)
def test_at_the_pretrained_size_it_computes_what_the_static_model_does(shape, config, recipe, backbone):
    model = static(backbone, **shape)
    expected = model(*given(model))
    converted = methods.convert(model, f"flexi{backbone}", recipe=recipe, adapter={"rank": 2}, **config)
    assert not converted.training
    assert converted.patch_sizes[0] == model.config.patch_size
    assert set(converted.patch_sizes) == set(config["patch_sizes"])
    out = converted(*given(model))
    if recipe == "lora":
        assert torch.equal(out, expected), "nothing of the base was touched"
    else:
        agree(out, expected, 1e-5)
    for size in converted.patch_sizes[1:]:
        weak = converted(*given(model), patch_size=size)
        assert weak.shape == expected.shape and (weak - expected).abs().max() > 1e-3, size
    assert torch.equal(model(*given(model)), expected), "the static model is left as it was"


@both_backbones
def test_presets_have_the_static_parameters_and_what_their_recipe_adds(backbone):
    with torch.device("meta"):
        base, shared, lora = (
            sum(p.numel() for p in methods.build(f"{name}-xl-2", **config).parameters())
            for name, config in ((backbone, {}), (f"flexi{backbone}", {}), (f"flexi{backbone}", {"recipe": "lora"}))
        )
    d, depth, rank = 1152, 28, 32
    assert shared - base == 12 * (4 + 8) * d + 12 * 8 + 2 * d
    assert lora - base == depth * 16 * rank * d + 16 * (4 + 8) * d + d + 16 * 8 + d


# Kernels


@torch.no_grad()
@both_backbones
@pytest.mark.parametrize("recipe", ["shared", "lora"])
def test_the_weak_embedding_starts_as_the_powerful_one_of_the_averaged_latent(recipe, backbone):
    model = static(backbone)
    converted = methods.convert(model, f"flexi{backbone}", recipe=recipe)
    x, _, _ = given(model)
    weak = converted.tokens_of(x, 4) - converted.ends(4).place
    powerful = F.conv2d(F.avg_pool2d(x, 2), model.x_embedder.proj.weight, model.x_embedder.proj.bias, stride=2)
    agree(weak, powerful.flatten(2).transpose(1, 2), 1e-6)
    w2, w4 = model.x_embedder.proj.weight, converted.ends(4).embed
    for i, j in product(range(4), repeat=2):
        assert torch.allclose(w4[..., i, j], w2[..., i // 2, j // 2] / 4, rtol=1e-6, atol=0)


@torch.no_grad()
@both_backbones
@pytest.mark.parametrize("recipe", ["shared", "lora"])
def test_the_weak_prediction_starts_as_the_powerful_one_resized(recipe, backbone):
    """Whatever the last block gives: at twice the size bilinear upsampling of each patch, a scale that stays."""
    model = static(backbone)
    converted = methods.convert(model, f"flexi{backbone}", recipe=recipe)
    hidden = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))

    def patches(size: int):
        ends = converted.ends(size)
        return F.linear(hidden, ends.head, ends.head_bias).view(5, size, size, -1).permute(0, 3, 1, 2)

    agree(patches(4), F.interpolate(patches(2), size=(4, 4), mode="bilinear", align_corners=False), 1e-5)


@torch.no_grad()
@both_backbones
@pytest.mark.parametrize("recipe", ["shared", "lora"])
def test_a_constant_prediction_stays_constant_at_every_size(recipe, backbone):
    model = static(backbone, in_channels=3)
    model.final_layer.linear.weight.zero_()
    channels = torch.tensor([0.5, -1.0, 2.0, 0.1, -3.0, 0.7])
    model.final_layer.linear.bias.copy_(channels.repeat(4))
    converted = methods.convert(model, f"flexi{backbone}", patch_sizes=[2, 4, 8], recipe=recipe)
    for size in (2, 4, 8):
        out = converted(*given(model), patch_size=size)
        assert torch.allclose(out, channels[: out.shape[1]].view(-1, 1, 1).expand_as(out), atol=1e-5), size


@pytest.mark.parametrize(("stored", "size"), [*product((2, 4, 8), (2, 4, 8)), (4, 16), (3, 6), (6, 4)])
def test_rows_of_the_head_matrix_sum_to_one(stored, size):
    """A row of zeros would be a pixel that is never predicted and that no training reaches."""
    assert torch.allclose(head_matrix(stored, size).sum(1), torch.ones(size**2, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize(("stored", "size"), [*product((2, 4, 8), (2, 4, 8)), (3, 6), (6, 4)])
def test_the_matrices_have_the_properties_that_the_kernels_rest_on(stored, size):
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(stored**2, generator=generator, dtype=torch.float64) for _ in range(2))
    resized = F.interpolate(x.view(1, 1, stored, stored), size=(size, size), mode="bilinear", align_corners=False)
    assert torch.allclose(bilinear(stored, size) @ x, resized.flatten())
    if size >= stored:
        assert torch.allclose(resized.flatten() @ (embedding_matrix(stored, size) @ w), x @ w)
    if size == stored:
        assert torch.allclose(embedding_matrix(size, size), torch.eye(size**2, dtype=torch.float64), atol=1e-12)
        assert torch.allclose(head_matrix(size, size), torch.eye(size**2, dtype=torch.float64), atol=1e-12)
    if size <= stored:
        rows = torch.randn(size**2 * 3, 5, generator=generator)
        lifted = lift_head(rows, 3, stored).double().view(stored**2, 3, 5)
        back = torch.einsum("pu,ucd->pcd", head_matrix(stored, size), lifted).reshape(-1, 5)
        assert torch.allclose(back.float(), rows, atol=1e-6)


# Positions


@torch.no_grad()
@pytest.mark.parametrize(("positions", "size", "start"), [
    ("centre", 4, 0.5), ("centre", 8, 1.5), ("corner", 4, 0.0), ("corner", 8, 0.0),
])  # fmt: skip
def test_patches_of_new_sizes_lie_on_the_pretrained_grid(positions, size, start):
    model = methods.build("flexidit", **SMALL, patch_sizes=[2, 4, 8], positions=positions)
    table = model.ends(size).place[0]  # size embeddings are zero at the start
    side, quarter = 16 // size, 8
    for index in (0, 1, side, side**2 - 1):
        row, column = (start + (size // 2) * place for place in divmod(index, side))
        omega = 10_000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
        expected = torch.cat([(column * omega).sin(), (column * omega).cos(), (row * omega).sin(), (row * omega).cos()])
        assert torch.allclose(table[index].double(), expected, atol=1e-6)


@torch.no_grad()
@both_backbones
def test_at_the_pretrained_size_positions_are_the_table_of_the_model(backbone):
    model = methods.build(f"flexi{backbone}", **SMALL)
    model.pos_embed.normal_(generator=torch.Generator().manual_seed(0))  # as learned, not as computed
    assert torch.equal(model.ends(2).place, model.pos_embed)
    for size in (2, 4):
        before = model.ends(size).place
        model.size_embed[str(size)].fill_(0.5)
        assert torch.equal(model.ends(size).place, before + 0.5)


@torch.no_grad()
@both_backbones
@pytest.mark.parametrize("part", ["size_embed.4", "size_norms.4.weight", "size_norms.4.bias"])
def test_what_belongs_to_a_size_changes_that_size_alone(part, backbone):
    model = lively(backbone, size_norm=True)
    before = {size: model(*given(model), patch_size=size) for size in (2, 4, 8)}
    model.get_parameter(part).add_(1.0)
    for size, out in before.items():
        assert torch.equal(model(*given(model), patch_size=size), out) == (size != 4)


# What runs


BESIDE: dict[str, Any] = {"recipe": "lora", "adapter": {"rank": 3, "folded": False}}


@torch.no_grad()
@both_backbones
@pytest.mark.parametrize("config", [{}, {"recipe": "lora"}, BESIDE], ids=str)
@pytest.mark.parametrize("size", [2, 4, 8])
def test_only_the_tokens_of_the_size_are_embedded_attended_and_decoded(size, config, backbone):
    model, rows, c, r = lively(backbone, **config), 2, 32, 3
    args, n = given(model, rows), (16 // size) ** 2
    model.prepare(patch_plan(0.0, size))
    with Recorder() as seen:
        model(*args, patch_size=size)
    beside = size != 2 and config is BESIDE
    expected = [(rows, 256, c), (rows, c, c)]
    for _ in range(2):
        expected += [(rows, c, 6 * c)]
        for inner, outer in ((c, 3 * c), (c, c), (c, 4 * c), (4 * c, c)):
            expected += [(rows * n, inner, r), (rows * n, r, outer)] if beside else []
            expected += [(rows * n, inner, outer)]
    expected += [(rows, c, 2 * c), (rows * n, c, size**2 * 2)]
    assert sorted(seen.products) == sorted(expected)
    assert seen.attentions == [(rows, 2, n, 16)] * 2


@torch.no_grad()
def test_kernels_are_projected_from_the_stored_one_once_a_size(monkeypatch):
    model, projected = lively(), []

    def spy(weight, size):
        assert weight is model.x_embedder.proj.weight, "a chain of resizes loses weights"
        projected.append(size)
        return project_embedding(weight, size)

    monkeypatch.setattr(model_module, "project_embedding", spy)

    def sizes_of_a_round():
        projected.clear()
        outs = [model(*given(model), patch_size=size) for size in (2, 8, 4, 8, 2)]
        return projected.copy(), outs[1]

    once = [2, 8, 4]
    assert sizes_of_a_round()[0] == once and sizes_of_a_round()[0] == []
    for drop in (model.forget, model.train, model.eval):
        drop()
        done, before = sizes_of_a_round()
        assert len(done) > 5 if model.training else done == once, "in training every call projects"
    model.x_embedder.proj.weight.mul_(1.5)
    done, after = sizes_of_a_round()
    assert done == once and not torch.equal(after, before)
    model.forget()
    assert torch.equal(after, model(*given(model), patch_size=8)), "the new weights', not the prepared ones"


@torch.no_grad()
@both_backbones
@pytest.mark.parametrize("recipe", ["shared", "lora"])
def test_prepared_bytes_are_those_of_projected_kernels_and_merged_weights(recipe, backbone):
    model, c = lively(backbone, recipe=recipe), 32
    assert model.prepared_bytes == 0
    model.prepare(patch_plan(0.0, 2, 4))
    made = {
        "shared": sum(size**2 * c + size**2 * 2 * (c + 1) + (16 // size) ** 2 * c for size in (2, 4)),
        "lora": 16 * c + 2 * 12 * c * c,  # positions of size 4 and two blocks' weights; the base's are not copied
    }
    assert model.prepared_bytes == 4 * made[recipe]
    model(*given(model), patch_size=4)
    assert model.prepared_bytes == 4 * made[recipe], "nothing is made twice"
    model.forget()
    assert model.prepared_bytes == 0
    bounded = lively(backbone, recipe=recipe, prepared_mib=0)
    assert torch.equal(bounded(*given(model), patch_size=4), model(*given(model), patch_size=4))
    assert bounded.prepared_bytes == 0 < model.prepared_bytes


class Executed(Whole):
    """A call as it runs: counting's ``eval`` does not reach the model, which would forget what it prepared."""

    def train(self, mode: bool = True):
        return self


@both_backbones
@pytest.mark.parametrize("config", [
    {}, {"size_norm": True}, {"recipe": "lora"}, {**BESIDE, "size_norm": True}, {"adapter": {"folded": False}},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("size", [2, 4, 8])
def test_the_sum_over_pieces_equals_a_count_of_the_whole_call(size, config, backbone):
    model, plan, ledger = lively(backbone, **config), patch_plan(7.0, size), WorkLedger()
    args = given(model, 2)
    with torch.no_grad():
        model(*args, plan=plan, ledger=ledger)
    assert [(entry.plan, entry.rows) for entry in ledger.entries] == [(plan, 2)]
    whole = count_module(Executed(model, plan), args)
    counter = WorkCounter(model)
    assert counter.ledger(ledger.entries) == counter.call(plan, 2) == whole
    assert counter.call(patch_plan(7.0, 2), 2).total() >= whole.total()

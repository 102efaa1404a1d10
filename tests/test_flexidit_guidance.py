"""Guidance by a weak prediction, and the ways to run its two sequences of unequal length: one result, one bill."""

from typing import Any

import pytest
import torch
from dydit_models import agree, both_backbones, told
from flexidit_models import layout_of, patch_plan, sizes_of
from test_flexidit import lively
from torch import nn

from ditbench.harness.measure.flops import WorkCounter
from ditbench.harness.measure.operators import count_module
from ditbench.harness.sample.generate import BoundCell, bind_sampler
from ditbench.harness.store.records import CellSpec
from ditbench.methods.call import Call
from ditbench.methods.conditions import of_labels
from ditbench.methods.diffusion.guidance import GuidanceRule, GuidedDenoiser, weak_scale
from ditbench.methods.flexidit import packing
from ditbench.methods.flexidit.choices import Layout
from ditbench.methods.flexidit.packing import LAYOUTS, run_pair
from ditbench.methods.work import WorkLedger

MIXED = patch_plan(500.0, 2, 4)


def cell(
    schedule: Any, scale: float = 3.0, steps: int = 6, recipe: str = "shared", sampler: str = "ddim", **fields: Any
) -> BoundCell:
    """A cell with a model whose sizes differ: of the kind that the sampler is for."""
    backbone = "dit" if sampler == "ddim" else "sit"
    given = {"cell": "c", "method": f"flexi{backbone}", "sampler": sampler, "steps": steps, "guidance_scale": scale}
    spec = CellSpec(**given, sampler_options={"clip": True} if sampler == "ddim" else {}, **fields)
    model = lively(backbone, in_channels=3, patch_sizes=[2, 4], schedule=schedule, recipe=recipe)
    return BoundCell(spec, model, *bind_sampler(spec, model))


def executed(
    bound: BoundCell, images: int = 3
) -> tuple[torch.Tensor, list[tuple[float, int | None, Layout | None, int]]]:
    """Samples, and what ran: (timestep, patch size, layout, rows) a call."""
    ledger = WorkLedger()
    samples, _ = bound.generate(range(images), ledger)
    return samples, [(e.plan.timestep, sizes_of(e.plan)[0], layout_of(e.plan), e.rows) for e in ledger.entries]


def inputs(images: int, backbone: str = "dit"):
    """x, t, y, and labels of the guidance branch, all different by image."""
    generator = torch.Generator().manual_seed(images)
    x = torch.randn(images, 1, 16, 16, generator=generator)
    t = torch.tensor([told(backbone, step) for step in torch.linspace(0, 999, images).round().long().tolist()])
    return x, t, torch.arange(images), 10 - torch.arange(images)


# What is predicted


def test_the_scale_of_weak_guidance_is_two_fifths_of_the_way():
    assert [weak_scale(scale) for scale in (1.0, 1.5, 4.0)] == pytest.approx([1.0, 1.2, 2.2])


@pytest.mark.parametrize("weak", ["conditional", "unconditional"])
@pytest.mark.parametrize("recipe", ["shared", "lora"])
def test_with_equal_sizes_guidance_is_the_plain_one_to_the_bit(recipe, weak):
    for both, alone in (("6/6", None), ("2/2", {"steps": {4: 4, 2: 2}}), ("0/0", {"steps": {4: 6}})):
        first, ran = executed(cell(both, recipe=recipe, guidance_weak=weak))
        second, expected = executed(cell(alone, recipe=recipe))
        assert torch.equal(first, second) and ran == expected
        assert all(rows == 6 for *_, rows in ran), "one call of both branches a step"


@pytest.mark.parametrize("weak", ["conditional", "unconditional"])
@pytest.mark.parametrize("recipe", ["shared", "lora"])
@pytest.mark.parametrize(("interval", "channels"), [(None, None), ((300, 900), 2)])
@pytest.mark.parametrize("sampler", ["ddim", "euler", "heun"])
def test_a_mixed_loop_guides_as_the_formula_says(sampler, interval, channels, recipe, weak):
    if interval is not None and sampler != "ddim":
        interval = told("sit", 900), told("sit", 300)
    fields = {"guidance_weak": weak, "guidance_interval": interval, "guidance_channels": channels}
    bound = cell("5/1", recipe=recipe, sampler=sampler, **fields)
    samples, ran = executed(bound)
    streams, none, leading, calls = bound.streams(range(3)), torch.full((3,), 10), channels or 3, []
    classes = streams.conditions["label"]

    def by_hand(x, evaluation, _=None):
        t, step = bound.sampler.timesteps[evaluation], evaluation // bound.sampler.stages
        fine, coarse = 4 if step < 1 else 2, 4 if step < 5 else 2

        def predict(labels, size):
            return bound.model(x, torch.full((3,), t), labels, patch_size=size)

        cond = predict(classes, fine)
        if interval is not None and not interval[0] <= t <= interval[1]:
            calls.append((t, fine, None, 3))
            return cond
        calls.extend([(t, fine, None, 6)] if fine == coarse else [(t, fine, None, 3), (t, coarse, None, 3)])
        by_class = weak == "conditional" and fine != coarse
        other, scale = predict(classes if by_class else none, coarse), 1.8 if by_class else 3.0
        guided = other[:, :leading] + scale * (cond[:, :leading] - other[:, :leading])
        return torch.cat([guided, cond[:, leading:]], 1)

    with torch.inference_mode():
        expected = bound.sampler.sample(by_hand, streams.noise(), streams.noise)
    assert ran == calls
    assert torch.allclose(samples, expected, atol=1e-4) and not torch.allclose(samples, expected.flip(0), atol=1e-2)
    plain, _ = executed(cell("5/5", recipe=recipe, sampler=sampler, **fields))
    assert not torch.allclose(samples, plain, atol=1e-2), "the weak branch matters"


def test_unguided_a_schedule_s_guidance_branch_does_not_run():
    _, ran = executed(cell("5/1", scale=1.0))
    assert [(patch, rows) for _, patch, _, rows in ran] == [(4, 3), *[(2, 3)] * 5]


# Layouts

SIZES = [(2, 4), (2, 8), (4, 8)]


@torch.no_grad()
@pytest.mark.parametrize("sizes", [*SIZES, (2, 3)], ids=str)
@pytest.mark.parametrize("same_class", [True, False])
@pytest.mark.parametrize("images", [1, 3, 8])
@both_backbones
def test_all_layouts_give_the_same(backbone, images, same_class, sizes):
    side = 16 if sizes[1] != 3 else 12
    model = lively(backbone, input_size=side, patch_sizes=[2, *{*sizes} - {2}], size_norm=True)
    plan, (x, t, y, other) = patch_plan(5.0, *sizes), inputs(images, backbone)
    x = x[..., : model.input_size, : model.input_size]
    other = y if same_class else other
    expected = model(x, t, y, patch_size=sizes[0]), model(x, t, other, patch_size=sizes[1])
    for layout in LAYOUTS:
        for ours, theirs in zip(run_pair(model, x, t, y, other, Call(plan), layout), expected, strict=True):
            agree(ours, theirs, 1e-5)
    assert (expected[0] - expected[1]).abs().max() > 0.1, "the branches differ"


@torch.no_grad()
def test_layouts_hold_in_bfloat16():
    model, (x, t, y, other) = lively().bfloat16(), inputs(3)
    pairs = [run_pair(model, x.bfloat16(), t, y, other, Call(MIXED), layout) for layout in LAYOUTS]
    for pair in pairs[1:]:
        assert all(ours.dtype == torch.bfloat16 for ours in pair)
        for ours, theirs in zip(pair, pairs[0], strict=True):
            agree(ours.float(), theirs.float(), 0.05)


class Pair(nn.Module):
    """A pair as it runs; counting's ``eval`` does not reach the model, which would forget what it prepared."""

    def __init__(self, model: nn.Module, layout: str, same_class: bool) -> None:
        super().__init__()
        self.model, self.layout, self.same_class = model, layout, same_class

    def train(self, mode: bool = True):
        return self

    def forward(self, x, t, y, other):
        return run_pair(self.model, x, t, y, y if self.same_class else other, Call(MIXED), self.layout)


def token_work(layout: str, images: int, long: int = 64, short: int = 16) -> tuple[int, int]:
    """Tokens that a block maps, and pairs of tokens that it attends to."""
    rows = {
        "separate": [(images, long), (images, short)],
        "padded": [(2 * images, long)],
        "joined": [(images, long + short)],
        "packed": [(images + -(-images // (long // short)), long)],
    }[layout]
    return sum(n * length for n, length in rows), sum(n * length**2 for n, length in rows)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("same_class", [True, False])
@pytest.mark.parametrize("images", [1, 3, 8])
@both_backbones
def test_a_layout_is_counted_as_it_ran(monkeypatch, backbone, images, same_class, layout):
    model, ledger, given = lively(backbone), WorkLedger(), inputs(images, backbone)
    x, t, y, other = given
    with torch.no_grad():
        run_pair(model, x, t, y, y if same_class else other, Call(MIXED, ledger), layout)
    counted = WorkCounter(model).ledger(ledger.entries)
    if layout != "separate":  # made once for these lengths, not in a call; in a trace lengths are not numbers
        ready = packing.arrange(layout, images, 64, 16, same_class, "cpu")
        monkeypatch.setattr(packing, "arrange", lambda *lengths: ready)
    assert counted == count_module(Pair(model, layout, same_class), given)
    assert sum(entry.rows for entry in ledger.entries) == 2 * images
    tokens, pairs = token_work(layout, images)
    depth, d = model.config.depth, 32
    conditions = images if same_class and layout != "separate" else 2 * images
    ends = 2 * images * (16 * 16 * 2 * d + 2 * d * d) + conditions * (256 * d + d * d)
    assert counted["attention"] == depth * 2 * d * pairs
    assert counted["linear"] == depth * (12 * d * d * tokens + 6 * d * d * conditions) + ends


# Choosing


def chosen(model, images: int, same_class: bool = True, tuned: bool = True) -> list[Layout | None]:
    """Layouts of the calls that a pair made."""
    ledger, (x, t, y, other) = WorkLedger(), inputs(images)
    other = y if same_class else other
    told_both = (of_labels(model.facts, labels) for labels in (y, other))
    with torch.no_grad():
        outputs = model.predict_pair(x, t, *told_both, Call(MIXED, ledger), tuned=tuned)
        expected = run_pair(model, x, t, y, other, Call(MIXED), "separate")
    for ours, theirs in zip(outputs, expected, strict=True):
        agree(ours, theirs, 1e-5)
    return [layout_of(entry.plan) for entry in ledger.entries]


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_a_tuned_pair_runs_as_the_clock_found_best_for_its_number_of_images_and_classes(layout):
    model = lively()
    model.layouts[2, 4, 3, True] = {"separate": 2.0, "padded": 3.0, "joined": 3.0, "packed": 3.0, layout: 1.0}
    assert chosen(model, 3) == [Layout(layout, True)]
    assert chosen(model, 4) == chosen(model, 3, same_class=False) == [None, None], "not measured: separate"
    assert chosen(model, 3, tuned=False) == [None, None]
    model.layouts[2, 4, 3, False] = {layout: 1.0, "separate": 2.0}
    assert chosen(model, 3, same_class=False) == [Layout(layout, False)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_that_the_config_names_runs_untuned(layout):
    model = lively(layout=layout)
    assert model.tune([MIXED], 3, True) == {} == model.layouts
    for tuned in (True, False):
        assert chosen(model, 3, tuned=tuned) == ([None, None] if layout == "separate" else [Layout(layout, True)])


def test_tuning_measures_every_layout_once_and_only_where_branches_differ():
    bound = cell("5/1")
    found = bound.tune(2)
    assert list(found) == ["patch 2, guidance 4"] and set(found["patch 2, guidance 4"]) == set(LAYOUTS)
    assert all(ms > 0 for ms in found["patch 2, guidance 4"].values())
    assert bound.model.layouts == {(2, 4, 2, True): found["patch 2, guidance 4"]}
    assert bound.tune(2) == found, "measured once"
    bound.tune(3)
    assert len(bound.model.layouts) == 2, "another number of images is measured by itself"
    for other in (cell("5/5"), cell(None), cell("5/1", scale=1.0)):
        assert other.tune(2) == {} == other.model.layouts
    assert set(cell("5/1", recipe="lora").tune(2)["patch 2, guidance 4"]) == {"separate"}
    unconditional = cell("5/1", guidance_weak="unconditional")
    unconditional.tune(2)
    assert list(unconditional.model.layouts) == [(2, 4, 2, False)]


@pytest.mark.parametrize(("tuned", "expected"), [(True, [(Layout("packed", True), 6)]), (False, [(None, 3)] * 2)])
def test_a_denoiser_uses_what_was_found_only_if_asked_to(tuned, expected):
    model, (x, _, y, _) = lively(), inputs(3)
    model.layouts[2, 4, 3, True] = {"packed": 1.0, "separate": 2.0}
    ledger = WorkLedger()
    with torch.no_grad():
        GuidedDenoiser(model, of_labels(model.facts, y), [MIXED], GuidanceRule(2.0), ledger, tuned)(x, 0)
    assert [(layout_of(entry.plan), entry.rows) for entry in ledger.entries] == expected


def test_the_clock_decides_nothing_about_samples():
    bound = cell("5/1")
    bound.model.layouts[2, 4, 3, True] = {"packed": 1.0, "separate": 2.0}  # latency was measured before
    _, ran = executed(bound)
    assert all(layout is None for _, _, layout, _ in ran) and len(ran) == 10


@both_backbones
@pytest.mark.parametrize("layout", ["padded", "joined", "packed"])
def test_a_layout_first_used_in_inference_mode_still_differentiates(layout, backbone):
    model = lively(backbone)
    packing.arrange.cache_clear()
    x = torch.randn(6, model.in_channels, model.input_size, model.input_size)
    t, y = torch.full((6,), told(backbone, 7)), torch.arange(6)
    with torch.inference_mode():
        run_pair(model, x, t, y, y, Call(patch_plan(7.0, 2, 4)), layout)
    fine, coarse = run_pair(model, x.requires_grad_(), t, y, y, Call(patch_plan(7.0, 2, 4)), layout)
    (fine.sum() + coarse.sum()).backward()
    assert x.grad is not None and x.grad.abs().sum() > 0

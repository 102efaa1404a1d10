"""Training of routers: samples are hard, gradients arrive, and the compute comes to what was asked for.

What concerns the model's process runs on both backbones, so that a DySiT is held to what a DyDiT is.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from dydit_models import both_backbones, told
from torch import Tensor

import ditbench.methods.dydit.training as objective_module
from ditbench import methods
from ditbench.methods.diffusion.process import stratified_timesteps
from ditbench.methods.dydit.activity import BlockCost
from ditbench.methods.dydit.block import Masks
from ditbench.methods.dydit.loss import active_share, flops_loss, target_at
from ditbench.methods.dydit.routers import TokenRouter, WidthRouter, hard_sigmoid_sample
from ditbench.methods.dydit.training import dynamic_denoising
from ditbench.methods.errors import CheckpointError, ConfigError
from ditbench.methods.training.data.digits import digits
from ditbench.methods.training.loop import step_generator
from ditbench.methods.training.recipe import Recipe
from ditbench.methods.training.run import run_recipe
from ditbench.methods.weights import randomise, read_state, save_state


def recipe(dynamic: dict[str, Any] | None = None, **fields: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "recipe": "tiny",
            "method": "dydit-testing",
            "steps": 12,
            "batch": 8,
            "ema": 0.5,
            "optimizer": {"rate": 1e-3, "schedule": "cosine", "warmup": 2},
            "checkpoint_every": 5,
            "dynamic": {"target": 0.5, "hold": 0, "ramp": 4, "router_bias": 2.0, **(dynamic or {})},
            **fields,
        }
    )


def model_in_training(bias=2.0, backbone="dit", **config):
    torch.manual_seed(0)
    model = methods.build(f"dy{backbone}-testing", **config)
    randomise(model, 3)
    model.open_routers(bias)
    return model.train()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Samples of routers


def test_samples_are_exactly_zero_or_one():
    logits = torch.cat([torch.linspace(-60, 60, 5001), torch.zeros(5000)])
    sample = hard_sigmoid_sample(logits, generator())
    assert ((sample == 0) | (sample == 1)).all()
    assert 0 < sample[5001:].mean() < 1


@pytest.mark.parametrize("logit", [-3.0, -1.0, 0.0, 0.5, 2.0])
def test_a_one_has_the_probability_of_its_sigmoid(logit):
    draws = 40_000
    share = hard_sigmoid_sample(torch.full((draws,), logit), generator()).mean().item()
    expected = torch.tensor(logit).sigmoid().item()
    assert share == pytest.approx(expected, abs=4 * (expected * (1 - expected) / draws) ** 0.5)


def test_every_sample_has_a_gradient_whatever_it_came_to():
    logits = torch.zeros(1000, requires_grad=True)
    sample = hard_sigmoid_sample(logits, generator())
    sample.sum().backward()
    assert (logits.grad > 0).all()
    assert set(sample.tolist()) == {0.0, 1.0}
    # the slope of a sigmoid tempered by 5 is at most 1 / (4 * 5), and near that for a typical sample
    assert logits.grad.max() <= 0.05 + 1e-6 and logits.grad.mean() > 0.04


def test_samples_depend_on_the_generator_only():
    logits = torch.zeros(100)
    first = hard_sigmoid_sample(logits, generator(1))
    assert torch.equal(first, hard_sigmoid_sample(logits, generator(1)))
    assert not torch.equal(first, hard_sigmoid_sample(logits, generator(2)))


@both_backbones
def test_every_row_of_a_batch_draws_its_own_masks_and_part_0_stays_on(backbone):
    model = model_in_training(0.0, num_heads=8, backbone=backbone)
    masks = model.masked(torch.randn(16, 1, 8, 8), torch.full((16,), told(backbone, 5)), torch.zeros(16).long()).masks
    for mask in masks:
        for part in (mask.heads, mask.groups):
            assert part.shape == (16, 8) and (part[:, 0] == 1).all()
            assert len({tuple(row) for row in part.tolist()}) > 1
            assert ((part == 0) | (part == 1)).all() and part.mean() < 1
        assert mask.tokens.shape == (16, 16)


@both_backbones
def test_straight_through_gradients_reach_all_routers(backbone):
    model = model_in_training(num_heads=4, backbone=backbone)
    chosen = recipe()
    dynamic_denoising(digits(), chosen)(model, step_generator(0, 0), 0).backward()
    routers = [part for part in model.modules() if isinstance(part, WidthRouter | TokenRouter)]
    assert len(routers) == 3 * model.config.depth
    for router in routers:
        for name, weight in router.named_parameters():
            assert weight.grad is not None and weight.grad.abs().max() > 0, name


@both_backbones
def test_the_denoising_loss_alone_reaches_the_routers(backbone):
    model = model_in_training(num_heads=4, backbone=backbone)
    dynamic_denoising(digits(), recipe({"weight": 0.0}))(model, step_generator(0, 0), 0).backward()
    for block in model.blocks:
        for router in (block.attn_rate.router, block.mlp_rate.router, block.token_selection.mlp_head[2]):
            assert router.weight.grad.abs().max() > 0


@both_backbones
def test_training_uses_the_step_s_generator_alone(backbone):
    model, loss = model_in_training(backbone=backbone), dynamic_denoising(digits(), recipe({"complete_steps": 5}))
    values = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        values.append(loss(model, step_generator(0, 0), 0).item())
    assert values[0] == values[1]
    assert loss(model, step_generator(0, 1), 1).item() != values[0]


# The compute that is left on

COST = BlockCost(attention=300, mlp=700)


def test_block_costs_are_those_of_the_reference():
    small, large = BlockCost.of(256, 384, 1536), BlockCost.of(256, 1152, 4608)
    assert (small.attention, small.mlp) == (201_326_592, 301_989_888)
    assert (large.attention, large.mlp) == (1_509_949_440, 2_717_908_992)
    assert methods.build("dydit-testing").config.block_cost == BlockCost.of(16, 32, 128)


def test_the_active_share_is_that_computed_by_hand():
    masks = [
        Masks(torch.tensor([[1.0, 0, 1, 0], [1, 0, 0, 0]]), torch.ones(2, 4), torch.tensor([[1.0, 0], [1, 1]])),
        Masks(torch.ones(2, 4), torch.tensor([[1.0, 1, 1, 0], [1, 0, 0, 0]]), torch.tensor([[0.0, 0], [1, 0]])),
    ]
    first = (0.5 * 300 + 1 * 0.5 * 700 + 1 * 300 + 0.75 * 0 * 700) / 2000
    second = (0.25 * 300 + 1 * 1 * 700 + 1 * 300 + 0.25 * 0.5 * 700) / 2000
    assert active_share(masks, COST).tolist() == pytest.approx([first, second])


def test_the_part_that_is_always_on_counts():
    only_the_first = torch.tensor([[1.0, 0, 0, 0]])
    share = active_share([Masks(only_the_first, only_the_first, torch.ones(1, 6))], COST)
    assert share.tolist() == pytest.approx([0.25])


def test_with_everything_on_the_share_is_one():
    full = Masks(torch.ones(3, 4), torch.ones(3, 4), torch.ones(3, 6))
    assert torch.equal(active_share([full] * 5, COST), torch.ones(3))


def test_what_does_not_route_is_on():
    tokens_only = [Masks(None, None, torch.tensor([[1.0, 0, 0, 0]]))]
    assert active_share(tokens_only, COST).tolist() == pytest.approx([0.3 + 0.7 / 4])
    width_only = [Masks(torch.tensor([[1.0, 0]]), torch.tensor([[1.0, 1]]), None)]
    assert active_share(width_only, COST).tolist() == pytest.approx([0.15 + 0.7])


def test_the_flops_loss_binds_the_mean_of_the_batch_only():
    shares = torch.tensor([0.2, 0.8], requires_grad=True)
    assert flops_loss(shares, 0.5).item() == pytest.approx(0, abs=1e-12)
    loss = flops_loss(shares, 0.3)
    assert loss.item() == pytest.approx(0.04)
    loss.backward()
    assert shares.grad.tolist() == pytest.approx([0.2, 0.2])


def test_the_target_is_held_then_falls_on_a_line_then_stays():
    def at(step: int) -> float:
        return target_at(step, 0.3, 100, 1000)

    assert at(0) == at(99) == 1
    assert at(100) == pytest.approx(0.93)
    assert at(500) == pytest.approx(0.65)
    assert at(1000) == at(1001) == at(10**6) == pytest.approx(0.3)
    assert target_at(0, 0.3, 0, 0) == pytest.approx(0.3)
    assert target_at(49, 0.3, 50, 10) == 1 and target_at(50, 0.3, 50, 10) == pytest.approx(0.3)


# Timesteps


def test_stratified_timesteps_take_turns_through_the_quarters():
    t = torch.stack([stratified_timesteps(10, 1000, generator(seed)) for seed in range(500)])
    for row in range(10):
        low = 250 * (row % 4)
        assert low <= t[:, row].min() < low + 20 and low + 230 <= t[:, row].max() < low + 250


def test_stratified_timesteps_scatter_less_in_the_mean():
    drawn = generator()
    stratified = torch.stack([stratified_timesteps(16, 1000, drawn) for _ in range(400)]).float().mean(1)
    uniform = torch.randint(1000, (400, 16), generator=drawn).float().mean(1)
    assert stratified.var() < 0.25 * uniform.var()  # 1/16 in theory
    assert stratified.mean() == pytest.approx(499.5, abs=5)


@both_backbones
@pytest.mark.parametrize("stratified", [True, False])
def test_a_recipe_chooses_its_timesteps(stratified, backbone):
    given: list[Tensor] = []
    model = model_in_training(backbone=backbone)
    real = model.masked
    model.masked = lambda x, t, *rest, **named: given.append(t) or real(x, t, *rest, **named)
    loss = dynamic_denoising(digits(), recipe({"stratified": stratified}))
    for step in range(6):
        loss(model, step_generator(0, step), step)
    in_turn = torch.stack(given) // (250 if backbone == "dit" else 0.25) == torch.arange(8) % 4
    assert in_turn.all() == stratified


# Objectives


def mean_share(model) -> float:
    """Share of the block MACs that the routers leave on in training, over a few batches."""
    drawn, shares = generator(99), []
    with torch.no_grad():
        for _ in range(4):
            t, y = model.process.draw_times(64, drawn, stratified=True), torch.randint(10, (64,), generator=drawn)
            images = digits().images[torch.randint(1797, (64,), generator=drawn)]
            masks = model.masked(images, t, y, generator=drawn).masks
            shares.append(active_share(masks, model.config.block_cost).mean().item())
    return sum(shares) / len(shares)


@both_backbones
def test_the_flops_loss_pulls_the_compute_to_its_target(backbone):
    chosen = recipe({"target": 0.5, "weight": 10.0, "hold": 5, "ramp": 20}, batch=16)
    model = model_in_training(3.0, num_heads=4, backbone=backbone)
    assert mean_share(model) > 0.85
    loss_of, optimizer = dynamic_denoising(digits(), chosen), torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(120):
        loss = loss_of(model, step_generator(0, step), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert mean_share(model) == pytest.approx(0.5, abs=0.1)


@both_backbones
def test_the_complete_model_is_trained_too_for_as_long_as_the_recipe_says(backbone):
    model, calls = model_in_training(backbone=backbone), []
    real = model.masked

    def spy(*args: object, complete: bool = False, **named: object):
        calls.append(complete)
        return real(*args, complete=complete, **named)

    model.masked = spy
    both, alone = (dynamic_denoising(digits(), recipe({"complete_steps": steps})) for steps in (3, 0))
    for step in (2, 3):
        calls.clear()
        extra = both(model, step_generator(0, step), step) - alone(model, step_generator(0, step), step)
        assert calls.count(True) == (step < 3)
        assert extra > 0.1 if step < 3 else extra == 0


@both_backbones
def test_the_complete_loss_trains_what_routers_closed(backbone):
    model = model_in_training(-50.0, backbone=backbone)
    loss = dynamic_denoising(digits(), recipe({"complete_steps": 1, "weight": 0.0}))
    for step, reached in ((0, True), (1, False)):
        model.zero_grad()
        loss(model, step_generator(0, 0), step).backward()
        closed = model.blocks[0].mlp.fc1.weight.grad[64:]  # group 1 of 2
        assert bool((closed != 0).any()) == reached


@both_backbones
def test_the_weight_and_the_target_enter_the_loss(backbone):
    model = model_in_training(backbone=backbone)

    def value(step: int = 4, **dynamic: Any) -> float:
        return dynamic_denoising(digits(), recipe(dynamic))(model, step_generator(0, 0), step).item()

    free, light, heavy = value(weight=0.0), value(weight=1.0), value(weight=3.0)
    assert heavy - free == pytest.approx(3 * (light - free), rel=1e-3)
    assert light - free > 0.05, "(0.9 - 0.5)²"
    assert value(step=0) < value(step=4), "the target falls"


# Whole runs


def static_checkpoint(folder: Path, backbone: str = "dit") -> Path:
    model = methods.build(f"{backbone}-testing")
    randomise(model, 7)
    path = folder / "static.safetensors"
    save_state(path, model.state_dict(), {})
    return path


def read_model(path: Path, name: str = "dydit-testing"):
    return methods.load_weights(methods.build(name), path)


STILL: dict[str, Any] = {"ema": 0.0, "steps": 1, "optimizer": {"rate": 1e-9}}


@both_backbones
def test_a_run_starts_from_the_weights_of_its_base(tmp_path, backbone):
    base = static_checkpoint(tmp_path, backbone)
    done = run_recipe(
        recipe({"rank": False}, base="static", method=f"dy{backbone}-testing", **STILL),
        tmp_path / "run",
        base,
        progress=False,
    )
    state, static = read_state(done.path), read_state(base)
    assert all(torch.allclose(state[name], value, atol=1e-7) for name, value in static.items())
    assert set(static) < set(state)
    biases = [v for n, v in state.items() if n.endswith(("router.bias", "mlp_head.2.bias"))]
    assert len(biases) == 6 and all(torch.allclose(bias, torch.tensor(2.0)) for bias in biases)


@both_backbones
def test_a_run_ranks_the_parts_of_its_base_and_keeps_its_function(tmp_path, backbone):
    base = static_checkpoint(tmp_path, backbone)
    done = run_recipe(
        recipe(base="static", method=f"dy{backbone}-testing", **STILL), tmp_path / "run", base, progress=False
    )
    t = torch.tensor([told(backbone, step) for step in (0, 500, 999)])
    x, y = torch.randn(3, 1, 8, 8, generator=generator()), torch.tensor([1, 2, 10])
    dynamic, static = read_model(done.path, f"dy{backbone}-testing"), read_model(base, f"{backbone}-testing")
    with torch.no_grad():
        assert torch.allclose(dynamic(x, t, y), static(x, t, y), atol=1e-5)
    for block in dynamic.blocks:
        channels = torch.cat([block.mlp.fc1.weight, block.mlp.fc2.weight.T], 1).norm(dim=1)
        assert (channels.diff() <= 1e-5).all()
    assert not torch.equal(dynamic.blocks[0].mlp.fc1.weight, static.blocks[0].mlp.fc1.weight)


def test_unset_the_router_bias_is_the_published_one(tmp_path):
    done = run_recipe(recipe({"router_bias": None}, **STILL), tmp_path, progress=False)
    for name, value in read_state(done.path).items():
        if name.endswith("router.bias"):
            assert torch.allclose(value, torch.tensor(15.0))
        if name.endswith("mlp_head.2.bias"):
            assert torch.allclose(value, torch.tensor(35.0))


def test_a_base_of_another_shape_is_refused_in_one_line(tmp_path):
    with pytest.raises(CheckpointError, match="another shape") as caught:
        run_recipe(recipe(base="static", config={"hidden_size": 64}), tmp_path, static_checkpoint(tmp_path), False)
    assert "\n" not in str(caught.value)


def test_a_dynamic_run_stopped_and_resumed_ends_in_the_same_weights(tmp_path, monkeypatch):
    base = static_checkpoint(tmp_path)
    chosen = recipe({"complete_steps": 4}, base="static")
    whole = run_recipe(chosen, tmp_path / "whole", base, progress=False)
    steps: list[int] = []

    def stopping_at(last: int):
        def objective(*args):
            real = dynamic_denoising(*args)

            def loss(model, generator, step):
                steps.append(step)
                if step == last:
                    raise KeyboardInterrupt
                return real(model, generator, step)

            return loss

        return objective

    monkeypatch.setattr(objective_module, "dynamic_denoising", stopping_at(8))
    with pytest.raises(KeyboardInterrupt):
        run_recipe(chosen, tmp_path / "cut", base, progress=False)
    torch.manual_seed(1234)  # what else happened in between must not matter
    steps.clear()
    monkeypatch.setattr(objective_module, "dynamic_denoising", stopping_at(-1))
    resumed = run_recipe(chosen, tmp_path / "cut", base, progress=False)
    assert steps == list(range(5, 12)), "went on from the last checkpoint"
    assert resumed.sha256 == whole.sha256
    assert resumed.figures == whole.figures


def test_training_routers_of_a_model_without_any_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"dit-testing has no routers") as caught:
        run_recipe(recipe(method="dit-testing"), tmp_path, progress=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"target": 0.3},
        {"weight": 5.0},
        {"hold": 6},
        {"ramp": 40},
        {"complete_steps": 6},
        {"stratified": False},
        {"router_bias": 1.0},
    ],
    ids=str,
)
def test_every_dynamic_setting_changes_the_weights(tmp_path, change):
    first = run_recipe(recipe(), tmp_path / "a", progress=False)
    second = run_recipe(recipe(change), tmp_path / "b", progress=False)
    one, other = read_state(first.path), read_state(second.path)
    assert any(not torch.equal(value, other[name]) for name, value in one.items())

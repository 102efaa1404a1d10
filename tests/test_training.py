"""Training: resumption changes nothing, and every part of a recipe has an effect."""

import json
import re

import pytest
import torch
import yaml
from commands import ditbench

from ditbench import methods
from ditbench.methods.dydit.loss import active_share, flops_loss
from ditbench.methods.dydit.training import dynamic_denoising
from ditbench.methods.errors import CheckpointError
from ditbench.methods.flexidit.training import flexible_denoising
from ditbench.methods.protocols import StaticWork
from ditbench.methods.training.data.digits import digits
from ditbench.methods.training.loop import learning_rate, step_generator, train
from ditbench.methods.training.objectives import denoising
from ditbench.methods.training.recipe import OptimizerRecipe, Recipe
from ditbench.methods.training.run import run_recipe
from ditbench.methods.weights import randomise, read_state


def recipe(**fields: object) -> Recipe:
    return Recipe.model_validate(
        {
            "recipe": "tiny",
            "method": "dit-testing",
            "steps": 12,
            "batch": 8,
            "ema": 0.5,
            "optimizer": {"rate": 1e-3, "schedule": "cosine", "warmup": 2},
            "checkpoint_every": 5,
            **fields,
        }
    )


def trained(chosen: Recipe, folder, loss=None):
    torch.manual_seed(0)
    model = methods.build(chosen.method)
    return train(model, loss or denoising(digits(), chosen), chosen, folder, progress=False)


def test_a_run_stopped_and_resumed_ends_in_the_same_weights(tmp_path):
    chosen = recipe()
    whole = trained(chosen, tmp_path / "whole")
    objective = denoising(digits(), chosen)
    calls = 0

    def stops_at_step_8(model, generator, step):
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt
        return objective(model, generator, step)

    with pytest.raises(KeyboardInterrupt):
        trained(chosen, tmp_path / "cut", stops_at_step_8)
    resumed = trained(chosen, tmp_path / "cut", lambda m, g, k: count(objective(m, g, k)))
    assert seen == 7, "went on from step 5, not from the start"
    assert whole.losses == resumed.losses
    assert all(torch.equal(value, resumed.ema[name]) for name, value in whole.ema.items())


seen = 0


def count(value):
    global seen
    seen += 1
    return value


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path):
    trained(recipe(), tmp_path)
    with pytest.raises(CheckpointError, match="another recipe"):
        trained(recipe(batch=4), tmp_path)


@pytest.mark.parametrize("change", [{"label_dropout": 1.0}, {"ema": 0.0}, {"seed": 1}, {"optimizer": {"rate": 1e-4}}])
def test_every_setting_changes_the_weights(tmp_path, change):
    first, second = trained(recipe(), tmp_path / "a"), trained(recipe(**change), tmp_path / "b")
    assert any(not torch.equal(value, second.ema[name]) for name, value in first.ema.items())


def test_the_loss_falls(tmp_path):
    losses = trained(recipe(steps=60, batch=32), tmp_path).losses
    assert losses[-1] < 0.8 * losses[0]


def test_dropped_labels_reach_the_model_as_the_null_class():
    chosen, given = recipe(label_dropout=0.5, batch=400), []

    class Spy(StaticWork, torch.nn.Module):
        in_channels, input_size, num_classes = 1, 8, 10

        def forward(self, x, t, y):
            given.append(y)
            return torch.cat([x, x], 1)

    denoising(digits(), chosen)(Spy(), step_generator(0, 0), 0)
    assert 0.4 < (given[0] == 10).float().mean() < 0.6


OBJECTIVES = {
    "sit-testing": (denoising, {}),
    "dysit-testing": (dynamic_denoising, {"dynamic": {"target": 0.5, "hold": 0, "ramp": 0, "router_bias": 1.0}}),
    "flexisit-testing": (flexible_denoising, {"flexible": {"probabilities": {2: 0.5, 4: 0.5}}}),
}


class OneImage:
    """A data set that leaves nothing to chance but times, noise and dropped labels."""

    image = torch.linspace(-1, 1, 64).view(1, 8, 8)

    def __len__(self) -> int:
        return 1

    def batch(self, rows):
        return self.image.expand(len(rows), 1, 8, 8), torch.full((len(rows),), 3)


@pytest.mark.parametrize("method", OBJECTIVES)
def test_the_loss_of_a_flow_is_the_squared_error_of_the_velocity(method):
    """By hand from what the model was given: noise = (x_t − t·x₀)/(1 − t), velocity = x₀ − noise."""
    objective, section = OBJECTIVES[method]
    model = methods.build(method).train()
    randomise(model, 0)
    called = "masked" if method == "dysit-testing" else "forward"
    real, calls = getattr(model, called), []

    def spy(x, t, y, **named):
        calls.append((x, t, y, real(x, t, y, **named)))
        return calls[-1][-1]

    setattr(model, called, spy)
    loss = objective(OneImage(), recipe(method=method, label_dropout=0.5, batch=64, **section))
    found = loss(model, step_generator(0, 1), 1)
    ((x, t, y, answer),) = calls
    assert t.shape == (64,) and t.min() >= 0 and t.max() < 1 and t.max() - t.min() > 0.8
    assert set(y.tolist()) == {3, 10}
    noise = ((x.double() - t.double().view(-1, 1, 1, 1) * OneImage.image) / (1 - t.double().view(-1, 1, 1, 1))).float()
    assert abs(noise.mean()) < 0.1 and noise.std() == pytest.approx(1, abs=0.05)
    out, extra = answer, 0.0
    if method == "dysit-testing":
        out, extra = answer.out, flops_loss(active_share(answer.masks, model.config.block_cost), 0.5)
        extra = 2 * extra.item()
        assert extra > 1e-3, "routers are trained too"
    assert out.shape == x.shape
    expected = (out - (OneImage.image - noise)).square().mean().item()
    assert found.item() == pytest.approx(expected + extra, rel=1e-4)


@pytest.mark.parametrize("method", OBJECTIVES)
def test_a_recipe_of_a_flow_trains_to_a_checkpoint_that_loads(tmp_path, method):
    section = OBJECTIVES[method][1]
    runs = [
        run_recipe(recipe(method=method, steps=2, checkpoint_every=1, ema=0.0, seed=seed, **section), tmp_path / name)
        for seed, name in ((0, "a"), (0, "b"), (1, "c"))
    ]
    assert runs[0].sha256 == runs[1].sha256 != runs[2].sha256
    model = methods.load_weights(methods.build(method), runs[0].path)
    assert model.weights_sha256 == runs[0].sha256 and model.process.predicts == "velocity"
    torch.manual_seed(0)
    start, trained = methods.build(method).state_dict(), read_state(runs[0].path)
    assert any(not torch.equal(value, start[name]) for name, value in trained.items() if name.startswith("blocks."))


def test_rates_warm_up_and_fall_as_a_cosine():
    cosine = OptimizerRecipe(rate=1.0, schedule="cosine", warmup=10)
    rates = [learning_rate(cosine, step, 110) for step in range(110)]
    assert rates[0] == 0.1 and rates[9] == 1.0 and rates[60] == pytest.approx(0.5) and rates[-1] < 0.001
    assert learning_rate(OptimizerRecipe(rate=1.0), 50, 100) == 1.0


def test_step_generators_depend_on_seed_and_step():
    draws = {(s, k): torch.rand(1, generator=step_generator(s, k)).item() for s in (0, 1, 2**40) for k in (0, 1)}
    assert len(set(draws.values())) == len(draws)


def test_the_train_command_writes_a_checkpoint_that_loads(tmp_path):
    done = ditbench("train", "testing", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    model = methods.load_weights(methods.build("dit-testing"), tmp_path / printed["checkpoint"])
    assert model.weights_sha256 == printed["sha256"]


def test_a_fault_in_a_recipe_is_one_line_with_its_place(tmp_path):
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"recipe": "r", "steps": 5}) + "optimiser: {rate: 1}\n")
    done = ditbench("train", "r.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(r"r\.yaml:3:1: unknown key 'optimiser' \(did you mean 'optimizer'\?\)\n", done.stderr)

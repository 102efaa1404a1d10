"""SiT and the solvers of its flow agree with vectors from the reference implementation."""

import json

import pytest
import torch
from test_dit_golden import agree, load
from torch import Tensor

from ditbench import methods
from ditbench.methods.conditions import of_labels
from ditbench.methods.diffusion.flow import Dopri5, Euler, Heun
from ditbench.methods.diffusion.guidance import GuidanceRule, GuidedDenoiser, combine
from ditbench.methods.diffusion.sampler import Sampler, SamplerOptions
from ditbench.methods.work import WorkLedger


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load("sit")[0]


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    tensors, metadata = load("sit")
    built = methods.build("sit", **json.loads(metadata["config"]))
    state = {key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}
    return methods.load_weights(built, state)


def no_noise() -> Tensor:
    raise AssertionError("an ODE draws no noise")


@torch.no_grad()
def test_the_velocity_equals_the_reference_at_times_from_0_to_1(model, golden):
    t = golden["t"]
    assert t.dtype == torch.float32 and t.min() == 0 and t.max() > 0.99, "unscaled, as it is told"
    out = model(golden["x"], t, golden["y"])
    agree(out, golden["out"])
    scaled = model(golden["x"], 1000 * t, golden["y"])
    assert (scaled - golden["out"]).abs().max() > 1e-2 * golden["out"].abs().max(), "would have been seen"


@torch.no_grad()
def test_the_model_returns_the_channels_of_the_latent_where_the_checkpoint_has_twice_as_many(model, golden):
    rows = golden["state.final_layer.linear.weight"].shape[0]
    assert rows == model.config.patch_size**2 * 8, "as the public checkpoints"
    assert model.out_channels == model.in_channels == 4
    every = []
    hook = model.final_layer.register_forward_hook(lambda module, args, output: every.append(output))
    out = model(golden["x"], golden["t"], golden["y"])
    hook.remove()
    patches = every[0].view(6, 4, 4, 2, 2, 8).permute(0, 5, 1, 3, 2, 4).reshape(6, 8, 8, 8)
    assert torch.equal(out, patches[:, :4]), "the first half of them"


@torch.no_grad()
@pytest.mark.parametrize(("name", "sampler", "evaluations"), [
    ("euler", Euler(9), 9),  # the reference counts the ten points of the grid
    ("heun2", Heun(9), 18),
    ("dopri5", Dopri5(1, SamplerOptions(atol=1e-6, rtol=1e-3)), None),
], ids=["euler", "heun", "dopri5"])  # fmt: skip
def test_a_solution_of_the_ode_equals_the_reference(model, golden, name, sampler: Sampler, evaluations):
    ledger = WorkLedger()
    denoise = GuidedDenoiser(
        model, of_labels(model.facts, golden["ode.y"]), sampler.plans(model), GuidanceRule(), ledger
    )
    agree(sampler.sample(denoise, golden["ode.z"], no_noise), golden[f"ode.{name}.10"], 1e-4)
    assert evaluations is None or ledger.evaluations == evaluations


@torch.no_grad()
@pytest.mark.parametrize("steps", [8, 10])
def test_another_number_of_steps_is_told_from_the_reference(model, golden, steps):
    sampler = Euler(steps)
    denoise = GuidedDenoiser(model, of_labels(model.facts, golden["ode.y"]), sampler.plans(model), GuidanceRule())
    expected = golden["ode.euler.10"]
    assert (sampler.sample(denoise, golden["ode.z"], no_noise) - expected).abs().max() > 1e-3 * expected.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("sampler", [Euler(4), Heun(3), Dopri5(1)], ids=["euler", "heun", "dopri5"])
@pytest.mark.parametrize("rule", [GuidanceRule(4.0), GuidanceRule(4.0, (0.2, 0.7)), GuidanceRule(4.0, channels=3)])
def test_guided_sampling_follows_the_velocity_that_the_formula_gives(model, golden, sampler: Sampler, rule):
    z, y, none, asked = golden["ode.z"], golden["ode.y"], torch.full((3,), 10), []

    def by_hand(x, step, t=None):
        t = sampler.timesteps[step] if t is None else t
        times = torch.full((3,), t)
        asked.append(t)
        cond = model(x, times, y)
        if rule.interval is not None and not rule.interval[0] <= t <= rule.interval[1]:
            return cond
        return combine(cond, model(x, times, none), 4.0, rule.channels or 4)

    ledger = WorkLedger()
    denoise = GuidedDenoiser(model, of_labels(model.facts, y), sampler.plans(model), rule, ledger)
    out = sampler.sample(denoise, z, no_noise)
    # an adaptive solver takes other steps after another rounding, and errs by about its tolerance
    agree(out, sampler.sample(by_hand, z, no_noise), 1e-3 if sampler.adaptive else 1e-5)
    plain = GuidedDenoiser(model, of_labels(model.facts, y), sampler.plans(model), GuidanceRule())
    assert (out - sampler.sample(plain, z, no_noise)).abs().max() > 0.05, "guidance matters"
    # after another rounding an adaptive solver may ask once more, at times of its own
    told = [entry.plan.timestep for entry in ledger.entries] if sampler.adaptive else asked
    inside = [rule.guides(t) for t in told]
    assert [entry.rows for entry in ledger.entries] == [6 if guided else 3 for guided in inside]
    assert any(inside) and (rule.interval is None or not all(inside))

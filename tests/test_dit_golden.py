"""DiT and Gaussian diffusion agree with vectors from the reference implementation."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from ditbench import methods
from ditbench.methods.conditions import of_labels
from ditbench.methods.diffusion.ddim import DDIM
from ditbench.methods.diffusion.ddpm import DDPM
from ditbench.methods.diffusion.guidance import GuidanceRule, GuidedDenoiser, combine
from ditbench.methods.diffusion.loss import HybridLoss
from ditbench.methods.diffusion.sampler import SamplerOptions
from ditbench.methods.diffusion.schedules import noise_schedule

GOLDEN = Path(__file__).parent / "golden"


def load(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load("dit")[0]


@pytest.fixture(scope="module")
def diffusion() -> dict[str, Tensor]:
    return load("diffusion")[0]


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    tensors, metadata = load("dit")
    built = methods.build("dit", **json.loads(metadata["config"]))
    state = {key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}
    return methods.load_weights(built, state)


def agree(ours: Tensor, golden: Tensor, tolerance: float = 1e-5) -> None:
    assert ours.shape == golden.shape
    worst = ((ours - golden).abs().max() / golden.abs().max()).item()
    assert worst <= tolerance, f"relative to the largest magnitude: {worst:.2e}"


@torch.no_grad()
def test_the_forward_pass_equals_the_reference(model, golden):
    agree(model(golden["x"], golden["t"], golden["y"]), golden["out"])


@torch.no_grad()
def test_three_channel_guidance_equals_the_reference_on_conditional_and_unconditional_rows(model, golden):
    t = golden["cfg.t"]
    rule = GuidanceRule(scale=4.0, channels=3)
    assert (t == t[0]).all(), "the reference guides rows of one timestep"
    x, labels = golden["cfg.x"][:2], golden["cfg.y"][:2]
    guided = GuidedDenoiser(model, of_labels(model.facts, labels), model.plan([float(t[0])]), rule)(x, 0)
    agree(guided, golden["cfg.out"][:2])
    both = model(torch.cat([x, x]), t, golden["cfg.y"])
    cond, uncond = both.chunk(2)
    rows = torch.cat([combine(cond, uncond, 4.0, 3)[:, :3], uncond[:, :0]], 1)
    agree(torch.cat([rows, uncond[:, 3:]], 1), golden["cfg.out"][2:])


@pytest.mark.parametrize(
    ("steps", "spacing"), [(1000, "even"), (250, "even"), (50, "even"), (10, "even"), (25, "ddim")]
)
def test_respaced_schedules_equal_the_reference_to_1e_12(diffusion, steps, spacing):
    schedule = noise_schedule(steps, spacing)
    prefix = f"ddim{steps}" if spacing == "ddim" else str(steps)
    assert list(schedule.timesteps) == diffusion[f"{prefix}.timestep_map"].tolist()
    for name in ("betas", "alphas_cumprod", "posterior_variance"):
        np.testing.assert_allclose(
            getattr(schedule, name), diffusion[f"{prefix}.{name}"].numpy(), rtol=1e-12, atol=1e-12
        )


@torch.no_grad()
def test_a_ddpm_trajectory_equals_the_reference_step_by_step(model, diffusion):
    sampler, seen = DDPM(10), []
    noise = iter(diffusion["ddpm10.noise"])
    denoise = GuidedDenoiser(
        model, of_labels(model.facts, diffusion["ddpm10.y"]), model.plan(sampler.timesteps), GuidanceRule()
    )
    sampler.sample(denoise, diffusion["ddpm10.z"], lambda: next(noise), lambda _, x: seen.append(x))
    assert len(seen) == 10
    for ours, reference in zip(seen, diffusion["ddpm10.trajectory"], strict=True):
        agree(ours, reference)


@torch.no_grad()
def test_a_ddim_sample_equals_the_reference(model, diffusion):
    sampler = DDIM(25, SamplerOptions(spacing="ddim"))
    denoise = GuidedDenoiser(
        model, of_labels(model.facts, diffusion["ddim25.y"]), model.plan(sampler.timesteps), GuidanceRule()
    )

    def no_noise() -> Tensor:
        raise AssertionError("eta = 0 draws no noise")

    agree(sampler.sample(denoise, diffusion["ddim25.z"], no_noise), diffusion["ddim25.sample"])


@torch.no_grad()
def test_the_hybrid_loss_equals_the_reference_term_by_term(model, diffusion):
    loss = HybridLoss(noise_schedule())
    t, x0, noise = diffusion["loss.t"], diffusion["loss.x0"], diffusion["loss.noise"]
    x_t = loss.noised(x0, t, noise)
    terms = loss(model(x_t, t, diffusion["loss.y"]), x0, x_t, t, noise)
    for name in ("mse", "vb", "total"):
        agree(getattr(terms, name), diffusion[f"loss.{name}"])

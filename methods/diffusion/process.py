"""What a denoiser was trained to undo: how noise is mixed in, what is predicted, and how time is told.

Everything that differs between noise prediction (DiT) and flow matching (SiT) is here and in the samplers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from ditbench.methods.diffusion.loss import HybridLoss
from ditbench.methods.diffusion.output import split_output
from ditbench.methods.diffusion.prediction import Flow, Prediction, predicted_on
from ditbench.methods.diffusion.schedules import TRAINING_STEPS, noise_schedule

Coefficient = Tensor | float


class Process(ABC):
    """The forward process of a model, for images x0 (B, C, H, W), noise of the same shape and times t (B,).

    predicts    'noise' or 'velocity'
    cleanest    the time of the data; ``noisiest``: that of pure noise
    """

    predicts: ClassVar[Prediction]
    cleanest: ClassVar[float]
    noisiest: ClassVar[float]

    @abstractmethod
    def draw_times(self, batch: int, generator: torch.Generator, stratified: bool = False) -> Tensor:
        """Training times (B,), on the CPU; ``stratified``: row i from the (i mod 4)-th of four equal strata."""

    @abstractmethod
    def noised(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t (B, C, H, W)."""

    @abstractmethod
    def loss(self, output: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Training loss of a model's output (B, C or 2C, H, W) at x_t, a row: (B,)."""

    def noisiness(self, t: float) -> float:
        """Where ``t`` lies between the data, 0, and pure noise, 1, in the model's own time."""
        return (t - self.cleanest) / (self.noisiest - self.cleanest)


class Diffusion(Process):
    """Noise prediction on the linear schedule of 1000 timesteps, whole numbers, 0 the cleanest."""

    predicts = "noise"
    cleanest, noisiest = 0.0, float(TRAINING_STEPS - 1)

    def draw_times(self, batch: int, generator: torch.Generator, stratified: bool = False) -> Tensor:
        if stratified:
            return stratified_timesteps(batch, TRAINING_STEPS, generator)
        return torch.randint(TRAINING_STEPS, (batch,), generator=generator)

    def noised(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return _hybrid(str(x0.device)).noised(x0, t, noise)

    def loss(self, output: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return _hybrid(str(x0.device))(output, x0, x_t, t, noise).total


@dataclass(frozen=True)
class FlowMatching(Process):
    """Velocity prediction on x_t = α(t)·x_0 + σ(t)·noise with t in [0, 1], 0 noise, 1 data (SiT, arXiv 2401.08740).

    linear  α = t, σ = 1 − t
    cosine  α = sin(πt/2), σ = cos(πt/2): the variance-preserving path that the paper calls GVP
    """

    flow: Flow

    predicts = "velocity"
    cleanest, noisiest = 1.0, 0.0

    def draw_times(self, batch: int, generator: torch.Generator, stratified: bool = False) -> Tensor:
        uniform = torch.rand(batch, generator=generator)
        return (torch.arange(batch) % 4 + uniform) / 4 if stratified else uniform

    def noised(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        alpha, sigma, _, _ = self.coefficients(_per_image(t))
        return alpha * x0 + sigma * noise

    def velocity(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """dx_t/dt, what the model shall predict: (B, C, H, W)."""
        _, _, d_alpha, d_sigma = self.coefficients(_per_image(t))
        return d_alpha * x0 + d_sigma * noise

    def loss(self, output: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        predicted, _ = split_output(output, x0.shape[1])
        return (predicted - self.velocity(x0, t, noise)).square().flatten(1).mean(1)

    def score(self, velocity: Tensor, x: Tensor, t: float) -> Tensor:
        """∇ log p_t(x) from the velocity at one time < 1: (α/α'·v − x) / (σ² − α/α'·σ'·σ)."""
        exact = torch.tensor(t, dtype=torch.float64)
        alpha, sigma, d_alpha, d_sigma = (float(each) for each in self.coefficients(exact))
        ratio = alpha / d_alpha
        return (ratio * velocity - x) / (sigma**2 - ratio * d_sigma * sigma)

    def coefficients(self, t: Tensor) -> tuple[Coefficient, Coefficient, Coefficient, Coefficient]:
        """α, σ and their derivatives α', σ' at t, elementwise."""
        if self.flow == "linear":
            return t, 1 - t, 1.0, -1.0
        angle = 0.5 * math.pi * t
        return angle.sin(), angle.cos(), 0.5 * math.pi * angle.cos(), -0.5 * math.pi * angle.sin()


@cache
def process_of(flow: Flow | None) -> Process:
    """The process of a config's ``flow``; None: noise prediction. Raises ConfigError."""
    predicted_on(flow)
    return Diffusion() if flow is None else FlowMatching(flow)


def stratified_timesteps(batch: int, total: int, generator: torch.Generator, strata: int = 4) -> Tensor:
    """(B,) timesteps in [0, total), row i drawn from stratum i mod ``strata`` of equal ones.

    The batch's mean compute then scatters less than with uniform timesteps, where compute depends on time.
    """
    size = total // strata
    return torch.randint(size, (batch,), generator=generator) + size * (torch.arange(batch) % strata)


@cache
def _hybrid(device: str) -> HybridLoss:
    return HybridLoss(noise_schedule(), device)


def _per_image(t: Tensor) -> Tensor:
    return t.view(-1, 1, 1, 1)

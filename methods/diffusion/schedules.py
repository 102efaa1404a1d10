"""The linear noise schedule, its respacing and what derives from it, in float64 (Ho et al.; Nichol & Dhariwal)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ditbench.methods.errors import ConfigError

TRAINING_STEPS = 1000
Spacing = Literal["even", "ddim"]
Array = NDArray[np.float64]


def linear_betas(steps: int = TRAINING_STEPS) -> Array:
    """Variances from 1e-4 to 0.02 at 1000 steps, scaled by 1000/steps otherwise: (steps,)."""
    scale = 1000 / steps
    return np.linspace(scale * 1e-4, scale * 0.02, steps, dtype=np.float64)


def timestep_map(steps: int, spacing: Spacing = "even") -> tuple[int, ...]:
    """Training timesteps that a sampler of ``steps`` steps visits, ascending.

    even  0 … 999 with both ends, a constant fractional stride, rounded half to even after each addition
    ddim  a constant integer stride from 0; only where some stride gives exactly ``steps`` timesteps

    Raises ConfigError if steps is not in 1..1000 or no integer stride fits.
    """
    if not 1 <= steps <= TRAINING_STEPS:
        raise ConfigError(f"steps must be between 1 and {TRAINING_STEPS}, not {steps}")
    if spacing == "ddim":
        for stride in range(1, TRAINING_STEPS + 1):
            grid = tuple(range(0, TRAINING_STEPS, stride))
            if len(grid) == steps:
                return grid
        raise ConfigError(f"no integer stride over {TRAINING_STEPS} timesteps gives {steps} steps: use spacing 'even'")
    stride_even = (TRAINING_STEPS - 1) / (steps - 1) if steps > 1 else 1.0
    current, grid_even = 0.0, []
    for _ in range(steps):
        grid_even.append(round(current))
        current += stride_even
    return tuple(grid_even)


@dataclass(frozen=True)
class NoiseSchedule:
    """A (respaced) Gaussian diffusion. Arrays are (steps,), index 0 = cleanest.

    timesteps               the training timestep that the model is told at each index
    alphas_cumprod          ᾱ; ``alphas_cumprod_prev`` is ᾱ one index cleaner, 1 before the first
    posterior_*             q(x_{t-1} | x_t, x_0): variance, clipped log variance, mean = coef1 * x_0 + coef2 * x_t
    """

    timesteps: tuple[int, ...]
    betas: Array
    alphas_cumprod: Array
    alphas_cumprod_prev: Array
    posterior_variance: Array
    posterior_log_variance: Array
    posterior_mean_coef1: Array
    posterior_mean_coef2: Array

    @property
    def steps(self) -> int:
        return len(self.timesteps)


def noise_schedule(steps: int = TRAINING_STEPS, spacing: Spacing = "even") -> NoiseSchedule:
    """The linear schedule restricted to ``timestep_map(steps, spacing)``; betas are re-derived from ᾱ."""
    kept = timestep_map(steps, spacing)
    cumprod = np.cumprod(1.0 - linear_betas())[list(kept)]
    previous = np.append(1.0, cumprod[:-1])
    betas = 1.0 - cumprod / previous
    # re-accumulated from the betas, as a sampler on the short chain would see it
    cumprod = np.cumprod(1.0 - betas, dtype=np.float64)
    previous = np.append(1.0, cumprod[:-1])
    variance = betas * (1.0 - previous) / (1.0 - cumprod)
    # the first posterior variance is 0; its log is taken from the second
    clipped = np.append(variance[1], variance[1:]) if len(kept) > 1 else betas
    return NoiseSchedule(
        timesteps=kept,
        betas=betas,
        alphas_cumprod=np.asarray(cumprod, dtype=np.float64),
        alphas_cumprod_prev=previous,
        posterior_variance=variance,
        posterior_log_variance=np.log(clipped),
        posterior_mean_coef1=betas * np.sqrt(previous) / (1.0 - cumprod),
        posterior_mean_coef2=(1.0 - previous) * np.sqrt(1.0 - betas) / (1.0 - cumprod),
    )

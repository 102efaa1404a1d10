"""Ancestral sampling with a learned variance range (Ho et al. 2020; Nichol & Dhariwal 2021, eq. 15)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from ditbench.methods.diffusion.output import split_output
from ditbench.methods.diffusion.sampler import Denoise, DiffusionSampler, Noise


class DDPM(DiffusionSampler):
    """x_{t-1} ~ N(posterior mean at the predicted x_0, variance between the posterior's and beta)."""

    def sample(
        self, denoise: Denoise, z: Tensor, noise: Noise, on_step: Callable[[int, Tensor], None] | None = None
    ) -> Tensor:
        x = z
        for step in range(self.schedule.steps):
            x = self.step(denoise(x, step), x, step, noise)
            if on_step is not None:
                on_step(step, x)
        return x

    def step(self, output: Tensor, x: Tensor, step: int, noise: Noise) -> Tensor:
        """From x at ``timesteps[step]`` to the next, by the model's output (B, C or 2C, H, W)."""
        schedule, index = self.schedule, self.schedule.steps - 1 - step
        eps, variance = split_output(output, x.shape[1])
        x0 = self.clean(x, eps, index)
        mean = float(schedule.posterior_mean_coef1[index]) * x0 + float(schedule.posterior_mean_coef2[index]) * x
        return mean if index == 0 else mean + self._deviation(variance, index) * noise()

    def _deviation(self, variance: Tensor | None, index: int) -> Tensor | float:
        """Standard deviation: interpolated in log space where the model predicts it, else the posterior's."""
        low = float(self.schedule.posterior_log_variance[index])
        if variance is None:
            return float(np.exp(0.5 * low))
        high = float(np.log(self.schedule.betas[index]))
        share = (variance + 1) / 2
        return (0.5 * (share * high + (1 - share) * low)).exp()

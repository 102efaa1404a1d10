"""DPM-Solver++(2M): second-order multistep solver of the diffusion ODE in x_0 (Lu et al. 2022, Algorithm 2)."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from ditbench.methods.diffusion.output import split_output
from ditbench.methods.diffusion.sampler import Denoise, DiffusionSampler, Noise


class DPMSolverPP2M(DiffusionSampler):
    """One model call a step. The first move is first order, and so is the last ("lower order final"); the last call
    ends at its predicted x_0.

    Half log-SNR λ = log(α/σ); with h = λ_next − λ and r = h_last / h the step is
    x ← σ_next/σ · x − α_next (e^{−h} − 1) [ (1 + 1/2r) x_0 − 1/2r x_0,last ].
    """

    def sample(
        self, denoise: Denoise, z: Tensor, noise: Noise, on_step: Callable[[int, Tensor], None] | None = None
    ) -> Tensor:
        x, schedule = z, self.schedule
        last_x0: Tensor | None = None
        last_h = 0.0
        for step in range(schedule.steps):
            index = schedule.steps - 1 - step
            eps, _ = split_output(denoise(x, step), z.shape[1])
            x0 = self.clean(x, eps, index)
            if index == 0:
                x = x0
            else:
                _, sigma, lam = _alpha_sigma_lambda(float(schedule.alphas_cumprod[index]))
                alpha_next, sigma_next, lam_next = _alpha_sigma_lambda(float(schedule.alphas_cumprod[index - 1]))
                h = lam_next - lam
                target = x0
                # the last move spans far more of λ than the one before it: extrapolating would overshoot
                if last_x0 is not None and index > 1:
                    weight = h / (2 * last_h)
                    target = (1 + weight) * x0 - weight * last_x0
                x = (sigma_next / sigma) * x - alpha_next * math.expm1(-h) * target
                last_x0, last_h = x0, h
            if on_step is not None:
                on_step(step, x)
        return x


def _alpha_sigma_lambda(cumprod: float) -> tuple[float, float, float]:
    alpha, sigma = math.sqrt(cumprod), math.sqrt(1 - cumprod)
    return alpha, sigma, math.log(alpha / sigma)

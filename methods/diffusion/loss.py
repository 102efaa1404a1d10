"""Training objective of DiT: noise MSE plus the variational bound for the learned variance (Nichol & Dhariwal 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ditbench.methods.diffusion.output import split_output
from ditbench.methods.diffusion.schedules import NoiseSchedule


@dataclass(frozen=True)
class LossTerms:
    """Per-sample terms (B,): total = mse + vb, vb in bits per dimension (0 where no variance is learned)."""

    total: Tensor
    mse: Tensor
    vb: Tensor


class HybridLoss:
    """L_simple + L_vlb with the mean frozen inside the bound, so that it trains the variance only."""

    def __init__(self, schedule: NoiseSchedule, device: torch.device | str = "cpu") -> None:
        def table(values: object) -> Tensor:
            return torch.as_tensor(values, dtype=torch.float64, device=device)

        self.cumprod = table(schedule.alphas_cumprod)
        self.log_betas = table(schedule.betas).log()
        self.log_variance = table(schedule.posterior_log_variance)
        self.coef1, self.coef2 = table(schedule.posterior_mean_coef1), table(schedule.posterior_mean_coef2)

    def noised(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t = √ᾱ x_0 + √(1−ᾱ) ε for x0 (B, C, H, W), t (B,)."""
        return self._at(self.cumprod.sqrt(), t) * x0 + self._at((1 - self.cumprod).sqrt(), t) * noise

    def __call__(self, output: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, noise: Tensor) -> LossTerms:
        """Terms of a model's output (B, C or 2C, H, W) at x_t."""
        eps, variance = split_output(output, x0.shape[1])
        mse = (noise - eps).square().flatten(1).mean(1)
        vb = torch.zeros_like(mse) if variance is None else self._bound(eps.detach(), variance, x0, x_t, t)
        return LossTerms(mse + vb, mse, vb)

    def _bound(self, eps: Tensor, variance: Tensor, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        predicted = self._at((1 / self.cumprod).sqrt(), t) * x_t - self._at((1 / self.cumprod - 1).sqrt(), t) * eps
        coef1, coef2 = self._at(self.coef1, t), self._at(self.coef2, t)
        mean, true_mean = coef1 * predicted + coef2 * x_t, coef1 * x0 + coef2 * x_t
        low, share = self._at(self.log_variance, t), (variance + 1) / 2
        log_variance = share * self._at(self.log_betas, t) + (1 - share) * low
        kl = 0.5 * (
            -1.0 + log_variance - low + (low - log_variance).exp() + (true_mean - mean).square() * (-log_variance).exp()
        )
        nll = -_log_likelihood_8_bit(x0, mean, 0.5 * log_variance)
        first = (t == 0).view(-1, 1, 1, 1)
        return torch.where(first, nll, kl).flatten(1).mean(1) / math.log(2.0)

    def _at(self, values: Tensor, t: Tensor) -> Tensor:
        return values[t].float().view(-1, 1, 1, 1)


def _log_likelihood_8_bit(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log P of x, in [-1, 1] and read as one of 256 levels, under a Gaussian integrated over the level's bin."""

    def cdf(value: Tensor) -> Tensor:
        # the tanh approximation that the published bounds were made with
        return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (value + 0.044715 * value**3)))

    centred, inverse = x - mean, (-log_scale).exp()
    upper, lower = cdf(inverse * (centred + 1 / 255)), cdf(inverse * (centred - 1 / 255))
    probability = torch.where(x < -0.999, upper, torch.where(x > 0.999, 1 - lower, upper - lower))
    return probability.clamp(min=1e-12).log()

"""DDIM (Song, Meng & Ermon 2021, eq. 12): deterministic at eta = 0, ancestral noise at eta = 1."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ditbench.methods.diffusion.output import split_output
from ditbench.methods.diffusion.sampler import Denoise, DiffusionSampler, Noise


class DDIM(DiffusionSampler):
    """First-order sampler on the predicted x_0; noise is re-derived from x_0 so that clipping stays consistent."""

    def sample(
        self, denoise: Denoise, z: Tensor, noise: Noise, on_step: Callable[[int, Tensor], None] | None = None
    ) -> Tensor:
        x, schedule = z, self.schedule
        for step in range(schedule.steps):
            index = schedule.steps - 1 - step
            now, before = float(schedule.alphas_cumprod[index]), float(schedule.alphas_cumprod_prev[index])
            eps, _ = split_output(denoise(x, step), z.shape[1])
            x0 = self.clean(x, eps, index)
            if self.options.clip:
                eps = (x - now**0.5 * x0) / (1 - now) ** 0.5
            sigma = self.options.eta * ((1 - before) / (1 - now) * (1 - now / before)) ** 0.5
            x = before**0.5 * x0 + (1 - before - sigma**2) ** 0.5 * eps
            if sigma > 0 and index > 0:
                x = x + sigma * noise()
            if on_step is not None:
                on_step(step, x)
        return x

"""What all samplers share: the options, the loop's contract, and the reading of a model's output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.diffusion.schedules import NoiseSchedule, Spacing, noise_schedule

Denoise = Callable[[Tensor, int], Tensor]
"""(x_t, step index in sampling order) -> model output (B, C or 2C, H, W)."""

Noise = Callable[[], Tensor]
"""Standard normal noise of the shape of x_t; called at most once a step."""


@dataclass(frozen=True)
class SamplerOptions:
    """spacing: respacing rule; eta: DDIM's stochasticity in 0..1; clip: clip the predicted x_0 to [-1, 1]."""

    spacing: Spacing = "even"
    eta: float = 0.0
    clip: bool = False


class Sampler(ABC):
    """A sampler of a fixed number of steps. Step 0 is the noisiest."""

    def __init__(self, steps: int, options: SamplerOptions | None = None) -> None:
        self.options = options or SamplerOptions()
        self.schedule: NoiseSchedule = noise_schedule(steps, self.options.spacing)

    @property
    def timesteps(self) -> tuple[int, ...]:
        """Training timesteps in sampling order (descending): what the model is told at each step."""
        return self.schedule.timesteps[::-1]

    @abstractmethod
    def sample(
        self, denoise: Denoise, z: Tensor, noise: Noise, on_step: Callable[[int, Tensor], None] | None = None
    ) -> Tensor:
        """From z ~ N(0, 1), (B, C, H, W), to a sample of the same shape. ``on_step`` sees each intermediate x."""

    def clean(self, x: Tensor, eps: Tensor, index: int) -> Tensor:
        """The predicted x_0 at schedule index ``index``, clipped if the options say so."""
        cumprod = float(self.schedule.alphas_cumprod[index])
        x0: Tensor = (1.0 / cumprod) ** 0.5 * x - (1.0 / cumprod - 1.0) ** 0.5 * eps
        return x0.clamp(-1.0, 1.0) if self.options.clip else x0


def split_output(output: Tensor, channels: int) -> tuple[Tensor, Tensor | None]:
    """Model output (B, C or 2C, H, W) -> predicted noise (B, C, H, W) and variance interpolation, if it is there."""
    if output.shape[1] == channels:
        return output, None
    eps, variance = torch.split(output, channels, dim=1)
    return eps, variance

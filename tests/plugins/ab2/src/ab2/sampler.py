"""A sampler of its own: DDIM's step on noise extrapolated from the last two predictions (Adams and Bashforth)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from ditbench.methods.diffusion.output import split_output
from ditbench.methods.diffusion.sampler import Denoise, DiffusionSampler, Noise
from ditbench.methods.diffusion.schedules import Spacing
from ditbench.methods.errors import ConfigError
from torch import Tensor


@dataclass(frozen=True)
class Options:
    """spacing, clip: as of the shipped samplers; weight: of the extrapolation, 0 is DDIM and 1 second order."""

    spacing: Spacing = "even"
    clip: bool = False
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise ConfigError(f"weight must be between 0 and 1, not {self.weight:g}")


class Ab2(DiffusionSampler):
    """``DiffusionSampler`` has the training grid, respaced. A sampler of flows inherits ``Sampler`` and gives its own
    ``timesteps``; one that evaluates twice a step says ``stages = 2``, and methods that remember refuse it.
    """

    Options: ClassVar[type[Any]] = Options

    def sample(
        self, denoise: Denoise, z: Tensor, noise: Noise, on_step: Callable[[int, Tensor], None] | None = None
    ) -> Tensor:
        """From z ~ N(0, 1), (B, C, …), to samples. ``denoise(x, step)`` is the model, guided and bound to conditions;
        ``noise()`` draws for a stochastic step, at most once a step."""
        x, schedule, last = z, self.schedule, None
        for step in range(schedule.steps):
            index = schedule.steps - 1 - step  # the schedule counts from the cleanest
            now, before = float(schedule.alphas_cumprod[index]), float(schedule.alphas_cumprod_prev[index])
            eps, _ = split_output(denoise(x, step), z.shape[1])
            target = eps if last is None else eps + 0.5 * self.options.weight * (eps - last)
            last = eps
            x0 = self.clean(x, target, index)
            if self.options.clip:
                target = (x - now**0.5 * x0) / (1 - now) ** 0.5
            x = before**0.5 * x0 + (1 - before) ** 0.5 * target
            if on_step is not None:
                on_step(step, x)
        return x

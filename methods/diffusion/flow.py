"""Samplers of flow matching (SiT, arXiv 2401.08740): ODE solvers on the velocity, and the reverse SDE.

Time runs from 0, noise, to 1, data. ``steps`` are intervals of the even grid; Heun evaluates twice in each.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ditbench.methods.diffusion.output import split_output
from ditbench.methods.diffusion.process import FlowMatching, Process
from ditbench.methods.diffusion.sampler import Denoise, Noise, Sampler, SamplerOptions
from ditbench.methods.errors import ConfigError

OnStep = Callable[[int, Tensor], None] | None


class FlowSampler(Sampler):
    """What the flow's samplers share."""

    predicts = "velocity"

    def velocity(self, denoise: Denoise, x: Tensor, step: int, t: float | None = None) -> Tensor:
        """The predicted dx/dt, (B, C, H, W)."""
        return split_output(denoise(x, step, t), x.shape[1])[0]


class Euler(FlowSampler):
    """First order: x ← x + h·v(x, t)."""

    @property
    def timesteps(self) -> tuple[float, ...]:
        return _grid(self.steps)[:-1]

    def sample(self, denoise: Denoise, z: Tensor, noise: Noise, on_step: OnStep = None) -> Tensor:
        x = z
        for step in range(self.steps):
            x = self.step(denoise(x, step), x, step, noise)
            if on_step is not None:
                on_step(step, x)
        return x

    def step(self, output: Tensor, x: Tensor, step: int, noise: Noise) -> Tensor:
        """From x at ``timesteps[step]`` one interval onwards, by the model's output."""
        return x + split_output(output, x.shape[1])[0] / self.steps


class Heun(FlowSampler):
    """Second order, the explicit trapezoid: the mean of the velocities at both ends of the interval."""

    stages = 2

    @property
    def timesteps(self) -> tuple[float, ...]:
        grid = _grid(self.steps)
        return tuple(t for step in range(self.steps) for t in grid[step : step + 2])

    def sample(self, denoise: Denoise, z: Tensor, noise: Noise, on_step: OnStep = None) -> Tensor:
        x, h = z, 1 / self.steps
        for step in range(self.steps):
            first = self.velocity(denoise, x, 2 * step)
            second = self.velocity(denoise, x + h * first, 2 * step + 1)
            x = x + 0.5 * h * (first + second)
            if on_step is not None:
                on_step(step, x)
        return x


class Dopri5(FlowSampler):
    """Dormand and Prince's adaptive pair of orders 5 and 4, by torchdiffeq, to ``atol`` and ``rtol``.

    The error is judged over the whole batch, so the batch is part of what a sample is. Times of evaluations are found
    on the way. The last of them may lie beyond 1, from where the solver interpolates back, as in the public SiT code;
    with ``land`` the last step ends at 1, and the model is never asked about times that it was not trained for.
    """

    adaptive = True

    @property
    def timesteps(self) -> tuple[float, ...]:
        return ()

    def sample(self, denoise: Denoise, z: Tensor, noise: Noise, on_step: OnStep = None) -> Tensor:
        from torchdiffeq import odeint

        evaluations = 0

        def velocity(t: Tensor, x: Tensor) -> Tensor:
            nonlocal evaluations
            evaluations += 1
            return self.velocity(denoise, x, evaluations - 1, float(t))

        ends = torch.tensor([0.0, 1.0], device=z.device)
        atol, rtol = self.options.atol, self.options.rtol
        how = {"step_t": ends[1:]} if self.options.land else None
        path = odeint(velocity, z, ends, atol=atol, rtol=rtol, method="dopri5", options=how)
        x: Tensor = path[-1]
        if on_step is not None:
            on_step(0, x)
        return x


class EulerMaruyama(FlowSampler):
    """The reverse SDE dx = (v + w·s) dt + √(2w) dW with the score s and diffusion w = σ(t), by Euler–Maruyama.

    ``steps`` − 1 even steps lead to 1 − ``last_step``; the last one goes the rest of the way along the drift alone.
    """

    def __init__(self, steps: int, options: SamplerOptions | None = None, process: Process | None = None) -> None:
        super().__init__(steps, options, process)
        if steps < 2:
            raise ConfigError("euler-maruyama takes at least 2 steps: some with noise, and the last without")
        if not 0 < self.options.last_step < 1:
            raise ConfigError(f"last_step must be between 0 and 1, not {self.options.last_step:g}")

    @property
    def timesteps(self) -> tuple[float, ...]:
        end = 1 - self.options.last_step
        return tuple(end * t for t in _grid(self.steps - 1))

    def sample(self, denoise: Denoise, z: Tensor, noise: Noise, on_step: OnStep = None) -> Tensor:
        if not isinstance(self.process, FlowMatching):
            raise ConfigError("euler-maruyama needs the model's process: the score depends on its path")
        x, times = z, self.timesteps
        h = times[1] - times[0]
        for step, t in enumerate(times):
            velocity = self.velocity(denoise, x, step)
            diffusion = float(self.process.coefficients(torch.tensor(t, dtype=torch.float64))[1])
            drift = velocity + diffusion * self.process.score(velocity, x, t)
            if step < self.steps - 1:
                x = x + h * drift + math.sqrt(2 * diffusion * h) * noise()
            else:
                x = x + self.options.last_step * drift
            if on_step is not None:
                on_step(step, x)
        return x


def _grid(intervals: int) -> tuple[float, ...]:
    return tuple(k / intervals for k in range(intervals + 1))

"""What all samplers share: the options, the loop's contract, and the reading of a model's output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor

from ditbench.methods.diffusion.process import Process
from ditbench.methods.diffusion.schedules import NoiseSchedule, Spacing, noise_schedule
from ditbench.methods.plans import StepPlan
from ditbench.methods.protocols import Denoiser


class Denoise(Protocol):
    """A model bound to labels: x_t (B, C, H, W) -> its output (B, C or 2C, H, W).

    step  which evaluation of the loop it is, from 0; on a fixed grid the time is ``Sampler.timesteps[step]``
    t     the time, where no grid is known ahead (``Sampler.adaptive``); else None
    """

    def __call__(self, x: Tensor, step: int, t: float | None = None) -> Tensor: ...


Noise = Callable[[], Tensor]
"""Standard normal noise of the shape of x_t; called at most once a step."""


@dataclass(frozen=True)
class SamplerOptions:
    """For noise prediction: spacing: respacing rule; eta: DDIM's stochasticity in 0..1; clip: clip the predicted x_0
    to [-1, 1]. For flows: atol, rtol: error allowed to an adaptive solver; land: its last step ends at 1; last_step:
    length of the SDE's last step.
    """

    spacing: Spacing = "even"
    eta: float = 0.0
    clip: bool = False
    atol: float = 1e-6
    rtol: float = 1e-3
    land: bool = False
    last_step: float = 0.04


class Sampler(ABC):
    """A sampler of so many steps, from noise to data.

    predicts  what the model must predict
    Options   the dataclass of its options
    stages    evaluations of the model a step
    adaptive  the times of evaluations are found on the way: ``timesteps`` is empty and steps say nothing
    """

    predicts: ClassVar[str]
    Options: ClassVar[type[Any]] = SamplerOptions
    stages: ClassVar[int] = 1
    adaptive: ClassVar[bool] = False

    def __init__(self, steps: int, options: Any = None, process: Process | None = None) -> None:
        """``options``: of type ``Options``. ``process``: the model's, where its prediction does not say enough."""
        self.steps, self.options, self.process = steps, options or self.Options(), process

    @property
    @abstractmethod
    def timesteps(self) -> tuple[float, ...]:
        """Time of every evaluation, in order: what the model is told."""

    @abstractmethod
    def sample(
        self, denoise: Denoise, z: Tensor, noise: Noise, on_step: Callable[[int, Tensor], None] | None = None
    ) -> Tensor:
        """From z ~ N(0, 1), (B, C, …), to a sample of the same shape. ``on_step`` sees each intermediate x."""

    def plans(self, model: Denoiser) -> list[StepPlan]:
        """What ``model`` will compute at every evaluation; empty where times are not known ahead."""
        if self.adaptive:
            return []
        if self.stages == 1:
            return model.plan(self.timesteps)
        return model.plan(self.timesteps, stages=self.stages)


class DiffusionSampler(Sampler):
    """A sampler of noise prediction on the respaced training grid. Step 0 is the noisiest."""

    predicts = "noise"

    def __init__(self, steps: int, options: SamplerOptions | None = None, process: Process | None = None) -> None:
        super().__init__(steps, options, process)
        self.schedule: NoiseSchedule = noise_schedule(steps, self.options.spacing)

    @property
    def timesteps(self) -> tuple[int, ...]:
        """Training timesteps in sampling order, descending."""
        return self.schedule.timesteps[::-1]

    def clean(self, x: Tensor, eps: Tensor, index: int) -> Tensor:
        """The predicted x_0 at schedule index ``index``, clipped if the options say so."""
        cumprod = float(self.schedule.alphas_cumprod[index])
        x0: Tensor = (1.0 / cumprod) ** 0.5 * x - (1.0 / cumprod - 1.0) ** 0.5 * eps
        return x0.clamp(-1.0, 1.0) if self.options.clip else x0

"""How far a method's cheaper ways of computing a step are from its fullest one, step by step.

Every way predicts in the same x_t, those of the cell's own sampling loop, for the same classes and without guidance.
The difference is the mean over elements of |prediction − prediction of the fullest way|, of the noise, which has unit
variance, or of a flow's velocity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ditbench.harness.measure.options import AgreementOptions
from ditbench.harness.sample.generate import DTYPES, BoundCell
from ditbench.harness.stats.intervals import mean_interval
from ditbench.harness.store.records import Quantity
from ditbench.methods.call import Call
from ditbench.methods.diffusion.output import split_output


@dataclass(frozen=True)
class AgreementResult:
    """values: difference, the mean over steps and ways; detail: by way and step."""

    values: dict[str, Quantity]
    detail: dict[str, Any]


def measure_agreement(cell: BoundCell, options: AgreementOptions) -> AgreementResult:
    """Sample ``options.samples`` images and compare all ways at every step."""
    full, *others = cell.model.alternatives(cell.plans()[0])
    streams = cell.streams(range(options.samples))
    denoiser = cell.denoiser(streams.conditions)
    dtype = DTYPES[cell.spec.dtype]
    found: dict[str, list[Tensor]] = {name: [] for name in others}

    def denoise(x: Tensor, step: int, t: float | None = None) -> Tensor:
        answer = denoiser(x.to(dtype), step, t).float()
        plan = denoiser.plans[step]
        times = torch.full((x.shape[0],), plan.timestep, device=x.device)

        ways = cell.model.alternatives(plan)

        def predicted(name: str) -> Tensor:
            with cell.execution.around():
                answer = cell.model.predict(x.to(dtype), times, streams.conditions, Call(ways[name]))
            return split_output(answer, x.shape[1])[0].float()

        reference = predicted(full)
        for name in others:
            found[name].append((predicted(name) - reference).abs().flatten(1).mean(1).cpu())
        return answer

    with torch.inference_mode():
        cell.sampler.sample(denoise, streams.noise(), streams.noise)
    differences = {name: torch.stack(steps) for name, steps in found.items()}  # (steps, samples)
    overall = mean_interval(torch.stack(list(differences.values())).mean((0, 1)).tolist())
    return AgreementResult(
        {
            "difference": Quantity(
                value=overall.value, unit="1", low=overall.low, high=overall.high, interval=overall.method
            )
        },
        {
            "timesteps": [plan.timestep for plan in denoiser.plans],
            "reference": full,
            "samples": options.samples,
            "variants": {name: _by_step(each) for name, each in differences.items()},
        },
    )


def _by_step(differences: Tensor) -> dict[str, list[float | None]]:
    estimates = [mean_interval(step) for step in differences.tolist()]
    return {
        "mean": [estimate.value for estimate in estimates],
        "low": [estimate.low for estimate in estimates],
        "high": [estimate.high for estimate in estimates],
    }

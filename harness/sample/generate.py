"""Sampling a cell: build its denoiser, bind sampler and guidance, generate shard by shard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

import methods
from harness.sample.seeds import SampleStreams
from harness.sample.shards import Shard, shard_path, shard_ranges, write_shard
from harness.store.records import CellSpec
from methods.diffusion.guidance import GuidanceRule, GuidedDenoiser
from methods.diffusion.sampler import Sampler, SamplerOptions
from methods.errors import CheckpointError, ConfigError
from methods.protocols import Denoiser, WorkLedger
from methods.registry import samplers
from methods.weights import randomise

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class NotFiniteError(ArithmeticError):
    """A sample holds NaN or infinity: its figures would mean nothing."""


@dataclass(frozen=True)
class BoundCell:
    """A cell made runnable: denoiser on its device, sampler, guidance."""

    spec: CellSpec
    model: Denoiser
    sampler: Sampler
    rule: GuidanceRule

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.model.in_channels, self.model.input_size, self.model.input_size)

    def streams(self, indices: range) -> SampleStreams:
        return SampleStreams(self.spec.seed, indices, self.shape, self.model.num_classes, self.spec.device)

    def denoiser(self, labels: Tensor, ledger: WorkLedger | None = None, tuned: bool = False) -> GuidedDenoiser:
        """``tuned``: run as ``tune`` found fastest. Not for samples that are scored."""
        plans = self.model.plan(self.sampler.timesteps)
        return GuidedDenoiser(self.model, labels, plans, self.rule, ledger, tuned)

    def tune(self, images: int) -> dict[str, dict[str, float]]:
        """Let the model choose by measurement how it runs ``images`` images: what it found, in milliseconds."""
        plans = [plan for plan in self.model.plan(self.sampler.timesteps) if self.rule.guides(plan.timestep)]
        return self.model.tune(plans, images, self.rule.weak == "conditional")

    def generate(self, indices: range, ledger: WorkLedger | None = None) -> tuple[Tensor, Tensor]:
        """Samples (n, C, H, W) float32 on the cell's device and labels (n,). The state is kept in float32."""
        streams = self.streams(indices)
        guided = self.denoiser(streams.labels, ledger)
        dtype = DTYPES[self.spec.dtype]

        def denoise(x: Tensor, step: int) -> Tensor:
            return guided(x.to(dtype), step).float()

        with torch.inference_mode():
            samples = self.sampler.sample(denoise, streams.noise(), streams.noise)
        return samples, streams.labels


def bind_sampler(spec: CellSpec) -> tuple[Sampler, GuidanceRule]:
    """Sampler and guidance of a cell; needs no model."""
    sampler: Sampler = samplers()[spec.sampler].load()(spec.steps, SamplerOptions(**spec.sampler_options))
    rule = GuidanceRule(spec.guidance_scale, spec.guidance_interval, spec.guidance_channels, spec.guidance_weak)
    return sampler, rule


@dataclass(frozen=True)
class Problem:
    """What is wrong with a cell's inputs, and which field of the suite says it: config, weights, device, …"""

    field: str
    message: str


def checkpoint_problem(spec: CellSpec, path: Path | None) -> Problem | None:
    """Whether the device is there, the method's config possible, and the checkpoint fit. Takes no model's memory."""
    from methods.weights import mismatch, read_state

    if spec.device == "cuda" and not torch.cuda.is_available():
        return Problem("device", "this machine's torch sees no GPU (--device cpu runs the suite on the CPU)")
    try:
        with torch.device("meta"):
            model = methods.build(spec.method, **spec.config)
    except (ConfigError, TypeError) as error:
        return Problem("config.schedule" if str(error).startswith("schedule") else "config", f"{spec.method}: {error}")
    if (found := _schedule_problem(spec, cast(Denoiser, model))) is not None:
        return found
    try:
        state = read_state(path) if path is not None else None
    except CheckpointError as error:
        return Problem("weights", str(error))
    problem = mismatch(model, state) if state is not None else None
    return Problem("weights", f"{path} does not fit {spec.method}: {problem}") if problem else None


def _schedule_problem(spec: CellSpec, model: Denoiser) -> Problem | None:
    """Whether patch sizes can be scheduled over the cell's steps as it says, and compared as it asks."""
    if "agreement" in spec.measure and len(model.patch_sizes) < 2:
        return Problem("measure", f"agreement compares patch sizes, and {spec.method} has one")
    if spec.config.get("schedule") is None:
        return None
    sampler, rule = bind_sampler(spec)
    try:
        plans = model.plan(sampler.timesteps)
    except ConfigError as error:
        return Problem("config.schedule", f"{spec.method}: {error}")
    if any(plan.guide is not None for plan in plans) and not any(rule.guides(plan.timestep) for plan in plans):
        return Problem(
            "config.schedule",
            f"{spec.method}: the schedule has a guidance branch and the sampling is not guided: give a guidance scale "
            "other than 1, or one schedule for both ('130/130')",
        )
    return None


def bind(spec: CellSpec, weights: Path | None) -> BoundCell:
    """Build the cell's denoiser on its device with its weights (random ones, seeded, if there are none)."""
    model = methods.build(spec.method, **spec.config)
    if weights is not None:
        methods.load_weights(model, weights)
        if spec.weights_sha256 is not None and model.weights_sha256 != spec.weights_sha256:
            raise CheckpointError(f"{weights} changed since the plan was made")
    else:
        randomise(model, spec.seed)
    model = model.to(spec.device, DTYPES[spec.dtype])
    if spec.mode == "compiled":
        model.compile()
    sampler, rule = bind_sampler(spec)
    return BoundCell(spec, cast(Denoiser, model), sampler, rule)


def generate_shards(
    cell: BoundCell, samples: int, size: int, folder: Path, progress: Callable[[int, int], None]
) -> list[Path]:
    """Make the shards that ``folder`` lacks; returns the paths of all, in order.

    Raises NotFiniteError before a shard with NaN or infinity is written.
    """
    paths = []
    ranges = list(shard_ranges(samples, size))
    for done, indices in enumerate(ranges):
        path = shard_path(folder, indices)
        if not path.is_file():
            generated, labels = cell.generate(indices)
            if not torch.isfinite(generated).all():
                bad = int((~torch.isfinite(generated)).flatten(1).any(1).sum())
                raise NotFiniteError(f"{bad} of {size} samples in shard {indices.start} are NaN or infinite")
            write_shard(path, Shard(generated.cpu().numpy(), labels.cpu().numpy()))
        paths.append(path)
        progress(done + 1, len(ranges))
    return paths


def existing_shards(folder: Path, samples: int, size: int) -> list[Path] | None:
    """The paths of all shards of ``samples`` samples, in order; None if one is not there yet."""
    paths = [shard_path(folder, indices) for indices in shard_ranges(samples, size)]
    return paths if all(path.is_file() for path in paths) else None

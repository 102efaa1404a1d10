"""Sampling a cell: build its denoiser, bind sampler and guidance, generate shard by shard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ditbench import methods
from ditbench.harness.errors import field_of
from ditbench.harness.sample.execution import Execution
from ditbench.harness.sample.seeds import SampleStreams
from ditbench.harness.store.records import CellSpec
from ditbench.methods.conditions import LABEL, Conditions, Source, made_source
from ditbench.methods.diffusion.guidance import GuidanceRule, GuidedDenoiser, loop_plans
from ditbench.methods.diffusion.sampler import Noise, Sampler
from ditbench.methods.entries import UnknownNameError
from ditbench.methods.errors import CheckpointError, ConfigError
from ditbench.methods.modifiers import modified
from ditbench.methods.plans import StepPlan
from ditbench.methods.protocols import Denoiser
from ditbench.methods.registry import facts_of
from ditbench.methods.sampling import loop, make_rule, make_sampler
from ditbench.methods.weights import randomise
from ditbench.methods.work import WorkLedger

DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_DRAWING_INITS = ("uniform_", "normal_", "kaiming_uniform_", "xavier_uniform_")


@dataclass(frozen=True)
class BoundCell:
    """A cell made runnable: denoiser on its device, sampler, guidance."""

    spec: CellSpec
    model: Denoiser
    sampler: Sampler
    rule: GuidanceRule
    _found: dict[int, tuple[float, ...]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def execution(self) -> Execution:
        """What its calls run in. A copy of the cell for another seed has its own."""
        return Execution(self.spec, self.model)

    def streams(self, indices: range) -> SampleStreams:
        return SampleStreams(self.spec.seed, indices, self.model.facts, self.spec.device, self.source)

    @cached_property
    def source(self) -> Source:
        """Where what its samples are told comes from."""
        return made_source(self.spec.conditions)

    def denoiser(self, conditions: Conditions, ledger: WorkLedger | None = None, tuned: bool = False) -> GuidedDenoiser:
        """Of one loop, with a memory of its own. ``tuned``: run as ``tune`` found fastest; not for scored samples."""
        execute = self.execution if ledger is None else self.execution.watched
        plans = loop_plans(self.model, self.sampler, self.rule)
        return GuidedDenoiser(self.model, conditions, plans, self.rule, ledger, tuned, execute)

    def times(self, images: int = 1) -> tuple[float, ...]:
        """Time of every evaluation of a loop. An adaptive solver makes the first ``images`` images to find them."""
        if not self.sampler.adaptive:
            return self.sampler.timesteps
        if images not in self._found:
            streams = self.streams(range(images))
            guided = self.denoiser(streams.conditions)
            self.loop(guided, streams.noise(), streams.noise)
            self._found[images] = tuple(plan.timestep for plan in guided.plans)
        return self._found[images]

    def plans(self, images: int = 1) -> list[StepPlan]:
        """The plan of every evaluation of a loop; see ``times``."""
        plans = loop_plans(self.model, self.sampler, self.rule)
        return plans or [self.model.plan_at(t) for t in self.times(images)]

    def tune(self, images: int) -> dict[str, dict[str, float]]:
        """Let the model choose by measurement how it runs ``images`` images: what it found, in milliseconds."""
        plans = [plan for plan in self.plans(images) if self.rule.guides(plan.timestep)]
        with self.execution.around():
            return self.model.tune(plans, images, self.rule.weak == "conditional")

    def generate(self, indices: range, ledger: WorkLedger | None = None) -> tuple[Tensor, Tensor]:
        """Samples (n, C, …) float32 on the cell's device and labels (n,), zeros where a sample has none.

        The state is kept in float32.
        """
        streams = self.streams(indices)
        samples = self.loop(self.denoiser(streams.conditions, ledger), streams.noise(), streams.noise)
        has = LABEL in streams.conditions
        return samples, streams.conditions[LABEL] if has else torch.zeros(len(indices), dtype=torch.long)

    def loop(
        self, guided: GuidedDenoiser, z: Tensor, noise: Noise, see: Callable[[Tensor, int], None] | None = None
    ) -> Tensor:
        """From z to samples (n, C, …) float32; ``see`` gets the denoiser's input and the evaluation's number."""
        return loop(self.sampler, guided, z, noise, DTYPES[self.spec.dtype], see)


def bind_sampler(spec: CellSpec, model: Denoiser) -> tuple[Sampler, GuidanceRule]:
    """Sampler and guidance of a cell. Raises ConfigError where the sampler needs another prediction."""
    rule = {
        "scale": spec.guidance_scale,
        "interval": spec.guidance_interval,
        "channels": spec.guidance_channels,
        "weak": spec.guidance_weak,
    }
    sampler = make_sampler(spec.sampler, spec.steps, spec.sampler_options, model.process)
    return sampler, make_rule(rule, model.process)


@dataclass(frozen=True)
class Problem:
    """What is wrong with a cell's inputs, and which field of the suite says it: config, weights, device, …"""

    field: str
    message: str


Misfit = Callable[[CellSpec, Denoiser, StepPlan], str]
"""A cell, its model and the plan of its first step -> why they cannot be measured; empty where they can."""


def checkpoint_problem(spec: CellSpec, path: Path | None, misfits: Sequence[Misfit] = ()) -> Problem | None:
    """Whether the device is there, the method's config possible, the checkpoint fit, and none of ``misfits`` has a word
    to say. Takes no model's memory."""
    from ditbench.methods.loading import checkpoint_mismatch

    if spec.device == "cuda" and not torch.cuda.is_available():
        return Problem("device", "this machine's torch sees no GPU (--device cpu runs the suite on the CPU)")
    try:
        bare = meta_model(spec)
    except (ConfigError, TypeError) as error:
        return Problem(field_of(str(error), spec.config), f"{spec.method}: {error}")
    try:
        model = modified(bare, spec.modifiers)
    except (ConfigError, UnknownNameError) as error:
        return Problem("modifiers", f"{spec.method}: {error}")
    try:
        SampleStreams(spec.seed, range(1), model.facts, "cpu", made_source(spec.conditions))
    except ConfigError as error:
        return Problem("conditions", str(error))
    try:
        sampler, rule = bind_sampler(spec, model)
    except ConfigError as error:
        return Problem("sampler", str(error))
    try:
        found = _loop_problem(spec, model, sampler, rule, misfits)
    except ConfigError as error:
        return Problem(field_of(str(error), spec.config), f"{spec.method}: {error}")
    if found is not None:
        return found
    try:
        fresh = meta_model(spec) if spec.modifiers else bare  # a modifier may have changed modules
        problem = None if path is None else checkpoint_mismatch(cast(torch.nn.Module, fresh), path)
    except CheckpointError as error:
        return Problem("weights", str(error))
    return Problem("weights", f"{path} does not fit {spec.method}: {problem}") if problem else None


def latent_channels(spec: CellSpec) -> int:
    """Channels of the cell's samples."""
    return facts_of(spec.method, spec.config).space.channels


def meta_model(spec: CellSpec) -> Denoiser:
    """The cell's model without memory or modifiers. Raises ConfigError, TypeError, UnknownNameError."""
    with torch.device("meta"):
        model = cast(Denoiser, methods.build(spec.method, **spec.config))
    if not isinstance(model, Denoiser):
        raise ConfigError(f"{type(model).__name__} is not a denoiser: inherit ditbench.methods.protocols.StaticWork")
    planned = facts_of(spec.method, spec.config)
    if model.facts != planned:
        raise ConfigError(f"its entry says {planned}, and the model that it builds says {model.facts}")
    return model


_MEMORY_IN_GRAPHS = (
    "mode",
    "a graph replays what was computed in one step, and this method reuses what the step before it kept: take mode "
    "eager or compiled",
)


def _loop_problem(
    spec: CellSpec, model: Denoiser, sampler: Sampler, rule: GuidanceRule, misfits: Sequence[Misfit]
) -> Problem | None:
    """Whether the method can run over the cell's steps as it says, and be compared as it asks. Raises ConfigError."""
    plans = loop_plans(model, sampler, rule)
    # both ends of the model's time, where a solver finds its own steps
    plans = plans or [model.plan_at(model.process.noisiest), model.plan_at(model.process.cleanest)]
    if words := next(filter(None, (misfit(spec, model, plans[0]) for misfit in misfits)), ""):
        return Problem("measure", words)
    if rule.scale != 1.0 and not model.facts.guidable:
        return Problem("guidance", f"{spec.method} has no condition that can be left out: give guidance 1")
    found = model.loop_problem(plans, [rule.guides(plan.timestep) for plan in plans])
    if found is None and spec.mode == "graph":
        found = _MEMORY_IN_GRAPHS if model.remembers else model.graph_problem(plans)
    return None if found is None else Problem(found[0], f"{spec.method}: {found[1]}")


class _NoDraws(TorchFunctionMode):
    """Leaves out the random numbers that a fresh model begins with: every one is overwritten before its first call, and
    for DiT-XL/2 they take longer than reading its weights."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        drawn = func in (Tensor.uniform_, Tensor.normal_) or func.__name__ in _DRAWING_INITS
        return (args or tuple((kwargs or {}).values()))[0] if drawn else func(*args, **(kwargs or {}))


def bind(spec: CellSpec, weights: Path | None) -> BoundCell:
    """Build the cell's denoiser on its device with its weights (random ones, seeded, if there are none)."""
    with _NoDraws():
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
    around = modified(cast(Denoiser, model), spec.modifiers)
    return BoundCell(spec, around, *bind_sampler(spec, around))

"""FLOPs = fvcore on what runs: one count a distinct piece of work, summed over the plan and the kept tokens.

The unit is the multiply-accumulate (MAC), as fvcore counts and as this field prints under the name FLOPs; a
floating-point operation count is twice that. Layer norms are counted as fvcore does (4 an element without affine
parameters) and shown apart.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
from fvcore.nn import FlopCountAnalysis
from numpy.typing import NDArray

from ditbench.harness.stats.intervals import mean_interval
from ditbench.harness.store.records import Quantity
from ditbench.methods.diffusion.guidance import GuidanceRule
from ditbench.methods.protocols import Denoiser, StepPlan, WorkEntry, WorkUnit

CONVENTION = "multiply-accumulates (MACs) as fvcore counts; one sequence; 2 FLOPs = 1 MAC"
EXACT = "exact count"

# Operators that move, index or make data, and elementwise arithmetic: no MACs by fvcore's convention.
_FREE = frozenset(
    """
    abs add add_ addcmul arange cat chunk clamp clone constant_pad_nd contiguous copy_ cos detach div div_ dropout
    embedding exp expand expand_as flatten floor_divide full full_like gather gelu gt index index_add index_add_
    index_copy index_copy_ index_put_ index_select lerp log masked_fill mul mul_ narrow ne neg new_zeros nonzero
    ones pad permute pow reciprocal relu repeat reshape rsqrt rsub scatter select sigmoid silu sin slice softmax
    softplus split split_with_sizes sqrt squeeze stack sub tanh to transpose type_as unbind unflatten unsqueeze view
    view_as where zeros zeros_like
    """.split()  # noqa: SIM905 (a hundred quoted lines would hide the code)
)

_CLASSES = {
    "linear": "linear",
    "addmm": "linear",
    "matmul": "matmul",
    "bmm": "matmul",
    "baddbmm": "matmul",
    "einsum": "matmul",
    "scaled_dot_product_attention": "attention",
    "conv": "conv",
    "layer_norm": "layer_norm",
}


class UncountedOperatorError(RuntimeError):
    """An operator that is neither counted nor known to be free of MACs: a total without it would be wrong."""


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """B·H·Nq·Nk·(Dq + Dv): the product of queries and keys, and of weights and values."""
    from fvcore.nn.jit_handles import get_shape

    query, key, value = (get_shape(tensor) for tensor in inputs[:3])
    rows = 1
    for size in query[:-2]:
        rows *= size
    return int(rows * query[-2] * key[-2] * (query[-1] + value[-1]))


def count_module(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> Counter[str]:
    """MACs of one call by operator class. Raises UncountedOperatorError."""
    module.eval()
    with torch.no_grad():
        analysis = FlopCountAnalysis(module, inputs)
        analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        counted = analysis.by_operator()
        unknown = {name for name in analysis.unsupported_ops() if name.removeprefix("aten::") not in _FREE}
    if unknown:
        raise UncountedOperatorError(f"{type(module).__name__} runs operators without a FLOPs rule: {sorted(unknown)}")
    total: Counter[str] = Counter()
    for name, macs in counted.items():
        total[_CLASSES.get(name, name)] += int(macs)
    return total


class Macs(Counter[str]):
    """MACs by operator class. ``parts`` are overheads in it that are shown apart ('token routers', …)."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: Counter[str] = Counter()

    def add(self, other: Macs) -> None:
        self.update(other)
        self.parts.update(other.parts)


def sum_of(parts: Iterable[Macs]) -> Macs:
    total = Macs()
    for part in parts:
        total.add(part)
    return total


class WorkCounter:
    """Counts calls of one denoiser, each distinct (plan, tokens) once. Works on a model built on ``meta``."""

    def __init__(self, model: Denoiser) -> None:
        self.model = model
        self._units: dict[str, Counter[str]] = {}
        self._calls: dict[tuple[StepPlan, int, tuple[int, ...] | None], Macs] = {}

    def call(self, plan: StepPlan, rows: int = 1, tokens: tuple[int, ...] | None = None) -> Macs:
        """One call under ``plan`` with ``rows`` sequences, the planning of its step included."""
        key = (plan.key, rows, tokens)
        if key not in self._calls:
            total = Macs()
            for unit in self.model.work(plan, rows, tokens):
                for name, macs in self._unit(unit, rows).items():
                    total[name] += macs * unit.repeats
                    if unit.part:
                        total.parts[unit.part] += macs * unit.repeats
            self._calls[key] = total
        return self._calls[key]

    def ledger(self, entries: Sequence[WorkEntry]) -> Macs:
        """Everything that a ledger recorded."""
        return sum_of(self.call(entry.plan, entry.rows, entry.tokens) for entry in entries)

    def _unit(self, unit: WorkUnit, rows: int) -> Counter[str]:
        key = f"{unit.key}|rows={rows}"
        if key not in self._units:
            module = unit.module
            if any(parameter.is_meta for parameter in module.parameters()):
                # fvcore cannot trace on meta; memory for one unit is enough, its values do not matter
                module = copy.deepcopy(module).to_empty(device="cpu")
            self._units[key] = count_module(module, unit.inputs())
        return self._units[key]


@dataclass(frozen=True)
class Step:
    """One step of the sampling loop, as it was planned or as it ran.

    plan   the step's; a guidance branch of other patches has its own in ``plans``
    plans  one a sequence of an image: two where the step guides
    kept   tokens that passed each layer's MLP, (images, sequences, layers); None where the plans say it all
    """

    plan: StepPlan
    plans: tuple[StepPlan, ...]
    kept: NDArray[np.int64] | None = None

    @staticmethod
    def planned(plan: StepPlan, guides: bool) -> Step:
        return Step(plan, plan.branches if guides else plan.branches[:1])


@dataclass(frozen=True)
class FlopsResult:
    """gmacs_step: one forward of one sequence, mean over steps. gmacs_image: all forwards of one image, for each
    image that was looked at (one, where the plan decides alone). parts: overheads within gmacs_step. positions:
    how many of params are the fixed table of positions, which papers leave out."""

    params: int
    gmacs_step: float
    gmacs_images: tuple[float, ...]
    by_operator: Mapping[str, float]
    parts: Mapping[str, float]
    profile: tuple[dict[str, float], ...]
    activity: Mapping[str, Any] | None
    distinct_plans: int
    positions: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def gmacs_image(self) -> float:
        return sum(self.gmacs_images) / len(self.gmacs_images)

    def values(self) -> dict[str, Quantity]:
        def exact(value: float, unit: str) -> Quantity:
            return Quantity(value=value, unit=unit, low=None, high=None, interval=EXACT)

        image, step = exact(self.gmacs_image, "GMAC"), exact(self.gmacs_step, "GMAC")
        if len(self.gmacs_images) > 1:
            found = mean_interval(self.gmacs_images)
            image = Quantity(value=found.value, unit="GMAC", low=found.low, high=found.high, interval=found.method)
            step = Quantity(value=self.gmacs_step, unit="GMAC", interval=f"mean over {len(self.gmacs_images)} samples")
        return {"params": exact(self.params, "1"), "gmacs_step": step, "gmacs_image": image}

    def detail(self) -> dict[str, Any]:
        return {
            "convention": CONVENTION,
            "by_operator": dict(self.by_operator),
            "parts": dict(self.parts),
            "profile": list(self.profile),
            "activity": self.activity,
            "distinct_plans": self.distinct_plans,
            "positions": self.positions,
            **self.extra,
        }


def count_steps(model: Denoiser, plans: Sequence[StepPlan], rule: GuidanceRule) -> FlopsResult:
    """Count a whole sampling loop of ``model`` (real or on meta) by the plans of its evaluations, in order."""
    steps = [Step.planned(plan, rule.guides(plan.timestep)) for plan in plans]
    result = sum_up(model, steps)
    return replace(result, extra={"schedule": schedule_of(model, steps, result)}) if model.patch_sizes else result


def schedule_of(model: Denoiser, steps: Sequence[Step], result: FlopsResult) -> dict[str, Any]:
    """Patch sizes by step (``guide`` None: as the conditional branch), and compute as a share of the same loop at the
    pre-trained size: as counted, and by other conventions."""
    counter, full = WorkCounter(model), model.patch_sizes[0]
    whole = sum(counter.call(replace(plan, patch=full)).total() for step in steps for plan in step.plans)
    guide = [step.plans[-1].patch for step in steps]
    patch = [step.plan.patch for step in steps]
    return {
        "timesteps": [step.plan.timestep for step in steps],
        "patch": patch,
        "guide": guide if guide != patch else None,
        "sizes": list(model.patch_sizes),
        "fraction": result.gmacs_image / whole * 1e9,
        "fractions": model.compute_shares([plan for step in steps for plan in step.plans]),
    }


def sum_up(model: Denoiser, steps: Sequence[Step]) -> FlopsResult:
    """Count every step for every image, and every sequence of it by itself."""
    counter, forward = WorkCounter(model), Macs()
    profile: list[dict[str, float]] = []
    images: NDArray[np.float64] = np.zeros(1)
    for number, step in enumerate(steps):
        if step.kept is None:
            rows = Counter(plan.key for plan in step.plans)
            alone = [counter.call(plan) for plan in step.plans]
            whole = [sum_of(counter.call(plan, count) for plan, count in rows.items())]
        else:
            alone = [counter.call(step.plan, 1, tuple(row)) for image in step.kept.tolist() for row in image]
            whole = [counter.call(step.plan, len(step.plans), tuple(kept)) for kept in step.kept.sum(1).tolist()]
        # Every step weighs the same in the mean forward, however many sequences it ran.
        weight = 1 / len(alone)
        for macs in alone:
            for total, part in ((forward, macs), (forward.parts, macs.parts)):
                for name, value in part.items():
                    total[name] += value * weight  # type: ignore[assignment]
        spent = np.array([macs.total() for macs in whole]) / 1e9
        images = images + spent
        profile.append(
            {"step": number, "timestep": step.plan.timestep, "gmacs": float(spent.mean()), "rows": len(step.plans)}
        )
    named = list(cast(torch.nn.Module, model).named_parameters())
    return FlopsResult(
        params=sum(p.numel() for _, p in named),
        gmacs_step=forward.total() / len(steps) / 1e9,
        gmacs_images=tuple(images.tolist()),
        by_operator={name: macs / len(steps) / 1e9 for name, macs in sorted(forward.items())},
        parts={name: macs / len(steps) / 1e9 for name, macs in sorted(forward.parts.items())},
        profile=tuple(profile),
        activity=_activity(model, steps),
        distinct_plans=len({step.plan.key for step in steps}),
        positions=sum(p.numel() for name, p in named if name == "pos_embed"),
    )


def _activity(model: Denoiser, steps: Sequence[Step]) -> dict[str, Any] | None:
    """Active shares 0..1 by step and layer of heads, groups and tokens; None where nothing is dynamic."""

    def shares(layers: tuple[tuple[int, ...], ...] | None) -> list[float] | None:
        return None if layers is None else [round(len(layer) / model.num_heads, 6) for layer in layers]

    def tokens(step: Step) -> list[float] | None:
        counts = step.plan.tokens if step.kept is None else step.kept.mean((0, 1)).tolist()
        return None if counts is None else [round(count / model.tokens, 6) for count in counts]

    found: dict[str, list[list[float] | None]] = {
        "heads": [shares(step.plan.heads) for step in steps],
        "groups": [shares(step.plan.groups) for step in steps],
        "tokens": [tokens(step) for step in steps],
    }
    dynamic = {name: None if None in values else values for name, values in found.items()}
    if all(values is None for values in dynamic.values()):
        return None
    return {"timesteps": [step.plan.timestep for step in steps], **dynamic}

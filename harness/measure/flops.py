"""FLOPs = fvcore on what runs: one count a distinct piece of work, summed over the plan.

The unit is the multiply-accumulate (MAC), as fvcore counts and as this field prints under the name FLOPs; a
floating-point operation count is twice that. Layer norms are counted as fvcore does (4 an element without affine
parameters) and shown apart.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from fvcore.nn import FlopCountAnalysis

import methods
from harness.store.records import CellSpec, Quantity
from methods.diffusion.guidance import GuidanceRule
from methods.protocols import Denoiser, StepPlan, WorkEntry, WorkUnit

CONVENTION = "multiply-accumulates (MACs) as fvcore counts; one sequence; 2 FLOPs = 1 MAC"
EXACT = "exact count"

# Operators that move, index or make data, and elementwise arithmetic: no MACs by fvcore's convention.
_FREE = frozenset(
    """
    abs add add_ addcmul arange cat chunk clamp clone constant_pad_nd contiguous copy_ cos detach div div_ dropout
    embedding exp expand expand_as flatten floor_divide full full_like gather gelu gt index index_add index_add_
    index_copy index_copy_ index_put_ index_select lerp log masked_fill mul mul_ narrow ne neg new_zeros nonzero
    ones pad permute pow reciprocal relu repeat reshape rsqrt rsub scatter select sigmoid silu sin slice softplus
    split split_with_sizes sqrt squeeze stack sub tanh to transpose type_as unbind unflatten unsqueeze view view_as
    where zeros zeros_like
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


class WorkCounter:
    """Counts calls of one denoiser, each distinct (plan, tokens) once. Works on a model built on ``meta``."""

    def __init__(self, model: Denoiser) -> None:
        self.model = model
        self._units: dict[str, Counter[str]] = {}
        self._calls: dict[tuple[StepPlan, int, tuple[int, ...] | None], Counter[str]] = {}

    def call(self, plan: StepPlan, rows: int = 1, tokens: tuple[int, ...] | None = None) -> Counter[str]:
        """MACs by operator class of one call under ``plan`` with ``rows`` sequences."""
        key = (plan.key, rows, tokens)
        if key not in self._calls:
            total: Counter[str] = Counter()
            for unit in self.model.work(plan, rows, tokens):
                for name, macs in self._unit(unit, rows).items():
                    total[name] += macs * unit.repeats
            self._calls[key] = total
        return self._calls[key]

    def ledger(self, entries: Sequence[WorkEntry]) -> Counter[str]:
        """MACs by operator class of everything that a ledger recorded."""
        total: Counter[str] = Counter()
        for entry in entries:
            total.update(self.call(entry.plan, entry.rows, entry.tokens))
        return total

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
class FlopsResult:
    """gmacs_step: one forward of one sequence, mean over the steps. gmacs_image: all forwards of one image."""

    params: int
    gmacs_step: float
    gmacs_image: float
    by_operator: Mapping[str, float]
    profile: tuple[dict[str, float], ...]
    distinct_plans: int

    def values(self) -> dict[str, Quantity]:
        def exact(value: float, unit: str) -> Quantity:
            return Quantity(value=value, unit=unit, low=None, high=None, interval=EXACT)

        return {
            "params": exact(self.params, "1"),
            "gmacs_step": exact(self.gmacs_step, "GMAC"),
            "gmacs_image": exact(self.gmacs_image, "GMAC"),
        }

    def detail(self) -> dict[str, Any]:
        return {
            "convention": CONVENTION,
            "by_operator": dict(self.by_operator),
            "profile": list(self.profile),
            "distinct_plans": self.distinct_plans,
        }


def count_steps(model: Denoiser, timesteps: Sequence[float], rule: GuidanceRule) -> FlopsResult:
    """Count a whole sampling loop of ``model`` (real or on meta) over ``timesteps`` in sampling order."""
    counter, plans = WorkCounter(model), model.plan(timesteps)
    forward: Counter[str] = Counter()
    profile, image = [], 0
    for step, plan in enumerate(plans):
        macs = counter.call(plan)
        rows = 2 if rule.guides(plan.timestep) else 1
        forward.update(macs)
        image += rows * macs.total()
        profile.append({"step": step, "timestep": plan.timestep, "gmacs": rows * macs.total() / 1e9, "rows": rows})
    steps = len(plans)
    return FlopsResult(
        params=sum(p.numel() for p in cast(torch.nn.Module, model).parameters()),
        gmacs_step=forward.total() / steps / 1e9,
        gmacs_image=image / 1e9,
        by_operator={name: macs / steps / 1e9 for name, macs in sorted(forward.items())},
        profile=tuple(profile),
        distinct_plans=len({plan.key for plan in plans}),
    )


def measure_flops(spec: CellSpec) -> FlopsResult:
    """Count a cell without loading its weights. Raises what ``methods.build`` raises, and UncountedOperatorError."""
    from harness.sample.generate import bind_sampler

    sampler, rule = bind_sampler(spec)
    with torch.device("meta"):
        model = cast(Denoiser, methods.build(spec.method, **spec.config))
    return count_steps(model, sampler.timesteps, rule)

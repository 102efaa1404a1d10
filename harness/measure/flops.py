"""FLOPs = fvcore on what runs: one count a distinct piece of work, summed over the plan and what the data decided.

The unit is the multiply-accumulate: see ``harness.measure.operators``.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from ditbench.harness.measure.facets import facets_of
from ditbench.harness.measure.operators import CONVENTION, count_module
from ditbench.harness.stats.intervals import mean_interval
from ditbench.harness.store.records import Quantity
from ditbench.methods.diffusion.guidance import GuidanceRule
from ditbench.methods.plans import StepPlan
from ditbench.methods.protocols import Denoiser, WholeCall
from ditbench.methods.work import Decided, WorkEntry, WorkUnit

EXACT = "exact count"


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
    """Counts calls of one denoiser, each distinct (plan, decided counts) once. Works on a model built on ``meta``."""

    def __init__(self, model: Denoiser) -> None:
        self.model = model
        self._units: dict[str, Counter[str]] = {}
        self._calls: dict[tuple[StepPlan, int, tuple[int, ...] | None], Macs] = {}

    def call(self, plan: StepPlan, rows: int = 1, decided: tuple[int, ...] | None = None) -> Macs:
        """One call under ``plan`` with ``rows`` sequences, the planning of its step included."""
        key = (plan.key, rows, decided)
        if key not in self._calls:
            total = Macs()
            for unit in self.model.work(plan, rows, decided):
                for name, macs in self._unit(unit, rows).items():
                    total[name] += macs * unit.repeats
                    if unit.part:
                        total.parts[unit.part] += macs * unit.repeats
            self._calls[key] = total
        return self._calls[key]

    def executed(self, plan: StepPlan, rows: int = 1, decided: tuple[int, ...] | None = None) -> Counter[str]:
        """What runs in the call itself, by operator class: without the planning of its step."""
        total: Counter[str] = Counter()
        for unit in self.model.work(plan, rows, decided):
            if unit.when == "call" and unit.repeats:
                total.update({name: macs * unit.repeats for name, macs in self._unit(unit, rows).items()})
        return total

    def ledger(self, entries: Sequence[WorkEntry]) -> Macs:
        """Everything that a ledger recorded."""
        return sum_of(self.call(entry.plan, entry.rows, counts_of(entry)) for entry in entries)

    def _unit(self, unit: WorkUnit, rows: int) -> Counter[str]:
        key = f"{unit.key}|rows={rows}"
        if key not in self._units:
            module = unit.module
            if any(parameter.is_meta for parameter in module.parameters()):
                # memory for one unit is enough, its values do not matter
                module = copy.deepcopy(module).to_empty(device="cpu")
            if isinstance(module, WholeCall):
                module.prepare()
            self._units[key] = count_module(module, unit.inputs())
        return self._units[key]


def counts_of(entry: WorkEntry) -> tuple[int, ...] | None:
    """What the data decided in a call; None where nothing."""
    return None if entry.decided is None else entry.decided.counts


@dataclass(frozen=True)
class Step:
    """One step of the sampling loop, as it was planned or as it ran.

    plan     the step's; a guidance branch of other choices has its own in ``plans``
    plans    one a sequence of an image: two where the step guides
    kept     what the data decided a layer, (images, sequences, layers), in order of ``plans``; None where they say it
             all
    decided  what that is, and of how many
    """

    plan: StepPlan
    plans: tuple[StepPlan, ...]
    kept: NDArray[np.int64] | None = None
    decided: Decided | None = None

    @staticmethod
    def planned(plan: StepPlan, guides: bool) -> Step:
        return Step(plan, plan.branches if guides else plan.branches[:1])


@dataclass(frozen=True)
class FlopsResult:
    """gmacs_step: one forward of one sequence, mean over steps. gmacs_image: all forwards of one image, for each
    image that was looked at (one, where the plan decides alone). parts: overheads within gmacs_step. positions:
    how many of params are the fixed table of positions, which papers leave out.
    routers_open: no weights were there to decide, and all counts as on. proof: what was traced to see that the
    declared pieces are what runs."""

    params: int
    gmacs_step: float
    gmacs_images: tuple[float, ...]
    by_operator: Mapping[str, float]
    parts: Mapping[str, float]
    profile: tuple[dict[str, float], ...]
    facets: Mapping[str, Any] | None
    distinct_plans: int
    positions: int = 0
    routers_open: bool = False
    proof: Mapping[str, Any] = field(default_factory=dict)
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
            "facets": self.facets,
            "distinct_plans": self.distinct_plans,
            "positions": self.positions,
            "proof": dict(self.proof),
            **self.extra,
        }


def count_steps(model: Denoiser, plans: Sequence[StepPlan], rule: GuidanceRule) -> FlopsResult:
    """Count a whole sampling loop of ``model`` (real or on meta) by the plans of its evaluations, in order."""
    return sum_up(model, [Step.planned(plan, rule.guides(plan.timestep)) for plan in plans])


def compute_of(model: Denoiser, steps: Sequence[Step], gmacs_image: float) -> dict[str, Any] | None:
    """The loop's compute as a share of the same loop with the fullest choice throughout: as counted, and by other
    conventions; None for a model that has one way to compute."""
    if not (named := model.alternatives(steps[0].plan)):
        return None
    counter, name = WorkCounter(model), next(iter(named))
    fullest = [model.alternatives(plan)[name] for step in steps for plan in step.plans]
    whole = sum(counter.call(plan).total() for plan in fullest)
    return {
        "of": f"{name} throughout",
        "share": gmacs_image / whole * 1e9,
        "by_convention": model.compute_shares([plan for step in steps for plan in step.plans]),
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
            alone = [
                counter.call(plan, 1, tuple(row))
                for image in step.kept.tolist()
                for plan, row in zip(step.plans, image, strict=True)
            ]
            whole = [_of_image(counter, step.plans, kept) for kept in step.kept]
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
    compute = compute_of(model, steps, float(images.mean()))
    return FlopsResult(
        params=sum(p.numel() for _, p in named),
        gmacs_step=forward.total() / len(steps) / 1e9,
        gmacs_images=tuple(images.tolist()),
        by_operator={name: macs / len(steps) / 1e9 for name, macs in sorted(forward.items())},
        parts={name: macs / len(steps) / 1e9 for name, macs in sorted(forward.parts.items())},
        profile=tuple(profile),
        facets=facets_of([(step.plan, _mean_kept(step)) for step in steps]),
        distinct_plans=len({step.plan.key for step in steps}),
        positions=sum(p.numel() for name, p in named if name == "pos_embed"),
        extra={} if compute is None else {"compute": compute},
    )


def _of_image(counter: WorkCounter, plans: Sequence[StepPlan], kept: NDArray[np.int64]) -> Macs:
    """Of one image: sequences of equal plans ran together. ``kept`` (sequences, layers)."""
    together: dict[StepPlan, list[int]] = {}
    for place, plan in enumerate(plans):
        together.setdefault(plan.key, []).append(place)
    return sum_of(
        counter.call(plan, len(places), tuple(kept[places].sum(0).tolist())) for plan, places in together.items()
    )


def _mean_kept(step: Step) -> tuple[str, tuple[float, ...], str] | None:
    """Name of what the data decided, its mean shares by layer, and what it is."""
    if step.kept is None or step.decided is None:
        return None
    shares = (step.kept.mean((0, 1)) / step.decided.whole).tolist()
    return step.decided.name, tuple(shares), step.decided.about

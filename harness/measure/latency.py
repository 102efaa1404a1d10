"""Honest time: what is called, how it is warmed up, in which order, and when to stop.

Levels: ``step`` is one denoiser call on the whole batch (2 x batch rows where the step guides); ``sample`` is the
whole sampling loop of the batch, in latent space, with all random numbers drawn beforehand; for a dynamic method it
begins with planning and the slicing of weights, which steps reuse (captured graphs keep their slices: they are cold
costs); ``image`` is that loop and the decoding of its latents. A method is compared only with a baseline that was timed
in the same process, in rounds of A B B A.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ditbench.harness.measure.options import LatencyOptions
from ditbench.harness.sample.generate import DTYPES, BoundCell
from ditbench.harness.sample.seeds import SampleStreams
from ditbench.harness.sample.shards import NotFiniteError
from ditbench.harness.stats.intervals import TimingSummary, summary
from ditbench.methods.diffusion.guidance import GuidedDenoiser
from ditbench.methods.memory import Memory
from ditbench.methods.plans import StepPlan

INPUTS = 4
MAX_STEPS_A_CYCLE = 16
SLOT_SECONDS = 0.02
LAUNCH_BOUND_GAP = 0.2
CUDA_WARM_UP_S = 3.0
Call = Callable[[int], Any]
Weights = tuple[float, ...]
"""A cycle's calls: what share of the whole each stands for. They add up to 1."""
WHOLE: Weights = (1.0,)


@dataclass(frozen=True)
class Timing:
    """Wall-clock milliseconds of one call and, on CUDA, those between two events on the device around it, the waits
    between its kernels included."""

    wall_ms: float
    device_ms: float | None


@dataclass
class Series:
    """All timings of one workload at one level, kept by round. ``first_ms`` is the very first call (cold)."""

    first_ms: float
    warmup_calls: int = 0
    rounds: list[list[Timing]] = field(default_factory=list)

    def wall(self) -> list[list[float]]:
        return [[timing.wall_ms for timing in timings] for timings in self.rounds]

    def summary(self) -> TimingSummary:
        return summary([ms for timings in self.wall() for ms in timings])

    def gap_share(self, busy_ms: float) -> float:
        """Share of a call's wall time, by its median, in which the device had nothing to do.

        ``busy_ms``: what its kernels and copies take; see ``ditbench.harness.measure.kernels.busy_ms``.
        """
        return max(0.0, 1 - busy_ms / self.summary().median)


def timed(call: Call, index: int, device: str) -> Timing:
    """Run ``call(index)`` once, from an idle device to an idle device."""
    if device == "cuda":
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        begin = time.perf_counter()
        start.record()
        call(index)
        stop.record()
        torch.cuda.synchronize()
        return Timing((time.perf_counter() - begin) * 1e3, start.elapsed_time(stop))
    begin = time.perf_counter()
    call(index)
    return Timing((time.perf_counter() - begin) * 1e3, None)


def step_call(cell: BoundCell, batch: int) -> tuple[Call, Weights]:
    """One denoiser call a step, on rotating inputs, and what share of the grid each call of a cycle stands for.

    Where steps differ in their plan or guidance, a cycle has one of each kind, weighing as many steps as are like it;
    with more than 16 kinds, and where the data decide, it has evenly spread steps that weigh the same. Where the data
    decide, and where calls build on earlier ones, each step gets the input and the memory that it has in a real
    sampling loop. An adaptive solver's steps are those of one such loop.
    """
    cell.tune(batch)
    streams = cell.streams(range(batch))
    denoiser = GuidedDenoiser(
        cell.model, streams.conditions, cell.plans(batch), cell.rule, tuned=True, execute=cell.execution
    )
    count, routed = len(denoiser.plans), cell.model.data_decide
    kinds: dict[tuple[StepPlan, bool], list[int]] = {}
    for step, plan in enumerate(denoiser.plans):
        guides = cell.rule.guides(plan.timestep)
        kinds.setdefault(((plan if guides else plan.branches[0]).key, guides), []).append(step)
    if routed or len(kinds) > MAX_STEPS_A_CYCLE:
        cycle = min(count, MAX_STEPS_A_CYCLE)
        steps, weights = [k * count // cycle for k in range(cycle)], (1 / cycle,) * cycle
    else:
        steps = [alike[0] for alike in kinds.values()]
        weights = tuple(len(alike) / count for alike in kinds.values())
    if not routed and not cell.model.remembers:
        inputs = _inputs(cell, batch)

        def call(index: int) -> Tensor:
            with torch.inference_mode():
                return denoiser(inputs[index % INPUTS], steps[index % len(steps)])

        return call, weights
    moments = _trajectory(cell, streams, steps)

    def call_in_its_place(index: int) -> Tensor:
        x, memory = moments[index % len(steps)]
        denoiser.memory.restore(memory)
        with torch.inference_mode():
            return denoiser(x, steps[index % len(steps)])

    return call_in_its_place, weights


def check_finite(output: Tensor) -> None:
    """Raise NotFiniteError: the time or memory of a model that gives NaN or infinity is not worth reporting."""
    if not torch.isfinite(output).all():
        raise NotFiniteError("the denoiser's output holds NaN or infinity")


def prepare_call(cell: BoundCell, batch: int) -> Call:
    """Plan the whole grid and prepare what its plans need, from nothing: what the first image pays."""

    def call(index: int) -> None:
        cell.model.forget()
        with torch.inference_mode(), cell.execution.around():
            for plan in {plan.key: plan for plan in cell.plans(batch)}.values():
                cell.model.prepare(plan)

    return call


def sample_call(cell: BoundCell, batch: int) -> Call:
    """The whole loop for one batch, planning and preparation included, as if it were the first.

    Noise is drawn ahead: the clock sees the method, not the random numbers.
    """
    cell.tune(batch)
    streams = cell.streams(range(batch))
    noises = [streams.noise() for _ in range(INPUTS)]
    drawn = iter(range(10**18))

    def call(index: int) -> Tensor:
        cell.model.forget()
        denoiser = cell.denoiser(streams.conditions, tuned=True)
        return cell.loop(denoiser, noises[index % INPUTS], lambda: noises[next(drawn) % INPUTS])

    return call


class Decodes(Protocol):
    """A decoder on its device: latents (n, C, h, w) -> pictures (n, 3, 8h, 8w)."""

    def decode(self, latents: Tensor) -> Tensor: ...


def image_call(cell: BoundCell, batch: int, decoder: Decodes) -> Call:
    """The whole loop for one batch and the decoding of its latents."""
    loop = sample_call(cell, batch)

    def call(index: int) -> Tensor:
        return decoder.decode(loop(index))

    return call


def warm_up(call: Call, cycle: int, device: str, seconds: float) -> Series:
    """Call until timings are steady: two windows' medians differ by less than 1 %.

    Before that, every step of the cycle is visited, at least 3 calls are made (CUDA: 10) and ``seconds`` pass (CUDA:
    at least 3). Ends in any case after three times ``seconds``.

    Raises NotFiniteError on the first call's output.
    """
    seconds = max(seconds, CUDA_WARM_UP_S) if device == "cuda" else seconds
    outputs: list[Tensor] = []
    first = timed(lambda index: outputs.append(call(index)), 0, device).wall_ms
    check_finite(outputs[0])
    least, spent, times = max(cycle, 10 if device == "cuda" else 3), 0.0, [first]
    while True:
        times.append(timed(call, len(times), device).wall_ms)
        spent += times[-1] / 1e3
        if len(times) <= least or spent < seconds:
            continue
        window = max(3, len(times) // 4)
        recent, earlier = times[-window:], times[-2 * window : -window]
        if spent >= 3 * seconds or (len(earlier) == window and _close(_median(recent), _median(earlier))):
            return Series(first_ms=first, warmup_calls=len(times))


def interleave(
    calls: Sequence[tuple[Call, Weights]], warm: Sequence[Series], device: str, options: LatencyOptions
) -> None:
    """Measure one workload, or two in rounds of A B B A, appending to the ``warm`` series.

    Every slot of a round lasts at least 20 ms and a whole cycle. Stops when each median's 95 % interval is within
    ± ``precision`` after the least number of rounds, or when the budget ends.
    """
    order = [0] if len(calls) == 1 else [0, 1, 1, 0]
    begin, indices = time.perf_counter(), [0] * len(calls)  # each begins its cycles anew: weights belong to places
    while True:
        timings: list[list[Timing]] = [[] for _ in calls]
        for which in order:
            call, weights = calls[which]
            slot = 0.0
            while slot < SLOT_SECONDS * 1e3:
                cycle_timings = []
                for _ in weights:
                    cycle_timings.append(timed(call, indices[which], device))
                    indices[which] += 1
                timings[which].append(_mean(cycle_timings, weights))
                slot += sum(t.wall_ms for t in cycle_timings)
        for series, taken in zip(warm, timings, strict=True):
            series.rounds.append(taken)
        if len(warm[0].rounds) < options.rounds:
            continue
        settled = all(_precise(series.summary(), options.precision) for series in warm)
        if settled or time.perf_counter() - begin > options.budget_s:
            return


def _precise(timing: TimingSummary, share: float) -> bool:
    if timing.low is None or timing.high is None:
        return False
    return max(timing.median - timing.low, timing.high - timing.median) <= share * timing.median


def _inputs(cell: BoundCell, batch: int) -> list[Tensor]:
    streams = cell.streams(range(batch))
    return [streams.noise().to(DTYPES[cell.spec.dtype]) for _ in range(INPUTS)]


def _trajectory(cell: BoundCell, streams: SampleStreams, steps: list[int]) -> list[tuple[Tensor, Memory]]:
    """The denoiser's inputs at ``steps`` of one sampling loop, and what it remembered then."""
    seen: dict[int, tuple[Tensor, Memory]] = {}
    guided, wanted = cell.denoiser(streams.conditions, tuned=True), {*steps}

    def see(x: Tensor, step: int) -> None:
        if step in wanted:
            seen[step] = x, guided.memory.snapshot()

    cell.loop(guided, streams.noise(), streams.noise, see)
    return [seen[step] for step in steps]


def _mean(timings: Sequence[Timing], weights: Weights) -> Timing:
    pairs = list(zip(timings, weights, strict=True))
    device = [t.device_ms * weight for t, weight in pairs if t.device_ms is not None]
    return Timing(sum(t.wall_ms * weight for t, weight in pairs), sum(device) if device else None)


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= 0.01 * max(a, b)

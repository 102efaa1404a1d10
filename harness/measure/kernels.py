"""Where the time of a denoiser call goes: operator classes by the torch profiler, and the gaps between them.

On CUDA a class holds its kernels' device time and the gap is the time in which no kernel ran. On the CPU a class
holds its operators' own time and the gap is what lies between operators: Python, dispatch and the profiler itself,
so that small models look worse than they are. All times are of the profiled run.

What dynamic execution adds is shown apart: 'router' is everything that token routers run, 'gather' the picking of
tokens and putting them back, wherever it happens.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from ditbench.harness.measure.latency import Call, Weights, check_finite, step_call
from ditbench.harness.measure.options import KernelsOptions
from ditbench.harness.sample.generate import BoundCell
from ditbench.harness.store.records import Quantity

CLASSES = ("linear", "attention", "norm", "elementwise", "conv", "gather", "router", "copy", "other")
ROUTER = "ditbench::router"

# Tried in order: the first word found in an operator's or kernel's name decides.
_WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("gather", ("index_select", "index_copy", "nonzero", "indexselect", "indexcopy", "gather", "scatter")),
    ("attention", ("scaled_dot_product", "flash", "fmha", "attention", "softmax")),
    ("norm", ("layer_norm", "layernorm", "norm")),
    ("conv", ("convolution", "conv2d", "conv3d", "implicit_gemm")),
    ("linear", ("addmm", "aten::mm", "bmm", "matmul", "linear", "gemm", "gemv", "cutlass", "nvjet", "splitk")),
    (
        "copy",
        ("copy", "cat", "clone", "contiguous", "aten::to", "memcpy", "memset", "index", "fill"),
    ),
    (
        "elementwise",
        ("elementwise", "gelu", "silu", "add", "mul", "sub", "div", "exp", "cos", "sin", "pow", "lerp", "clamp",
         "sqrt", "neg", "tanh", "triton", "reduce", "arange", "sigmoid"),
    ),
)  # fmt: skip


def operator_class(name: str) -> str:
    """The class of a profiler event's name; 'other' if nothing fits."""
    lowered = name.lower()
    for label, words in _WORDS:
        if any(word in lowered for word in words):
            return label
    return "other"


@dataclass(frozen=True)
class KernelsResult:
    """values: gap_share, device_ms and wall_ms of one call, on CUDA also kernels and their mean kernel_ms; detail:
    classes, top operators."""

    values: dict[str, Quantity]
    detail: dict[str, Any]


def measure_kernels(cell: BoundCell, options: KernelsOptions) -> KernelsResult:
    """Profile ``options.steps`` denoiser calls after a warm-up."""
    call, weights = step_call(cell, options.batch)
    check_finite(call(0))
    for index in range(max(3, len(weights))):
        call(index)
    spent: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    launched = Kernels()
    wall_ms, calls = 0.0, 0
    for indices, weight in _passes(weights, options.steps):
        wall_ms += weight * _profiled(cell, call, indices, weight, spent, launched)
        calls += len(indices)
    return _result(spent, launched, wall_ms, calls, cell, options)


@dataclass
class Kernels:
    """What the device ran for one call, weighed over a cycle: kernels, their milliseconds, and all its work's, copies
    included."""

    count: float = 0.0
    kernel_ms: float = 0.0
    busy_ms: float = 0.0

    def add(self, events: Sequence[Any], weight: float) -> None:
        """Take in device events of a profile, ``weight`` each."""
        for event in events:
            ms = weight * event.time_range.elapsed_us() / 1e3
            self.busy_ms += ms
            if not event.name.lower().startswith(("memcpy", "memset")):
                self.count += weight
                self.kernel_ms += ms


def busy_ms(call: Call, weights: Weights) -> float:
    """Milliseconds of one call in which a CUDA device works, by the durations of its kernels and copies.

    Two events around a call would not tell: what lies between them holds the waits between kernels.
    """
    launched = Kernels()
    for indices, weight in _passes(weights, len(weights)):
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            for index in indices:
                call(index)
            torch.cuda.synchronize()
        launched.add(device_events(profiler.events()), weight / len(indices))
    return launched.busy_ms


def device_events(events: Any) -> list[Any]:
    """What ran on the device: kernels and copies, without the ranges that mark them."""
    return [event for event in events if event.device_type.name == "CUDA" and not event.is_user_annotation]


def _passes(weights: Weights, calls: int) -> list[tuple[list[int], float]]:
    """Which calls to profile together, and what share of the whole they stand for.

    Where all kinds of step weigh the same they share one pass, else each has its own.
    """
    if len(set(weights)) == 1:
        return [(list(range(max(calls, len(weights)))), 1.0)]
    each = max(2, calls // len(weights))
    return [([kind] * each, weight) for kind, weight in enumerate(weights)]


def _profiled(
    cell: BoundCell,
    call: Call,
    indices: list[int],
    weight: float,
    spent: dict[tuple[str, str], list[float]],
    launched: Kernels,
) -> float:
    """Profile these calls, add ``weight`` times their mean to what is collected, and return milliseconds a call."""
    cuda, calls = cell.spec.device == "cuda", len(indices)
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with _marked(cell.model.routers), profile(activities=kinds) as profiler:
        _synchronise(cuda)
        begin = time.perf_counter()
        for index in indices:
            call(index)
        _synchronise(cuda)
        wall_ms = (time.perf_counter() - begin) * 1e3 / calls
    ran = device_events(profiler.events())
    launched.add(ran, weight / calls)
    graph = cuda and cell.spec.mode == "graph"
    for event in ran if graph else profiler.events():
        # on CUDA the device time of what an operator launched stands with the operator, whatever its name; a graph's
        # kernels have no operator and stand by their own names
        if graph:
            microseconds = event.time_range.elapsed_us()
        else:
            microseconds = event.self_device_time_total if cuda else event.self_cpu_time_total
        counts = graph or (event.device_type.name == "CPU" if cuda else event.name.startswith("aten::"))
        if microseconds <= 0 or not counts:
            continue
        label = operator_class(event.name)
        if _inside(event, ROUTER):
            label = "router"
        elif label == "gather" and _inside(event, "aten::embedding"):
            label = "copy"  # looking labels up is no gathering of tokens
        spent[label, event.name][0] += weight * microseconds / 1e3 / calls
        spent[label, event.name][1] += weight / calls
    return wall_ms


@contextmanager
def _marked(routers: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Put the calls of these modules into a range that the profiler sees."""
    open_ranges: list[record_function] = []

    def enter(*_: Any) -> None:
        open_ranges.append(record_function(ROUTER))
        open_ranges[-1].__enter__()  # type: ignore[no-untyped-call]

    def leave(*_: Any) -> None:
        open_ranges.pop().__exit__(None, None, None)

    handles = [router.register_forward_pre_hook(enter) for router in routers]
    handles += [router.register_forward_hook(leave) for router in routers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _inside(event: Any, name: str) -> bool:
    """Whether an event of this name called, directly or not, this one."""
    parent = event.cpu_parent
    while parent is not None and parent.name != name:
        parent = parent.cpu_parent
    return parent is not None


def _result(
    spent: dict[tuple[str, str], list[float]],
    launched: Kernels,
    wall_ms: float,
    calls: int,
    cell: BoundCell,
    options: KernelsOptions,
) -> KernelsResult:
    device_ms = sum(ms for ms, _ in spent.values())
    gap = max(0.0, 1 - device_ms / wall_ms)
    classes: dict[str, list[float]] = {name: [0.0, 0.0] for name in CLASSES}
    for (label, _), (ms, count) in spent.items():
        classes[label][0] += ms
        classes[label][1] += count
    top = sorted(spent.items(), key=lambda item: -item[1][0])[:12]
    reason = f"one profiled run of {calls} calls; no interval"

    def quantity(value: float, unit: str) -> Quantity:
        return Quantity(value=value, unit=unit, low=None, high=None, interval=reason)

    guided = any(cell.rule.guides(t) for t in cell.times())
    values = {
        "gap_share": quantity(gap, "1"),
        "device_ms": quantity(device_ms, "ms"),
        "wall_ms": quantity(wall_ms, "ms"),
    }
    if launched.count:
        values["kernels"] = quantity(launched.count, "1")
        values["kernel_ms"] = quantity(launched.kernel_ms / launched.count, "ms")
    return KernelsResult(
        values=values,
        detail={
            "batch": options.batch,
            "rows": options.batch * (2 if guided else 1),
            "calls": calls,
            "classes": [
                {"class": name, "ms": ms, "share": ms / wall_ms, "calls": count}
                for name, (ms, count) in classes.items()
                if ms > 0
            ]
            + [{"class": "gap", "ms": gap * wall_ms, "share": gap, "calls": 0}],
            "top": [{"name": name, "class": label, "ms": ms, "calls": count} for (label, name), (ms, count) in top],
        },
    )


def _synchronise(cuda: bool) -> None:
    if cuda:
        torch.cuda.synchronize()

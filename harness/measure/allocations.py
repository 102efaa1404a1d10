"""The most that tensors held at once while something ran, as the allocator hands their bytes out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def held_at_once(run: Callable[[], object], device: str) -> int:
    """Bytes by which allocated tensors outgrew what was allocated when ``run`` began; 0 or more.

    On CUDA by the allocator's peak counter, on the CPU by the profiler's allocation events. What is freed in between
    makes room, also what was there before. Interpreter, libraries and the allocator's slack are not in the figure.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return max(0, torch.cuda.max_memory_allocated() - before)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most

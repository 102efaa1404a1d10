"""Captured calls: the kernels of a denoiser call recorded once and launched together, which spares the host.

One graph for each distinct piece of work and number of rows. CUDA's part stands behind ``Recorder``; it was never run
on a GPU by the tests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

WARM_UPS = 3
Run = Callable[..., Tensor]
"""What a denoiser call computes, as a function of its tensors alone."""


class NoKernelError(RuntimeError):
    """The attention kernel that a cell asks for cannot take its calls."""


class CaptureError(RuntimeError):
    """A call that cannot be captured; the message says why and what to do."""


@dataclass(frozen=True)
class Recorded:
    """``replay`` runs the recorded kernels, which read the tensors of the capture and write ``output``.

    ``held``: what the kernels read and did not make (weights, slices of them); they must outlive the recording.
    """

    replay: Callable[[], None]
    output: Tensor
    held: tuple[Tensor, ...] = ()


class Recorder(Protocol):
    """Runs ``call`` a few times, then records it."""

    def __call__(self, call: Callable[[], Tensor]) -> Recorded: ...


class CudaRecorder:
    """CUDA graphs in one memory pool: they never run at once, and outputs are copied before the next one runs."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, call: Callable[[], Tensor]) -> Recorded:
        here, beside = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(here)
        with torch.cuda.stream(beside):  # a capture must not be the first to ask libraries for their workspaces
            for _ in range(WARM_UPS - 1):
                call()
            held = tensors_read(call)
        here.wait_stream(beside)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            output = call()
        self._pool = self._pool or graph.pool()
        return Recorded(graph.replay, output, held)


@dataclass
class _Captured:
    inputs: tuple[Tensor, ...]
    recorded: Recorded
    sources: tuple[Tensor, ...]


@dataclass
class Graphs:
    """Recordings by work and shapes. ``capture_ms``: what making them took so far, warm-up calls included."""

    recorder: Recorder
    capture_ms: float = 0.0
    captures: int = 0
    _kept: dict[Hashable, _Captured] = field(default_factory=dict)

    def __call__(self, key: Hashable, run: Run, tensors: tuple[Tensor, ...]) -> Tensor:
        """``run(*tensors)``, replayed. The answer is the caller's own: no later call overwrites it.

        ``key``: equal for equal work. ``tensors``: x, times, and those of conditions, which nobody writes to.
        Raises CaptureError.
        """
        whole = (key, tuple((tensor.shape, tensor.dtype) for tensor in tensors))
        found = self._kept.get(whole)
        if found is None:
            found = self._kept[whole] = self._capture(run, tensors)
        for place, (into, tensor) in enumerate(zip(found.inputs, tensors, strict=True)):
            if place < 2 or tensor is not found.sources[place]:
                into.copy_(tensor)
        found.sources = tensors
        found.recorded.replay()
        return found.recorded.output.clone()

    def forget(self) -> None:
        """Drop every recording."""
        self._kept.clear()

    def _capture(self, run: Run, tensors: tuple[Tensor, ...]) -> _Captured:
        begin = time.perf_counter()
        inputs = tuple(tensor.clone() for tensor in tensors)
        try:
            recorded = self.recorder(lambda: run(*inputs))
        except (torch.cuda.OutOfMemoryError, NoKernelError):
            raise
        except RuntimeError as error:
            reason = " ".join(str(error).split("\n")[0].split())
            raise CaptureError(
                f"mode graph: this call cannot be captured ({reason}): take mode eager or compiled; where weights are "
                "sliced by step, give config.prepared_mib room for all slices"
            ) from error
        self.capture_ms += (time.perf_counter() - begin) * 1e3
        self.captures += 1
        return _Captured(inputs, recorded, tensors)


class _Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.read: dict[int, Tensor] = {}
        self._made: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_iter((args, kwargs or {})):
            if isinstance(value, Tensor) and _storage(value) not in self._made:
                self.read.setdefault(_storage(value), value)
        out = func(*args, **(kwargs or {}))
        self._made.update(_storage(value) for value in tree_iter(out) if isinstance(value, Tensor))
        self._made.difference_update(self.read)  # views of what was there before
        return out


def tensors_read(call: Callable[[], object]) -> tuple[Tensor, ...]:
    """The tensors that ``call`` reads and does not make itself, one for each piece of memory."""
    with _Reads() as reads:
        call()
    return tuple(reads.read.values())


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)

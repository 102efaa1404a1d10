"""How a cell's calls run, besides what they compute: rounding of float32 products, attention kernel, captured graphs.

Settings hold for the cell's own calls and are put back after each: a baseline in the same process may have others.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ditbench.harness.sample.graphs import CudaRecorder, Graphs, NoKernelError, Recorder, Run
from ditbench.harness.store.records import CellSpec
from ditbench.methods.protocols import Denoiser

KERNELS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
_REFUSALS = ("No viable backend for scaled_dot_product_attention", "No available kernel")


class Execution:
    """Runs the calls of one cell. ``graphs`` is None unless the cell's mode is graph."""

    def __init__(self, spec: CellSpec, model: Denoiser, recorder: Recorder | None = None) -> None:
        self._spec, self._model = spec, model
        self._rounds = spec.device == "cuda" and spec.dtype in ("float32", "tf32")
        self.graphs = Graphs(recorder or CudaRecorder()) if spec.mode == "graph" else None

    def __call__(self, key: Hashable, run: Run, tensors: tuple[Tensor, ...]) -> Tensor:
        """``run(*tensors)`` as the cell says; ``key``: equal for equal work.

        Raises NoKernelError and CaptureError.
        """
        if self.graphs is None:
            return self._run(run, *tensors)
        return self.graphs(key, partial(self._run, run), tensors)

    def watched(self, key: Hashable, run: Run, tensors: tuple[Tensor, ...]) -> Tensor:
        """The same without a graph: a replay runs no Python, so that no ledger would see it."""
        return self._run(run, *tensors)

    def _run(self, run: Run, *tensors: Tensor) -> Tensor:
        with self.around():
            return run(*tensors)

    def around(self) -> AbstractContextManager[None]:
        """The settings of this cell, for whatever runs inside."""
        spec = self._spec
        if spec.attention == "auto" and not self._rounds:
            return nullcontext()
        return self._settings()

    @contextmanager
    def _settings(self) -> Iterator[None]:
        spec = self._spec
        with ExitStack() as stack:
            if self._rounds:
                stack.enter_context(tf32(spec.dtype == "tf32"))
            if spec.attention != "auto":
                stack.enter_context(sdpa_kernel(KERNELS[spec.attention]))
            try:
                yield
            except RuntimeError as error:
                if not any(refusal in str(error) for refusal in _REFUSALS):
                    raise
                raise NoKernelError(self._refusal()) from error

    def _refusal(self) -> str:
        spec, model = self._spec, self._model
        head = getattr(model, "head_size", None)
        size = "" if head is None else f" and heads of {head} channels"
        where = "this CPU" if spec.device == "cpu" else torch.cuda.get_device_name()
        return (
            f"{spec.attention} attention cannot run {spec.dtype}{size} on {where}, or masked sequences: take attention "
            "auto, or another kernel or number type"
        )

    def forget(self) -> None:
        """Drop captured graphs: the next call of each kind captures anew."""
        if self.graphs is not None:
            self.graphs.forget()


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Whether float32 matrix products and convolutions on a GPU may round their factors to 10 bits; then as before.

    By the functions under ``torch.backends.cuda.matmul`` and ``torch.backends.cudnn``, which cost a call 30 µs.
    """
    products, convolutions = torch._C._get_cublas_allow_tf32(), torch._C._get_cudnn_allow_tf32()
    try:
        torch._C._set_cublas_allow_tf32(on)
        torch._C._set_cudnn_allow_tf32(on)
        yield
    finally:
        torch._C._set_cublas_allow_tf32(products)
        torch._C._set_cudnn_allow_tf32(convolutions)

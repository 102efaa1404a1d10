"""Multiply-accumulates of one call of a module by fvcore, its rules for attention and for what is free.

The unit is the multiply-accumulate (MAC), as fvcore counts and as this field prints under the name FLOPs; a
floating-point operation count is twice that. Layer norms are counted as fvcore does (4 an element without affine
parameters) and shown apart.
"""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import conv_flop_count
from torch.utils._python_dispatch import TorchDispatchMode

CONVENTION = "multiply-accumulates (MACs) as fvcore counts; one sequence; 2 FLOPs = 1 MAC"

# Operators that move, index or make data, and elementwise arithmetic: no MACs by fvcore's convention.
_FREE = frozenset(
    """
    abs add add_ addcmul arange cat chunk clamp clone constant_pad_nd contiguous copy_ cos detach div div_ dropout
    embedding exp expand expand_as flatten floor_divide full full_like gather gelu gt index index_add index_add_
    index_copy index_copy_ index_put_ index_select lerp log masked_fill mul mul_ narrow ne neg new_empty new_zeros
    nonzero ones pad permute pow reciprocal relu repeat reshape rsqrt rsub scatter select sigmoid silu sin slice softmax
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


class _Convolutions(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """On ``meta`` a tracer does not see convolutions, and torch's own rule for their shapes fails under it: counts them
    here, by fvcore's rule."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.ops.aten.convolution.default or not args[0].is_meta:
            return func(*args, **(kwargs or {}))
        x, weight, _, stride, padding, dilation, transposed = args[:7]
        if transposed:
            raise UncountedOperatorError("a transposed convolution on meta has no FLOPs rule")
        given, kernel = [int(size) for size in x.shape], [int(size) for size in weight.shape]
        made = [
            (given[2 + axis] + 2 * padding[axis] - dilation[axis] * (kernel[2 + axis] - 1) - 1) // stride[axis] + 1
            for axis in range(len(given) - 2)
        ]
        shape = [given[0], kernel[0], *made]
        self.macs += int(conv_flop_count(given, kernel, shape, transposed=False))
        return torch.empty(shape, dtype=x.dtype, device="meta")


def count_module(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> Counter[str]:
    """MACs of one call by operator class; module and inputs may be on ``meta``. Raises UncountedOperatorError."""
    if any(each.training for each in module.modules()):  # telling a model its mode makes it drop what it prepared
        module.eval()
    on_meta = any(tensor.is_meta for tensor in inputs)
    with torch.no_grad(), _Convolutions() if on_meta else nullcontext() as convolutions:
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
    if isinstance(convolutions, _Convolutions) and convolutions.macs:
        total["conv"] += convolutions.macs
    return total

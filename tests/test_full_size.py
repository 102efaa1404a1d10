"""DiT-XL/2 at its full size, with random weights, on the real road of a sample: one step, one image, no guidance."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ditbench.harness.measure.count_cell import measure_flops
from ditbench.harness.sample.generate import bind
from ditbench.harness.store.records import CellSpec

PARAMETERS = 675_129_632
ROUNDING = 4e-2
"""bfloat16 keeps 8 bits, and each of 28 blocks rounds the tokens twice: 2^-8 x sqrt(56) is 3e-2."""


@dataclass(frozen=True)
class Step:
    """What one step made: its sample and what the denoiser predicted for it. gmacs: products that really ran."""

    sample: Tensor
    prediction: Tensor
    parameters: int
    gmacs: float


def spec(**fields: object) -> CellSpec:
    return CellSpec(**{"cell": "c", "method": "dit-xl-2", "sampler": "ddim", "steps": 1, **fields})


def attention(query: torch.Size, *rest: object, **more: object) -> int:
    """torch's counter has no rule for the kernel of the CPU: two products of N x N x d for each head."""
    rows, heads, tokens, width = query
    return 4 * rows * heads * tokens**2 * width


def one_step(of: CellSpec) -> Step:
    """Its model is gone on return: two at once would take twice the memory."""
    cell = bind(of, None)
    seen: list[Tensor] = []
    cell.model.register_forward_hook(lambda model, given, output: seen.append(output))
    rules = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    with FlopCounterMode(display=False, custom_mapping=rules) as counter:
        sample, labels = cell.generate(range(1))
    assert labels.shape == (1,) and len(seen) == 1, "unguided: one call of one row"
    assert {p.dtype for p in cell.model.parameters()} == {getattr(torch, of.dtype)}
    return Step(sample, seen[0], sum(p.numel() for p in cell.model.parameters()), counter.get_total_flops() / 2e9)


def counted(of: CellSpec) -> float:
    """GMAC that the harness counts for a step, without layer norm, which torch's counter leaves out."""
    result = measure_flops(of)
    return result.gmacs_step - result.by_operator["layer_norm"]


def apart(a: Tensor, b: Tensor) -> float:
    """Distance over b's size, L2."""
    return float((a.double() - b.double()).norm() / b.double().norm())


def check_finite_and_whole(step: Step, dtype: torch.dtype) -> None:
    assert step.sample.shape == (1, 4, 32, 32) and step.sample.dtype == torch.float32
    assert step.prediction.shape == (1, 8, 32, 32) and step.prediction.dtype == dtype
    assert step.sample.isfinite().all() and step.prediction.isfinite().all()


@pytest.mark.slow
def test_a_step_of_dit_xl_2_in_bfloat16_is_that_in_float32_but_for_rounding():
    exact, rounded = one_step(spec()), one_step(spec(dtype="bfloat16"))
    for step, dtype in ((exact, torch.float32), (rounded, torch.bfloat16)):
        check_finite_and_whole(step, dtype)
        assert step.parameters == PARAMETERS
        assert step.gmacs == pytest.approx(counted(spec()), rel=1e-6), "what ran is what the harness counts"
    assert 1e-3 < apart(rounded.prediction, exact.prediction) < ROUNDING
    assert 0 < apart(rounded.sample, exact.sample) < 1e-3, "the only step is the cleanest: it moves little"


@pytest.mark.slow
def test_a_step_of_dydit_xl_2_at_half_activity_really_runs_half_of_it():
    half = spec(method="dydit-xl-2", config={"activity": 0.5})
    step = one_step(half)
    check_finite_and_whole(step, torch.float32)
    assert step.gmacs == pytest.approx(counted(half), rel=1e-4), "what ran is what the harness counts"
    assert step.gmacs == pytest.approx(0.5 * counted(spec()), rel=0.02)

"""FLOPs: the published figures, the closed formula, and no operator that goes uncounted."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from ditbench import methods
from ditbench.harness.measure.flops import WorkCounter, count_steps
from ditbench.harness.measure.operators import UncountedOperatorError, count_module
from ditbench.methods.backbones.config import DiTConfig
from ditbench.methods.conditions import of_labels
from ditbench.methods.diffusion.ddim import DDIM
from ditbench.methods.diffusion.guidance import GuidanceRule, GuidedDenoiser
from ditbench.methods.work import WorkLedger

# Published by the DiT paper, Table 4 of arXiv 2212.09748, re-derived: GMAC without layer norm, to four decimals.
MACS = {
    "dit-s-2": "6.0557", "dit-s-4": "1.4126", "dit-s-8": "0.3580",
    "dit-b-2": "23.0051", "dit-b-4": "5.5652", "dit-b-8": "1.4175",
    "dit-l-2": "80.6976", "dit-l-4": "19.6957", "dit-l-8": "5.0114",
    "dit-xl-2": "118.6214", "dit-xl-4": "29.0437", "dit-xl-8": "7.3924",
}  # fmt: skip


def counted(name: str, **config: int):
    with torch.device("meta"):
        model = methods.build(name, **config)
    return count_steps(model, model.plan([999, 500, 0]), GuidanceRule()), model.config


def closed_formula(c: DiTConfig) -> int:
    n, d, side = c.tokens, c.hidden_size, c.input_size
    block = 12 * n * d * d + 2 * n * n * d + 6 * d * d
    return c.depth * block + side * side * (c.in_channels + c.out_channels) * d + 2 * d * d + 256 * d + d * d


@pytest.mark.parametrize("name", MACS)
def test_every_preset_has_its_published_macs(name):
    result, config = counted(name)
    macs = result.gmacs_step - result.by_operator["layer_norm"]
    assert f"{macs:.4f}" == MACS[name]
    assert round(macs * 1e9) == closed_formula(config)


def test_xl_2_at_512_has_its_published_macs():
    result, config = counted("dit-xl-2", input_size=64)
    assert f"{result.gmacs_step - result.by_operator['layer_norm']:.4f}" == "524.5383"
    assert config.tokens == 1024


def test_xl_2_by_operator():
    result, _ = counted("dit-xl-2")
    assert f"{result.gmacs_step:.4f}" == "118.6887"
    shown = {name: f"{gmacs:.4f}" for name, gmacs in result.by_operator.items()}
    assert shown == {"linear": "114.3888", "attention": "4.2279", "conv": "0.0047", "layer_norm": "0.0672"}
    assert result.params == 675_129_632


class Whole(nn.Module):
    """The whole model as one traced module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x, t, y):
        return self.model(x, t, y)


@pytest.mark.parametrize("name", ["dit-testing", "dit-digits"])
@pytest.mark.parametrize("rows", [1, 3])
def test_the_sum_over_pieces_equals_a_count_of_the_whole_model(name, rows):
    model = methods.build(name)
    side = model.input_size
    inputs = (
        torch.randn(rows, 1, side, side),
        torch.zeros(rows, dtype=torch.long),
        torch.zeros(rows, dtype=torch.long),
    )
    whole = count_module(Whole(model), inputs)
    pieces = WorkCounter(model).call(model.plan([0])[0], rows=rows)
    assert dict(whole) == dict(pieces)


@pytest.mark.parametrize("rule", [GuidanceRule(), GuidanceRule(1.5), GuidanceRule(2.0, interval=(200, 700))])
def test_what_a_sampling_loop_executed_equals_what_its_plan_promised(rule):
    model, sampler, ledger = methods.build("dit-testing"), DDIM(7), WorkLedger()
    conditions = of_labels(model.facts, torch.tensor([1, 2, 3]))
    denoise = GuidedDenoiser(model, conditions, model.plan(sampler.timesteps), rule, ledger)
    with torch.no_grad():
        sampler.sample(denoise, torch.randn(3, 1, 8, 8), lambda: torch.zeros(3, 1, 8, 8))
    promised = count_steps(model, sampler.plans(model), rule)
    executed = WorkCounter(model).ledger(ledger.entries).total() / 3 / 1e9
    assert executed == pytest.approx(promised.gmacs_image, rel=1e-12)
    guided = sum(rule.guides(t) for t in sampler.timesteps)
    assert promised.gmacs_image == pytest.approx(promised.gmacs_step * (7 + guided), rel=1e-12)


def test_an_operator_without_a_rule_is_an_error():
    class Inverse(nn.Module):
        def forward(self, x):
            return torch.linalg.inv(x)

    with pytest.raises(UncountedOperatorError, match="linalg_inv"):
        count_module(Inverse(), (torch.eye(4),))


def test_fused_attention_is_counted():
    class Attend(nn.Module):
        def forward(self, q, k, v):
            return nn.functional.scaled_dot_product_attention(q, k, v)

    q, k, v = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 4)
    assert count_module(Attend(), (q, k, v)) == {"attention": 2 * 3 * 5 * 7 * (8 + 4)}


def test_the_command_prints_the_documented_json():
    command = [sys.executable, "-m", "ditbench", "flops", "dit-s-2", "--set", "input_size=16", "--json"]
    answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert answer["config"] == {"input_size": 16}
    assert answer["gmacs"] == pytest.approx(sum(answer["gmacs_by_operator"].values()), rel=1e-12)
    assert set(answer["gmacs_by_operator"]) == {"linear", "attention", "conv", "layer_norm"}

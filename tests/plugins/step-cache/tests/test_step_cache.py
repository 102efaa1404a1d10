"""A step cache executes less, forgets with its loop, and refuses what it cannot stand in."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from ditbench import methods
from ditbench.methods.errors import ConfigError
from ditbench.methods.modifiers import made_modifiers
from ditbench.methods.plans import Choice, StepPlan
from ditbench.methods.weights import randomise

from step_cache.modifier import Cached


@dataclass(frozen=True)
class Size(Choice):
    size: int


def made(name: str = "dit-testing") -> tuple[torch.nn.Module, list[int]]:
    """A tiny model with lively weights, and the rows of every call of its first attention."""
    model, ran = methods.build(name), []
    randomise(model, seed=0)
    model.blocks[0].attn.register_forward_hook(lambda module, inputs, out: ran.append(len(out)))
    return model, ran


def sampled(model: torch.nn.Module, sampler: str = "ddim", guidance: Any = 1.0, interval: int = 3) -> torch.Tensor:
    z = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    how = {"sampler": {"name": sampler, "steps": 7}, "guidance": guidance}
    around = [{"step-cache": {"interval": interval}}]
    return methods.sample(model, noise=z, labels=torch.tensor([1, 2]), modifiers=around, **how)


def test_one_of_so_many_steps_computes_and_each_loop_begins_with_nothing():
    model, ran = made()
    first = sampled(model)
    assert ran == [2, 2, 2], "steps 0, 3 and 6 of 7"
    assert torch.equal(sampled(model), first) and ran == [2] * 6


def test_an_interval_of_one_changes_nothing():
    model, ran = made()
    z = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = methods.sample(
        model, noise=z, labels=torch.tensor([1, 2]), sampler={"name": "ddim", "steps": 7}, guidance=1.5
    )
    assert torch.equal(sampled(model, guidance=1.5, interval=1), plain) and len(ran) == 14


def test_where_guidance_begins_a_step_computes_for_both_branches():
    model, ran = made()
    sampled(model, guidance={"scale": 1.5, "interval": [200, 700]}, interval=100)
    # times of seven steps: 999 832 666 500 333 166 0; the third guides first
    assert ran == [2, 4]


def test_where_other_choices_change_a_step_computes():
    (cache,) = made_modifiers([{"step-cache": {"interval": 100}}])
    plans = [StepPlan(float(t), (Size(2 if t < 2 else 4),)) for t in (4, 3, 2, 1, 0)]
    made = cache.schedule(plans, [False] * 5)
    assert [plan.get(Cached).reuses for plan in made] == [False, True, True, False, True]
    assert [plan.without(Cached) for plan in made] == plans


@pytest.mark.parametrize("sampler", ["heun", "dopri5"])
def test_solvers_that_call_out_of_order_refuse_it_in_one_line(sampler):
    with pytest.raises(ConfigError, match="not evaluate once a step, in order"):
        sampled(made("sit-testing")[0], sampler=sampler)

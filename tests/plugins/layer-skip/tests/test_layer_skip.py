"""What every modifier should hold."""

import subprocess
import sys

import pytest
import torch
from ditbench import methods
from ditbench.methods.errors import ConfigError
from ditbench.methods.weights import randomise

HOW = {"sampler": {"name": "ddim", "steps": 4}, "guidance": 1.5}


def made() -> torch.nn.Module:
    """A tiny model with lively weights: a fresh one may compute zeros."""
    model = methods.build("dit-testing")
    randomise(model, seed=0)
    return model


def sampled(model: torch.nn.Module, *modifiers: dict) -> torch.Tensor:
    z = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return methods.sample(model, noise=z, labels=torch.tensor([1, 2]), modifiers=modifiers, **HOW)


def test_it_changes_what_runs_and_leaves_the_model_alone():
    model = made()
    before, ran = sampled(model), []
    model.blocks[1].register_forward_hook(lambda *_: ran.append(1))
    changed = sampled(model, {"layer-skip": {"layers": [1]}})
    assert not ran, "a layer that is left out is never called"
    assert not torch.equal(changed, before)
    assert torch.equal(sampled(model), before) and len(ran) == 4


def test_in_every_other_step_it_runs_half_of_the_calls():
    model, ran = made(), []
    model.blocks[1].register_forward_hook(lambda *_: ran.append(1))
    sampled(model, {"layer-skip": {"layers": [1], "every": 2}})
    assert len(ran) == 2


def test_what_cannot_be_is_refused_with_the_reason():
    with pytest.raises(ConfigError, match="no layer 7 among 2"):
        sampled(made(), {"layer-skip": {"layers": [7]}})


def test_it_keeps_the_contract():
    around = "{layer-skip: {layers: [1], every: 2}}"
    command = [sys.executable, "-m", "ditbench", "check", "dit-testing", "--with", around]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

"""What every sampler should hold."""

import pytest
import torch
from ditbench import methods
from ditbench.methods.errors import ConfigError
from ditbench.methods.weights import randomise
from ditbench.methods.work import WorkLedger


def sampled(name: str, steps: int = 5, **options: object) -> tuple[torch.Tensor, WorkLedger]:
    model, ledger = methods.build("dit-testing"), WorkLedger()
    randomise(model, seed=0)
    z = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    how = {"name": name, "steps": steps, **options}
    return methods.sample(model, noise=z, labels=torch.tensor([1, 2]), sampler=how, ledger=ledger), ledger


def test_it_evaluates_once_a_step():
    _, ledger = sampled("ab2")
    assert len(ledger.entries) == 5


def test_without_extrapolation_it_is_ddim():
    same, other = sampled("ab2", weight=0.0)[0], sampled("ab2")[0]
    torch.testing.assert_close(same, sampled("ddim")[0])
    assert not torch.allclose(other, same)


def test_what_cannot_be_is_refused_with_the_reason():
    with pytest.raises(ConfigError, match="weight must be between 0 and 1"):
        sampled("ab2", weight=2.0)

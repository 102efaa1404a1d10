"""What every method should hold."""

import subprocess
import sys

import torch
from ditbench import methods
from ditbench.methods.registry import facts_of
from ditbench.methods.weights import randomise
from ditbench.methods.work import WorkLedger


def made() -> torch.nn.Module:
    """The model with lively weights: a fresh one may compute zeros."""
    model = methods.build("tiny-flow")
    randomise(model, seed=0)
    return model


def test_it_is_what_its_entry_says():
    assert made().facts == facts_of("tiny-flow", {})


def test_a_sample_does_not_depend_on_what_is_beside_it():
    model, z, labels = made(), torch.randn(3, 1, 8, 8), torch.tensor([1, 2, 3])
    how = {"sampler": {"name": "euler", "steps": 4}, "guidance": 1.5}
    together = methods.sample(model, noise=z, labels=labels, **how)
    alone = methods.sample(model, noise=z[1:2], labels=labels[1:2], **how)
    assert together.shape == z.shape and not torch.equal(together, z)
    torch.testing.assert_close(alone, together[1:2], rtol=1e-4, atol=1e-5)


def test_the_class_matters():
    model, z = made(), torch.randn(1, 1, 8, 8)
    how = {"sampler": {"name": "euler", "steps": 4}}
    a, b = (methods.sample(model, noise=z, labels=torch.tensor([label]), **how) for label in (3, 4))
    assert not torch.equal(a, b)


def test_every_call_is_recorded():
    ledger = WorkLedger()
    how = {"sampler": {"name": "euler", "steps": 4}, "guidance": 1.5}
    methods.sample(made(), noise=torch.randn(2, 1, 8, 8), labels=torch.tensor([1, 2]), ledger=ledger, **how)
    assert [entry.rows for entry in ledger.entries] == [4] * 4, "both branches of a guided step in one call"


def test_it_keeps_the_contract():
    command = [sys.executable, "-m", "ditbench", "check", "tiny-flow"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

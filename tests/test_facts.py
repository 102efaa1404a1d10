"""Facts of every shipped method: known without torch, and those of the model that is built."""

import json
import subprocess
import sys

import pytest
import torch

from ditbench import methods
from ditbench.methods.registry import facts_of, names

OTHER = [
    ("dit-s-2", {"input_size": 64, "num_classes": 3}),
    ("dit-s-2", {"in_channels": 3, "learn_sigma": False}),
    ("sit-s-2", {"flow": "cosine"}),
    ("dydit-s-2", {"activity": 0.5}),
    ("dysit-testing", {"activity": "published"}),
    ("flexidit-s-2", {"schedule": 0.6, "patch_sizes": [2, 4, 8]}),
]
LISTED = """
import json, sys
from ditbench.methods.registry import facts_of, names
for name, config in [*((name, {}) for name in names()), *json.loads(sys.argv[1])]:
    facts_of(name, config)
    assert "torch" not in sys.modules, name
"""


def test_facts_of_shipped_methods_are_known_without_torch():
    done = subprocess.run(
        [sys.executable, "-c", LISTED, json.dumps(OTHER)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("name", "config"), [*((name, {}) for name in names()), *OTHER], ids=str)
def test_the_model_that_is_built_is_what_was_planned_with(name, config):
    with torch.device("meta"):
        model = methods.build(name, **config)
    facts = facts_of(name, config)
    assert model.facts == facts and facts.predicts == model.process.predicts
    assert facts.imposed == ("activity" if "activity" in config else "")
    assert facts.space.shape == (model.in_channels, model.input_size, model.input_size)
    (labels,) = facts.conditions
    assert labels.count == model.num_classes and facts.guidable

"""What is registered. Does not import torch."""

from ditbench.methods.entries import MethodEntry, Shipped
from ditbench.methods.facts import ClassLabels, Facts
from ditbench.methods.space import Space

FACTS = Facts(Space(1, (8, 8)), conditions=(ClassLabels(10),))
TINY = MethodEntry(
    "ditbench_tiny.model:Tiny",
    "two layers on 8x8 digits",
    facts=FACTS,
    weights={
        "tiny": Shipped(
            "ditbench_tiny/weights/tiny.safetensors", "3c7e250d4c99eb2605388bd183c72bbc510b041664d6069dce8ebbd2828eec87"
        )
    },
)
NARROW = MethodEntry(
    "ditbench_tiny.model:Narrow",
    "the same on half of the channels at noisy timesteps",
    facts=FACTS,
    converter="ditbench_tiny.model:narrow_from",
    objective="ditbench_tiny.training:OBJECTIVE",
    weights={"absent": "ditbench_tiny/weights/absent.safetensors"},
)

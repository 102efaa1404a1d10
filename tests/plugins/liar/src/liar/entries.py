"""A method that declares less than it runs: ditbench must not believe it."""

from ditbench.methods.entries import MethodEntry

ENTRY = MethodEntry(
    target="liar.model:build",
    summary="a small DiT that leaves half of its MLPs out of what it declares",
    preset={"input_size": 8, "in_channels": 1, "num_classes": 10, "hidden_size": 32, "depth": 2, "num_heads": 2},
    facts="ditbench.methods.backbones.config:dit_facts",
)

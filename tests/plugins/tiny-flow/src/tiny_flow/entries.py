"""What ditbench reads before anything is built. Import no torch here: lists and plans stay quick."""

from ditbench.methods.entries import MethodEntry
from ditbench.methods.facts import ClassLabels, Facts
from ditbench.methods.space import Space

FACTS = Facts(
    space=Space(channels=1, size=(8, 8)),  # one sample; latents behind an autoencoder would say scale=8
    predicts="velocity",  # "noise", or "velocity" of a flow: decides which samplers fit
    conditions=(ClassLabels(10),),  # what it is told beside the time; () for nothing
    version="1",  # raise it when outputs or work change in ways that your sources do not show
)

ENTRY = MethodEntry(
    target="tiny_flow.model:build",
    summary="a small transformer for 8x8 digits that predicts velocity",
    preset={"width": 64, "depth": 4},
    facts=FACTS,  # or "tiny_flow.entries:facts", a function of the config, where the config decides
)

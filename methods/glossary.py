"""What readers of a report must know of each thing that a method may choose; stored beside the figures.

Free of torch. The harness copies these texts into records; the report shows them and knows no method.
"""

from __future__ import annotations

_WIDTH = """Timestep-wise dynamic width (TDW) switches attention heads and groups of MLP channels: the timestep alone
decides, for all samples alike, so that the weights can be sliced ahead."""
_SLICES = "slicing all weights that the cell's steps need"

# Name of a facet -> what it is.
ABOUT = {
    "attention heads": _WIDTH,
    "MLP channel groups": _WIDTH,
    "tokens": """Spatial-wise dynamic token (SDT) lets only some tokens pass the MLP: a router decides from their
content, so that it differs from sample to sample and nothing can be planned ahead.""",
    "patch size": """A flexible model cuts an image into finer or coarser patches. The pre-trained size is the powerful
one; a coarser size makes fewer tokens, and so a cheaper, weaker prediction. A schedule gives every sampling step its
size; its compute is the loop's counted MACs as a share of those of the same loop at the pre-trained size.""",
}

# Name of a facet -> what is made ahead, once, for all steps of a cell.
PREPARES = {
    "attention heads": _SLICES,
    "MLP channel groups": _SLICES,
    "patch size": "projecting kernels or merging LoRA updates for the patch sizes of the cell's steps",
}

# How the two branches of a guided step ran where their sequences have unequal lengths.
LAYOUTS = """Separate: a call for each branch. Padded, joined and packed put both branches into one call and mask
attention between sequences. The counted MACs are those of separate: the others execute more."""


def notes(facet: str) -> dict[str, str]:
    """``about`` and ``prepares`` of a facet, as far as there is something to say: part of its entry in a record."""
    found = {"about": ABOUT.get(facet), "prepares": PREPARES.get(facet)}
    return {key: plain(text) for key, text in found.items() if text is not None}


def plain(text: str) -> str:
    """On one line."""
    return " ".join(text.split())

"""What papers mean by a number of FLOPs, each as a pure function of what a flops record holds.

Ours: multiply-accumulates of one forward of one sequence as fvcore counts, layer norm 4 an element, routers counted.
The others are made of its parts; ``docs/published.md`` has the formulas and why each is believed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal

_PAPER_SHARE = "adaLN excluded, as in arXiv 2502.20126"
ROUTERS = ("token routers", "width routers")
NORM = 4  # what fvcore counts an element of a layer norm without affine parameters


class NotHeldError(ValueError):
    """The record lacks something that the convention needs."""


@dataclass(frozen=True)
class Count:
    """What a flops record says.

    params       parameters, positions those of them that are a fixed table of positions
    gmacs_step   GMACs of one forward of one sequence, mean over the steps
    gmacs_image  GMACs of all forwards of one image
    evaluations  steps of the loop, both branches of guidance as one
    guided       whether guidance runs a second sequence
    by_operator  GMACs of gmacs_step by operator class
    parts        overheads within gmacs_step
    shares       convention -> compute of a schedule as a share of the same loop at the pre-trained patch size
    """

    params: float
    gmacs_step: float
    gmacs_image: float
    evaluations: int
    guided: bool
    by_operator: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, float] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    positions: float | None = None

    def operator(self, name: str) -> float:
        """Raises NotHeldError."""
        if name not in self.by_operator:
            raise NotHeldError(f"the record does not hold the MACs of {name}")
        return self.by_operator[name]

    def without_norm(self, share: float) -> float:
        """gmacs_step with this share of its layer norm left out, which fvcore counts 4 times an element."""
        return self.gmacs_step - share * self.operator("layer_norm")


@dataclass(frozen=True)
class Convention:
    """``words``: for readers, short. ``counted``: in the unit of the figures. ``from_print``: the cell's activity was
    taken from the printed figure, so that only the rest of the count is checked."""

    words: str
    counted: Callable[[Count], float]
    from_print: bool = False


def _learned(count: Count) -> float:
    if count.positions is None:
        raise NotHeldError("the record does not hold the size of the table of positions")
    return (count.params - count.positions) / 1e6


def _routers_out(count: Count) -> float:
    return count.gmacs_step - sum(count.parts.get(name, 0.0) for name in ROUTERS)


def _operation_counter(count: Count) -> float:
    counted = count.without_norm((NORM - 2) / NORM) - count.operator("attention")
    return counted * count.evaluations / 1e3


def _flops_of_pairs(count: Count) -> float:
    if not count.guided:
        raise NotHeldError("the cell is not guided")
    return 2 * count.gmacs_image / 1e3


def _share(count: Count) -> float:
    if _PAPER_SHARE not in count.shares:
        raise NotHeldError("the record does not hold the share without adaLN")
    return 100 * count.shares[_PAPER_SHARE]


CONVENTIONS: dict[str, Convention] = {
    "parameters": Convention("parameters, less the fixed table of positions", _learned),
    "fvcore": Convention("MACs of a forward of one sequence, as fvcore counts", lambda count: count.gmacs_step),
    "norm-once": Convention(
        "MACs of a forward of one sequence, layer norm once an element (fvcore: 4 times)",
        lambda count: count.without_norm((NORM - 1) / NORM),
    ),
    "without-routers": Convention("fvcore's MACs, routers left out", _routers_out),
    "implied-share": Convention(
        "fvcore's MACs, routers left out; the blocks' share of work taken from the printed figure",
        _routers_out,
        from_print=True,
    ),
    "opcounter": Convention(
        "MACs of a whole loop of one sequence: no attention products, layer norm twice an element", _operation_counter
    ),
    "flops-of-pairs": Convention("FLOPs (2 a MAC) of a whole loop with guidance's two sequences", _flops_of_pairs),
    "without-adaln": Convention("MACs of the loop, adaLN and the embedding of time left out", _share),
}


def at_digits(value: float, printed: str, cut: bool = False) -> str:
    """``value`` with the digits of ``printed``: rounded, or ``cut`` off.

    >>> at_digits(5.5664, "5.56"), at_digits(5.5664, "5.56", cut=True)
    ('5.57', '5.56')
    """
    decimals = len(printed.partition(".")[2])
    if not cut:
        return f"{value:.{decimals}f}"
    # repr: 0.29 stays 0.29, where its binary value lies below
    return str(Decimal(repr(value)).quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_DOWN))


def implied_share(
    gflops: float, *, depth: int, width: int, side: int = 32, patch: int = 2, tokens: float | None = None
) -> float:
    """Share of the blocks' MHSA and MLP MACs that a printed DyDiT figure leaves: (printed - constant) / blocks.

    gflops  printed MACs of one forward in units of 1e9, without routers; side: of the latent (4 channels in, 8 out)
    tokens  share of tokens that pass the MLP and its layer norm; None: as ``activity`` chooses, √share

    ValueError where the figure is below the constant or above the full model.
    """
    length = (side // patch) ** 2
    blocks = depth * (12 * length * width**2 + 2 * length**2 * width)
    norm = NORM * length * width
    ends = side**2 * (4 + 8) * width + 2 * width**2 + 256 * width + width**2
    constant = depth * 6 * width**2 + ends + (depth + 1) * norm
    left = gflops * 1e9 - constant
    if tokens is not None:
        share = (left - depth * norm * tokens) / blocks
    else:
        # share · blocks + √share · norms = left
        norms = depth * norm
        share = ((math.sqrt(norms**2 + 4 * blocks * left) - norms) / (2 * blocks)) ** 2 if left > 0 else -1.0
    if not 0 < share <= 1:
        raise ValueError(f"{gflops} GFLOPs are no share in (0, 1] of this model's blocks, but {share:.4f}")
    return share

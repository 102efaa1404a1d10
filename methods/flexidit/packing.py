"""Two branches of unequal length in one guided step: four ways to run them, equal in output (arXiv 2502.20126, C.4).

separate  two calls, one a length: nothing is masked
padded    one call of 2B rows as long as a fine sequence; coarse ones are padded
joined    one call of B rows, each a fine and a coarse sequence behind each other
packed    one call of rows as long as a fine sequence; an additional row holds as many coarse ones as fit

The last three mask attention between sequences, so that they execute more than they use; what they save is calls.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ditbench.methods.backbones.layers import Packing
from ditbench.methods.call import Call
from ditbench.methods.flexidit.choices import Layout
from ditbench.methods.memory import BRANCHES
from ditbench.methods.plans import StepPlan

if TYPE_CHECKING:
    from ditbench.methods.flexidit.model import FlexiDiT

LAYOUTS = ("separate", "padded", "joined", "packed")
REPEATS = 5


@dataclass(frozen=True, eq=False)
class Arrangement:
    """Where the tokens of B fine and B coarse sequences lie. Places index the flat list of all tokens, fine ones
    first, with one empty token at its end.

    places    (rows, length): which token; sequence: (rows, length): whose, 0..2B−1, or 2B where empty
    fine      (B, N) and coarse (B, n): flat places in the rows
    """

    places: Tensor
    fine: Tensor
    coarse: Tensor
    packing: Packing


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # kept for calls that differentiate, whoever asks first
def arrange(layout: str, images: int, long: int, short: int, same_class: bool, device: str) -> Arrangement:
    """``images`` pairs of sequences of ``long`` and ``short`` tokens in a layout other than 'separate'.

    With ``same_class`` both branches of an image have one condition, else 2B conditions: fine ones first.
    """
    empty = images * (long + short)
    first = torch.arange(images * long).view(images, long)
    second = images * long + torch.arange(images * short).view(images, short)
    if layout == "padded":
        padding = torch.full((images, long - short), empty)
        places = torch.cat([first, torch.cat([second, padding], 1)])
    elif layout == "joined":
        places = torch.cat([first, second], 1)
    else:
        fit = long // short
        rows = -(-images // fit)
        packed = torch.full((rows * fit, short), empty)
        packed[:images] = second
        padding = torch.full((rows, long - fit * short), empty)
        places = torch.cat([first, torch.cat([packed.view(rows, fit * short), padding], 1)])
    owner = torch.cat(
        [torch.arange(images).repeat_interleave(long), images + torch.arange(images).repeat_interleave(short)]
    )
    sequence = torch.cat([owner, torch.tensor([2 * images])])[places]
    pattern = sequence[:1] if layout == "joined" else sequence
    condition = sequence % images if same_class else sequence.clamp(max=2 * images - 1)
    where = torch.empty(empty + 1, dtype=torch.long)
    where[places.flatten()] = torch.arange(places.numel())
    # a row with one condition has it once, not once a token; padding takes its row's
    alone = ((condition == condition[:, :1]) | (sequence == 2 * images)).all()
    to = torch.device(device)
    return Arrangement(
        places.to(to),
        where[first].to(to),
        where[second].to(to),
        Packing(
            (condition[:, 0] if alone else condition).to(to),
            (pattern[:, None, :, None] == pattern[:, None, None, :]).to(to),
        ),
    )


def run_pair(
    model: FlexiDiT,
    x: Tensor,
    t: Tensor,
    y: Tensor,
    y_guide: Tensor,
    call: Call,
    layout: str,
) -> tuple[Tensor, Tensor]:
    """See ``Denoiser.predict_pair``; the call has a plan."""
    plan = call.plan
    assert plan is not None, "only a plan makes branches differ"
    first, second = plan.branches
    if layout == "separate" or (model.timed and model.runs_beside(plan)):  # rows would share one row's mixture
        ours, theirs = call.at(first, BRANCHES[:1]), call.at(second, BRANCHES[1:])
        return model(x, t, y, call=ours), model(x, t, y_guide, call=theirs)
    large, small = model.size_of(first), model.size_of(second)
    fine, coarse = model.tokens_of(x, large), model.tokens_of(x, small)
    # whole numbers also where a tracer makes tensors of shapes, so that what is kept is found again
    images, long, short = int(x.shape[0]), int(fine.shape[1]), int(coarse.shape[1])
    same_class = y_guide is y
    arrangement = arrange(layout, images, long, short, same_class, str(x.device))
    c = model.condition(t, y)
    conditions = c if same_class else torch.cat([c, model.condition(t, y_guide)])
    rows = join(fine, coarse, arrangement)
    rows = model.through(rows, conditions, t, Call(plan), model.update_at(large), arrangement.packing)
    if call.ledger is not None:
        call.ledger.record(plan.having(Layout(layout, same_class)), rows=2 * images)
    flat = rows.flatten(0, 1)
    return (
        model.head_at(flat[arrangement.fine], conditions[:images], large),
        model.head_at(flat[arrangement.coarse], conditions[-images:], small),
    )


def join(fine: Tensor, coarse: Tensor, arrangement: Arrangement) -> Tensor:
    """(B, N, C) and (B, n, C) -> (rows, length, C)."""
    flat = torch.cat([fine.flatten(0, 1), coarse.flatten(0, 1), fine.new_zeros(1, fine.shape[2])])
    return flat[arrangement.places]


@torch.inference_mode()
def choose_layouts(
    model: FlexiDiT, plans: Sequence[StepPlan], images: int, same_class: bool
) -> dict[str, dict[str, float]]:
    """Time every layout for ``images`` images, in turns, unless ``model.layouts`` has it, and keep it there.

    Returns median milliseconds: 'patch 2, guidance 4' -> layout -> ms.
    """
    found: dict[str, dict[str, float]] = {}
    usable = LAYOUTS if model.config.shares_rows else LAYOUTS[:1]
    device = model.pos_embed.device
    space = model.facts.space
    for plan in {each.key: each for each in plans if each.guidance is not None}.values():
        patch, guide = (model.size_of(branch) for branch in plan.branches)
        key, name = (patch, guide, images, same_class), f"patch {patch}, guidance {guide}"
        if key in model.layouts:
            found[name] = model.layouts[key]
            continue
        x = torch.randn(images, *space.shape).to(model.pos_embed)
        t, y = torch.full((images,), plan.timestep, device=device), torch.zeros(images, dtype=torch.long, device=device)
        spent: dict[str, list[float]] = {layout: [] for layout in usable}
        for repeat in range(REPEATS + 1):
            for layout in usable:
                begin = _now(device)
                run_pair(model, x, t, y, y if same_class else y.clone(), Call(plan), layout)
                if repeat:  # the first is a warm-up
                    spent[layout].append((_now(device) - begin) * 1e3)
        model.layouts[key] = found[name] = {layout: median(values) for layout, values in spent.items()}
    return found


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()

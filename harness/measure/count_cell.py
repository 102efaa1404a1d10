"""Counting a cell: as it is planned or, where routers select tokens, as some samples of it ran."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ditbench.harness.measure.flops import FlopsResult, Step, count_steps, sum_up
from ditbench.harness.measure.options import FlopsOptions
from ditbench.harness.measure.proof import eager, prove_plans, prove_watched
from ditbench.harness.sample.generate import BoundCell, bind, bind_sampler, meta_model
from ditbench.harness.sample.quantise import quantise
from ditbench.harness.store.arrays import write_npz
from ditbench.harness.store.records import CellSpec
from ditbench.methods.diffusion.guidance import loop_plans
from ditbench.methods.modifiers import modified
from ditbench.methods.plans import StepPlan
from ditbench.methods.work import WorkEntry, WorkLedger

SHOWN_IMAGES, SHOWN_STEPS = 6, 5


def measure_flops(
    spec: CellSpec,
    weights: Path | None = None,
    options: FlopsOptions | None = None,
    folder: Path | None = None,
    prove: bool = True,
) -> FlopsResult:
    """Count a cell, and prove the count unless ``prove`` is false.

    On ``meta`` where weights do not matter or are random (routers are then open, or their verdicts imposed); with the
    real weights where routers decide; on ``options.samples`` samples where they select tokens, and where an adaptive
    solver chooses its evaluations. Token maps of some go to ``folder``. Raises what ``methods.build`` raises,
    and UncountedOperatorError.
    """
    model = modified(meta_model(spec), spec.modifiers)
    sampler, rule = bind_sampler(spec, model)
    if not sampler.adaptive and (weights is None or not model.needs_weights):
        plans = loop_plans(model, sampler, rule)
        proof = prove_plans(model, plans, rule) if prove else {}
        return replace(count_steps(model, plans, rule), proof=proof, routers_open=model.needs_weights)
    cell = bind(spec, weights)
    if not sampler.adaptive and not cell.model.data_decide:
        plans = cell.plans()
        proof = prove_plans(model, plans, rule) if prove else {}
        return replace(count_steps(cell.model, plans, rule), proof=proof)
    result = _watched(cell, options or FlopsOptions(), folder)
    return replace(result, proof=prove_watched(eager(cell, weights))) if prove else result


def _watched(cell: BoundCell, options: FlopsOptions, folder: Path | None) -> FlopsResult:
    """Make the cell's first ``options.samples`` samples, the ones that quality would see, and count them.

    Token maps of a few samples at a few timesteps are written to ``folder``/token_maps.npz, if it is given.
    """
    routed = cell.model.data_decide
    ledger = WorkLedger(keep_maps=routed)
    samples, labels = cell.generate(range(options.samples), ledger)
    calls = [list(entries) for _, entries in groupby(ledger.entries, key=lambda entry: entry.evaluation)]
    steps = [_step(entries, options.samples) for entries in calls]
    result = sum_up(cell.model, steps)
    extra: dict[str, Any] = {**result.extra, "probe": {"samples": options.samples}}
    if routed and folder is not None:
        path = folder / "token_maps.npz"
        write_npz(path, **_maps(ledger.entries, samples.cpu().numpy(), labels.cpu().numpy()))
        extra["token_maps"] = f"samples/{folder.name}/{path.name}"
    return replace(result, extra=extra)


def _step(entries: list[WorkEntry], images: int) -> Step:
    """One evaluation: one call, or one for each branch where their choices differ. Branches that shared a call are
    counted as two."""
    plan, plans, kept = entries[0].plan, list[StepPlan](), list[NDArray[np.int64]]()
    if len(entries) > 1:
        plan = replace(plan, guidance=entries[1].plan.choices)
    for entry in entries:
        rows = entry.rows // images
        plans += entry.plan.branches if entry.plan.guidance is not None else [entry.plan] * rows
        if entry.maps is not None:  # calls hold all conditional rows, then all others
            kept.append(entry.maps.sum(2).T.numpy().reshape(rows, images, -1).transpose(1, 0, 2))
    return Step(plan, tuple(plans), np.concatenate(kept, 1) if kept else None, entries[0].decided)


def _maps(entries: list[WorkEntry], samples: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """``images`` (n, H, W, C) uint8, ``labels``, ``timesteps`` (k,), ``kept`` (k, n, grid, grid): share of layers."""
    _, first = np.unique(labels, return_index=True)
    chosen = np.sort(first)[:SHOWN_IMAGES]
    places = np.unique(np.linspace(0, len(entries) - 1, SHOWN_STEPS).round().astype(int))
    kept = []
    for place in places:
        maps = entries[place].maps
        assert maps is not None
        shares = maps[:, torch.from_numpy(chosen)].float().mean(0).numpy()
        grid = round(shares.shape[1] ** 0.5)
        kept.append(shares.reshape(-1, grid, grid))
    return {
        "images": _pictures(samples[chosen]),
        "labels": labels[chosen],
        "timesteps": np.array([entries[place].plan.timestep for place in places]),
        "kept": np.stack(kept).astype(np.float32),
    }


def _pictures(samples: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(n, C, H, W) -> (n, H, W, 1 or 3) uint8. Pixels in [-1, 1] as they are; latents as their channels' mean."""
    if samples.shape[1] in (1, 3):
        return quantise(samples).transpose(0, 2, 3, 1)
    grey = samples.mean(1)
    low, high = grey.min((1, 2), keepdims=True), grey.max((1, 2), keepdims=True)
    pictures: NDArray[np.uint8] = (255 * (grey - low) / np.maximum(high - low, 1e-6)).round().astype(np.uint8)
    return pictures[..., None]

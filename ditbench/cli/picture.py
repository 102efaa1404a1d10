"""``sample``: a grid of samples as a PNG, enlarged smoothly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ditbench.cli.overrides import known_facts, parse_overrides, spec_of
from ditbench.harness.assets.locations import weights_path
from ditbench.harness.environment import resolve_threads
from ditbench.harness.errors import InputError, did_you_mean
from ditbench.harness.store.store import write_atomic
from ditbench.methods.registry import samplers
from ditbench.methods.zoo import manifest

BATCH = 50


def draw_samples(
    method: str,
    weights: str | None,
    sampler: str | None,
    steps: int,
    guidance: float,
    seed: int,
    rows: int,
    out: Path,
    settings: list[str],
) -> None:
    """Write ``rows`` pictures of each of the first ten classes. Raises InputError."""
    import torch

    from ditbench.harness.sample.generate import bind, checkpoint_problem
    from ditbench.harness.sample.quantise import quantise
    from ditbench.report.plots.samples import sample_grid

    if sampler is not None and sampler not in samplers():
        raise InputError(f"--sampler {sampler}: unknown{did_you_mean(sampler, samplers().names())}")
    torch.set_num_threads(resolve_threads(0))
    chosen = weights or (f"zoo:{method}" if method in manifest() else None)
    if chosen is None:
        raise InputError(f"{method} has no shipped weights: name a checkpoint with --weights")
    path = weights_path(chosen)
    sampler = sampler or ("ddpm" if known_facts(method, parse_overrides(settings)).predicts == "noise" else "heun")
    fields = {"steps": 0 if samplers()[sampler].adaptive else steps, "guidance_scale": guidance, "seed": seed}
    spec = spec_of(method, settings, sampler=sampler, **fields)
    if (problem := checkpoint_problem(spec, path)) is not None:
        raise InputError(problem.message)
    cell = bind(spec, path)
    classes = min(10, *(kind.count for kind in cell.model.facts.conditions), 10)
    kept: dict[int, list[NDArray[np.uint8]]] = {label: [] for label in range(classes)}
    start = 0
    with tqdm(total=rows * classes, unit="picture") as bar:
        while any(len(pictures) < rows for pictures in kept.values()):
            samples, labels = cell.generate(range(start, start + BATCH))
            start += BATCH
            for image, label in zip(quantise(samples.cpu().numpy()), labels.tolist(), strict=True):
                if len(kept.get(label, [None] * rows)) < rows:
                    kept[label].append(image.transpose(1, 2, 0))
                    bar.update()
    images = np.stack([image for pictures in kept.values() for image in pictures])
    grid = sample_grid(method, images, np.repeat(np.arange(classes), rows), None, most_rows=rows)
    write_atomic(out, grid.png)
    how = f"{spec.sampler}-{spec.steps}" if spec.steps else spec.sampler
    print(f"{out}: {classes} classes x {rows}, {how}, guidance {guidance:g}, seed {seed}")

"""``sample``: a grid of samples as a PNG, enlarged smoothly."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ditbench.overrides import spec_of
from harness.environment import resolve_threads
from harness.errors import InputError, did_you_mean
from harness.store.store import write_atomic
from harness.suite.weights import weights_path
from methods.registry import samplers
from methods.zoo import manifest

CELL_PIXELS = 64


def draw_samples(
    method: str,
    weights: str | None,
    sampler: str,
    steps: int,
    guidance: float,
    seed: int,
    rows: int,
    out: Path,
    settings: list[str],
) -> None:
    """Write ``rows`` pictures of each of the first ten classes. Raises InputError."""
    import torch

    from harness.quality.extractors.digits import quantise
    from harness.sample.generate import BoundCell, bind, bind_sampler, checkpoint_problem

    if sampler not in samplers():
        raise InputError(f"--sampler {sampler}: unknown{did_you_mean(sampler, samplers().names())}")
    torch.set_num_threads(resolve_threads(0))
    chosen = weights or (f"zoo:{method}" if method in manifest() else None)
    if chosen is None:
        raise InputError(f"{method} has no shipped weights: name a checkpoint with --weights")
    path = weights_path(chosen)
    spec = spec_of(method, settings, sampler=sampler, steps=steps, guidance_scale=guidance, seed=seed)
    spec = spec.model_copy(update={"sampler_options": {"clip": spec.method.endswith("digits")}})
    if (problem := checkpoint_problem(spec, path)) is not None:
        raise InputError(problem.message)
    cell: BoundCell = bind(spec, path)
    classes = min(10, cell.model.num_classes)
    found: dict[int, list[np.ndarray]] = {label: [] for label in range(classes)}
    bar, start = tqdm(total=rows * classes, unit="picture"), 0
    bound_sampler, rule = bind_sampler(spec)
    while any(len(pictures) < rows for pictures in found.values()):
        samples, labels = BoundCell(spec, cell.model, bound_sampler, rule).generate(range(start, start + 50))
        start += 50
        for image, label in zip(quantise(samples.cpu().numpy()), labels.tolist(), strict=True):
            if label in found and len(found[label]) < rows:
                found[label].append(image)
                bar.update()
    bar.close()
    columns = [np.concatenate([_enlarged(image) for image in found[label]], 0) for label in found]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(columns, 1)).save(buffer, "PNG")
    write_atomic(out, buffer.getvalue())
    print(f"{out}: {classes} classes x {rows}, {sampler}-{steps}, guidance {guidance:g}, seed {seed}")


def _enlarged(image: np.ndarray) -> np.ndarray:
    """(C, H, W) uint8 -> (64, 64) or (64, 64, 3), resampled with Lanczos."""
    array = image[0] if image.shape[0] < 3 else image[:3].transpose(1, 2, 0)
    return np.asarray(Image.fromarray(array).resize((CELL_PIXELS, CELL_PIXELS), Image.Resampling.LANCZOS))

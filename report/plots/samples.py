"""Sample grids: the same seeds in every cell, ten columns, misrecognised samples framed."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ditbench.report.plots.style import VERMILION
from ditbench.report.row import Row
from ditbench.report.run_view import RunView

COLUMNS = 10
MOST_ROWS = 4
TILE, LARGEST_TILE, MARGIN, FRAME = 40, 128, 3, 2


@dataclass(frozen=True)
class SampleGrid:
    """One cell's grid. ``shown`` samples, of which ``wrong`` are framed; ``by_class``: column = class."""

    cell: str
    png: bytes
    shown: int
    wrong: int | None
    by_class: bool


def sample_grids(view: RunView) -> tuple[SampleGrid, ...]:
    """Grids of all cells whose quality record names a preview that exists; cost-only cells have none."""
    grids = (_grid(view.folder, row) for row in view.rows if not row.spec.cost_only)
    return tuple(grid for grid in grids if grid is not None)


def _grid(folder: Path, row: Row) -> SampleGrid | None:
    name = row.detail("quality").get("preview")
    if not name or not (folder / name).is_file():
        return None
    try:
        with np.load(folder / name, allow_pickle=False) as stored:
            images, labels = stored["images"], stored["labels"]
            predicted = stored.get("predicted")
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None
    if images.ndim != 4 or not len(images):
        return None
    return sample_grid(row.cell, images, labels, predicted)


def sample_grid(
    cell: str, images: NDArray[Any], labels: NDArray[Any], predicted: NDArray[Any] | None, most_rows: int = MOST_ROWS
) -> SampleGrid:
    """A grid of uint8 images (n, H, W, C), enlarged smoothly; where ``predicted`` differs from ``labels``, framed."""
    places, by_class = _places(labels, most_rows)
    wrong = None if predicted is None else [int(i) for i in places if predicted[i] != labels[i]]
    canvas = _canvas(images, places, set(wrong or ()))
    stream = io.BytesIO()
    canvas.save(stream, format="PNG", optimize=False)
    return SampleGrid(cell, stream.getvalue(), len(places), None if wrong is None else len(wrong), by_class)


def _places(labels: NDArray[Any], most_rows: int) -> tuple[dict[int, tuple[int, int]], bool]:
    """sample -> (row, column). Up to ten classes: a column each, else the samples in their own order."""
    by_class = len(np.unique(labels)) > 1 and int(labels.min()) >= 0 and int(labels.max()) < COLUMNS
    places: dict[int, tuple[int, int]] = {}
    filled = [0] * COLUMNS
    for index, label in enumerate(labels):
        column = int(label) if by_class else index % COLUMNS
        if filled[column] < most_rows:
            places[index] = (filled[column], column)
            filled[column] += 1
    return places, by_class


def _canvas(images: NDArray[Any], places: dict[int, tuple[int, int]], wrong: set[int]) -> Image.Image:
    tile = max(TILE, min(images.shape[1], LARGEST_TILE))
    pitch = tile + 2 * MARGIN
    rows = 1 + max(row for row, _ in places.values())
    canvas = Image.new("RGB", (COLUMNS * pitch, rows * pitch), "white")
    for index, (row, column) in places.items():
        left, top = column * pitch, row * pitch
        if index in wrong:
            outer = (
                left + MARGIN - FRAME,
                top + MARGIN - FRAME,
                left + MARGIN + tile + FRAME,
                top + MARGIN + tile + FRAME,
            )
            canvas.paste(VERMILION, outer)
        canvas.paste(_tile(images[index], tile), (left + MARGIN, top + MARGIN))
    return canvas


def _tile(pixels: NDArray[Any], size: int) -> Image.Image:
    channels = pixels.shape[2]
    picture = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if channels == 1 else pixels[..., :3]))
    return picture.resize((size, size), Image.Resampling.LANCZOS).convert("RGB")

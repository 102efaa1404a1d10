"""Which tokens pass the MLP: finished samples with the share of layers that kept each token, by timestep."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from ditbench.report.plots.style import OPEN, PAGE_WIDTH, Picture, picture, styled
from ditbench.report.row import Row
from ditbench.report.run_view import RunView

PREFIX = "token_maps-"
MOST_CELLS, MOST_SAMPLES, MOST_STEPS = 3, 6, 8
_LARGEST_TILE = 0.58  # inches; two figures fit a page
_PIXELS = 128
_IMAGE = 0.2  # how much of the image shows through the colour


@dataclass(frozen=True)
class TokenMaps:
    """``images`` (n, H, W, C) uint8, ``labels`` (n,), ``timesteps`` (k,), ``kept`` (k, n, rows, columns) in 0..1."""

    images: NDArray[Any]
    labels: NDArray[Any]
    timesteps: NDArray[Any]
    kept: NDArray[Any]


def token_map_pictures(view: RunView) -> tuple[Picture, ...]:
    """One figure a cell with readable maps, at most three; cost-only cells, whose samples mean nothing, have none."""
    found = [
        (row, maps) for row in view.rows if not row.spec.cost_only and (maps := _read(view.folder, row)) is not None
    ]
    left_out = [row.cell for row, _ in found[MOST_CELLS:]]
    shown = found[:MOST_CELLS]
    return tuple(
        _picture(row, maps, left_out if place == len(shown) - 1 else []) for place, (row, maps) in enumerate(shown)
    )


def _read(folder: Path, row: Row) -> TokenMaps | None:
    name = row.detail("flops").get("token_maps")
    if not name or not (folder / name).is_file():
        return None
    try:
        with np.load(folder / name, allow_pickle=False) as stored:
            maps = TokenMaps(stored["images"], stored["labels"], stored["timesteps"], stored["kept"])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None
    count = len(maps.images)
    shaped = maps.images.ndim == 4 and maps.kept.ndim == 4 and len(maps.labels) == count
    fits = shaped and maps.kept.shape[:2] == (len(maps.timesteps), count)
    return maps if fits and count and len(maps.timesteps) else None


def _picture(row: Row, maps: TokenMaps, left_out: list[str]) -> Picture:
    samples = _samples(maps.labels)
    steps = _steps(len(maps.timesteps))
    columns = 1 + len(steps)
    tile = min(_LARGEST_TILE, (PAGE_WIDTH - 0.1) / columns)
    head, foot, title = 0.3, 0.42, 0.2
    # A few columns must still leave room for the cell's name.
    width = max(columns * tile + 0.1, 3.6)
    height = title + head + len(samples) * tile + foot
    with styled():
        figure = Figure(figsize=(width, height))
        left = (width - columns * tile) / 2 / width
        axes = figure.add_axes((left, foot / height, columns * tile / width, len(samples) * tile / height))
        _draw(axes, maps, samples, steps)
        shares = (f"t = {maps.timesteps[step]:.4g}\n{100 * maps.kept[step].mean():.0f} %" for step in steps)
        words = ["image", *shares]
        for place, text in enumerate(words):
            axes.annotate(
                text,
                ((place + 0.5) / columns, 1.0),
                xycoords="axes fraction",
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=6.5,
                linespacing=1.15,
            )
        figure.text(left + 0.03 / width, 1 - 0.1 / height, row.cell, va="center", fontsize=7, weight="bold")
        _bar(figure, width, height, left)
        return picture(figure, f"{PREFIX}{row.cell}", _caption(row, maps, samples, steps, left_out), _alt(row, maps))


def _samples(labels: NDArray[Any]) -> list[int]:
    """Up to six samples, every class once before any comes twice."""
    firsts = [int(index) for index in sorted(np.unique(labels, return_index=True)[1])]
    others = [index for index in range(len(labels)) if index not in set(firsts)]
    return sorted([*firsts, *others][:MOST_SAMPLES])


def _steps(count: int) -> list[int]:
    """All stored timesteps, or evenly chosen ones with the first and the last."""
    if count <= MOST_STEPS:
        return list(range(count))
    return [round(place * (count - 1) / (MOST_STEPS - 1)) for place in range(MOST_STEPS)]


def _draw(axes: Axes, maps: TokenMaps, samples: list[int], steps: list[int]) -> None:
    margin = 4
    pitch = _PIXELS + 2 * margin
    canvas = np.ones((len(samples) * pitch, (1 + len(steps)) * pitch, 3))
    for line, sample in enumerate(samples):
        image = _enlarged(maps.images[sample])
        tiles = [image, *(_overlaid(image, maps.kept[step, sample]) for step in steps)]
        for place, tile in enumerate(tiles):
            top, left = line * pitch + margin, place * pitch + margin
            canvas[top : top + _PIXELS, left : left + _PIXELS] = tile
    axes.imshow((255 * canvas).round().astype(np.uint8), interpolation="none", aspect="auto")
    axes.set_axis_off()


def _enlarged(pixels: NDArray[Any]) -> NDArray[Any]:
    """A sample as RGB in 0..1, enlarged smoothly to the tile's size."""
    shown = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3])
    tile = Image.fromarray(shown).resize((_PIXELS, _PIXELS), Image.Resampling.LANCZOS).convert("RGB")
    return np.asarray(tile, dtype=np.float64) / 255


def _overlaid(image: NDArray[Any], kept: NDArray[Any]) -> NDArray[Any]:
    """The kept share as colour, with sharp edges between the tokens, and the image in grey through it."""
    rows = np.arange(_PIXELS) * kept.shape[0] // _PIXELS
    columns = np.arange(_PIXELS) * kept.shape[1] // _PIXELS
    colours = OPEN(np.clip(kept.astype(np.float64), 0.0, 1.0))[..., :3][rows][:, columns]
    mixed: NDArray[np.float64] = (1 - _IMAGE) * colours + _IMAGE * image.mean(axis=2, keepdims=True)
    return mixed


def _bar(figure: Figure, width: float, height: float, left: float) -> None:
    """The colours as they are over a middle grey."""
    over_grey = (1 - _IMAGE) * OPEN(np.linspace(0, 1, 256))[:, :3] + _IMAGE * 0.5
    colours = ListedColormap(over_grey)
    bar = figure.add_axes((left + 1.75 / width, 0.22 / height, 1.3 / width, 0.09 / height))
    scale = figure.colorbar(ScalarMappable(Normalize(0, 100), colours), cax=bar, orientation="horizontal")
    scale.set_ticks([0, 50, 100], labels=["0 %", "50 %", "100 %"])
    scale.ax.tick_params(length=2, pad=1.5)
    scale.outline.set_linewidth(0.5)  # type: ignore[operator]
    figure.text(left + 0.03 / width, 0.265 / height, "layers that keep the token", fontsize=7, va="center")


def _caption(row: Row, maps: TokenMaps, samples: list[int], steps: list[int], left_out: list[str]) -> str:
    caption = (
        f"Tokens that pass the MLP, {row.cell}: {len(samples)} finished samples, and for each timestep the share of "
        f"layers that kept the token at its place. Numbers: the timestep and the mean kept share of "
        f"{len(maps.images)} samples."
    )
    if len(steps) < len(maps.timesteps):
        caption += f" {len(steps)} of {len(maps.timesteps)} stored timesteps are shown."
    return caption + (f" Not drawn: the maps of {', '.join(left_out)}." if left_out else "")


def _alt(row: Row, maps: TokenMaps) -> str:
    shares = ", ".join(
        f"t = {float(t):.4g}: {100 * float(kept.mean()):.0f} %"
        for t, kept in zip(maps.timesteps, maps.kept, strict=True)
    )
    return f"Token maps of {row.cell}; mean kept share {shares}."

"""How much memory a full-size scoring takes: 50,000 pictures of 256x256 from one npz, every metric of the adm protocol.

    python -m studies.large_set [--images 50000] [--folder DIR]

Writes the npz (9.8 GB at full size) and a reference of 10,000 features, scores the one against the other through the
code that `ditbench score` runs, prints the figures with the seconds of each stage, and the peak resident memory of the
process. The extractor is a small random network with the widths of the 2015 Inception (2048, 2023, 1008), because that
takes minutes where Inception takes hours; Inception's own 0.1 GB of weights and its activations come on top.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ditbench.harness.quality.features import collect
from ditbench.harness.quality.figures import figures
from ditbench.harness.quality.images.export import write_images_npz
from ditbench.harness.quality.images.source import open_images
from ditbench.harness.quality.reference import Reference, moments_of

SIDE = 256


class SmallNetwork:
    """A random network with Inception's widths: pixels averaged to 16x16, one random layer, ReLU."""

    name, sha256, resize = "small random network", "0" * 64, "average to 16x16"
    dims: Mapping[str, int] = {"features": 2048, "spatial": 2023, "logits": 1008}

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self._weights = torch.randn(16 * 16 * 3, sum(self.dims.values()), generator=generator) / 28

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        small = torch.nn.functional.avg_pool2d(images.permute(0, 3, 1, 2).float() / 255, images.shape[1] // 16)
        found = (small.flatten(1) @ self._weights).relu()
        return dict(zip(self.dims, found.split(list(self.dims.values()), dim=1), strict=True))


class MadePictures:
    """``count`` pictures of coloured blocks and noise, made as they are read."""

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed = count, seed

    name, shape = "made pictures", (SIDE, SIDE, 3)

    def __len__(self) -> int:
        return self._count

    def batches(self, size: int, limit: int | None = None) -> Iterator[NDArray[np.uint8]]:
        rng = np.random.default_rng(self._seed)
        count = limit or self._count
        for start in range(0, count, size):
            blocks = rng.integers(0, 224, (min(size, count - start), 16, 16, 3), dtype=np.uint8)
            whole = blocks.repeat(SIDE // 16, axis=1).repeat(SIDE // 16, axis=2)
            yield whole + rng.integers(0, 32, (1, SIDE, SIDE, 3), dtype=np.uint8)


def measure(images: int, folder: Path) -> None:
    """Make, score, print."""
    begin = time.monotonic()
    path = folder / "pictures.npz"
    write_images_npz(MadePictures(images, seed=1), path)
    print(f"{path.stat().st_size / 1e9:.1f} GB npz of {images:,} pictures written, {_since(begin)}")
    network = SmallNetwork()
    real = collect(MadePictures(10_000, seed=2), network, count=10_000, batch=100)
    reference = Reference(
        moments_of(real, "features"), moments_of(real, "spatial"), real.arrays["features"], "", real.count
    )
    del real
    print(f"reference of 10,000 pictures made, {_since(begin)}; peak so far {_peak():.2f} GB")
    found = collect(open_images(path), network, count=images, batch=100, progress=_shown("features"))
    print(f"features and statistics of {images:,} pictures, {_since(begin)}; peak so far {_peak():.2f} GB")
    scored = figures(found, reference, published=True, progress=_shown("figures"))
    for name, estimate in scored.values.items():
        print(f"  {name:<18} {estimate.value:.6g}  ({estimate.method})")
    print(f"all figures, {_since(begin)}; peak resident memory {_peak():.2f} GB")


def _shown(name: str) -> Callable[[int, int], None]:
    from tqdm import tqdm

    bar = tqdm(desc=name, mininterval=10, leave=False)

    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return progress


def _since(begin: float) -> str:
    return f"{time.monotonic() - begin:.0f} s"


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description="memory of a full-size scoring")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--folder", type=Path, default=None, help="where the npz is written and deleted again")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        measure(chosen.images, Path(folder))


if __name__ == "__main__":
    main()

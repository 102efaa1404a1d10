"""``score``, ``reference`` and ``export``: images in files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ditbench.harness.errors import InputError, did_you_mean
from ditbench.harness.store.store import RunStore

TITLES = {
    "frechet": "Fréchet distance",
    "frechet_infinity": "its limit for infinitely many samples",
    "sfid": "sFID",
    "inception_score": "inception score",
    "kid": "KID",
    "rbf_mmd": "Gaussian-kernel distance",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
}


def show_score(
    source: Path,
    protocol: str,
    reference: str | None,
    samples: int | None,
    device: str,
    batch: int,
    cache: Path | None,
    as_json: bool,
) -> None:
    """Score a folder or npz and print the figures, each with its interval. Raises InputError."""
    from ditbench.harness.quality.score import score_images

    _check_device(device)
    with _bars() as stage:
        scored = score_images(
            source, protocol, reference, samples=samples, batch=batch, device=device, cache=cache, stage=stage
        )
    if as_json:
        values = {name: quantity.model_dump() for name, quantity in scored.values.items()}
        print(
            json.dumps(
                {
                    "source": scored.source,
                    "samples": scored.samples,
                    "protocol": scored.protocol,
                    "values": values,
                    "not_available": scored.missing,
                    "detail": scored.detail,
                },
                indent=1,
            )
        )
        return
    about = scored.detail["protocol"]
    count = scored.detail["reference_samples"]
    of = f" ({count:,} images)" if count else ""
    print(f"{scored.source}: {scored.samples:,} images against {about['reference']}{of}")
    print(f"protocol {scored.protocol}: {about['extractor']}; {about['resize']}")
    for name, quantity in scored.values.items():
        why = quantity.interval.removeprefix("no interval: ")
        bounds = f"(no interval: {why})"
        if quantity.low is not None and quantity.high is not None:
            bounds = f"[{quantity.low:.5g}, {quantity.high:.5g}]"
        print(f"  {TITLES[name]:<38} {quantity.value:>10.5g}  {bounds}")
    for name, why in scored.missing.items():
        print(f"  {TITLES[name]:<38} {'–':>10}  not available: {why}")


def make_reference_file(
    source: str, out: Path, protocol: str, samples: int | None, device: str, batch: int, cache: Path | None
) -> None:
    """Write reference statistics of a data set, folder or npz, and the lines for ``ditbench.toml``."""
    from ditbench.harness.quality.build import build_extractor_of
    from ditbench.harness.quality.features import FeatureCache
    from ditbench.harness.quality.reference import make_reference

    _check_device(device)
    if out.suffix != ".npz":
        raise InputError(f"--out {out}: reference statistics are an .npz file")
    images = _images_of(source)
    count = samples or len(images)
    if len(images) < count:
        raise InputError(f"{source} holds {len(images):,} images, {count:,} are asked for")
    extractor = build_extractor_of(protocol, device)
    kept = FeatureCache(cache) if cache else None
    with _bars() as stage:
        digest = make_reference(
            images, out, extractor, protocol=protocol, count=count, batch=batch, cache=kept, progress=stage("features")
        )
    print(f"{out}: {count:,} images of {source}, protocol {protocol}")
    print(f'[references.{out.stem}]\npath = "{out.absolute()}"\nsha256 = "{digest}"')


def export_samples(run: Path, cell: str, out: Path, samples: int | None) -> None:
    """Write a cell's samples, decoded if it has a decoder, as ADM's npz (``out`` ends in .npz) or as a folder of PNG
    files. Raises InputError."""
    from ditbench.harness.quality.evaluate import SeedBlock
    from ditbench.harness.quality.images.export import write_images_npz, write_png_folder
    from ditbench.harness.sample.making import existing_shards
    from ditbench.harness.store.identity import samples_identity

    store = RunStore(run)
    cells = store.cells()
    if cell not in cells:
        known = f" ({', '.join(cells)})"
        raise InputError(f"{run} has no cell {cell!r}{did_you_mean(cell, cells) or known}")
    record = cells[cell].get("quality")
    if record is None or record.status != "ok":
        raise InputError(f"{run}: cell {cell} has no quality measurement, so no samples are kept")
    count, size = samples or int(record.options["samples"]), int(record.options["shard"])
    folder = store.samples_folder(samples_identity(record.spec, size, record.provenance.versions["torch"]))
    shards = existing_shards(folder, count, size)
    if shards is None:
        raise InputError(f"{folder} does not hold {count:,} samples: committed results keep none; run the suite again")
    pictures = None
    if record.spec.decoder is not None:
        from ditbench.harness.sample.shards import decoded_folder

        pictures = [decoded_folder(folder, record.spec.decoder) / shard.name for shard in shards]
        if missing := [path for path in pictures if not path.is_file()]:
            raise InputError(f"{missing[0]} is not there: not all latents are decoded; run the suite again")
    images = SeedBlock(record.spec.seed, shards, pictures).images(count)
    with _bars() as stage:
        write = write_images_npz if out.suffix == ".npz" else write_png_folder
        write(images, out, count, stage("images"))
    print(f"{out}: {count:,} images of {cell}")


def _images_of(source: str) -> Any:
    """A data set by its name, else a file or folder."""
    import numpy as np

    from ditbench.harness.quality.images.source import ArrayImages, open_images
    from ditbench.harness.sample.quantise import quantise
    from ditbench.methods.registry import datasets

    known = datasets()
    if source in known and not Path(source).exists():
        images = quantise(known[source].load()().images.numpy()).transpose(0, 2, 3, 1)
        return ArrayImages(np.ascontiguousarray(images), source)
    if not Path(source).exists():
        hint = did_you_mean(source, known.names()) or f" ({', '.join(known.names())})"
        raise InputError(f"{source!r} is neither a data set nor a file or folder{hint}")
    return open_images(Path(source))


def _check_device(device: str) -> None:
    if device not in ("cpu", "cuda"):
        raise InputError(f"--device {device}: cpu or cuda")
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise InputError("--device cuda: this machine's torch sees no GPU")


@contextmanager
def _bars() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Name of a stage -> its progress callback, each a bar of its own."""
    bars: dict[str, tqdm[Any]] = {}

    def stage(name: str) -> Callable[[int, int], None]:
        def progress(done: int, total: int) -> None:
            if name not in bars:
                bars[name] = tqdm(total=total, desc=name, file=sys.stderr, leave=False)
            bars[name].update(done - bars[name].n)

        return progress

    try:
        yield stage
    finally:
        for bar in bars.values():
            bar.close()

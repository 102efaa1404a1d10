"""Small stand-ins for every file that suite imagenet256 waits for: its whole road in minutes.

    python -m studies.dry_road DIR
    DITBENCH_CONFIG=DIR/ditbench.toml ditbench run imagenet256 --device cpu --limit 40 --out runs/dry

Weights are random, of two blocks of width 32 on 64 tokens, under the published names and in the published layouts; so
are the autoencoder's and Inception's. The reference is made of generated pictures. Figures therefore mean nothing: the
road is what is tried. With the real files named in ditbench.toml the same command is the real run: on a GPU without
--device cpu, and in full without --limit.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ditbench import methods
from ditbench.harness.assets import KNOWN, KnownAsset
from ditbench.harness.assets.config import table_header
from ditbench.harness.assets.digests import content_digest
from ditbench.harness.quality.extractors.inception import adm_inception
from ditbench.harness.quality.features import collect
from ditbench.harness.quality.images.source import ArrayImages
from ditbench.harness.quality.reference import moments_of
from ditbench.harness.store.arrays import write_npz
from ditbench.methods.latent.autoencoder import make_autoencoder_files
from ditbench.methods.weights import randomise
from studies.stand_ins import pictures, write_inception

SUITE = "imagenet256"
SHAPE = {"patch_size": 4, "depth": 2, "hidden_size": 32, "num_heads": 2}  # 64 tokens: 250 steps in seconds
PICTURES = 64
SIDE = 256


def write_stand_ins(folder: Path) -> Path:
    """Write every file and the ``ditbench.toml`` that names them; returns the latter. Takes about a minute."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = []
    for seed, known in enumerate(waited_for()):
        path = folder / known.file_name
        if known.method:
            write_model(path, known, seed)
        else:
            make_autoencoder_files(path, seed)
        tables.append(_table(known, content_digest(path), SHAPE if known.method else {}))
    inception = write_inception(folder / KNOWN["inception-2015"].file_name)
    digest = content_digest(inception)
    tables.append(_table(KNOWN["inception-2015"], digest))
    reference = KNOWN["imagenet-256"]
    tables.append(_table(reference, write_reference(folder / reference.file_name, inception, digest)))
    config = folder / "ditbench.toml"
    config.write_text("# Stand-ins to try the road with; figures made with them mean nothing.\n\n" + "\n".join(tables))
    return config


def waited_for() -> list[KnownAsset]:
    """The weights that the suite waits for."""
    return [known for known in KNOWN.values() if known.kind == "weights" and SUITE in " ".join(known.waits)]


def write_model(path: Path, known: KnownAsset, seed: int, always_on: bool = True) -> None:
    """Random weights of ``SHAPE`` as the public file has them: DiT's and SiT's as a bare state dict, DyDiT's as a
    training checkpoint with its optimiser and arguments. ``always_on``: DyDiT's router format of 2025."""
    config = {**known.config, **SHAPE}
    dynamic = known.method.startswith("dydit")
    model = methods.build(known.method, **config, **({"always_on": always_on} if dynamic else {}))
    randomise(model, seed)
    if not dynamic:
        torch.save(model.state_dict(), path)
        return
    _unsettle(model, seed)
    arguments = argparse.Namespace(model="DiT-XL/2", global_batch_size=256, lr=1e-4, warmup=False, data_path=None)
    states = {"model": methods.build(known.method, **config).state_dict(), "ema": model.state_dict()}
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4).state_dict()
    torch.save({**states, "opt": optimiser, "args": arguments}, path)


def write_reference(path: Path, inception: Path, digest: str) -> str:
    """Statistics and pictures in the layout of ADM's file, of ``PICTURES`` generated pictures. Returns its SHA-256."""
    images = pictures(PICTURES, SIDE, SIDE, seed=1).numpy()
    extractor = adm_inception(inception, digest, "cpu")
    found = collect(ArrayImages(images, path.name), extractor, count=PICTURES, batch=8)
    features, spatial = moments_of(found, "features"), moments_of(found, "spatial")
    return write_npz(
        path,
        mu=features.mean,
        sigma=features.covariance,
        mu_s=spatial.mean,
        sigma_s=spatial.covariance,
        arr_0=np.ascontiguousarray(images),
    )


def _unsettle(model: nn.Module, seed: int) -> None:
    """Router verdicts that differ over steps, blocks and tokens, in place of routers that are all open."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "_rate.router." in name or ".token_selection." in name:
                value.normal_(0.0, 0.5 if name.endswith("weight") else 0.02, generator=generator)


def _table(known: KnownAsset, digest: str, shape: Mapping[str, int] | None = None) -> str:
    header = table_header(known.table, known.name)
    lines = [header, f"path = {json.dumps(known.file_name)}", f'sha256 = "{digest}"']
    if shape:
        lines += [f"{header[:-1]}.config]", *(f"{name} = {value}" for name, value in shape.items())]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="stand-ins for every file that suite imagenet256 waits for")
    parser.add_argument("folder", type=Path, help="where they are written: about 0.2 GB")
    config = write_stand_ins(parser.parse_args().folder)
    print(f"DITBENCH_CONFIG={config} ditbench run {SUITE} --device cpu --limit 40 --out runs/dry")


if __name__ == "__main__":
    main()

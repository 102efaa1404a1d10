"""Folders of a tiny autoencoder, changed as a test needs, and latents for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ditbench.harness.errors import InputError
from ditbench.harness.store.records import CellSpec, DecoderSpec, Provenance, Quantity, Record

WEIGHTS = "diffusion_pytorch_model.safetensors"


def latents(count: int = 2, side: int = 8, width: int | None = None, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 4, side, width or side, generator=torch.Generator().manual_seed(seed))


def copied(source: Path, folder: Path, change: Callable[[dict[str, Any]], object] = lambda config: None) -> Path:
    """The autoencoder's folder again, with ``change`` made to its config."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes((source / WEIGHTS).read_bytes())
    config = json.loads((source / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def rewritten(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    state = load_file(folder / WEIGHTS)
    change(state)
    save_file(state, folder / WEIGHTS)
    return folder


def with_value(name: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda found: found.update({name: value})


BIAS = "decoder.conv_out.bias"


def fault(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def latent_record(measurement: str, values: dict[str, Quantity], detail: dict[str, Any], cell: str = "a") -> Record:
    return Record(
        identity=f"{measurement}-{cell}",
        suite="s",
        spec=CellSpec(cell=cell, method="dit-s-2", sampler="ddim", steps=2, decoder=DecoderSpec(tile=32)),
        measurement=measurement,
        options={"samples": 15, "shard": 5},
        status="ok",
        values=values,
        detail=detail,
        provenance=Provenance(
            command="",
            started="2026-01-01T00:00:00Z",
            seconds=1.0,
            seed=0,
            device="cpu",
            device_name="CPU",
            threads=1,
            versions={"torch": "2"},
            git=None,
            weights_sha256=None,
        ),
    )

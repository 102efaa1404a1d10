"""Whether weights that the user brought are those of the model that they are named for. ``doctor`` asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ditbench.harness.assets import KNOWN, AssetStatus
from ditbench.harness.assets.locations import ASSET, asset_config


def compared(found: AssetStatus) -> AssetStatus:
    """The status of weights that are there with what their tensors' names and shapes tell: a hint 'fits dit-xl-2', or
    the state 'wrong' and why.

    Unchanged where that would read gigabytes, or cannot be told because software is missing.
    """
    if found.kind != "weights" or found.path is None or found.state not in ("present", "unpinned"):
        return found
    from ditbench.methods.errors import CheckpointError, ConfigError

    known = KNOWN[found.name]
    try:
        config = {**known.config, **asset_config(ASSET + found.name)}
        method = known.method + "".join(f" {name}={value}" for name, value in config.items())
        told = _autoencoder(found.path) if known.folder else _model(known.method, config, found.path)
    except (CheckpointError, ConfigError) as error:
        return replace(found, state="wrong", hint=str(error))
    except ImportError:  # a row of its own tells it
        return found
    if told is None:
        return found
    if told:
        return replace(found, state="wrong", hint=f"does not fit {method}: {told}")
    fits = f"fits {method}" if method else "fits an AutoencoderKL"
    return replace(found, hint="; ".join(filter(None, [fits, found.hint])))


def _model(method: str, config: Mapping[str, Any], path: Path) -> str | None:
    """'' if the weights fit, else why not; None where the whole file would have to be read to tell."""
    import torch

    from ditbench import methods
    from ditbench.methods.loading import checkpoint_mismatch
    from ditbench.methods.weights import is_mapped, readable

    if not is_mapped(readable(path)):
        return None
    with torch.device("meta"):
        model = methods.build(method, **config)
    return checkpoint_mismatch(model, path) or ""


def _autoencoder(path: Path) -> str | None:
    from ditbench.methods.errors import ConfigError
    from ditbench.methods.latent.autoencoder import load_decoder

    try:
        load_decoder(path)
    except ConfigError:
        return None
    return ""

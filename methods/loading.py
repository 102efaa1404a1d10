"""Checkpoints into models: of all weights, or of adapters on a base; and whether one fits, told without loading it."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from torch import nn

from ditbench.methods.errors import CheckpointError
from ditbench.methods.lora.files import adapter_mismatch, load_adapter, read_origin
from ditbench.methods.recognise import described, shape_of
from ditbench.methods.weights import State, load_whole, mismatch, read_shapes, read_state, sha256_file


def checkpoint_mismatch(model: nn.Module, path: str | PathLike[str]) -> str | None:
    """One line that says why a checkpoint file, of all weights or of adapters, does not fit ``model``, which may be on
    ``meta``, and what it would fit as far as that can be told; None if it fits. Of adapters the base is looked up and
    checked too. Reads names and shapes only. Raises CheckpointError for a file that cannot be read."""
    state = read_shapes(path)
    if (origin := read_origin(path)) is not None:
        return adapter_mismatch(model, Path(path), origin, state)
    if (problem := mismatch(model, state)) is None:
        return None
    return f"{problem}; {described(state)}" if shape_of(model.state_dict()) or shape_of(state) else problem


def load_into(
    model: nn.Module, source: State | str | PathLike[str], base: str | PathLike[str] | None = None
) -> nn.Module:
    """See ``ditbench.methods.load_weights``."""
    if isinstance(source, Mapping):
        state, label, digest = source, "state dict", None
    else:
        state, label, digest = read_state(source), str(source), sha256_file(source)
        if (origin := read_origin(source)) is not None:
            load_adapter(model, Path(source), origin, state, None if base is None else Path(base))
            model.weights_sha256 = digest  # type: ignore[assignment]
            return model
    if base is not None:
        raise CheckpointError(f"{label} holds all weights, not adapters of a base: give no base")
    return load_whole(model, state, label, digest)

"""Which registered method a checkpoint would fit, told from the names and shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

import torch

from ditbench.methods.entries import MethodEntry
from ditbench.methods.errors import ConfigError
from ditbench.methods.registry import methods as registered
from ditbench.methods.weights import mismatch

Shapes = Mapping[str, Any]
"""Name -> anything with a shape."""


def described(shapes: Shapes) -> str:
    """One clause on what a DiT was offered, as in 'it holds 156 tensors of width 768, depth 12, and would fit dit-b-2
    or sit-b-2'."""
    found = shape_of(shapes)
    if not found:
        if any(name.startswith(("transformer_blocks.", "transformer.")) for name in shapes):
            return "it has the names of diffusers or of another project, not those of the public DiT checkpoints"
        return f"its {len(shapes)} tensors are not those of a DiT"
    size = f"it holds {len(shapes)} tensors of width {found['hidden_size']}, depth {found['depth']}"
    fitting = fits(shapes)
    if not fitting:
        return f"{size}, and would fit no method of this size"
    config = fitting[0][1]
    with_config = f" with config {', '.join(f'{name}: {value}' for name, value in config.items())}" if config else ""
    return f"{size}, and would fit {' or '.join(name for name, _ in fitting)}{with_config}"


def fits(shapes: Shapes) -> list[tuple[str, dict[str, Any]]]:
    """(method, config over its preset) of the registered methods that these tensors load into, strictly.

    Noise and velocity prediction have the same tensors: which it was trained for no shape tells. Only sizes with a
    preset are found.
    """
    found = shape_of(shapes)
    return [
        (entry.name, config)
        for entry in registered()  # plugins are not imported: nothing is known of their shapes
        if (config := _config_of(entry, found, shapes)) is not None
    ]


def shape_of(shapes: Shapes) -> dict[str, int]:
    """hidden_size, depth, patch_size, in_channels, input_size, num_classes of a state in the public layout of DiT;
    empty for any other."""
    try:
        width, channels, patch, _ = shapes["x_embedder.proj.weight"].shape
        tokens = shapes["pos_embed"].shape[1]
        classes = shapes["y_embedder.embedding_table.weight"].shape[0] - 1
    except (KeyError, ValueError, IndexError):
        return {}
    blocks = {name.split(".")[1] for name in shapes if name.startswith("blocks.")}
    return {
        "hidden_size": width,
        "depth": len(blocks),
        "patch_size": patch,
        "in_channels": channels,
        "input_size": patch * isqrt(tokens),
        "num_classes": classes,
    }


def _config_of(entry: MethodEntry, found: Mapping[str, int], shapes: Shapes) -> dict[str, Any] | None:
    """What must be set over the preset for the state to load; None if nothing makes it."""
    preset = entry.preset
    if not found or any(preset.get(key) != found[key] for key in ("hidden_size", "depth")):
        return None
    defaults = {"in_channels": 4, "input_size": 32, "num_classes": 1000, **preset}
    config = {key: value for key, value in found.items() if key != "patch_size" and defaults[key] != value}
    if not {*config} <= {"input_size", "num_classes"}:
        return None
    try:
        with torch.device("meta"):
            model = entry.load()(**{**entry.preset, **config})
        return config if mismatch(model, shapes) is None else None
    except (ConfigError, TypeError, AttributeError):
        return None

"""What generates: denoisers, samplers, training. Knows torch; knows nothing of suites, stores or reports.

Importing this package is cheap; torch is imported when something is built.
"""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

from ditbench.methods.registry import methods as _methods
from ditbench.methods.registry import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from ditbench.methods.sampling import sample

__all__ = ["build", "convert", "load_weights", "names", "sample"]


def build(name: str, **config: Any) -> torch.nn.Module:
    """Build a method by its registered name, in eval mode, with freshly initialised weights.

    ``config`` overrides the preset; names follow the reference (``input_size``, ``patch_size``, ``depth``, …).
    Inside ``with torch.device("meta")`` no memory is taken. Raises UnknownNameError, ConfigError.
    """
    entry = _methods()[name]
    model: torch.nn.Module = entry.load()(**{**entry.preset, **config})
    return model.eval()


def load_weights(
    model: torch.nn.Module,
    source: Mapping[str, torch.Tensor] | str | PathLike[str],
    base: str | PathLike[str] | None = None,
) -> torch.nn.Module:
    """Load a state dict, a .safetensors or a .pt file into ``model``, strictly; returns the model.

    Of a training checkpoint the ``ema`` entry is taken. Code in a file is never executed. The SHA-256 of a file is
    left on the model as ``weights_sha256``.

    A file of adapters names its static base and the base's digest: that is loaded first, from ``base`` if it is given,
    else from the zoo or the path in the file. Raises CheckpointError in one readable line.
    """
    from ditbench.methods.loading import load_into

    return load_into(model, source, base)


def convert(model: torch.nn.Module, name: str, **config: Any) -> torch.nn.Module:
    """A dynamic model with the weights of the static ``model`` that computes the same, in eval mode.

    ``name`` is the method to become ('dydit', 'dydit-xl-2', …); its shape must be the model's. ``config`` overrides
    what the method adds (``tdw``, ``sdt``, ``rank``, …). Raises UnknownNameError, ConfigError.
    """
    from ditbench.methods.errors import ConfigError

    entry = _methods()[name]
    if not entry.converter:
        known = ", ".join(each.name for each in _methods() if each.converter)
        raise ConfigError(f"nothing converts into {name!r} (these do: {known})")
    converted: torch.nn.Module = entry.load_converter()(model, **{**entry.preset, **config})
    return converted.eval()


def __getattr__(name: str) -> Any:
    """``sample`` imports torch: it comes with its first use."""
    if name == "sample":
        from ditbench.methods.sampling import sample

        return sample
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Reading checkpoints: safetensors or .pt, strict, never executing what is in the file."""

from __future__ import annotations

import difflib
import hashlib
import json
import pickle
import struct
import zipfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from methods.errors import CheckpointError

State = Mapping[str, Tensor]


def sha256_file(path: str | PathLike[str]) -> str:
    """SHA-256 of a file, hex, read in pieces. Raises OSError."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_state(path: str | PathLike[str]) -> dict[str, Tensor]:
    """The state dict in a .safetensors or .pt/.pth/.bin file, on the CPU.

    A dict with an ``ema`` entry is a training checkpoint: that entry is taken (else ``model`` or ``state_dict``).
    Raises CheckpointError.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a safetensors file ({error})") from None
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: holds objects other than tensors, which ditbench does not unpickle; "
            "save its state dict as safetensors"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, struct.error) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: not a readable checkpoint ({first})") from None
    for name in ("ema", "model", "state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(name), dict):
            loaded = loaded[name]
            break
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise CheckpointError(f"{path}: no state dict of tensors in it")
    return loaded


def mismatch(model: nn.Module, state: Mapping[str, Any]) -> str | None:
    """One line that says how ``state`` (name -> anything with a shape) does not fit ``model``; None if it fits.

    A model with ``adopt_format`` first takes the variant of its layout that the state is in.
    """
    if (adopt := getattr(model, "adopt_format", None)) is not None:
        adopt(state)
    return compare(model.state_dict(), state)


def compare(wanted: Mapping[str, Any], state: Mapping[str, Any]) -> str | None:
    """One line that says in which names or shapes ``state`` is not ``wanted`` (name -> anything with a shape)."""
    expected = {name: tuple(value.shape) for name, value in wanted.items()}
    given = {name: tuple(value.shape) for name, value in state.items()}
    problems = []
    if missing := [name for name in expected if name not in given]:
        problems.append(f"{len(missing)} of {len(expected)} tensors are missing, first {missing[0]}")
    if surplus := [name for name in given if name not in expected]:
        near = difflib.get_close_matches(surplus[0], expected, n=1)
        hint = f" (the model has {near[0]})" if near and near[0] in missing else ""
        problems.append(f"{len(surplus)} are unknown, first {surplus[0]}{hint}")
    wrong = [name for name in expected if name in given and expected[name] != given[name]]
    if wrong:
        name = wrong[0]
        problems.append(
            f"{len(wrong)} have another shape, first {name}: file {list(given[name])}, model {list(expected[name])}"
        )
    return "; ".join(problems) or None


def checkpoint_mismatch(model: nn.Module, path: str | PathLike[str]) -> str | None:
    """One line that says why a checkpoint file, of all weights or of adapters, does not fit ``model``, which may be on
    ``meta``; None if it fits. Of adapters the base is looked up and checked too. Raises CheckpointError for a file that
    cannot be read."""
    from methods.lora.files import adapter_mismatch, read_origin

    state = read_state(path)
    origin = read_origin(path)
    return mismatch(model, state) if origin is None else adapter_mismatch(model, Path(path), origin, state)


def load_into(
    model: nn.Module, source: State | str | PathLike[str], base: str | PathLike[str] | None = None
) -> nn.Module:
    """See ``methods.load_weights``."""
    from methods.lora.files import load_adapter, read_origin

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
    if (problem := mismatch(model, state)) is not None:
        raise CheckpointError(f"{label} does not fit {type(model).__name__}: {problem}")
    model.load_state_dict(dict(state), strict=True)
    model.weights_sha256 = digest  # type: ignore[assignment]
    return model


def randomise(model: nn.Module, seed: int) -> None:
    """Small random weights everywhere but in routers, which stay open.

    A fresh DiT has zero gates: zeros draw less power and time wrongly.
    """
    generator = torch.Generator().manual_seed(seed % 2**32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0.0, 0.02, generator=generator)
    if (reopen := getattr(model, "open_routers", None)) is not None:
        reopen()


def save_state(path: Path, state: State, metadata: Mapping[str, Any]) -> str:
    """Write a safetensors file whole or not at all; metadata values become JSON. Returns the SHA-256, hex."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    data = _in_order(save(tensors, {key: json.dumps(value) for key, value in metadata.items()}))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
    return hashlib.sha256(data).hexdigest()


def _in_order(data: bytes) -> bytes:
    """The same safetensors file with its metadata sorted: the library writes several entries in an order that changes
    from run to run, and with it the digest."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    return data if len(header["__metadata__"]) < 2 else data[:8] + text.ljust(length) + data[8 + length :]

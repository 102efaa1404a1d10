"""Reading checkpoints: safetensors or .pt, strict, never executing what is in the file."""

from __future__ import annotations

import difflib
import hashlib
import json
import pickle
import struct
import zipfile
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ditbench.methods.errors import CheckpointError

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Shaped:
    """A tensor of which only the shape is known."""

    shape: tuple[int, ...]


def sha256_file(path: str | PathLike[str]) -> str:
    """SHA-256 of a file, hex, read in pieces. Raises OSError."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_state(path: str | PathLike[str]) -> dict[str, Tensor]:
    """The state dict in a .safetensors or .pt/.pth/.bin file, on the CPU, mapped from the file where its format allows:
    a tensor is read when it is used.

    A dict with an ``ema`` entry is a training checkpoint: that entry is taken (else ``model`` or ``state_dict``).
    Raises CheckpointError.
    """
    path = readable(path)
    if path.suffix == ".safetensors":
        with _opened(path) as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    loaded = _unpickled(path)
    for name in ("ema", "model", "state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(name), dict):
            loaded = loaded[name]
            break
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise CheckpointError(f"{path}: no state dict of tensors in it")
    return loaded


def read_shapes(path: str | PathLike[str]) -> dict[str, Shaped]:
    """Name -> shape of what ``read_state`` would give, without reading the numbers (but of torch's format from before
    zip, which can only be read whole). Raises CheckpointError."""
    path = readable(path)
    if path.suffix == ".safetensors":
        with _opened(path) as file:
            return {key: Shaped(tuple(file.get_slice(key).get_shape())) for key in file.keys()}  # noqa: SIM118
    return {name: Shaped(tuple(value.shape)) for name, value in read_state(path).items()}


def is_mapped(path: str | PathLike[str]) -> bool:
    """Whether ``read_shapes`` of this file is quick at any size."""
    return Path(path).suffix == ".safetensors" or zipfile.is_zipfile(path)


def readable(path: str | PathLike[str]) -> Path:
    """``path``, once it is a file that opens and is not what a failed download leaves. Raises CheckpointError."""
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path}: this is a folder, not a checkpoint")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not start:
        raise CheckpointError(f"{path}: not a readable checkpoint (the file is empty)")
    # what a download that went wrong leaves under the right name
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path}: a pointer of Git LFS, not the file itself: fetch it with Git LFS")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise CheckpointError(f"{path}: a web page, not a checkpoint: fetch the file that the page is about")
    if start.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path}: not a readable checkpoint (it is cut short): fetch it again")
    return path


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a safetensors file ({error})") from None


def _unpickled(path: Path) -> Any:
    zipped = zipfile.is_zipfile(path)
    try:
        # Training checkpoints keep their arguments. Unpickling a Namespace only fills its fields: nothing runs.
        with torch.serialization.safe_globals([Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError:
        if zipped and (foreign := _foreign(path)):
            raise CheckpointError(
                f"{path}: holds objects other than tensors ({', '.join(foreign)}), which ditbench does not unpickle; "
                "save its state dict as safetensors"
            ) from None
        problem = "it is damaged, or holds objects other than tensors, which ditbench does not unpickle"
        raise CheckpointError(f"{path}: not a readable checkpoint ({problem})") from None
    except MemoryError:
        raise
    except Exception as error:  # a damaged file fails in many ways, struct.error and KeyError among them
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: not a readable checkpoint ({first})") from None


def _foreign(path: Path) -> list[str]:
    """Names of at most three kinds of objects that are in the way."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:
        return []
    return sorted(name for name in found if name != "argparse.Namespace")[:3]


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


def load_whole(model: nn.Module, state: State, label: str, digest: str | None) -> nn.Module:
    """Load a state dict of all weights, strictly; ``label`` says what it is, ``digest`` is left on the model.

    Raises CheckpointError.
    """
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

"""Files of adapters: what was trained on a static base, and which base that was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ditbench.methods.backbones.config import DiTConfig
from ditbench.methods.backbones.dit import DiT
from ditbench.methods.conversion import static_shape
from ditbench.methods.errors import CheckpointError
from ditbench.methods.weights import Shaped, compare, load_into, mismatch, read_shapes, sha256_file
from ditbench.methods.zoo import checkpoint, manifest

KEY, ZOO = "adapter", "zoo:"


@dataclass(frozen=True)
class Origin:
    """What a file of adapters belongs to, beside what its tensors say; its metadata.

    base         the static weights: 'zoo:NAME', or a path as it was written
    base_sha256  digest of their file, hex
    method       registered name of what was trained
    rank_parts   whether the base's heads and channels were ordered by magnitude (DyDiT)
    scale        of the updates, alpha / rank, which no tensor shows
    """

    base: str
    base_sha256: str
    method: str
    rank_parts: bool
    scale: float

    @classmethod
    def of(cls, model: DiT, method: str, base: str, file: Path, rank_parts: bool) -> Self:
        """For a ``model`` with adapters on the weights in ``file``, which is called ``base``."""
        return cls(base, sha256_file(file), method, rank_parts, model.config.adapter.scale)

    def metadata(self) -> dict[str, Any]:
        return {KEY: asdict(self)}


def added(model: DiT, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What of a ``state`` of ``model`` is not its base's."""
    return {name: value for name, value in state.items() if model.is_added(name)}


def read_origin(path: str | PathLike[str]) -> Origin | None:
    """The origin that a file of adapters states; None for any other file. Raises CheckpointError."""
    if Path(path).suffix != ".safetensors":
        return None
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(KEY)
    except (SafetensorError, OSError):
        return None  # reading its tensors says what is wrong
    if text is None:
        return None
    try:
        found = json.loads(text)
        origin = Origin(**{field.name: found[field.name] for field in fields(Origin)})
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: what it says of its base is not readable ({error!r})") from None
    if not all(isinstance(value, str) for value in (origin.base, origin.base_sha256, origin.method)):
        raise CheckpointError(f"{path}: what it says of its base is not readable")
    return origin


def base_file(path: Path, origin: Origin, given: Path | None = None) -> Path:
    """The file of the base: ``given``, or what the adapters in ``path`` name, there or in the working folder.

    Raises CheckpointError where there is none, or one with another digest.
    """
    if given is not None:
        file = given
    elif origin.base.startswith(ZOO):
        name = origin.base.removeprefix(ZOO)
        if name not in manifest():
            raise CheckpointError(f"{path} was made on {origin.base}, which is not in the zoo: give the base")
        file = checkpoint(name)
    else:
        places = (path.parent / origin.base, Path(origin.base))
        file = next((place for place in places if place.is_file()), places[0])
    if not file.is_file():
        raise CheckpointError(f"{path} was made on {origin.base}, and {file} is no file: give the base")
    if (digest := sha256_file(file)) != origin.base_sha256:
        raise CheckpointError(
            f"{path} was made on another base: {origin.base} with SHA-256 {origin.base_sha256[:12]}…, "
            f"and {file} has {digest[:12]}…"
        )
    return file


def adapter_mismatch(
    model: nn.Module, path: Path, origin: Origin, state: Mapping[str, Tensor | Shaped], base: Path | None = None
) -> str | None:
    """One line that says why adapters do not fit ``model``, or why their base does not; None if both fit."""
    if (problem := _misfit(model, origin, state)) is not None:
        return problem
    assert isinstance(model, DiT)
    try:
        file = base_file(path, origin, base)
        with torch.device("meta"):
            static = DiT(DiTConfig(**static_shape(model.config)))
        problem = mismatch(static, read_shapes(file))
    except CheckpointError as error:
        return str(error)
    return None if problem is None else f"its base {file} does not fit: {problem}"


def load_adapter(
    model: nn.Module, path: Path, origin: Origin, state: Mapping[str, Tensor], base: Path | None = None
) -> None:
    """Put the base, converted, into ``model`` and the adapters on top. Raises CheckpointError; then ``model`` is as it
    was."""
    if (problem := _misfit(model, origin, state)) is not None:
        raise CheckpointError(f"{path} does not fit {type(model).__name__}: {problem}")
    assert isinstance(model, DiT)
    file = base_file(path, origin, base)
    static = load_into(DiT(DiTConfig(**static_shape(model.config))), file)
    assert isinstance(static, DiT)
    put_base(model, static, origin.rank_parts)
    model.load_state_dict({**model.state_dict(), **state}, strict=True)


def put_base(model: DiT, static: DiT, rank_parts: bool) -> None:
    """Put the weights of ``static`` into ``model`` as a conversion does; what it adds stays as it is."""
    from ditbench.methods.dydit import convert as dydit
    from ditbench.methods.dydit.model import DyDiT
    from ditbench.methods.flexidit import convert as flexidit
    from ditbench.methods.flexidit.model import FlexiDiT

    if isinstance(model, DyDiT):
        dydit.fill(model, static, rank_parts)
    elif isinstance(model, FlexiDiT):
        flexidit.fill(model, static)
    else:
        model.load_state_dict({**model.state_dict(), **static.state_dict()}, strict=True)


def _misfit(model: nn.Module, origin: Origin, state: Mapping[str, Tensor | Shaped]) -> str | None:
    if not isinstance(model, DiT) or model.config.adapter is None:
        return f"it holds adapters of {origin.method}, and the model has none: give its config an adapter"
    if (adopt := getattr(model, "adopt_format", None)) is not None:
        adopt(state)
    if (problem := compare(added(model, model.state_dict()), state)) is not None:
        return problem
    scale = model.config.adapter.scale
    if scale != origin.scale:
        return f"its updates are scaled by {origin.scale:g} (alpha / rank), and the model's by {scale:g}"
    return None

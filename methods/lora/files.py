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

from ditbench.methods.bases import OnBase
from ditbench.methods.entries import UnknownNameError
from ditbench.methods.errors import CheckpointError, ConfigError
from ditbench.methods.weights import Shaped, compare, load_whole, mismatch, read_shapes, read_state, sha256_file
from ditbench.methods.zoo import ZOO, checkpoint

KEY = "adapter"


@dataclass(frozen=True)
class Origin:
    """What a file of adapters belongs to, beside what its tensors say; its metadata.

    base         the static weights: 'zoo:NAME', or a path as it was written
    base_sha256  digest of their file, hex
    method       registered name of what was trained
    scale        of the updates, alpha / rank, which no tensor shows
    options      of taking over the base: whether DyDiT ordered its parts, say
    """

    base: str
    base_sha256: str
    method: str
    scale: float
    options: Mapping[str, Any]

    @classmethod
    def of(cls, model: OnBase, method: str, base: str, file: Path, options: Mapping[str, Any]) -> Self:
        """For a ``model`` with adapters on the weights in ``file``, which is called ``base``."""
        assert model.adapter is not None
        return cls(base, sha256_file(file), method, model.adapter.scale, options)

    def metadata(self) -> dict[str, Any]:
        return {KEY: asdict(self)}


def added(model: OnBase, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
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
        if "rank_parts" in found:  # as older files say it
            found["options"] = {"rank": True} if found["rank_parts"] else {}
        origin = Origin(**{field.name: found[field.name] for field in fields(Origin)})
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: what it says of its base is not readable ({error!r})") from None
    strings = all(isinstance(value, str) for value in (origin.base, origin.base_sha256, origin.method))
    if not strings or not isinstance(origin.options, dict):
        raise CheckpointError(f"{path}: what it says of its base is not readable")
    return origin


def base_file(path: Path, origin: Origin, given: Path | None = None) -> Path:
    """The file of the base: ``given``, or what the adapters in ``path`` name, there or in the working folder.

    Raises CheckpointError where there is none, or one with another digest.
    """
    if given is not None:
        file = given
    elif origin.base.startswith(ZOO):
        try:
            file = checkpoint(origin.base.removeprefix(ZOO))
        except UnknownNameError:
            raise CheckpointError(f"{path} was made on {origin.base}, which is not in the zoo: give the base") from None
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
    assert isinstance(model, OnBase)
    try:
        file = base_file(path, origin, base)
        with torch.device("meta"):
            static = model.static_base()
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
    assert isinstance(model, OnBase)
    file = base_file(path, origin, base)
    static = load_whole(model.static_base(), read_state(file), str(file), sha256_file(file))
    try:
        model.put_base(static, **origin.options)
    except ConfigError as error:
        raise CheckpointError(f"{path} does not fit: {error}") from None
    model.load_state_dict({**model.state_dict(), **state}, strict=True)


def _misfit(model: nn.Module, origin: Origin, state: Mapping[str, Tensor | Shaped]) -> str | None:
    if not isinstance(model, OnBase) or model.adapter is None:
        return f"it holds adapters of {origin.method}, and the model has none: give its config an adapter"
    if (adopt := getattr(model, "adopt_format", None)) is not None:
        adopt(state)
    if (problem := compare(added(model, model.state_dict()), state)) is not None:
        return problem
    scale = model.adapter.scale
    if scale != origin.scale:
        return f"its updates are scaled by {origin.scale:g} (alpha / rank), and the model's by {scale:g}"
    return None

"""Where a cell's weights lie, their digest, and their shape where the user says so. Nothing is loaded or downloaded."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from ditbench.harness.assets import KNOWN, Entry, digest_of, load_assets, require, verified
from ditbench.harness.assets.digests import content_digest
from ditbench.harness.errors import InputError, MissingFileError, did_you_mean
from ditbench.methods.entries import UnknownNameError
from ditbench.methods.zoo import ZOO, checkpoint, declared_sha256

ASSET = "asset:"


def zoo_folder() -> Path:
    """The checkpoints that ship with ditbench: ``methods/zoo``."""
    return Path(str(files("ditbench.methods"))) / "zoo"


def weights_path(weights: str, folder: bool = False) -> Path:
    """The file of ``zoo:NAME`` or a plugin's ``zoo:DISTRIBUTION/NAME``, of ``asset:NAME`` in ``ditbench.toml``, or of a
    path.

    folder: these are an autoencoder's weights, which may be a folder.

    Raises MissingFileError where the user has yet to bring the file, InputError for any other fault; both without a
    place.
    """
    if _is_plugged(weights):
        try:
            return checkpoint(weights.removeprefix(ZOO))
        except UnknownNameError as error:
            raise InputError(str(error)) from None
    if weights.startswith(ZOO):
        name = weights.removeprefix(ZOO)
        shipped = {file.stem: file for file in sorted(zoo_folder().glob("*.safetensors"))}
        if name not in shipped:
            known = ", ".join(shipped) or "none"
            raise InputError(f"no weights {weights!r}{did_you_mean(name, shipped) or f' (the zoo has: {known})'}")
        return shipped[name]
    if weights.startswith(ASSET):
        return _entry(weights, folder).path
    path = Path(weights)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:  # a folder on the way that may not be entered
        raise InputError(f"weights: {weights} cannot be read: {error.strerror or error}") from None
    if is_folder and not folder:
        raise InputError(f"weights must be a file, and this is a folder: {weights}")
    if not exists:
        raise MissingFileError(f"no such weights file: {weights}")
    return path


def weights_digest(weights: str, folder: bool = False) -> str:
    """SHA-256 of weights, hex, for identities: an asset's declared one, which is not checked here; else of the content.

    Arguments and errors as ``weights_path``.
    """
    if weights.startswith(ASSET):
        return digest_of(_entry(weights, folder))
    return sha256_of(weights_path(weights, folder))


def verify_weights(weights: str, folder: bool = False) -> None:
    """Raise InputError if an asset's content is not what ``ditbench.toml`` declares, or a plugin's not what its entry
    does. Other weights declare nothing."""
    if weights.startswith(ASSET):
        verified(_entry(weights, folder))
    if _is_plugged(weights):
        digest, expected = sha256_of(weights_path(weights)), declared_sha256(weights.removeprefix(ZOO))
        if expected and digest != expected:
            raise InputError(f"{weights}: its SHA-256 begins with {digest[:12]}, and its entry says {expected[:12]}")


def asset_config(weights: str | None) -> dict[str, Any]:
    """The config that ``ditbench.toml`` gives an asset whose shape is not the published model's; else nothing.

    Of weights that are not there too: their cells can be planned and counted. Raises InputError.
    """
    if weights is None or not weights.startswith(ASSET):
        return {}
    entry = load_assets().find(weights.removeprefix(ASSET))
    return dict(entry.config) if entry is not None else {}


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hex, or of a folder as ``ditbench doctor`` tells it. Raises InputError when it cannot be
    read."""
    try:
        return content_digest(path)
    except InputError as error:
        raise InputError(f"weights: {error.message}") from None


def _is_plugged(weights: str) -> bool:
    return weights.startswith(ZOO) and "/" in weights


def _entry(weights: str, folder: bool) -> Entry:
    name = weights.removeprefix(ASSET)
    fitting = [known.name for known in KNOWN.values() if known.kind == "weights" and known.folder == folder]
    if name not in fitting:
        what = "an autoencoder" if folder else "a model"
        hint = did_you_mean(name, fitting) or f" ({what}'s: {', '.join(fitting)})"
        raise InputError(f"{weights!r} is not the weights of {what}{hint}")
    try:
        return require(name, "the cell")
    except InputError as error:  # its place in ditbench.toml would be lost when a suite's is put before it
        raise type(error)(str(error)) from None

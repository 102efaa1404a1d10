"""Where a cell's weights lie, and their digest. Nothing is loaded or downloaded here."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path

from harness.errors import InputError, did_you_mean

_ZOO = "zoo:"


def zoo_folder() -> Path:
    """The checkpoints that ship with ditbench: ``methods/zoo``."""
    return Path(str(files("methods"))) / "zoo"


def weights_path(weights: str, folder: bool = False) -> Path:
    """The file of ``zoo:NAME`` or of a path; ``folder``: or a folder. Raises InputError (without a place) when there is
    none."""
    if weights.startswith(_ZOO):
        name = weights.removeprefix(_ZOO)
        shipped = {file.stem: file for file in sorted(zoo_folder().glob("*.safetensors"))}
        if name not in shipped:
            known = ", ".join(shipped) or "none"
            raise InputError(f"no weights {weights!r}{did_you_mean(name, shipped) or f' (the zoo has: {known})'}")
        return shipped[name]
    path = Path(weights)
    if path.is_dir() and not folder:
        raise InputError(f"weights must be a file, and this is a folder: {weights}")
    if not path.exists():
        raise InputError(f"no such weights file: {weights}")
    return path


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hex, read in pieces. Raises InputError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"weights cannot be read: {error.strerror or error}: {path}") from None

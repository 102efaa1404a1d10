"""SHA-256 of files and folders. That of a large file is kept, so that gigabytes are read once, not once a process."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ditbench.harness.errors import InputError, Position

KEPT_BYTES = 1 << 20  # smaller files are read faster than looked up
MOST_KEPT = 1000
_SETTLED_NS = 2_000_000_000  # a file that just changed may change again within one tick of its clock

# A file's digest by where it lies and what would change with its content. The change time is part of it: a copy
# that keeps the modification time (cp -p) of weights of the same size would not be noticed without.
_Key = tuple[str, int, int, int, int]
_digests: dict[_Key, str] = {}


def cache_file() -> Path:
    """Where digests are kept between processes: ``digests.json`` in XDG_CACHE_HOME/ditbench or ~/.cache/ditbench."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    folder = named if named.is_absolute() else Path("~/.cache").expanduser()
    return folder / "ditbench" / "digests.json"


def content_digest(path: Path, position: Position | None = None) -> str:
    """SHA-256 of a file, hex; of a folder, that of one line a file, 'SHA-256, two spaces, relative name, line feed',
    sorted by the bytes of the name.

    Raises InputError, placed at ``position``, for what cannot be read in full, links to folders and empty folders.
    """
    try:
        return _folder_digest(path, position) if path.is_dir() else file_digest(path, position)
    except OSError as error:
        raise InputError(unreadable(path, error), position) from None


def file_digest(path: Path, position: Position | None = None) -> str:
    """SHA-256 of a regular file, hex. Raises OSError, and InputError for a pipe or a device."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path} is not a regular file", position)
    key = _key(path, found)
    if key not in _digests and found.st_size >= KEPT_BYTES and (kept := _kept().get(key)):
        _digests[key] = kept
    if key not in _digests:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if _key(path, path.stat()) != key:
            raise InputError(f"{path} changed while it was read: wait until it is whole", position)
        _digests[key] = digest
        if found.st_size >= KEPT_BYTES and time.time_ns() - found.st_ctime_ns > _SETTLED_NS:
            _keep(key, digest)
    return _digests[key]


def unreadable(path: Path, error: OSError) -> str:
    """'PATH cannot be read: WHY'."""
    return f"{error.filename or path} cannot be read: {error.strerror or error}"


def _key(path: Path, found: os.stat_result) -> _Key:
    return (str(path.absolute()), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def _folder_digest(path: Path, position: Position | None) -> str:
    def refuse(error: OSError) -> None:
        raise error

    files: dict[bytes, Path] = {}
    # The walk leaves out folders that it cannot read, unless told otherwise, and what lies behind links.
    for root, folders, names in os.walk(path, onerror=refuse):
        folder = Path(root)
        if linked := next((name for name in folders if (folder / name).is_symlink()), None):
            raise InputError(f"{folder / linked} is a link to a folder, which is not followed", position)
        for name in names:
            files[os.fsencode((folder / name).relative_to(path).as_posix())] = folder / name
    if not files:
        raise InputError(f"{path} holds no files", position)
    total = hashlib.sha256()
    for relative, file in sorted(files.items()):
        if b"\n" in relative:
            raise InputError(f"{str(file)!r} has a line break in its name", position)
        total.update(file_digest(file, position).encode() + b"  " + relative + b"\n")
    return total.hexdigest()


def _kept() -> Mapping[_Key, str]:
    """What is kept; nothing where the file is not there, damaged or of another make."""
    try:
        rows: Any = json.loads(cache_file().read_text())
        return {_row_key(row): str(row["sha256"]) for row in rows if len(row["sha256"]) == 64}
    except (OSError, ValueError, TypeError, KeyError, RuntimeError):
        return {}


def _row_key(row: Mapping[str, Any]) -> _Key:
    return (str(row["path"]), int(row["size"]), int(row["mtime_ns"]), int(row["ctime_ns"]), int(row["inode"]))


def _keep(key: _Key, digest: str) -> None:
    """Add a row, whole or not at all; files that are gone are dropped. Where it cannot be written, nothing is kept."""
    rows = {key[0]: (key, digest)}
    for other, value in _kept().items():
        if len(rows) < MOST_KEPT and Path(other[0]).exists():
            rows.setdefault(other[0], (other, value))
    names = ("path", "size", "mtime_ns", "ctime_ns", "inode")
    text = json.dumps([{**dict(zip(names, of, strict=True)), "sha256": value} for of, value in rows.values()], indent=0)
    with suppress(OSError, RuntimeError):
        file = cache_file()
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent)
        try:
            with os.fdopen(handle, "w") as out:
                out.write(text)
            Path(temporary).replace(file)
        except OSError:
            Path(temporary).unlink()

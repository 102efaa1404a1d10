"""Extractor weights and references that lie with the user: found by name, verified by SHA-256, never downloaded."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.assets.config import FILE_NAME, config_file, load_assets
from harness.assets.values import KNOWN, Assets, Entry, Kind, KnownAsset
from harness.errors import InputError, did_you_mean

__all__ = [
    "KNOWN",
    "AssetStatus",
    "Assets",
    "Entry",
    "KnownAsset",
    "config_file",
    "digest_of",
    "load_assets",
    "require",
    "status",
    "verified",
]

State = Literal["present", "absent", "wrong", "unpinned"]

# A file's digest by where it lies and what would change with its content. The change time is part of it: a copy
# that keeps the modification time (cp -p) of weights of the same size would not be noticed without.
_digests: dict[tuple[str, int, int, int, int], str] = {}


@dataclass(frozen=True)
class AssetStatus:
    """How it stands with one asset or reference.

    state   'present': there, and the digest is the declared one; 'unpinned': there, but the configuration declares
            no digest; 'absent': not named, or named and not there; 'wrong': there, but not what it should be
    path    as configured, absolute; None if the configuration does not name it
    digest  computed SHA-256; None if there is nothing to read
    waits   what needs it
    hint    one line: what to do, or what is wrong; '' when present
    """

    name: str
    kind: Kind
    state: State
    path: Path | None
    digest: str | None
    waits: tuple[str, ...]
    hint: str

    @property
    def faulty(self) -> bool:
        """The user must mend it: a wrong file, or a configured one that is not there."""
        return self.state == "wrong" or (self.state == "absent" and self.path is not None)


def require(name: str, why: str) -> Entry:
    """The entry of an asset or reference that exists; its content is not read (see ``verified``).

    name: of KNOWN, or any reference of the user's. why: who needs it, as in 'protocol adm'. Raises InputError if
    it is not configured, not there, or (for an asset) a folder.
    """
    assets = load_assets()
    known = KNOWN.get(name)
    kind: Kind = known.kind if known else "reference"
    entry = assets.find(name) if kind == "asset" else assets.reference(name)
    need = f"{why} needs the {kind} {name}"
    if entry is None:
        what = f": {known.summary}" if known else did_you_mean(name, _reference_names(assets))
        where = assets.file or FILE_NAME
        raise InputError(f"{need}{what}; put it into {where} as [{kind}s.{name}] (see `ditbench doctor`)")
    try:
        mode = entry.path.stat().st_mode
    except OSError as error:
        raise InputError(f"{need}, but {_unreadable(entry.path, error)}", entry.position) from None
    if kind == "asset" and stat.S_ISDIR(mode):
        raise InputError(f"{need}, but {entry.path} is a folder, not a file", entry.position)
    return entry


def verified(entry: Entry) -> str:
    """The SHA-256 of what lies there now, 64 hexadecimal digits, once it is what it should be.

    It must be the declared one; an asset without a declaration must be the published file. So weights of one's own
    are used only by saying so, and a protocol id holds their digest. Read once per content in a process. A folder's
    digest is that of one line a file, 'SHA-256, two spaces, relative name, line feed', sorted by the bytes of the name.
    Raises InputError that shows how both digests begin.
    """
    digest = _content_digest(entry)
    expected, source = entry.sha256, "its sha256 in the configuration"
    if expected is None and entry.kind == "asset":
        known = KNOWN[entry.name]
        expected = known.sha256
        source = f"that of the published {known.file_name} (declare its sha256 to use another file)"
    if expected and digest != expected:
        first = next(at for at, (is_, was) in enumerate(zip(digest, expected, strict=True)) if is_ != was)
        shown = max(8, first + 1)  # a slip in a late digit shows too
        raise InputError(
            f"{entry.name}: the SHA-256 of {entry.path} begins with {digest[:shown]}, "
            f"but {source} begins with {expected[:shown]}",
            entry.position,
        )
    return digest


def digest_of(entry: Entry) -> str:
    """The declared SHA-256, unverified, else the computed one: for identities. Raises InputError if unreadable."""
    return entry.sha256 or _content_digest(entry)


def status() -> list[AssetStatus]:
    """All known assets and references, then the user's own references. Reads every configured file in full.

    Raises InputError only for faults of the configuration itself.
    """
    assets = load_assets()
    found = []
    for known in KNOWN.values():
        entry = assets.find(known.name) if known.kind == "asset" else assets.reference(known.name)
        if entry is None:
            hint = f"get {known.file_name}, then name it as [{known.kind}s.{known.name}] in {assets.file or FILE_NAME}"
            found.append(AssetStatus(known.name, known.kind, "absent", None, None, known.waits, hint))
        else:
            found.append(_entry_status(entry, known.waits))
    own = [entry for name, entry in assets.references.items() if name not in KNOWN]
    return found + [_entry_status(entry, ("suites that name it",)) for entry in own]


def _entry_status(entry: Entry, waits: tuple[str, ...]) -> AssetStatus:
    digest: str | None = None
    state: State = "present" if entry.sha256 else "unpinned"
    hint = "" if entry.sha256 else "add its sha256, so that it cannot change unnoticed"
    try:
        if entry.kind == "asset" and entry.path.is_dir():
            raise InputError(f"{entry.path} is a folder, not a file", entry.position)
        entry.path.stat()
        digest = _content_digest(entry)
        verified(entry)
        if entry.kind == "asset" and KNOWN[entry.name].sha256 not in ("", digest):
            hint = "not the published file: its figures carry a protocol id of their own"
    except (FileNotFoundError, NotADirectoryError):
        state, hint = "absent", f"named in {entry.position}, but nothing lies there"
        if known := KNOWN.get(entry.name):
            hint += f"; {known.file_name} is published at {known.published}"
    except InputError as error:
        state, hint = "wrong", error.message
    except OSError as error:
        state, hint = "wrong", _unreadable(entry.path, error)
    return AssetStatus(entry.name, entry.kind, state, entry.path, digest, waits, hint)


def _reference_names(assets: Assets) -> list[str]:
    known = [each.name for each in KNOWN.values() if each.kind == "reference"]
    return [*known, *assets.references]


def _content_digest(entry: Entry) -> str:
    try:
        return _folder_digest(entry) if entry.path.is_dir() else _file_digest(entry.path, entry)
    except OSError as error:
        raise InputError(_unreadable(entry.path, error), entry.position) from None


def _file_digest(path: Path, entry: Entry) -> str:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path} is not a regular file", entry.position)
    key = (str(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
    if key not in _digests:
        with path.open("rb") as file:
            _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _digests[key]


def _folder_digest(entry: Entry) -> str:
    def refuse(error: OSError) -> None:
        raise error

    files: dict[bytes, Path] = {}
    # The walk leaves out folders that it cannot read, unless told otherwise, and what lies behind links.
    for root, folders, names in os.walk(entry.path, onerror=refuse):
        folder = Path(root)
        if linked := next((name for name in folders if (folder / name).is_symlink()), None):
            raise InputError(f"{folder / linked} is a link to a folder, which is not followed", entry.position)
        for name in names:
            files[os.fsencode((folder / name).relative_to(entry.path).as_posix())] = folder / name
    if not files:
        raise InputError(f"{entry.path} holds no files", entry.position)
    total = hashlib.sha256()
    for relative, path in sorted(files.items()):
        if b"\n" in relative:
            raise InputError(f"{str(path)!r} has a line break in its name", entry.position)
        total.update(_file_digest(path, entry).encode() + b"  " + relative + b"\n")
    return total.hexdigest()


def _unreadable(path: Path, error: OSError) -> str:
    return f"{error.filename or path} cannot be read: {error.strerror or error}"

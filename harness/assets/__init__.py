"""Weights and references that lie with the user: found by name, verified by SHA-256, never downloaded."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ditbench.harness.assets.config import FILE_NAME, config_file, load_assets, table_header
from ditbench.harness.assets.digests import content_digest, unreadable
from ditbench.harness.assets.known import KNOWN
from ditbench.harness.assets.values import Assets, Entry, Kind, KnownAsset
from ditbench.harness.errors import InputError, MissingFileError, did_you_mean

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
    """The entry of an asset, weights or a reference that exists; its content is not read (see ``verified``).

    name: of KNOWN, or any reference of the user's. why: who needs it, as in 'protocol adm'. Raises MissingFileError
    if it is not configured or not there, InputError if it is a folder where a file is needed.
    """
    assets = load_assets()
    known = KNOWN.get(name)
    kind: Kind = known.kind if known else "reference"
    entry = assets.reference(name) if kind == "reference" else assets.find(name)
    need = f"{why} needs the {kind} {name}"
    if entry is None:
        what = f": {known.summary}" if known else did_you_mean(name, _reference_names(assets))
        where = assets.file or FILE_NAME
        table = known.table if known else "references"
        paste = f"put it into {where} as {table_header(table, name)}"
        if known is not None and known.kind == "weights":
            paste = (
                f"get {known.file_name} ({known.published}), then add two lines to {where}: "
                f'{table_header(table, name)} and path = "{known.file_name}"'
            )
        fault = MissingFileError if known else InputError  # a name that nobody knows may be a slip
        raise fault(f"{need}{what}; {paste} (see `ditbench doctor`)")
    try:
        mode = entry.path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingFileError(f"{need}, but {unreadable(entry.path, error)}", entry.position) from None
    except OSError as error:
        raise InputError(f"{need}, but {unreadable(entry.path, error)}", entry.position) from None
    if stat.S_ISDIR(mode) and not _may_be_folder(entry):
        raise InputError(f"{need}, but {entry.path} is a folder, not a file", entry.position)
    return entry


def verified(entry: Entry) -> str:
    """The SHA-256 of what lies there now, 64 hexadecimal digits, once it is what it should be.

    It must be the declared one; an asset without a declaration must be the published file. So an extractor of one's
    own is used only by saying so, and a protocol id holds its digest. Models' weights have no public digest: without a
    declaration any are taken, and told apart by theirs. See ``content_digest`` for what is read and when. Raises
    InputError that shows how both digests begin.
    """
    digest = content_digest(entry.path, entry.position)
    expected, source = entry.sha256, "its sha256 in the configuration"
    if expected is None and entry.kind != "reference":
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
    return entry.sha256 or content_digest(entry.path, entry.position)


def status() -> list[AssetStatus]:
    """All known assets, weights and references, then the user's own references. Reads every configured file in full.

    Raises InputError only for faults of the configuration itself.
    """
    assets = load_assets()
    found = []
    for known in KNOWN.values():
        entry = assets.reference(known.name) if known.kind == "reference" else assets.find(known.name)
        if entry is None:
            header = table_header(known.table, known.name)
            hint = f"get {known.file_name}, then name it as {header} in {assets.file or FILE_NAME}"
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
        if entry.path.is_dir() and not _may_be_folder(entry):
            raise InputError(f"{entry.path} is a folder, not a file", entry.position)
        entry.path.stat()
        digest = content_digest(entry.path, entry.position)
        verified(entry)
        if entry.kind == "asset" and KNOWN[entry.name].sha256 not in ("", digest):
            hint = "not the published file: its figures carry a protocol id of their own"
        if entry.config:
            hint = "; ".join([*filter(None, [hint]), "a stand-in: its shape is not the published model's"])
    except (FileNotFoundError, NotADirectoryError):
        state, hint = "absent", f"named in {entry.position}, but nothing lies there"
        if known := KNOWN.get(entry.name):
            hint += f"; {known.file_name} is published at {known.published}"
    except InputError as error:
        state, hint = "wrong", error.message
    except OSError as error:
        state, hint = "wrong", unreadable(entry.path, error)
    return AssetStatus(entry.name, entry.kind, state, entry.path, digest, waits, hint)


def _reference_names(assets: Assets) -> list[str]:
    known = [each.name for each in KNOWN.values() if each.kind == "reference"]
    return [*known, *assets.references]


def _may_be_folder(entry: Entry) -> bool:
    return entry.kind == "reference" or KNOWN[entry.name].folder

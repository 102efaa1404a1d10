"""A run's folder: content-addressed records, written whole or not at all, never edited.

Layout::

    suite.yaml  plan.json  environment.json
    records/<identity>.json     complete measurements, one file each
    failures/<identity>.json    the last failed attempt; gone once the measurement succeeds
    samples/<identity>/         shards of generated samples and a preview
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ditbench.harness.errors import InputError, Position, StoreError
from ditbench.harness.store.records import Record
from ditbench.methods.older_records import upgrade

_TEMPORARY = ".tmp"


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader, or a later run after a kill, sees all of it or nothing.

    The temporary file lies in the same folder (a rename does not cross file systems) and is flushed to disk before
    the rename, so that a power cut cannot leave an empty file under the final name. Raises StoreError, with nothing
    left behind, where the disk does not take it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_TEMPORARY)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise store_error(path, error, len(data)) from error


def store_error(path: Path, error: OSError, needed: int = 0) -> StoreError:
    """What a user can do about a failed write of ``needed`` bytes to ``path``."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    if error.errno == errno.EDQUOT:
        what = f"the disk quota is used up, and {path} needs {_shown(needed)}"
    elif error.errno == errno.ENOSPC:
        what = f"no space is left for {path}: it needs {_shown(needed)}, and {_free(path)} are free"
    else:
        what = f"{path} cannot be written ({error.strerror or error})"
    mend = "free some space" if full else "mend that"
    return StoreError(f"{what}; what is finished is kept: {mend} and run the same command again", full)


def _free(path: Path) -> str:
    there = next(folder for folder in path.absolute().parents if folder.is_dir())
    return _shown(shutil.disk_usage(there).free)


def _shown(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{-(-size // 2**10)} KiB"


def remove_temporary(folder: Path) -> None:
    """Remove what writers that were killed left in ``folder``. Only while no other process writes there."""
    for path in folder.rglob(f".*{_TEMPORARY}"):
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Atomic JSON, one key a line, so that people and diffs can read it."""
    write_atomic(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


class RunStore:
    """Reads and writes one run's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def record_path(self, identity: str) -> Path:
        return self.folder / "records" / f"{identity}.json"

    def failure_path(self, identity: str) -> Path:
        return self.folder / "failures" / f"{identity}.json"

    def samples_folder(self, identity: str) -> Path:
        return self.folder / "samples" / identity[:16]

    @property
    def features_folder(self) -> Path:
        """The cache of extracted features. It may be deleted at any time."""
        return self.folder / "features"

    def has(self, identity: str) -> bool:
        """Whether a complete record exists. Its existence is the commit: it was renamed into place last."""
        return self.record_path(identity).is_file()

    def commit(self, record: Record) -> None:
        """Store a record. A complete one is never overwritten; it ends an earlier failure of the same identity."""
        data = (record.model_dump_json(indent=1) + "\n").encode()
        if record.status == "failed":
            write_atomic(self.failure_path(record.identity), data)
            return
        if not self.has(record.identity):
            write_atomic(self.record_path(record.identity), data)
        self.failure_path(record.identity).unlink(missing_ok=True)

    def load(self, identity: str) -> Record | None:
        """The complete record of ``identity``, else its last failure, else None."""
        for path in (self.record_path(identity), self.failure_path(identity)):
            if path.is_file():
                return _read(path)
        return None

    def write_plan(self, plan: dict[str, Any]) -> None:
        """``plan.json``: suite, title, description, baseline, command, and cells: name, spec, measurements."""
        write_json(self.folder / "plan.json", plan)

    def plan(self) -> dict[str, Any]:
        """The plan of the last run in this folder. Raises InputError if the folder is not a run."""
        path = self.folder / "plan.json"
        try:
            plan: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:
            raise InputError(
                f"{self.folder} is not a run's folder: it has no plan.json (make one with `ditbench run SUITE --out`)"
            ) from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise InputError(f"unreadable plan: {error}", Position(path)) from None
        return plan

    def environment(self) -> dict[str, Any]:
        """``environment.json``, or an empty dict."""
        path = self.folder / "environment.json"
        environment: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        return environment

    def cells(self) -> dict[str, dict[str, Record]]:
        """cell name -> measurement -> record (complete or failed), in the plan's order. What has not run is absent."""
        cells: dict[str, dict[str, Record]] = {}
        for cell in self.plan()["cells"]:
            loaded = {name: self.load(identity) for name, identity in cell["measurements"].items()}
            cells[cell["name"]] = {name: record for name, record in loaded.items() if record is not None}
        return cells


def _read(path: Path) -> Record:
    try:
        record = Record.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"unreadable record: {first} (delete it and run again)", Position(path)) from None
    detail = upgrade(record.measurement, record.spec.model_dump(), record.detail)
    return record if detail == record.detail else record.model_copy(update={"detail": detail})

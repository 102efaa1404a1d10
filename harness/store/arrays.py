"""Arrays in npz files (zip archives of npy files): written whole or not at all, read without a pickle."""

from __future__ import annotations

import hashlib
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import ArrayLike, NDArray

from ditbench.harness.errors import InputError, did_you_mean
from ditbench.harness.store.store import write_atomic

_SUFFIX = ".npy"
_PIECE = 1 << 20
# What zipfile and its decompressors raise for damaged, encrypted and exotic archives.
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError)


@dataclass(frozen=True)
class Header:
    """What an npy header says, without the data. ``bytes`` is the length of the data."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write_npz(path: Path, **arrays: ArrayLike) -> str:
    """Write ``arrays`` under their names. Returns the SHA-256 of the file, hex."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: np.asarray(array) for name, array in arrays.items()})
    write_atomic(path, buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def npz_names(path: Path) -> list[str]:
    """The names of the arrays in an npz file. Raises InputError: no such file, not an npz."""
    with archive_of(path) as archive:
        return [name.removesuffix(_SUFFIX) for name in archive.namelist() if name.endswith(_SUFFIX)]


def read_header(path: Path, name: str) -> Header:
    """Shape and dtype of one array, after its length in the archive was checked against them. Raises InputError."""
    with archive_of(path) as archive, member_of(path, archive, name) as member:
        return _checked_header(path, archive, name, member)


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Small arrays of an npz file, whole. Raises InputError: no such file or array, damage, pickled objects."""
    found = {}
    with archive_of(path) as archive:
        for name in names:
            with member_of(path, archive, name) as member:
                header = _checked_header(path, archive, name, member)
                data = bytearray(header.bytes)
                with damage_reported(path, name):
                    fill(memoryview(data), member)
                order: Literal["F", "C"] = "F" if header.fortran else "C"
                found[name] = np.ndarray(header.shape, header.dtype, data, order=order)
    return found


@contextmanager
def archive_of(path: Path) -> Iterator[zipfile.ZipFile]:
    """An open npz file. Raises InputError."""
    try:
        with path.open("rb") as file:
            start = file.read(6)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGE:
        if start.startswith(b"PK\x03\x04"):
            raise InputError(f"{path} is not whole: the end of the npz archive is missing or damaged") from None
        if start.startswith(b"\x93NUMPY"):
            raise InputError(f"{path} is a single npy array: save it with np.savez(path, images)") from None
        raise InputError(f"{path} is not an npz file") from None
    with archive:
        yield archive


@contextmanager
def member_of(path: Path, archive: zipfile.ZipFile, name: str) -> Iterator[zipfile.ZipExtFile]:
    """One array's file in it, stored or deflated. Raises InputError."""
    known = [each.removesuffix(_SUFFIX) for each in archive.namelist() if each.endswith(_SUFFIX)]
    if name not in known:
        raise InputError(
            f"{path} has no array {name!r}{did_you_mean(name, known)}: it holds {', '.join(known) or 'none'}"
        )
    if archive.getinfo(name + _SUFFIX).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{path}: {name} is neither stored nor deflated: save it with np.savez")
    with damage_reported(path, name):
        member = cast(zipfile.ZipExtFile, archive.open(name + _SUFFIX))
    with member:
        yield member


@contextmanager
def damage_reported(path: Path, name: str) -> Iterator[None]:
    """What readers raise for damage becomes InputError."""
    try:
        yield
    except _DAMAGE as error:
        raise InputError(f"{path}: {name} is damaged or not whole ({error or type(error).__name__})") from None


def _checked_header(path: Path, archive: zipfile.ZipFile, name: str, member: zipfile.ZipExtFile) -> Header:
    with damage_reported(path, name):
        header = parse_header(member)
        length = archive.getinfo(name + _SUFFIX).file_size - member.tell()
    if header.dtype.hasobject:
        raise InputError(f"{path}: {name} is a pickle, which can run code when it is read: save it as a plain array")
    if length != header.bytes:
        raise InputError(
            f"{path}: {name} is not whole: {length:,} bytes of data, its shape {header.shape} and {header.dtype} need "
            f"{header.bytes:,}"
        )
    return header


def parse_header(member: zipfile.ZipExtFile) -> Header:
    """Raises ValueError, and what readers raise for damage."""
    version = npy.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"npy version {version[0]}.{version[1]} is not for plain arrays")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    try:
        shape, fortran, dtype = read(member)
    except _DAMAGE:
        raise
    except Exception as error:  # numpy tokenises and evaluates the text, and lets many kinds of error through
        raise ValueError(f"header: {error}") from None
    if any(length < 0 for length in shape):
        raise ValueError(f"header: shape {shape}")
    return Header(shape, dtype, fortran)


def fill(view: memoryview, member: zipfile.ZipExtFile) -> None:
    """Read as many bytes as ``view`` has. Raises EOFError."""
    # In pieces, because the archive's reader makes a copy of whatever is asked for at once.
    for start in range(0, len(view), _PIECE):
        piece = view[start : start + _PIECE]
        if member.readinto(piece) != len(piece):
            raise EOFError("the data ends early")

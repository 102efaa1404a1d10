"""Arrays in npz files (zip archives of npy files): images as a stream, small arrays whole. Never a pickle.

The layout of image files is the one of ADM's samples and references: ``arr_0`` is (N, H, W, C) uint8. Other arrays may
lie beside it (labels as ``arr_1``; ``mu``, ``sigma``, ``mu_s``, ``sigma_s`` in references).
"""

from __future__ import annotations

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
from numpy.typing import NDArray

from ditbench.harness.errors import InputError, did_you_mean
from ditbench.harness.quality.images.checks import check_layout, checked_count

IMAGES = "arr_0"
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


class NpzImages:
    """The images ``arr_0`` of an npz file, stored or deflated, read from the archive batch by batch.

    Raises InputError, at once for whatever the archive's directory and the array's header tell; damage inside the data
    when it is reached. The archive's checksum is over all images: it is compared before the last batch is handed out,
    and not at all where ``limit`` stops before the last image.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        header = read_header(path, IMAGES)
        check_layout(f"{path}: {IMAGES}", header.shape, header.dtype)
        if header.fortran:
            raise InputError(f"{path}: {IMAGES} is in Fortran order: save np.ascontiguousarray(images)")
        self._header = header

    @property
    def name(self) -> str:
        return str(self._path)

    def __len__(self) -> int:
        return self._header.shape[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        _, height, width, channels = self._header.shape
        return (height, width, channels)

    def batches(self, size: int, limit: int | None = None) -> Iterator[NDArray[np.uint8]]:
        """(<= size, H, W, C) in order, up to ``limit``. InputError: fewer images than that, damaged data."""
        return self._stream(size, checked_count(self.name, len(self), size, limit))

    def _stream(self, size: int, count: int) -> Iterator[NDArray[np.uint8]]:
        with _archive(self._path) as archive, _member(self._path, archive, IMAGES) as member:
            with _damage_reported(self._path, IMAGES):
                if _parse_header(member) != self._header:
                    raise ValueError("it changed since it was opened")
            for start in range(0, count, size):
                batch = np.empty((min(size, count - start), *self.shape), dtype=np.uint8)
                with _damage_reported(self._path, IMAGES):
                    _fill(batch.data.cast("B"), member)
                yield batch


def npz_names(path: Path) -> list[str]:
    """The names of the arrays in an npz file. Raises InputError: no such file, not an npz."""
    with _archive(path) as archive:
        return [name.removesuffix(_SUFFIX) for name in archive.namelist() if name.endswith(_SUFFIX)]


def read_header(path: Path, name: str) -> Header:
    """Shape and dtype of one array, after its length in the archive was checked against them. Raises InputError."""
    with _archive(path) as archive, _member(path, archive, name) as member:
        return _checked_header(path, archive, name, member)


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Small arrays of an npz file, whole. Raises InputError: no such file or array, damage, pickled objects."""
    found = {}
    with _archive(path) as archive:
        for name in names:
            with _member(path, archive, name) as member:
                header = _checked_header(path, archive, name, member)
                data = bytearray(header.bytes)
                with _damage_reported(path, name):
                    _fill(memoryview(data), member)
                order: Literal["F", "C"] = "F" if header.fortran else "C"
                found[name] = np.ndarray(header.shape, header.dtype, data, order=order)
    return found


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
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
def _member(path: Path, archive: zipfile.ZipFile, name: str) -> Iterator[zipfile.ZipExtFile]:
    known = [each.removesuffix(_SUFFIX) for each in archive.namelist() if each.endswith(_SUFFIX)]
    if name not in known:
        raise InputError(
            f"{path} has no array {name!r}{did_you_mean(name, known)}: it holds {', '.join(known) or 'none'}"
        )
    if archive.getinfo(name + _SUFFIX).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{path}: {name} is neither stored nor deflated: save it with np.savez")
    with _damage_reported(path, name):
        member = cast(zipfile.ZipExtFile, archive.open(name + _SUFFIX))
    with member:
        yield member


@contextmanager
def _damage_reported(path: Path, name: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise InputError(f"{path}: {name} is damaged or not whole ({error or type(error).__name__})") from None


def _checked_header(path: Path, archive: zipfile.ZipFile, name: str, member: zipfile.ZipExtFile) -> Header:
    with _damage_reported(path, name):
        header = _parse_header(member)
        length = archive.getinfo(name + _SUFFIX).file_size - member.tell()
    if header.dtype.hasobject:
        raise InputError(f"{path}: {name} is a pickle, which can run code when it is read: save it as a plain array")
    if length != header.bytes:
        raise InputError(
            f"{path}: {name} is not whole: {length:,} bytes of data, its shape {header.shape} and {header.dtype} need "
            f"{header.bytes:,}"
        )
    return header


def _parse_header(member: zipfile.ZipExtFile) -> Header:
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


def _fill(view: memoryview, member: zipfile.ZipExtFile) -> None:
    # In pieces, because the archive's reader makes a copy of whatever is asked for at once.
    for start in range(0, len(view), _PIECE):
        piece = view[start : start + _PIECE]
        if member.readinto(piece) != len(piece):
            raise EOFError("the data ends early")

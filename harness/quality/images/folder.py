"""A folder of PNG files as a set of images.

Order: natural file names, runs of digits compared as numbers (2.png before 10.png). Either all images lie in the folder
itself, or all in folders inside it, one per class and in the same order, as ImageNet is kept. Hidden files and .txt,
.json and .csv files are ignored; anything else is refused. All images are 8-bit RGB or 8-bit grey, of one size.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ditbench.harness.errors import InputError
from ditbench.harness.quality.images.checks import checked_count, in_batches

_IGNORED = (".txt", ".json", ".csv")
_LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp")
_LOSSY_STARTS = (b"\xff\xd8\xff", b"RIFF")
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_HEADER_BYTES = 33
# colour type of the PNG header -> channels, or what is wrong with it
_CHANNELS = {0: 1, 2: 3}
_REFUSED = {
    3: "is a palette image: save it as RGB",
    4: "has an alpha channel: save it without (mode L)",
    6: "has an alpha channel: save it without (mode RGB)",
}


@dataclass(frozen=True)
class _Kind:
    height: int
    width: int
    channels: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height} {'RGB' if self.channels == 3 else 'grey'}"


class FolderImages:
    """The PNG files of a folder, decoded batch by batch.

    Raises InputError: at once for file names, sizes, modes and files that end early; for damage inside a file when it
    is decoded.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = _listed(path)
        self._kind = _kind_of(self._files[0])
        for file in self._files[1:]:
            if (kind := _kind_of(file)) != self._kind:
                raise InputError(
                    f"{path}: images differ: {self._files[0].relative_to(path)} is {self._kind}, "
                    f"{file.relative_to(path)} is {kind}"
                )

    @property
    def name(self) -> str:
        return str(self._path)

    def __len__(self) -> int:
        return len(self._files)

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self._kind.height, self._kind.width, self._kind.channels)

    def batches(self, size: int, limit: int | None = None) -> Iterator[NDArray[np.uint8]]:
        """(<= size, H, W, C) in order, up to ``limit``. InputError: fewer images than that, a damaged file."""
        count = checked_count(self.name, len(self), size, limit)
        return in_batches((_decoded(file, self._kind) for file in self._files), self.shape, count, size)


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorts 2.png before 10.png; names that differ only in leading zeros by their text."""
    split = re.split("([0-9]+)", name)
    parts: list[str | int] = [int(part) if place % 2 else part for place, part in enumerate(split)]
    return parts, name


def _listed(path: Path) -> list[Path]:
    files, folders = _entries(path)
    if files and folders:
        raise InputError(f"{path} holds images ({files[0].name}) and folders ({folders[0].name}): keep one of the two")
    for folder in folders:
        inside, deeper = _entries(folder)
        if deeper:
            raise InputError(f"{deeper[0]}: images may lie one folder deep, not two")
        files += inside
    if not files:
        raise InputError(f"{path} holds no PNG files")
    return files


def _entries(path: Path) -> tuple[list[Path], list[Path]]:
    """PNG files and folders in ``path``, each in natural order."""
    files, folders = [], []
    try:
        entries = sorted(path.iterdir(), key=lambda entry: natural_key(entry.name))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    for entry in entries:
        suffix = entry.suffix.lower()
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            folders.append(entry)
        elif suffix == ".png":
            files.append(entry)
        elif suffix in _LOSSY:
            raise InputError(
                f"{entry}: lossy compression changes quality figures: save the images as PNG or npz instead"
            )
        elif suffix not in _IGNORED:
            raise InputError(f"{entry} is neither a PNG image nor a .txt, .json or .csv file: move it elsewhere")
    return files, folders


def _kind_of(file: Path) -> _Kind:
    """Size and channels from the file's header; its end is checked too."""
    try:
        with file.open("rb") as stream:
            header = stream.read(_HEADER_BYTES)
            stream.seek(max(0, stream.seek(0, io.SEEK_END) - len(_END)))
            end = stream.read()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from None
    if header.startswith(_LOSSY_STARTS):
        raise InputError(
            f"{file} is a JPEG or WebP image under a PNG's name: lossy compression changes quality figures"
        )
    if not header.startswith(_SIGNATURE[: len(header)]):
        raise InputError(f"{file} is not a PNG image")
    if len(header) < _HEADER_BYTES or end != _END:
        _checked_bytes(file)
    width, height, depth, colour = struct.unpack(">IIBB", header[16:26].ljust(10, b"\0"))
    if zlib.crc32(header[12:29]) != int.from_bytes(header[29:]) or not width or not height:
        raise InputError(f"{file} is damaged: its header holds no size")
    if depth != 8 and colour in _CHANNELS:
        raise InputError(f"{file} has {depth} bits a channel: save it with 8")
    if colour not in _CHANNELS:
        raise InputError(f"{file} {_REFUSED.get(colour, 'has an unknown colour type')}")
    return _Kind(height, width, _CHANNELS[colour])


def _checked_bytes(file: Path) -> bytes:
    """The file, after all its chunks were found there with the right checksums: decoders let some damage pass."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from None
    place = len(_SIGNATURE)
    while True:
        length = int.from_bytes(data[place : place + 4])
        body, checksum = data[place + 4 : place + 8 + length], data[place + 8 + length : place + 12 + length]
        if len(checksum) < 4:
            raise InputError(f"{file} is not whole: the PNG data ends early")
        if zlib.crc32(body) != int.from_bytes(checksum):
            raise InputError(f"{file} is damaged: a checksum does not match")
        if body == b"IEND":
            return data
        if body.startswith(b"tRNS"):
            raise InputError(f"{file} has a transparent colour: save it without transparency")
        place += 12 + length


def _decoded(file: Path, kind: _Kind) -> NDArray[np.uint8]:
    data = _checked_bytes(file)
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            pixels: NDArray[np.uint8] = np.atleast_3d(np.asarray(image))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise InputError(f"{file} is damaged: its pixels cannot be decoded") from None
    if pixels.dtype != np.uint8 or pixels.shape != (kind.height, kind.width, kind.channels):
        raise InputError(f"{file} changed since the folder was opened")
    return pixels

"""Writing a set of images: as one npz in ADM's layout, or as a folder of PNG files. The pixels do not change."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from PIL import Image

from ditbench.harness.errors import InputError
from ditbench.harness.quality.images.source import ImageSource, stream_size

Progress = Callable[[int, int], None]

# A fixed date, so that the same images give the same file.
_DATE = (1980, 1, 1, 0, 0, 0)


def write_images_npz(
    source: ImageSource, path: Path, limit: int | None = None, progress: Progress | None = None
) -> None:
    """Write the first ``limit`` images (all, if None) as ``arr_0`` (N, H, W, C) uint8, uncompressed.

    The file appears whole or not at all, and replaces one of that name. ``progress`` gets images done and their total.
    Raises InputError: fewer images than ``limit``, a source that cannot be read, a place that cannot be written.
    """
    count = len(source) if limit is None else limit
    batches = source.batches(stream_size(source.shape), limit)
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *source.shape)}
    with _write_errors(path):
        if path.is_dir():
            raise InputError(f"{path} is a folder: give the name of an npz file")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                    entry = zipfile.ZipInfo("arr_0.npy", _DATE)
                    # The size is not known to zipfile beforehand, and may pass 4 GiB.
                    with archive.open(entry, "w", force_zip64=True) as member:
                        npy.write_array_header_1_0(member, header)
                        done = 0
                        for images in batches:
                            member.write(np.ascontiguousarray(images).data)
                            done += len(images)
                            if progress is not None:
                                progress(done, count)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_png_folder(
    source: ImageSource, folder: Path, limit: int | None = None, progress: Progress | None = None
) -> None:
    """Write the first ``limit`` images (all, if None) as 000000.png, 000001.png, … into a new or empty folder.

    Every file appears whole or not at all; after an error none is left. ``progress`` gets images done and their total.
    Raises InputError: a folder that is not empty, and as ``write_images_npz``.
    """
    count = len(source) if limit is None else limit
    batches = source.batches(stream_size(source.shape), limit)
    with _write_errors(folder):
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty: give a new folder for the images")
        existed = folder.is_dir()
        folder.mkdir(parents=True, exist_ok=True)
        part, done = folder / ".part", 0
        try:
            for images in batches:
                for image in images:
                    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(part, format="PNG")
                    part.replace(_png(folder, done))
                    done += 1
                if progress is not None:
                    progress(done, count)
        except BaseException:
            part.unlink(missing_ok=True)
            for index in range(done + 1):
                _png(folder, index).unlink(missing_ok=True)
            if not existed:
                with suppress(OSError):
                    folder.rmdir()
            raise


def _png(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.png"


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None

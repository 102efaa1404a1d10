"""Images in npz files, as a stream.

The layout is the one of ADM's samples and references: ``arr_0`` is (N, H, W, C) uint8. Other arrays may lie beside it
(labels as ``arr_1``; ``mu``, ``sigma``, ``mu_s``, ``sigma_s`` in references).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ditbench.harness.errors import InputError
from ditbench.harness.quality.images.checks import check_layout, checked_count
from ditbench.harness.store.arrays import archive_of, damage_reported, fill, member_of, parse_header, read_header

IMAGES = "arr_0"


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
        with archive_of(self._path) as archive, member_of(self._path, archive, IMAGES) as member:
            with damage_reported(self._path, IMAGES):
                if parse_header(member) != self._header:
                    raise ValueError("it changed since it was opened")
            for start in range(0, count, size):
                batch = np.empty((min(size, count - start), *self.shape), dtype=np.uint8)
                with damage_reported(self._path, IMAGES):
                    fill(batch.data.cast("B"), member)
                yield batch

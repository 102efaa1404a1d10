"""Arrays in files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ditbench.harness.store.store import write_atomic


def write_npz(path: Path, **arrays: ArrayLike) -> str:
    """Write ``arrays`` under their names. Returns the SHA-256 of the file, hex."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: np.asarray(array) for name, array in arrays.items()})
    write_atomic(path, buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()

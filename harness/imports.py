"""Where the processes that a run starts import from: where their parent does, never the folder that one works in."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path


def import_variables() -> dict[str, str]:
    """Variables for a child that is to import what this process does, from the same folders in the same order.

    ``python -m`` and ``python -c``, and with it multiprocessing's server, would put the working folder first;
    PYTHONSAFEPATH keeps it out. PYTHONPATH gets what this process searches before the standard library: the folders
    that the user named there, and the checkout that ``python -m ditbench`` was started in.
    """
    before = takewhile(lambda entry: not _is_library(entry), sys.path)
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(dict.fromkeys(map(os.path.abspath, before)))}


@contextmanager
def importing_alike() -> Iterator[None]:
    """What is started meanwhile, in ways that take no environment, gets ``import_variables``."""
    variables = import_variables()
    kept = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _is_library(entry: str) -> bool:
    zipped = f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    return Path(entry) in (Path(sysconfig.get_path("stdlib")), Path(os.__file__).parent) or Path(entry).name == zipped

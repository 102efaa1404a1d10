"""Processes that end with the one that started them, so that a killed run leaves nothing computing behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Mapping

_PARENT = "DITBENCH_PARENT"
_SET_DEATH_SIGNAL = 1


def die_with_parent() -> None:
    """Linux: be killed when the parent ends, and end now if it has ended already. Elsewhere nothing.

    Call it before slow imports: until then a killed parent is not noticed.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    expected = os.environ.get(_PARENT)
    if expected is not None and os.getppid() != int(expected):
        sys.exit(1)


def named_parent(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` for a child that calls ``die_with_parent``: it knows by it which process is its parent."""
    return {**environment, _PARENT: str(os.getpid())}

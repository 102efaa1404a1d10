"""From an exception to the failure that a record holds."""

from __future__ import annotations

import traceback

from ditbench.harness.errors import InputError, StoreError
from ditbench.harness.store.records import Failure, FailureKind


class FailedError(Exception):
    """A failure that another process has described already."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.message)


def failure_of(error: Exception) -> Failure:
    """The kind of ``error`` and its text in one line, with the traceback of where it is being handled."""
    if isinstance(error, FailedError):
        return error.failure
    kind: FailureKind = "error"
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, ArithmeticError):
        kind, text = "not-finite", str(error)
    elif isinstance(error, InputError):
        text = str(error)
    elif isinstance(error, StoreError):
        kind, text = "disk-full" if error.full else "error", str(error)
    elif isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "allocate memory" in str(error):
        kind = "out-of-memory"
    return Failure(kind=kind, message=" ".join(text.split())[:500], traceback=traceback.format_exc())

"""Errors that a user can mend. The command line prints them as one line and exits with 2."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Position:
    """A place in a user's file. Lines and columns count from 1."""

    file: Path
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class InputError(Exception):
    """Bad input: suite, option, checkpoint or data. ``str()`` is the one line that the user sees."""

    def __init__(self, message: str, position: Position | None = None) -> None:
        self.message = " ".join(message.split())
        self.position = position
        super().__init__(f"{position}: {self.message}" if position else self.message)


class MissingFileError(InputError):
    """A file that the user must bring is not there. A plan can wait for it; every other fault stops at once."""


class StoreError(Exception):
    """A disk that does not take what is written. The command line prints one line and exits with 1.

    ``full``: there is no space or quota left, which the user mends by freeing some.
    """

    def __init__(self, message: str, full: bool = False) -> None:
        self.full = full
        super().__init__(" ".join(message.split()))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' (did you mean 'x'?)' for the nearest known word, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""


def field_of(message: str, config: Mapping[str, Any]) -> str:
    """The field of a suite that a complaint about a config begins with: 'config.depth', else 'config'."""
    word = re.match(r"\w+", message)
    return f"config.{word[0]}" if word is not None and word[0] in config else "config"

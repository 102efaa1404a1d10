"""Where keys and values of a TOML text stand, because tomllib does not tell."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from pathlib import Path

from ditbench.harness.errors import Position

KeyPath = tuple[str, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_KEY = re.compile(r"""[ \t]*("(?:\\.|[^"\\])*"|'[^']*'|[A-Za-z0-9_-]+)""")
_DOT = re.compile(r"[ \t]*\.")
_HEADER_END = re.compile(r"[ \t]*\]{1,2}")
_EQUALS = re.compile(r"[ \t]*=[ \t]*")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}' r"|'''.*?'{3,5}" r'|"(?:\\.|[^"\\])*"' r"|'[^']*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]+")  # dates may hold a space


class Scanner:
    """Where keys and values of a TOML text begin. The text must be valid TOML.

    ``keys``: first mention of each table and key; ``values``: of each key that has a value. What is inside a list
    is told as if it were below the list's own key.
    """

    def __init__(self, text: str, file: Path) -> None:
        self.keys: dict[KeyPath, Position] = {}
        self.values: dict[KeyPath, Position] = {}
        self._text, self._file, self._at = text, file, 0
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]
        table: KeyPath = ()
        self._skip(_BLANK)
        while self._at < len(text):
            if text[self._at] == "[":
                self._at += 2 if text.startswith("[[", self._at) else 1
                table = self._key(())
                self._skip(_HEADER_END)
            else:
                self._pair(table)
            self._skip(_BLANK)

    def _pair(self, table: KeyPath) -> None:
        path = self._key(table)
        self._skip(_EQUALS)
        self.values.setdefault(path, self._position(self._at))
        self._value(path)

    def _key(self, path: KeyPath) -> KeyPath:
        """Reads a dotted key below ``path``."""
        while True:
            match = _KEY.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            name = tomllib.loads(f"k = {match[1]}")["k"] if match[1][0] in "\"'" else match[1]
            path = (*path, name)
            self.keys.setdefault(path, self._position(match.start(1)))
            if not self._skip(_DOT):
                return path

    def _value(self, path: KeyPath) -> None:
        opening = self._text[self._at]
        if opening not in "[{":
            self._skip(_STRING) or self._skip(_SCALAR)
            return
        self._at += 1
        self._skip(_BLANK)
        while self._text[self._at] not in "]}":
            if opening == "{":
                self._pair(path)
            else:
                self._value(path)
            self._skip(_BLANK)
            self._at += self._text[self._at] == ","
            self._skip(_BLANK)
        self._at += 1

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        match = pattern.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return match is not None

    def _position(self, at: int) -> Position:
        line = bisect_right(self._lines, at)
        return Position(self._file, line, at - self._lines[line - 1] + 1)

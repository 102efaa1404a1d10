"""``ditbench.toml``: where this user keeps the files that ditbench cannot ship. Every fault is told with its place."""

from __future__ import annotations

import os
import re
import tomllib
from bisect import bisect_right
from pathlib import Path
from typing import Any

from harness.assets.values import KNOWN, Assets, Entry, Kind
from harness.errors import InputError, Position, did_you_mean

VARIABLE = "DITBENCH_CONFIG"
FILE_NAME = "ditbench.toml"
TABLES: dict[str, Kind] = {"assets": "asset", "references": "reference"}
MAX_BYTES = 1 << 20

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
_TOML_FAULT = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)


def config_file() -> Path | None:
    """The configuration in use: what DITBENCH_CONFIG names, else ./ditbench.toml, else the user's; None without one.

    Raises InputError if DITBENCH_CONFIG is set and not empty, but names nothing that exists.
    """
    if named := os.environ.get(VARIABLE):
        file = _expanded(named)
        if file is None or not os.path.lexists(file):
            raise InputError(f"{VARIABLE} names {named}, which does not exist")
        return file
    places = (Path(FILE_NAME), _expanded(f"~/.config/ditbench/{FILE_NAME}"))
    return next((file for file in places if file and os.path.lexists(file)), None)


def load_assets() -> Assets:
    """What the configuration names, checked in form; whether the files exist is not looked at.

    Raises InputError at the place of the first fault: TOML syntax, unknown tables, names and keys, wrong types,
    text that is no SHA-256.
    """
    file = config_file()
    if file is None:
        return Assets(None)
    text = _read(file)
    try:
        data = tomllib.loads(text)
        reader = _Reader(file, _Scanner(text, file))
    except RecursionError:
        raise InputError("nested too deeply", Position(file)) from None
    except ValueError as error:
        raise _syntax_error(error, text, file) from None
    entries: dict[str, dict[str, Entry]] = {}
    for table, content in data.items():
        if table not in TABLES:
            hint = did_you_mean(table, TABLES) or f" (known: {', '.join(TABLES)})"
            raise InputError(f"unknown table {table!r}{hint}", reader.key(table))
        reader.check_table((table,), content, f"[{table}.NAME]")
        entries[table] = {name: reader.entry(table, name, fields) for name, fields in content.items()}
    return Assets(file, **entries)


class _Reader:
    """Turns parsed TOML into entries; knows where everything stands."""

    def __init__(self, file: Path, scanner: _Scanner) -> None:
        self._file, self._scanner = file, scanner

    def entry(self, table: str, name: str, fields: Any) -> Entry:
        self._check_name(table, name)
        self.check_table((table, name), fields, f"[{table}.{name}]")
        for key, value in fields.items():
            if key not in ("path", "sha256"):
                hint = did_you_mean(key, ("path", "sha256")) or " (known: path, sha256)"
                raise InputError(f"unknown key {key!r} in [{table}.{name}]{hint}", self.key(table, name, key))
            if not isinstance(value, str):
                raise InputError(f"{key} must be text in quotes, not {_kind(value)}", self._value(table, name, key))
        place = self.key(table, name)
        if "path" not in fields:
            raise InputError(f"[{table}.{name}] has no path", place)
        path = self._path(fields["path"], self._value(table, name, "path"))
        digest = fields.get("sha256")
        if digest is not None and not re.fullmatch("[0-9a-fA-F]{64}", digest):
            problem = f"sha256 must be 64 hexadecimal digits, not {len(digest)} characters: {digest[:80]!r}"
            raise InputError(problem, self._value(table, name, "sha256"))
        return Entry(name, path, digest.lower() if digest else None, place, TABLES[table])

    def check_table(self, path: KeyPath, value: Any, example: str) -> None:
        if not isinstance(value, dict):
            problem = f"{path[-1]!r} must be a table, as in {example}, not {_kind(value)}"
            raise InputError(problem, self._value(*path))

    def key(self, *path: str) -> Position:
        return self._scanner.keys[path]

    def _value(self, *path: str) -> Position:
        return self._scanner.values.get(path) or self.key(*path)

    def _check_name(self, table: str, name: str) -> None:
        place = self.key(table, name)
        if not name or not name.isprintable():
            raise InputError(f"{name!r} is no name: printable text is", place)
        known = KNOWN.get(name)
        if table == "assets" and (known is None or known.kind != "asset"):
            if known is not None:
                raise InputError(f"{name} is a reference: write [references.{name}]", place)
            names = [each.name for each in KNOWN.values() if each.kind == "asset"]
            hint = did_you_mean(name, names) or f" (known: {', '.join(names)})"
            raise InputError(f"unknown asset {name!r}{hint}", place)
        if table == "references" and known is not None and known.kind == "asset":
            raise InputError(f"{name} is an asset: write [assets.{name}]", place)

    def _path(self, text: str, place: Position) -> Path:
        if not text or "\0" in text:
            raise InputError(f"{text!r} is no path", place)
        path = _expanded(text)
        if path is None:
            raise InputError(f"{text.split('/')[0]} names no home folder", place)
        return self._file.absolute().parent / path


def _expanded(text: str) -> Path | None:
    """The path with ~ replaced; None where there is no such home folder."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return None


def _kind(value: object) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "a table"}
    return names.get(type(value), "a date or a time")


def _read(file: Path) -> str:
    start = Position(file)
    try:
        if file.is_dir():
            raise InputError(f"this is a folder, not {FILE_NAME}", start)
        if file.stat().st_size > MAX_BYTES:
            raise InputError(f"too large for {FILE_NAME}: more than {MAX_BYTES:,} bytes", start)
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", start) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].removeprefix(b"\xef\xbb\xbf").decode()
        place = Position(file, before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise InputError("this is not text in UTF-8", place) from None


def _syntax_error(error: ValueError, text: str, file: Path) -> InputError:
    match = _TOML_FAULT.fullmatch(str(error))
    if match is None:
        return InputError(f"not valid TOML: {error}", Position(file))
    line, column = (match[2], match[3]) if match[2] else (text.count("\n") + 1, len(text) - text.rfind("\n"))
    return InputError(f"not valid TOML: {match[1]}", Position(file, int(line), int(column)))


class _Scanner:
    """Where keys and values of a TOML text begin, because tomllib does not tell. The text must be valid TOML.

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

"""``ditbench.toml``: where this user keeps the files that ditbench cannot ship. Every fault is told with its place."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

from ditbench.harness.assets.known import KNOWN
from ditbench.harness.assets.scanner import KeyPath, Scanner
from ditbench.harness.assets.values import Assets, Entry
from ditbench.harness.errors import InputError, Position, did_you_mean

VARIABLE = "DITBENCH_CONFIG"
FILE_NAME = "ditbench.toml"
TABLES = ("assets", "references")
KEYS = ("path", "sha256", "config")
MAX_BYTES = 1 << 20

_TOML_FAULT = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)


def table_header(table: str, name: str) -> str:
    """'[assets.NAME]', the name in quotes where TOML needs them."""
    bare = re.fullmatch("[A-Za-z0-9_-]+", name)
    return f"[{table}.{name if bare else json.dumps(name, ensure_ascii=False)}]"  # JSON's escapes are TOML's too


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
        reader = _Reader(file, Scanner(text, file))
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

    def __init__(self, file: Path, scanner: Scanner) -> None:
        self._file, self._scanner = file, scanner

    def entry(self, table: str, name: str, fields: Any) -> Entry:
        self._check_name(table, name, fields)
        self.check_table((table, name), fields, f"[{table}.{name}]")
        for key, value in fields.items():
            if key not in KEYS:
                hint = did_you_mean(key, KEYS) or f" (known: {', '.join(KEYS)})"
                raise InputError(f"unknown key {key!r} in [{table}.{name}]{hint}", self.key(table, name, key))
            if key != "config" and not isinstance(value, str):
                raise InputError(f"{key} must be text in quotes, not {_kind(value)}", self._value(table, name, key))
        place = self.key(table, name)
        if "path" not in fields:
            raise InputError(f"{table_header(table, name)} has no path", place)
        path = self._path(fields["path"], self._value(table, name, "path"))
        digest = fields.get("sha256")
        if digest is not None and not re.fullmatch("[0-9a-fA-F]{64}", digest):
            problem = f"sha256 must be 64 hexadecimal digits, not {len(digest)} characters: {digest[:80]!r}"
            raise InputError(problem, self._value(table, name, "sha256"))
        kind = KNOWN[name].kind if table == "assets" else "reference"
        return Entry(name, path, digest.lower() if digest else None, place, kind, self._config(table, name, fields))

    def _config(self, table: str, name: str, fields: dict[str, Any]) -> dict[str, Any]:
        """The shape of a model's weights where it is not the published one."""
        if "config" not in fields:
            return {}
        if table != "assets" or not KNOWN[name].method:
            problem = f"config is for a model's weights, and {name} has no method that would read it"
            raise InputError(problem, self.key(table, name, "config"))
        self.check_table((table, name, "config"), fields["config"], f"[{table}.{name}.config]")
        for key, value in fields["config"].items():
            if not isinstance(value, bool | int | float | str) or value != value:
                problem = f"{key} must be a number, a boolean or text, not {_kind(value)}"
                raise InputError(problem, self._value(table, name, "config", key))
        return dict(fields["config"])

    def check_table(self, path: KeyPath, value: Any, example: str) -> None:
        if not isinstance(value, dict):
            problem = f"{path[-1]!r} must be a table, as in {example}, not {_kind(value)}"
            raise InputError(problem, self._value(*path))

    def key(self, *path: str) -> Position:
        return self._scanner.keys[path]

    def _value(self, *path: str) -> Position:
        return self._scanner.values.get(path) or self.key(*path)

    def _check_name(self, table: str, name: str, fields: Any) -> None:
        place = self.key(table, name)
        if not name or not name.isprintable():
            raise InputError(f"{name!r} is no name: printable text is", place)
        known = KNOWN.get(name)
        if table == "assets" and (known is None or known.table != "assets"):
            if known is not None:
                raise InputError(f"{name} is a reference: write [references.{name}]", place)
            dotted = [f"{name}.{key}" for key in fields] if isinstance(fields, dict) else []
            if meant := next((each for each in dotted if each in KNOWN), None):
                raise InputError(f"a name with a dot needs quotes: write {table_header(table, meant)}", place)
            names = [each.name for each in KNOWN.values() if each.table == "assets"]
            hint = did_you_mean(name, names) or f" (known: {', '.join(names)})"
            raise InputError(f"unknown asset {name!r}{hint}", place)
        if table == "references" and known is not None and known.table == "assets":
            article = "an asset" if known.kind == "asset" else "weights"
            raise InputError(f"{name} is {article}: write {table_header('assets', name)}", place)

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

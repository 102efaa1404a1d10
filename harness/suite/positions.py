"""YAML read into a tree whose every key and value remembers where it stands.

Only plain data comes out: mappings with text keys, lists, text, numbers, booleans and null. Tags cannot run
code, because values are taken from PyYAML's composed nodes and every other tag is refused.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ditbench.harness.errors import InputError, Position

KeyPath = tuple[str | int, ...]
Scalar = str | int | float | bool | None

MAX_BYTES = 1 << 20
MAX_VALUES = 100_000

_TAG = "tag:yaml.org,2002:"
_SCALARS = {_TAG + name for name in ("null", "bool", "int", "float", "str")}
# YAML 1.1 wants a point in the mantissa and a sign in the exponent; people and Python write neither.
_NUMBER_READ_AS_TEXT = re.compile(r"([-+]?\d+)(\.\d*)?[eE]([-+]?)(\d+)")


@dataclass(frozen=True)
class Node:
    """A value of a suite with its place.

    value     a scalar, or children by key or by index
    position  where the value begins
    key       where the key before it begins; None for list items and the root
    """

    value: Scalar | dict[str, Node] | list[Node]
    position: Position
    key: Position | None = None

    def plain(self) -> Any:
        """The bare data, without places; fresh containers on each call."""
        if isinstance(self.value, dict):
            return {name: child.plain() for name, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def child(self, step: str | int) -> Node | None:
        """The child under a key or an index, or None."""
        if isinstance(self.value, dict) and isinstance(step, str):
            return self.value.get(step)
        if isinstance(self.value, list) and isinstance(step, int) and 0 <= step < len(self.value):
            return self.value[step]
        return None

    def nearest(self, path: KeyPath) -> Node:
        """The node at ``path``, or its closest ancestor that exists."""
        node = self
        for step in path:
            below = node.child(step)
            if below is None:
                break
            node = below
        return node

    def with_child(self, name: str, child: Node) -> Node:
        """This mapping with ``name`` set to ``child``."""
        assert isinstance(self.value, dict)
        return replace(self, value={**self.value, name: child})


def merge(base: Node, over: Node) -> Node:
    """``over`` laid on ``base``: mappings merge deeply, lists and scalars (null too) replace.

    Every value keeps the place of the file it came from.
    """
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    merged = dict(base.value)
    for name, child in over.value.items():
        merged[name] = merge(merged[name], child) if name in merged else child
    return replace(over, value=merged)


def read_text(file: Path) -> str:
    """The text of a suite's file. Raises InputError when it is missing, too large, binary or not UTF-8."""
    start = Position(file)
    try:
        if file.is_dir():
            raise InputError("this is a folder, not a suite", start)
        if not file.exists():
            raise InputError("no such file", start)
        if not file.is_file():
            raise InputError("this is not a regular file", start)
        if file.stat().st_size > MAX_BYTES:
            raise InputError(f"too large for a suite: more than {MAX_BYTES:,} bytes", start)
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", start) from None
    if (zero := data.find(b"\0")) >= 0:
        raise InputError("this is a binary file, not a suite in YAML", _offset(file, data, zero))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("this is not text in UTF-8", _offset(file, data, error.start)) from None


def parse(text: str, file: Path) -> Node:
    """The tree of one YAML document. Raises InputError at the place of the first fault."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        problem = error.problem or error.context or "unknown fault"
        if problem.startswith("but"):  # the second half of a sentence that the context begins
            problem = f"{error.context} {problem}"
        hint = " (indent with spaces, not with tabs)" if "'\\t'" in problem else ""
        mark = error.problem_mark or error.context_mark
        raise InputError(f"not valid YAML: {problem}{hint}", _mark(file, mark)) from None
    except yaml.reader.ReaderError as error:
        place = _offset(file, text[: error.position].encode(), len(text[: error.position].encode()))
        raise InputError("this is a binary file or holds control characters", place) from None
    except RecursionError:
        raise InputError("nested too deeply", Position(file)) from None
    if root is None:
        raise InputError("the suite is empty: it needs at least 'suite' and 'cells'", Position(file))
    return _Reader(file).read(root, key=None)


class _Reader:
    """Turns PyYAML's nodes into ours; holds what a recursion must know."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._scalars = yaml.SafeLoader("")
        self._open: set[int] = set()
        self._count = 0

    def read(self, node: yaml.Node, key: Position | None) -> Node:
        place = _mark(self._file, node.start_mark)
        # An alias is the same object again: it can contain itself, or multiply to billions of values.
        self._count += 1
        if self._count > MAX_VALUES:
            raise InputError(f"too large for a suite: more than {MAX_VALUES:,} values", place)
        if id(node) in self._open:
            raise InputError("this alias contains itself", place)
        self._open.add(id(node))
        try:
            return Node(self._value(node, place), place, key)
        finally:
            self._open.discard(id(node))

    def _value(self, node: yaml.Node, place: Position) -> Scalar | dict[str, Node] | list[Node]:
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.read(item, key=None) for item in node.value]
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
            return self._scalar(node, place)
        if node.tag == _TAG + "timestamp":
            raise InputError("YAML reads this as a date: put it in quotes", place)
        raise InputError(f"the YAML tag {node.tag.replace(_TAG, '!!')!r} is not allowed in a suite", place)

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Node]:
        children: dict[str, Node] = {}
        for key_node, value_node in node.value:
            place = _mark(self._file, key_node.start_mark)
            if key_node.tag == _TAG + "merge":
                raise InputError("merge keys ('<<') are not supported: use defaults or extends", place)
            if not isinstance(key_node, yaml.ScalarNode) or not _is_key(key_node):
                shown = f" {key_node.value!r}" if isinstance(key_node, yaml.ScalarNode) else ""
                raise InputError(f"the key{shown} is not text: put it in quotes", place)
            name = key_node.value
            if name in children:
                raise InputError(f"duplicate key {name!r} (first in line {_line(children[name])})", place)
            children[name] = self.read(value_node, key=place)
        return children

    def _scalar(self, node: yaml.ScalarNode, place: Position) -> Scalar:
        if node.tag == _TAG + "str" and not node.style and (number := respelled_number(node.value)):
            raise InputError(
                f"YAML reads {node.value} as text: write {number}, or quotes around it if it is text", place
            )
        try:
            value: Scalar = self._scalars.construct_object(node)
        except (ValueError, KeyError, OverflowError, yaml.YAMLError):
            kind = node.tag.removeprefix(_TAG)
            raise InputError(f"{node.value[:40]!r} is not a YAML {kind}", place) from None
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{node.value} is not allowed: numbers must be finite", place)
        return value


def respelled_number(text: str) -> str | None:
    """'1e-3' -> '1.0e-3': a number that YAML 1.1 takes for text, spelled as YAML wants it; else None."""
    match = _NUMBER_READ_AS_TEXT.fullmatch(text)
    if match is None:
        return None
    whole, fraction, sign, exponent = match.groups()
    return f"{whole}{fraction if fraction and len(fraction) > 1 else '.0'}e{sign or '+'}{exponent}"


def _line(node: Node) -> int:
    return (node.key or node.position).line


def _mark(file: Path, mark: yaml.Mark | None) -> Position:
    return Position(file, mark.line + 1, mark.column + 1) if mark else Position(file)


def _offset(file: Path, data: bytes, offset: int) -> Position:
    before = data[:offset]
    return Position(file, before.count(b"\n") + 1, offset - (before.rfind(b"\n") + 1) + 1)


def _is_key(node: yaml.ScalarNode) -> bool:
    """Text, or a whole number as it is said: numbers may be keys too, and stay text here."""
    return node.tag == _TAG + "str" or (
        node.tag == _TAG + "int" and node.value == node.value.lstrip("+0") and node.value.isdigit()
    )

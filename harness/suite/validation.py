"""A pydantic ValidationError becomes one InputError: the place in the file and plain words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from ditbench.harness.errors import InputError, Position, did_you_mean
from ditbench.harness.suite.positions import KeyPath, Node, respelled_number

Model = TypeVar("Model", bound=BaseModel)

_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "must be at least"),
    "greater_than": ("gt", "must be above"),
    "less_than_equal": ("le", "must be at most"),
    "less_than": ("lt", "must be below"),
}


def validate(model: type[Model], root: Node) -> Model:
    """``root`` as a ``model``. Raises InputError at the place of the first fault."""
    try:
        return model.model_validate(root.plain())
    except ValidationError as error:
        raise explain(error, model, root) from None


def explain(error: ValidationError, model: type[BaseModel], root: Node) -> InputError:
    """The one fault to show: an unknown key before all (it often causes the rest), else the first one."""
    found = [_Fault(details, model, root) for details in error.errors()]
    first = min(found, key=lambda fault: fault.order)
    return InputError(first.message, first.position)


def keys_at(model: type[BaseModel], path: KeyPath) -> list[str] | None:
    """Keys that may stand at ``path`` below ``model``; None where any may (config) or none."""
    current: type[BaseModel] | None = model
    for step in path:
        if current is None:
            return None
        if isinstance(step, str):
            field = current.model_fields.get(step)
            current = _model_in(field.annotation) if field else None
    return list(current.model_fields) if current else None


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(part) for part in get_args(annotation))
    return next((model for model in found if model), None)


class _Fault:
    """One of pydantic's errors with its place and words."""

    def __init__(self, details: Any, model: type[BaseModel], root: Node) -> None:
        self.kind: str = details["type"]
        self.path: KeyPath = details["loc"]
        self.context: dict[str, Any] = details.get("ctx", {})
        self.input: Any = details["input"]
        node = root.nearest(self.path)
        at_key = self.kind == "extra_forbidden" and node.key is not None
        self.position: Position = node.key if at_key and node.key else node.position
        self.message = self._message(details["msg"], model)

    @property
    def order(self) -> tuple[bool, bool, str, int, int]:
        place = self.position
        unknown, missing = self.kind == "extra_forbidden", self.kind == "missing"
        return (not unknown, missing, str(place.file), place.line, place.column)

    def _message(self, fallback: str, model: type[BaseModel]) -> str:
        if self.kind == "extra_forbidden":
            name, known = str(self.path[-1]), keys_at(model, self.path[:-1]) or []
            return f"unknown key {name!r}{did_you_mean(name, known) or ' (known: ' + ', '.join(known) + ')'}"
        if self.kind == "missing" and isinstance(self.path[-1], int):
            return f"{label(self.path[:-1])}: the list is too short"
        if self.kind == "missing":
            owner = label(self.path[:-1])
            return f"missing key {str(self.path[-1])!r}" + (f" in {owner}" if owner else "")
        return f"{label(self.path) or 'the suite'}: {self._complaint(fallback)}"

    def _complaint(self, fallback: str) -> str:
        if self.kind in _KINDS:
            return f"{show(self.input)} is not {_KINDS[self.kind]}{_type_hint(self.kind, self.input)}"
        if self.kind in _BOUNDS:
            key, words = _BOUNDS[self.kind]
            return f"{show(self.input)} is not allowed: {words} {self.context[key]:g}"
        if self.kind == "literal_error":
            allowed = re.findall(r"'([^']*)'", self.context["expected"])
            near = did_you_mean(str(self.input), allowed)
            return f"{show(self.input)} is not one of {', '.join(allowed)}{near}"
        if self.kind == "string_pattern_mismatch":
            return f"{show(self.input)} is not a name: letters, digits and . _ + - only, 80 at most"
        if self.kind == "too_short" and not self.input:
            return "must not be empty"
        if self.kind in ("too_short", "too_long"):
            return f"{show(self.input)} has the wrong length"
        if self.kind == "value_error":
            return str(self.context["error"])
        return fallback


def label(path: KeyPath) -> str:
    """'measure[1]', 'guidance.scale': the field as a user thinks of it; the place tells in which cell."""
    if len(path) > 2 and path[0] == "cells":
        path = path[2:]
    elif len(path) > 1 and path[0] == "defaults":
        path = path[1:]
    words = ""
    for step in path:
        words += f"[{step}]" if isinstance(step, int) else f".{step}" if words else step
    return words


def show(value: Any) -> str:
    """A value as the user would recognise it, cut to a length that fits into one line."""
    text = _YAML_WORDS.get(type(value), repr)(value)
    return text if len(text) <= 60 else text[:57] + "..."


_YAML_WORDS: dict[type, Callable[[Any], str]] = {
    bool: lambda value: str(value).lower(),
    type(None): lambda value: "null",
    dict: lambda value: "a mapping",
    list: lambda value: f"the list {value!r}",
}


def _type_hint(kind: str, value: Any) -> str:
    if kind not in ("int_type", "float_type") or not isinstance(value, str):
        return ""
    if number := respelled_number(value):
        return f" (write {number} without quotes)"
    try:
        float(value)
    except ValueError:
        return ""
    return " (remove the quotes)"

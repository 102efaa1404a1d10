"""Configs of methods: frozen dataclasses made from names and values that users write."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from ditbench.methods.errors import ConfigError

T = TypeVar("T")


def make_config(config_class: type[T], options: Mapping[str, Any]) -> T:
    """``config_class(**options)``. Raises ConfigError with a suggestion on an unknown name."""
    known = [field.name for field in dataclasses.fields(config_class)]  # type: ignore[arg-type]
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"unknown config key {name!r} ({hint})")
    return config_class(**options)

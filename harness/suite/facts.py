"""Facts of a cell's method, or the fault and its place in the suite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ditbench.harness.errors import InputError, field_of
from ditbench.harness.suite.positions import Node
from ditbench.methods.entries import UnknownNameError
from ditbench.methods.errors import ConfigError
from ditbench.methods.facts import Facts
from ditbench.methods.registry import facts_of


def facts_at(method: str, config: Mapping[str, Any], node: Node) -> Facts:
    """``node``: the cell's merged fields with their places. Raises InputError."""
    try:
        return facts_of(method, config)
    except UnknownNameError as error:
        raise InputError(str(error), node.nearest(("method",)).position) from None
    except (ConfigError, TypeError) as error:
        place = node.nearest(tuple(field_of(str(error), config).split("."))).position
        raise InputError(f"{method}: {error}", place) from None

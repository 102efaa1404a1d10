"""What a cell's process tells the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ditbench.harness.store.records import Failure, Quantity


@dataclass(frozen=True)
class Outcome:
    """The result of one task: values and detail, or a failure.

    environment  of the process that made it; empty where the process could not tell
    """

    task: str
    seconds: float
    values: dict[str, Quantity]
    detail: dict[str, Any]
    protocol: str | None = None
    failure: Failure | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """What the process is doing now; ``total`` is 0 where there is nothing to count."""

    task: str
    done: int = 0
    total: int = 0

"""The base of what users write: no unknown keys, no silent conversion."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Base of the schema of suites: no unknown keys, no silent conversion (a whole number may stand for a float)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

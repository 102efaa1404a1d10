"""The record: one measurement on one cell, immutable, with its units, uncertainty, protocol and provenance.

Records are the only thing that the harness hands to the report. What is not in a record cannot be shown.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ditbench.methods.older_records import imposed_by

RECORD_SCHEMA_VERSION = 1

FailureKind = Literal["error", "not-finite", "timeout", "crash", "out-of-memory", "disk-full"]


class Frozen(BaseModel):
    """Base of every stored value: immutable, unknown keys refused, NaN and infinity kept out of the files."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Quantity(Frozen):
    """A measured number with its unit and either an interval or the reason why there is none."""

    value: float
    unit: str = Field(description="'GMAC', 'ms', 'MiB', 'images/s', '1' (a pure number)")
    low: float | None = Field(default=None, description="lower end of the 95 % interval, same unit")
    high: float | None = Field(default=None, description="upper end of the 95 % interval, same unit")
    interval: str = Field(description="how low/high were made, or why there is no interval ('exact count')")


class Column(Frozen):
    """How one value of a record is shown where no table knows it: under ``columns`` of the record's ``detail``."""

    name: str = Field(description="of the value")
    title: str
    unit: str = Field(default="", description="empty: the value's own")
    digits: int | None = Field(default=None, ge=0, description="after the point; null: as many as it needs")


class Failure(Frozen):
    """Why a measurement has no value."""

    kind: FailureKind
    message: str = Field(description="one line for tables")
    traceback: str = ""


class Provenance(Frozen):
    """Where a record comes from. Enough to make it again, or to see why it cannot be compared."""

    command: str = Field(description="the shell command that runs this cell again")
    started: str = Field(description="UTC, ISO 8601")
    seconds: float = Field(description="wall clock that the measurement took")
    seed: int
    device: str = Field(description="'cpu' or 'cuda'")
    device_name: str
    threads: int
    versions: dict[str, str] = Field(description="python, torch, numpy, fvcore, ditbench, …")
    git: str | None = Field(description="commit of the working tree, '+dirty' appended; null outside one")
    weights_sha256: str | None = Field(description="digest of the checkpoint; null for random weights")


class DecoderSpec(Frozen):
    """The autoencoder of a cell, resolved; see ``ditbench.harness.suite.schema.Decoder``."""

    weights: str | None = Field(default=None, description="'asset:NAME', a path, or null for random weights")
    weights_sha256: str | None = None
    scale: float = 0.18215
    batch: int = 8
    tile: int | None = None
    dtype: str = "float32"


class CellSpec(Frozen):
    """A fully resolved cell: method x variant x sampler x steps x guidance x seed, as the plan made it."""

    cell: str = Field(description="unique name inside the suite; safe as a file name")
    method: str = Field(description="name in the methods registry, e.g. 'dit-xl-2'")
    variant: str = Field(
        default="", description="what distinguishes cells of one method besides sampler/steps/guidance"
    )
    config: dict[str, Any] = Field(default_factory=dict, description="overrides of the method's config")
    conditions: dict[str, Any] = Field(
        default_factory=dict, description="name and options of the source of what samples are told; empty: class labels"
    )
    modifiers: tuple[dict[str, Any], ...] = Field(default=(), description="what is put around it, innermost first")
    weights: str | None = Field(default=None, description="'zoo:NAME', a path, or null for random weights")
    weights_sha256: str | None = None
    sampler: str
    sampler_options: dict[str, Any] = Field(default_factory=dict)
    steps: int
    guidance_scale: float = 1.0
    guidance_interval: tuple[int | float, int | float] | None = None
    guidance_channels: int | None = None
    guidance_weak: Literal["conditional", "unconditional"] = "conditional"
    dataset: str | None = None
    device: str = "cpu"
    dtype: str = "float32"
    mode: str = Field(default="eager", description="'eager', 'compiled' or 'graph'")
    attention: str = Field(default="auto", description="kernel of fused attention, or 'auto': torch's choice")
    decoder: DecoderSpec | None = None
    published: tuple[str, ...] = Field(default=(), description="keys of the published figures to set beside")
    threads: int = 0
    seed: int = 0
    measure: tuple[str, ...] = ()
    batch: int | None = Field(default=None, description="images a timed call, where the cell sets it itself")
    timeout_s: float | None = Field(default=None, description="this cell's own time limit")
    cost_only: bool = Field(default=False, description="random weights or an imposed cost: quality means nothing here")
    imposed: str = Field(default="", description="the config key that imposes the cost; empty: none does")
    code: str = Field(default="", description="which code ran: distributions with versions and digests of sources")

    @model_validator(mode="before")
    @classmethod
    def _of_older_versions(cls, stored: Any) -> Any:
        if not isinstance(stored, dict) or "imposed" in stored:
            return stored
        return {**stored, "imposed": imposed_by(stored.get("config") or {})}


class Record(Frozen):
    """One measurement on one cell. ``identity`` addresses everything that can change ``values``."""

    schema_version: int = RECORD_SCHEMA_VERSION
    identity: str = Field(description="SHA-256, hex, of what was measured and how")
    suite: str
    spec: CellSpec
    measurement: str = Field(
        description="'flops', 'latency', 'kernels', 'memory', 'energy', 'decode', 'training', 'agreement', 'quality', "
        "'paired'"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="the measurement's resolved options")
    status: Literal["ok", "failed"]
    values: dict[str, Quantity] = Field(default_factory=dict)
    detail: dict[str, Any] = Field(default_factory=dict, description="structured data behind the values")
    protocol: str | None = Field(default=None, description="quality protocol id; figures of two ids are not compared")
    failure: Failure | None = None
    provenance: Provenance

    @property
    def cell(self) -> str:
        return self.spec.cell

"""The form of the files of published figures, and what they come to: one ``Published`` a printed row.

Values are strings as printed, so that their digits are kept: YAML must quote them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ditbench.harness.published.conventions import CONVENTIONS

Quantity = Literal[
    "params_m",
    "gflops",
    "tflops_forward",
    "tflops_image",
    "flops_percent",
    "speedup",
    "latency_s_image",
    "fid",
    "sfid",
    "is",
    "precision",
    "recall",
]
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
COST: tuple[Quantity, ...] = QUANTITIES[:5]
SPEED: tuple[Quantity, ...] = QUANTITIES[5:7]
QUALITY: tuple[Quantity, ...] = QUANTITIES[7:]
UNITS: dict[Quantity, str] = {
    "params_m": "M",
    "gflops": "G",
    "tflops_forward": "T",
    "tflops_image": "T",
    "flops_percent": "%",
    "speedup": "×",
    "latency_s_image": "s",
}
# What a figure is counted by where its file does not say otherwise.
_USUAL: dict[Quantity, str] = {"params_m": "parameters", "gflops": "fvcore", "flops_percent": "without-adaln"}

Printed = Annotated[str, Field(pattern=r"^\d+(\.\d+)?$")]


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Protocol(Strict):
    """How the figures were made; None: not stated."""

    resolution: int | None = None
    sampler: str | None = None
    steps: int | None = None
    guidance: float | None = None
    samples: int | None = None
    metrics: str | None = None

    @property
    def loop(self) -> str:
        """'250 × DDPM'; '' where neither is stated."""
        return f"{self.steps} × {self.sampler or 'steps'}" if self.steps else self.sampler or ""

    @property
    def scoring(self) -> str:
        """All but the loop: 'guidance 1.5, 50,000 samples, ADM evaluator, 256×256'."""
        words = [f"guidance {self.guidance:g}" if self.guidance is not None else None]
        words += [f"{self.samples:,} samples" if self.samples else None, self.metrics]
        words += [f"{self.resolution}×{self.resolution}" if self.resolution else None]
        return ", ".join(word for word in words if word) or "not stated"


class PrintedRow(Strict):
    """A row of a paper's table.

    against  key of the row of this table that its speed-up is against
    cut      printed with the last digits cut off, not rounded
    reasons  why a cost does not follow from the architecture
    """

    key: str
    label: str
    against: str | None = None
    protocol: dict[str, Any] = Field(default_factory=dict)
    conventions: dict[Quantity, str] = Field(default_factory=dict)
    cut: list[Quantity] = Field(default_factory=list)
    reasons: dict[Quantity, str] = Field(default_factory=dict)
    params_m: Printed | None = None
    gflops: Printed | None = None
    tflops_forward: Printed | None = None
    tflops_image: Printed | None = None
    flops_percent: Printed | None = None
    speedup: Printed | None = None
    latency_s_image: Printed | None = None
    fid: Printed | None = None
    sfid: Printed | None = None
    is_: Printed | None = Field(default=None, alias="is")
    precision: Printed | None = None
    recall: Printed | None = None

    def printed(self) -> dict[Quantity, str]:
        """Quantity -> value as printed, in the order of ``QUANTITIES``."""
        found = self.model_dump(by_alias=True)
        return {name: found[name] for name in QUANTITIES if found[name] is not None}

    @model_validator(mode="after")
    def _names_only_what_it_prints(self) -> PrintedRow:
        for name in (*self.conventions, *self.cut, *self.reasons):
            if name not in self.printed():
                raise ValueError(f"row {self.key}: says something of {name}, which it does not print")
        return self


class PrintedTable(Strict):
    """A table, figure or section. ``reason``: why none of its costs follow from the architecture."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    table: str
    hardware: str | None = None
    protocol: Protocol = Field(default_factory=Protocol)
    conventions: dict[Quantity, str] = Field(default_factory=dict)
    reason: str | None = None
    rows: list[PrintedRow] = Field(min_length=1)


class Paper(Strict):
    """One file."""

    paper: str
    title: str
    arxiv: str | None = Field(default=None, pattern=r"^\d{4}\.\d{5}$")
    tables: list[PrintedTable] = Field(min_length=1)


@dataclass(frozen=True)
class Figure:
    """One printed number.

    printed     as printed: its digits are part of it
    convention  name in ``CONVENTIONS``; None for what is measured, and where ``reason`` holds and nothing is counted
    cut         digits were cut off, not rounded
    reason      why it does not follow from the architecture; None where it does, or is no cost
    """

    quantity: Quantity
    printed: str
    convention: str | None = None
    cut: bool = False
    reason: str | None = None

    @property
    def shown(self) -> str:
        """'84.33 G', '1.32×', '2.12'."""
        unit = UNITS.get(self.quantity, "")
        return self.printed + (unit if unit == "×" else f" {unit}" if unit else "")


@dataclass(frozen=True)
class Published:
    """A printed row. ``against``: key of the row that its speed-up is against; ``hardware`` may be 'not stated'."""

    key: str
    paper: str
    arxiv: str | None
    table: str
    label: str
    protocol: Protocol
    hardware: str
    figures: tuple[Figure, ...]
    against: str | None = None

    @property
    def source(self) -> str:
        """'DyDiT, table 8'."""
        return f"{self.paper}, {self.table}"

    def of(self, *quantities: Quantity) -> tuple[Figure, ...]:
        """Its figures of these quantities."""
        return tuple(figure for figure in self.figures if figure.quantity in quantities)

    def printed(self, quantity: Quantity) -> str:
        """As printed; '' where the row does not print it."""
        return next((figure.printed for figure in self.of(quantity)), "")


def resolve(paper: Paper) -> list[Published]:
    """Its rows, with what tables say of all their rows. Raises ValueError for a convention that is not known."""
    return [_row(paper, table, row) for table in paper.tables for row in table.rows]


def _row(paper: Paper, table: PrintedTable, row: PrintedRow) -> Published:
    conventions = {**_USUAL, **table.conventions, **row.conventions}
    figures = []
    for quantity, printed in row.printed().items():
        if quantity not in COST:
            figures.append(Figure(quantity, printed))
            continue
        reason = row.reasons.get(quantity, table.reason)
        convention = None if table.reason else conventions.get(quantity)
        if convention not in (*CONVENTIONS, None) or (convention is None and reason is None):
            raise ValueError(f"{table.id}/{row.key}: {quantity} has no known convention, but {convention!r}")
        figures.append(Figure(quantity, printed, convention, quantity in row.cut, reason))
    return Published(
        key=f"{table.id}/{row.key}",
        paper=paper.paper,
        arxiv=paper.arxiv,
        table=table.table,
        label=row.label,
        protocol=Protocol.model_validate({**table.protocol.model_dump(), **row.protocol}),
        hardware=table.hardware or "not stated",
        figures=tuple(figures),
        against=f"{table.id}/{row.against}" if row.against else None,
    )

"""What a suite may say. Unknown keys are refused; positions are added by ``ditbench.harness.suite.load``.

A suite names cells; ``matrix`` inside a cell sweeps any of its fields. ``defaults`` are merged under every
cell, mappings deeply. A key set to null falls back to the built-in default, whatever ``defaults`` say.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, create_model, field_validator
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from ditbench.harness.measurements.registry import measurements
from ditbench.harness.strict import Strict

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,79}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Timestep = Annotated[int | float, Field(ge=0, le=999)]

# ``sampler: ddim`` is short for ``sampler: {name: ddim}``, ``guidance: 1.5`` for ``guidance: {scale: 1.5}``.
# ``ditbench.harness.suite.load`` expands it before anything is merged, so that ``sampler: ddim`` in a cell keeps the
# options that ``defaults`` give the sampler.
SHORTHAND = {"sampler": "name", "guidance": "scale", "decoder": "weights", "conditions": "name"}


class _KnownMeasurement:
    """A name in the registry, as a literal of the names that are there when a suite is read."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(cls._known)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"enum": measurements().names(), "type": "string"}

    @staticmethod
    def _known(value: Any) -> str:
        names = measurements().names()
        if not isinstance(value, str) or value not in names:
            expected = ", ".join(f"'{name}'" for name in names)
            raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected})
        return value


MeasurementName = Annotated[str, _KnownMeasurement]


class Guidance(Strict):
    """Classifier-free guidance: prediction = uncond + scale * (cond - uncond)."""

    scale: float = Field(default=1.0, ge=0.0, description="1 = unguided: one forward a step instead of two")
    # strict=False: YAML has lists, not tuples. The numbers inside stay strict.
    interval: Annotated[tuple[Timestep, Timestep], Field(strict=False)] | None = Field(
        default=None,
        description="guide only at times low <= t <= high: of the training grid 0..999, or of a flow's 0..1",
    )
    channels: int | None = Field(
        default=None,
        ge=1,
        description="guide only the first channels (the reference samples with 3); null = all",
    )

    weak: Literal["conditional", "unconditional"] = Field(
        default="conditional",
        description="what guides where the method runs the guidance branch more cheaply: its prediction for the "
        "class, at scale 1 + (s − 1) / 2.5, or for no class",
    )

    @field_validator("interval")
    @classmethod
    def _in_order(cls, interval: tuple[float, float] | None) -> tuple[float, float] | None:
        if interval is not None and interval[0] > interval[1]:
            raise ValueError(f"low {interval[0]} is above high {interval[1]}")
        return interval


class Sampler(Strict):
    """A sampler with its options; those of a plugin's sampler are its own, and checked against its entry."""

    model_config = ConfigDict(extra="allow")

    name: str | None = Field(default=None, description="name in the samplers registry; unset: ddpm, or euler for flows")
    spacing: Literal["even", "ddim"] = Field(default="even", description="timestep respacing as the reference names it")
    eta: float = Field(default=0.0, ge=0.0, le=1.0, description="DDIM's stochasticity; 0 = deterministic")
    clip: bool = Field(default=False, description="clip the predicted clean image to [-1, 1] (pixel-space models)")
    atol: float = Field(default=1e-6, gt=0, description="dopri5: absolute error allowed a step")
    rtol: float = Field(default=1e-3, gt=0, description="dopri5: relative error allowed a step")
    land: bool = Field(default=False, description="dopri5: end the last step at t = 1; false: beyond, as SiT's code")
    last_step: float = Field(default=0.04, gt=0, lt=1, description="euler-maruyama: length of the last step")


class Decoder(Strict):
    """The autoencoder that turns a cell's latents into pictures."""

    weights: str | None = Field(
        default=None, description="a folder or file as diffusers saves AutoencoderKL; or asset:"
    )
    scale: float = Field(default=0.18215, gt=0, description="latents are divided by it before decoding")
    batch: int = Field(default=8, ge=1, le=4096, description="latents a call")
    tile: int | None = Field(default=None, ge=8, description="side of a tile in latents; unset: whole latents")
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class Conditions(Strict):
    """Where what samples are told comes from: a source, with options of its own."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(default="labels", description="name in the registry of sources: `ditbench list conditions`")


class CellFields(Strict):
    """Fields that both ``defaults`` and a cell may set. None = not set."""

    method: str | None = None
    config: dict[str, Any] | None = Field(default=None, description="overrides of the method's config")
    modifiers: list[dict[str, dict[str, Any]]] | None = Field(
        default=None, description="put around the method, innermost first: what ``with`` says inside ``method``"
    )
    weights: str | None = Field(
        default=None, description="'zoo:NAME', 'asset:NAME', a path (relative to the suite), or unset: random"
    )
    sampler: Sampler | None = Field(default=None, description="a name, or name, spacing, eta and clip")
    steps: int | None = Field(default=None, ge=1, le=1000)
    guidance: Guidance | None = Field(default=None, description="a scale, or scale, interval and channels")
    conditions: Conditions | None = Field(
        default=None, description="what samples are told: a source's name, or name and its options; unset: class labels"
    )
    dataset: str | None = None
    device: Literal["cpu", "cuda"] | None = None
    dtype: Literal["float32", "tf32", "bfloat16", "float16"] | None = Field(
        default=None, description="tf32: float32 whose matrix products a GPU may round to 10 bits"
    )
    mode: Literal["eager", "compiled", "graph"] | None = Field(
        default=None, description="graph: one captured CUDA graph a step plan"
    )
    attention: Literal["auto", "math", "flash", "efficient", "cudnn"] | None = Field(
        default=None, description="kernel of fused attention; auto: torch chooses"
    )
    decoder: Decoder | None = Field(default=None, description="weights, or weights, scale, batch, tile and dtype")
    published: list[str] | None = Field(
        default=None, description="published figures to set beside the measured ones: keys of `ditbench list published`"
    )
    seed: Seed | None = None
    batch: int | None = Field(default=None, ge=1, description="images a timed call; unset: each measurement's own")
    timeout_s: float | None = Field(default=None, gt=0, description="seconds; unset: limits.timeout_s")
    measure: list[MeasurementName] | None = Field(default=None, min_length=1)


class Cell(CellFields):
    """One cell, or many if ``matrix`` is given (the product of its lists)."""

    name: str | None = Field(
        default=None, description="unique in the suite; may use fields: '{sampler}-{steps}-g{guidance}'"
    )
    variant: str | None = Field(default=None, description="shown in tables; may use fields as the name does")
    matrix: dict[str, Annotated[list[Any], Field(min_length=1)]] | None = Field(
        default=None, min_length=1, description="field (dotted: config.KEY, guidance.scale) -> values"
    )


class Limits(Strict):
    timeout_s: float = Field(default=3600.0, gt=0, description="a cell that runs longer is stopped and recorded")
    max_cells: int = Field(default=500, ge=1, description="a sweep that makes more cells is refused")


class Suite(Strict):
    """A whole suite, after ``extends`` was followed, as far as no measurement adds to it; see ``suite_model``."""

    suite: Name
    title: str = ""
    description: str = ""
    extends: str | None = Field(default=None, description="a shipped suite's name or a path relative to this file")
    seed: Seed = 0
    threads: int = Field(default=0, ge=0, description="torch threads; 0 = all physical cores that the process may use")
    baseline: str | None = Field(default=None, description="the cell that ratios are taken against")
    defaults: CellFields = Field(default_factory=CellFields)
    cells: list[Cell] = Field(min_length=1)
    limits: Limits = Field(default_factory=Limits)

    def options(self, measurement: str) -> Strict:
        """What the suite says of a measurement."""
        found: Strict = getattr(self, measurement)
        return found


def suite_model() -> type[Suite]:
    """The whole schema: ``Suite`` with the options of every measurement under its name."""
    return _with_options(tuple(measurements().names()))


@cache
def _with_options(names: tuple[str, ...]) -> type[Suite]:
    if taken := [name for name in names if name in Suite.model_fields]:
        raise ValueError(f"a measurement cannot be called {taken[0]!r}: a suite has a field of that name")
    kinds = {name: measurements()[name].options for name in names}
    fields: dict[str, Any] = {name: (kind, Field(default_factory=kind)) for name, kind in kinds.items()}
    return create_model("Suite", __base__=Suite, __doc__="A whole suite, after ``extends`` was followed.", **fields)

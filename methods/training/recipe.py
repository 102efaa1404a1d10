"""Training recipes: everything that decides the weights, as one frozen value that YAML files hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OptimizerRecipe(Strict):
    """AdamW with a warm-up and a constant or cosine rate."""

    rate: float = Field(default=1e-4, gt=0, description="peak learning rate")
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = Field(default=0, ge=0, description="steps of linear warm-up")
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float | None = Field(default=None, gt=0, description="clip the gradient's global norm to this")


class DynamicRecipe(Strict):
    """Fine-tuning of routers and weights together (arXiv 2410.03456, section 3.4 and its published code)."""

    target: float = Field(gt=0, le=1, description="share of the MHSA and MLP MACs to leave on, λ")
    weight: float = Field(default=2.0, ge=0, description="of the FLOPs loss")
    hold: int = Field(default=100, ge=0, description="steps at target 1")
    ramp: int = Field(default=1000, ge=0, description="step at which the falling target reaches λ")
    complete_steps: int = Field(default=0, ge=0, description="steps that also train the complete model")
    stratified: bool = Field(default=True, description="timesteps of a batch from four equal strata; else uniform")
    router_bias: float | None = Field(
        default=None, description="initial bias of all routers; unset: 15 (width) and 35 (tokens) as published"
    )
    rank: bool = Field(default=True, description="order heads and channels by magnitude before training")


class MatchingRecipe(Strict):
    """Distribution matching (arXiv 2502.20126, section 3.1): weak, then powerful steps from one noise level to a
    cleaner one shall end where noised data lie. The paper leaves kernel, weight, lengths and share of steps open."""

    weight: float = Field(default=0.1, gt=0, description="of the squared maximum mean discrepancy")
    every: int = Field(default=4, ge=1, description="it is added in every so-manieth step")
    grid: int = Field(default=250, ge=2, le=1000, description="steps of the sampling grid that the chain is taken from")
    weak_steps: int = Field(default=2, ge=1, description="first steps of a chain, at a new size")
    powerful_steps: int = Field(default=1, ge=0, description="its last steps, at the pre-trained size")
    batch: int = Field(default=64, ge=2, description="chains, and noised images to compare with")

    @model_validator(mode="after")
    def _chain_fits(self) -> MatchingRecipe:
        if self.weak_steps + self.powerful_steps >= self.grid:
            raise ValueError(f"a chain of {self.weak_steps} + {self.powerful_steps} steps needs a longer grid")
        return self


class FlexibleRecipe(Strict):
    """Training at many patch sizes: all weights with the denoising loss, or adapters towards the frozen base."""

    probabilities: dict[int, float] = Field(
        default={2: 0.5, 4: 0.5}, description="patch size -> how often a batch has it; need not add up to 1"
    )
    objective: Literal["denoising", "distillation"] = Field(
        default="denoising", description="distillation: the pre-trained size's prediction is the target (LoRA)"
    )
    matching: MatchingRecipe | None = Field(default=None, description="adds the distribution-matching term")


@dataclass(frozen=True)
class Section:
    """What follows the name of a method that does not read the section, and of one that needs it; '' for none does."""

    misplaced: str
    needed: str = ""


SECTIONS = {
    "dynamic": Section("has no routers to train", "with the target of its routers"),
    "flexible": Section("has one patch size", "with its patch sizes"),
    "options": Section("is trained without options"),
}
"""Sections of a recipe that objectives read, each its own."""


class Recipe(Strict):
    """One training run of a denoiser or of the digit classifier."""

    recipe: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name; also the checkpoint's name")
    kind: Literal["denoiser", "classifier"] = "denoiser"
    description: str = ""
    method: str = Field(default="dit-digits", description="registered method (denoiser only)")
    config: dict[str, Any] = Field(default_factory=dict)
    base: str | None = Field(default=None, description="static weights to start from: 'zoo:NAME' or a path")
    dynamic: DynamicRecipe | None = Field(default=None, description="trains a dynamic method")
    flexible: FlexibleRecipe | None = Field(default=None, description="trains a method of many patch sizes")
    options: dict[str, Any] | None = Field(default=None, description="of a plugin's own objective, which checks them")
    dataset: str = "digits"
    data: str | None = Field(default=None, description="folder of a data set that lies on disk")
    steps: int = Field(ge=1)
    batch: int = Field(default=128, ge=1)
    seed: int = Field(default=0, ge=0)
    label_dropout: float = Field(default=0.1, ge=0, le=1, description="share of labels replaced by 'no class'")
    ema: float = Field(default=0.9999, ge=0, lt=1, description="decay a step; 0 keeps the raw weights")
    optimizer: OptimizerRecipe = Field(default_factory=lambda: OptimizerRecipe.model_validate({}))
    stored: Literal["float32", "float16"] = Field(default="float32", description="precision of the final checkpoint")
    checkpoint_every: int = Field(default=500, ge=1, description="steps between resumable checkpoints")

    @property
    def sections(self) -> set[str]:
        """Which of ``SECTIONS`` it has."""
        return {name for name in SECTIONS if getattr(self, name) is not None}

    @property
    def course(self) -> dict[str, Any]:
        """How long it trains and on what choices: equal for ways of training that are set side by side."""
        flexible = None if self.flexible is None else self.flexible.model_dump(mode="json")
        found: dict[str, Any] = {"steps": self.steps, "batch": self.batch, "flexible": flexible}
        return found if self.options is None else {**found, "options": self.options}

    @model_serializer(mode="wrap")
    def _without_unset_options(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As recipes were stored before there were options."""
        stored: dict[str, Any] = handler(self)
        if self.options is None:
            stored.pop("options", None)
        return stored

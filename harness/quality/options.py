"""What a suite may say of measurements of samples. Never imports torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ditbench.harness.strict import Strict


class QualityOptions(Strict):
    protocol: str = "digits"
    reference: str | None = Field(
        default=None, description="a name in ditbench.toml or an npz; the digits protocol has its own"
    )
    samples: int = Field(default=1000, ge=20, le=1_000_000, description="a seed block")
    shard: int = Field(default=100, ge=1, le=4096, description="images a shard = images a batch")
    metrics: list[str] = Field(
        default=[], description="figures that other distributions add, see `ditbench list metrics`"
    )
    seed_blocks: int = Field(
        default=1,
        ge=1,
        le=100,
        description="independent sets, by seeds seed, seed + 1, …; figures are means",
    )


class PairedOptions(Strict):
    lpips: Literal["alex", "vgg", "squeeze"] | None = Field(
        default=None, description="backbone of LPIPS, from ditbench.toml; unset: LPIPS is left out"
    )

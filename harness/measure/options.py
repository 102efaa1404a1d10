"""What a suite may say of measurements that run a cell. Never imports torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ditbench.harness.strict import Strict

Level = Literal["step", "sample", "image"]


class FlopsOptions(Strict):
    samples: int = Field(
        default=100, ge=2, le=10_000, description="samples on which token selection is counted, where routers decide"
    )


class LatencyOptions(Strict):
    """Section 'Latency' of the documentation says what is timed and how."""

    batch: int = Field(default=8, ge=1, description="images a call; guidance doubles the rows")
    levels: list[Level] = Field(default=["step", "sample"], min_length=1)
    rounds: int = Field(default=3, ge=3, le=1000, description="at least this many A B B A rounds")
    budget_s: float = Field(default=10.0, gt=0, description="measuring ends here even if the interval is still wide")
    warmup_s: float = Field(default=1.0, ge=0)
    precision: float = Field(
        default=0.01, gt=0, lt=1, description="stop when the median's 95 % interval is ± this share"
    )


class KernelsOptions(Strict):
    batch: int = Field(default=8, ge=1)
    steps: int = Field(default=8, ge=1, description="profiled denoiser calls, spread over the cell's steps")


class MemoryOptions(Strict):
    batch: int = Field(default=8, ge=1)


class EnergyOptions(Strict):
    """Energy of whole sampling loops by the device's own counter."""

    batch: int = Field(default=8, ge=1)
    window_s: float = Field(default=20.0, gt=0, description="loops are repeated for at least this long")
    idle_s: float = Field(default=5.0, gt=0, description="idle power is read for this long before")


class DecodeOptions(Strict):
    """How the decoder's calls are timed."""

    batch: int = Field(default=8, ge=1, description="latents a timed call")
    rounds: int = Field(default=3, ge=3, le=1000)
    budget_s: float = Field(default=10.0, gt=0, description="measuring ends here even if the interval is still wide")
    warmup_s: float = Field(default=1.0, ge=0)
    precision: float = Field(
        default=0.02, gt=0, lt=1, description="stop when the median's 95 % interval is ± this share"
    )


class TrainingOptions(Strict):
    """How training steps of the recipe that made a cell's weights are timed."""

    rounds: int = Field(default=3, ge=3, le=1000, description="at least this many A B B A rounds")
    budget_s: float = Field(default=10.0, gt=0, description="measuring ends here even if the interval is still wide")
    warmup_s: float = Field(default=1.0, ge=0)
    precision: float = Field(
        default=0.02, gt=0, lt=1, description="stop when the median's 95 % interval is ± this share"
    )


class AgreementOptions(Strict):
    samples: int = Field(
        default=64, ge=20, le=10_000, description="samples along whose making ways to compute a step are compared"
    )

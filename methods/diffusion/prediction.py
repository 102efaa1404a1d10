"""What a model may predict, and the paths of flows, by name. Never imports torch."""

from __future__ import annotations

from typing import Literal, get_args

from ditbench.methods.errors import ConfigError

Prediction = Literal["noise", "velocity"]
Flow = Literal["linear", "cosine"]


def predicted_on(flow: Flow | None) -> Prediction:
    """What a model on this path predicts; None: the noise of a diffusion. Raises ConfigError for another path."""
    if flow is None:
        return "noise"
    if flow not in get_args(Flow):
        raise ConfigError(f"flow must be linear, cosine or unset (noise prediction), not {flow!r}")
    return "velocity"

"""A sample is its index: noise, condition and every stochastic step of sample i come from a stream keyed (seed, i).

The streams are Philox (Salmon et al. 2011): two 64-bit keys give 2^128 independent streams. torch's CPU generator is
not used, because it keeps only the low 32 bits of its seed, so that hashed seeds of 50,000 samples would collide.
Noise is drawn on the CPU in float32 and then moved, so that a sample does not depend on the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ditbench.methods.conditions import Conditions, Labels, Source
from ditbench.methods.facts import Facts


class SampleStreams:
    """The random streams of one batch of sample indices. Draws advance every stream by one item of the space.

    The order of draws is part of a sample's definition: first the condition, then the initial noise, then the steps.
    """

    def __init__(
        self,
        seed: int,
        indices: Sequence[int],
        facts: Facts,
        device: torch.device | str,
        source: Source | None = None,
    ) -> None:
        """``source`` of the conditions; None: class labels, evenly drawn."""
        self._streams = [np.random.Generator(np.random.Philox(key=[seed, index])) for index in indices]
        self._shape, self._device = facts.space.shape, device
        told = (source or Labels()).draw(facts, seed, indices, self._streams)
        self.conditions: Conditions = told.to(device)

    def noise(self) -> Tensor:
        """Standard normal (B, *shape), float32."""
        drawn = np.stack([stream.standard_normal(self._shape, dtype=np.float32) for stream in self._streams])
        return torch.from_numpy(drawn).to(self._device)

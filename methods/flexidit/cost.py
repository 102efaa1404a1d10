"""Multiply-accumulates of a DiT by patch size, in closed form: what schedules for a target compute are solved with.

Counting itself (``ditbench.harness.measure.flops``) does not use it; a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Callable

from ditbench.methods.backbones.config import DiTConfig

CostOf = Callable[[int], float]
"""Patch size -> multiply-accumulates of one forward of one sequence."""

TIME_FEATURES = 256


def macs(config: DiTConfig, size: int, *, modulation: bool = True) -> int:
    """One forward of one sequence at patch ``size``, layer norms apart.

    L (4 N d² + 2 N d m + 2 N² d + 6 d²) + S² (c_in + c_out) d + 2 d² + 256 d + d², with N = (S/p)² tokens, width d,
    MLP width m, depth L, latent side S. Without ``modulation`` only blocks and (de-)embedding count, without adaLN and
    the time embedding: so the percentages of arXiv 2502.20126 come out.
    """
    width, tokens = config.hidden_size, (config.input_size // size) ** 2
    hidden = int(width * config.mlp_ratio)
    block = 4 * tokens * width**2 + 2 * tokens * width * hidden + 2 * tokens**2 * width
    ends = config.input_size**2 * (config.in_channels + config.head_channels) * width
    adaln = 6 * config.depth * width**2 + 2 * width**2 + TIME_FEATURES * width + width**2
    return config.depth * block + ends + (adaln if modulation else 0)

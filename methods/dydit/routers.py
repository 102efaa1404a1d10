"""The routers of DyDiT (arXiv 2410.03456, sections 3.2 and 3.3) under the names of its published checkpoints."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEMPERATURE = 5.0
WIDTH_BIAS, TOKEN_BIAS = 15.0, 35.0


def hard_sigmoid_sample(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """Gumbel-sigmoid with straight-through: exactly 0 or 1 forwards, the gradient of a tempered sigmoid backwards.

    A one has probability sigmoid(logit); the temperature scales the gradient only.
    """
    device = logits.device if generator is None else generator.device
    uniform = torch.rand(logits.shape, generator=generator, device=device).to(logits.device).clamp(1e-7, 1 - 1e-7)
    # the difference of two Gumbel variables is logistic
    soft = torch.sigmoid((logits + uniform.logit()) / TEMPERATURE)
    hard = (soft > 0.5).to(soft.dtype)
    return hard - soft.detach() + soft


class WidthRouter(nn.Module):
    """TDW: timestep embedding (B, C), before any SiLU -> logits (B, parts); a part is active where its logit > 0.

    Two published formats: ``parts`` rows, or ``parts - 1`` rows with part 0 always on.
    """

    def __init__(self, hidden_size: int, parts: int, always_on: bool) -> None:
        super().__init__()
        self.always_on = always_on
        self.router = nn.Linear(hidden_size, parts - always_on)

    def forward(self, embedded: Tensor) -> Tensor:
        logits: Tensor = self.router(embedded)
        return F.pad(logits, (1, 0), value=torch.inf) if self.always_on else logits

    def sample(self, embedded: Tensor, generator: torch.Generator | None) -> Tensor:
        """A random mask (B, parts) of zeros and ones for training."""
        mask = hard_sigmoid_sample(self.router(embedded), generator)
        return F.pad(mask, (1, 0), value=1.0) if self.always_on else mask

    def open(self, bias: float | None = None) -> None:
        """Initial state: practically everything on, the more surely the larger ``bias`` is."""
        if not self.router.weight.is_meta:
            nn.init.xavier_uniform_(self.router.weight)
            nn.init.constant_(self.router.bias, WIDTH_BIAS if bias is None else bias)


class TokenRouter(nn.Module):
    """SDT: residual stream before the MLP (B, N, C) -> logits (B, N); a token is kept where its logit > 0."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.mlp_head = nn.Sequential(
            nn.Linear(hidden_size, hidden_size // 16), nn.ReLU(), nn.Linear(hidden_size // 16, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.mlp_head(x)
        return logits.squeeze(-1)

    def open(self, bias: float | None = None) -> None:
        """Initial state: practically every token kept, the more surely the larger ``bias`` is."""
        for layer, start in ((self.mlp_head[0], 0.0), (self.mlp_head[2], TOKEN_BIAS if bias is None else bias)):
            assert isinstance(layer, nn.Linear)
            if not layer.weight.is_meta:
                nn.init.xavier_uniform_(layer.weight)
                nn.init.constant_(layer.bias, start)

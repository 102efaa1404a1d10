"""A transformer block that runs on some of its heads, channel groups and tokens, or trains to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ditbench.methods.backbones.dit import DiTBlock
from ditbench.methods.backbones.layers import gelu, mix_heads, modulate
from ditbench.methods.call import Call
from ditbench.methods.dydit.config import DyDiTConfig
from ditbench.methods.dydit.routers import TokenRouter, WidthRouter, hard_sigmoid_sample
from ditbench.methods.dydit.tokens import Imposed, apply_to_tokens, chosen_tokens, spread_tokens
from ditbench.methods.dydit.width import AttentionSlice, MlpSlice


@dataclass(frozen=True)
class Masks:
    """What one block of the masked path left on, as zeros and ones; None where the block does not route.

    heads, groups (B, H); tokens (B, N)
    """

    heads: Tensor | None
    groups: Tensor | None
    tokens: Tensor | None


class DynamicBlock(DiTBlock):
    """A DiT block that runs on some heads, some channel groups and some tokens."""

    def __init__(self, config: DyDiTConfig) -> None:
        super().__init__(config)
        self.parts = config.num_heads
        width = config.hidden_size
        if config.tdw:
            self.attn_rate = WidthRouter(width, self.parts, config.always_on)
            self.mlp_rate = WidthRouter(width, self.parts, config.always_on)
        if config.sdt:
            self.token_selection = TokenRouter(width)

    @property
    def routes_width(self) -> bool:
        return hasattr(self, "attn_rate")

    @property
    def routes_tokens(self) -> bool:
        return hasattr(self, "token_selection")

    def run(
        self,
        x: Tensor,
        c: Tensor,
        attention: AttentionSlice,
        mlp: MlpSlice,
        call: Call,
        imposed: Imposed | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """x (B, N, C), c (B, C) -> x after the block, and which tokens (B, N) passed the MLP.

        None where nothing selects them, or where a wrapper left the MLP out, of which the token router is a part.
        ``imposed`` replaces its verdict, not its evaluation.
        """
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, dim=1)
        mixed = call.unit("attention", x, lambda x: self.attend_by(x, shift1, scale1, attention))
        x = torch.addcmul(x, gate1.unsqueeze(1), mixed)
        if not self.routes_tokens:
            out = call.unit("mlp", x, lambda x: self.feed_forward_by(x, shift2, scale2, mlp))
            return torch.addcmul(x, gate2.unsqueeze(1), out), None
        if not call.wrappers:
            kept, index = self.select(x, imposed)
            return apply_to_tokens(self.norm2, mlp, x, kept, index, shift2, scale2, gate2), kept
        verdicts = list[Tensor]()

        def whole(x: Tensor) -> Tensor:  # a wrapper takes and gives whole streams
            kept, index = self.select(x, imposed)
            verdicts.append(kept)
            return spread_tokens(self.norm2, mlp, x, index, shift2, scale2)

        out = call.unit("mlp", x, whole)
        return torch.addcmul(x, gate2.unsqueeze(1), out), verdicts[-1] if verdicts else None

    def select(self, x: Tensor, imposed: Imposed | None) -> tuple[Tensor, Tensor]:
        """Which tokens (B, N) of x (B, N, C) pass the MLP, and their places in the flattened batch."""
        kept = self.token_selection(x) > 0
        if imposed is not None:
            # needs the verdict, so that a tracer keeps the router too
            kept = torch.where(kept, imposed.mask, imposed.mask)
        return kept, chosen_tokens(kept, imposed)

    def attend_by(self, x: Tensor, shift: Tensor, scale: Tensor, attention: AttentionSlice) -> Tensor:
        """The unit 'attention' before its gate; always on all tokens."""
        return attention(modulate(self.norm1(x), shift, scale))

    def feed_forward_by(self, x: Tensor, shift: Tensor, scale: Tensor, mlp: MlpSlice) -> Tensor:
        """The unit 'mlp' before its gate on all tokens."""
        return mlp(modulate(self.norm2(x), shift, scale))

    def masked(self, x: Tensor, c: Tensor, embedded: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Masks]:
        """The block with everything computed and masks multiplied on: random ones in training, else the verdicts."""
        heads, groups = self._width_masks(embedded, generator)
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, dim=1)
        mixed = mix_heads(self.attn.qkv(modulate(self.norm1(x), shift1, scale1)), self.parts)
        if heads is not None:
            mixed = mixed * heads[:, None, :, None]
        x = torch.addcmul(x, gate1.unsqueeze(1), self.attn.proj(mixed.flatten(2)))
        tokens = self._token_mask(x, generator)
        hidden = self.mlp.fc1(modulate(self.norm2(x), shift2, scale2))
        if groups is not None:  # before the GELU, as the reference does; GELU(0) = 0
            hidden = (hidden.unflatten(2, (self.parts, -1)) * groups[:, None, :, None]).flatten(2)
        out = self.mlp.fc2(gelu(hidden))
        if tokens is not None:
            out = out * tokens.unsqueeze(2)
        return torch.addcmul(x, gate2.unsqueeze(1), out), Masks(heads, groups, tokens)

    def _width_masks(
        self, embedded: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor] | tuple[None, None]:
        if not self.routes_width:
            return None, None
        if self.training:
            return self.attn_rate.sample(embedded, generator), self.mlp_rate.sample(embedded, generator)
        return (self.attn_rate(embedded) > 0).to(embedded.dtype), (self.mlp_rate(embedded) > 0).to(embedded.dtype)

    def _token_mask(self, x: Tensor, generator: torch.Generator | None) -> Tensor | None:
        if not self.routes_tokens:
            return None
        logits = self.token_selection(x)
        return hard_sigmoid_sample(logits, generator) if self.training else (logits > 0).to(x.dtype)

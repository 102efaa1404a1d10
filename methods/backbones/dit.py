"""DiT: the static diffusion transformer with adaLN-Zero blocks (Peebles & Xie, arXiv 2212.09748).

Parameter names and shapes are those of the public checkpoints, so that they load strictly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ditbench.methods.backbones.config import DiTConfig
from ditbench.methods.backbones.layers import (
    Attention,
    LabelEmbedder,
    Mlp,
    Packing,
    PatchEmbed,
    TimestepEmbedder,
    modulate,
    per_token,
    sincos_2d,
)
from ditbench.methods.config import make_config
from ditbench.methods.diffusion.process import Process, process_of
from ditbench.methods.facts import Facts
from ditbench.methods.lora.adapted import ALL, Adapted, BlockWork
from ditbench.methods.protocols import StaticWork, StepPlan, WorkLedger, WorkUnit


class DiTBlock(nn.Module):
    """x (B, N, C), condition c (B, C) -> (B, N, C). Six modulation vectors: attention's triple, then the MLP's."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(width, config.num_heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp = Mlp(width, int(width * config.mlp_ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, c: Tensor, packing: Packing | None = None) -> Tensor:
        """``packing``: the rows of x hold several sequences; c has a row for each of its conditions."""
        vectors, mask = self.adaLN_modulation(c), None
        if packing is not None:
            vectors, mask = vectors[packing.condition], packing.mask
        shift1, scale1, gate1, shift2, scale2, gate2 = vectors.chunk(6, dim=-1)
        x = torch.addcmul(x, per_token(gate1), self.attn(modulate(self.norm1(x), shift1, scale1), mask))
        return torch.addcmul(x, per_token(gate2), self.mlp(modulate(self.norm2(x), shift2, scale2)))


class FinalLayer(nn.Module):
    """x (B, N, C), condition c (B, C) -> (B, N, out_features)."""

    def __init__(self, width: int, out_features: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(width, out_features)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        out: Tensor = self.linear(self.modulated(x, c))
        return out

    def modulated(self, x: Tensor, c: Tensor) -> Tensor:
        """What the de-embedding reads: (B, N, C)."""
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
        return modulate(self.norm_final(x), shift, scale)


class DiT(Adapted, StaticWork, nn.Module):
    """The denoiser: x (B, C, S, S), t (B,), y (B,) in 0..num_classes -> (B, C_out, S, S).

    t is in 0..999, 0 the cleanest; under a flow in [0, 1], 1 the cleanest, as arXiv 2401.08740 has it.
    """

    config: DiTConfig
    t_embedder: TimestepEmbedder

    def __init__(self, config: DiTConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DiTConfig()
        self.x_embedder = PatchEmbed(self.stored_size, config.in_channels, config.hidden_size)
        self.t_embedder = TimestepEmbedder(config.hidden_size)
        self.y_embedder = LabelEmbedder(config.num_classes, config.hidden_size)
        self.pos_embed = nn.Parameter(torch.empty(1, config.tokens, config.hidden_size), requires_grad=False)
        self.blocks = nn.ModuleList(self.make_block(config) for _ in range(config.depth))
        self.final_layer = FinalLayer(config.hidden_size, self.stored_size**2 * config.head_channels)
        if not self.pos_embed.is_meta:
            self.initialize()
        self.add_adapters(config.hidden_size)

    def make_block(self, config: DiTConfig) -> DiTBlock:
        """One transformer block; dynamic methods put their own kind here."""
        return DiTBlock(config)

    @property
    def stored_size(self) -> int:
        """Patch size of the stored (de-)embedding."""
        return self.config.patch_size

    @property
    def facts(self) -> Facts:
        return self.config.facts

    @property
    def in_channels(self) -> int:
        return self.config.in_channels

    @property
    def out_channels(self) -> int:
        return self.config.out_channels

    @property
    def process(self) -> Process:
        return process_of(self.config.flow)

    @property
    def input_size(self) -> int:
        return self.config.input_size

    @property
    def num_classes(self) -> int:
        return self.config.num_classes

    @property
    def num_heads(self) -> int:
        return self.config.num_heads

    @property
    def tokens(self) -> int:
        return self.config.tokens

    def initialize(self) -> None:
        """adaLN-Zero initialisation (section 3.2 of the paper): every block starts as the identity."""

        def linear(module: nn.Module) -> None:
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

        self.apply(linear)
        with torch.no_grad():
            places = torch.arange(self.config.input_size // self.config.patch_size)
            self.pos_embed.copy_(sincos_2d(places, self.config.hidden_size)[None])
        # the patch embedding is a linear map of the flattened patch and starts like one
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.view(self.config.hidden_size, -1))
        assert self.x_embedder.proj.bias is not None
        nn.init.zeros_(self.x_embedder.proj.bias)
        nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        nn.init.normal_(self.t_embedder.mlp.get_parameter("0.weight"), std=0.02)
        nn.init.normal_(self.t_embedder.mlp.get_parameter("2.weight"), std=0.02)
        for name, parameter in self.named_parameters():
            if ".adaLN_modulation." in name or name.startswith("final_layer.linear."):
                nn.init.zeros_(parameter)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor,
        *,
        plan: StepPlan | None = None,
        ledger: WorkLedger | None = None,
    ) -> Tensor:
        tokens, c = self.embed(x, t, y)
        self.adapt(t, plan)
        for block in self.blocks:
            tokens = block(tokens, c)
        self.rest()
        if ledger is not None:
            ledger.record(plan or StepPlan(-1.0), rows=x.shape[0])
        return self.head(tokens, c)

    def plan(self, timesteps: Sequence[float], *, stages: int = 1) -> list[StepPlan]:
        return [self.at_its_time(StepPlan(float(t))) for t in timesteps]

    def prepare(self, plan: StepPlan) -> None:
        self.fold(plan)

    def embed(self, x: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs of the first block: tokens (B, N, C) with their positions, and the condition (B, C)."""
        return self.x_embedder(x) + self.pos_embed, self.condition(t, y)

    def condition(self, t: Tensor, y: Tensor) -> Tensor:
        """What modulates every block: (B, C)."""
        c: Tensor = self.t_embedder(t) + self.y_embedder(y)
        return c

    def head(self, tokens: Tensor, c: Tensor) -> Tensor:
        """Output of the last block (B, N, C) and condition (B, C) -> (B, C_out, S, S)."""
        return self.unpatchify(self.final_layer(tokens, c))

    def unpatchify(self, tokens: Tensor) -> Tensor:
        """(B, N, p*p*C_head), ordered row of patch, column of patch, channel -> (B, C_out, S, S). Moves data only."""
        grid, channels = math.isqrt(tokens.shape[1]), self.config.head_channels
        p = self.config.input_size // grid
        image = tokens.view(-1, grid, grid, p, p, channels).permute(0, 5, 1, 3, 2, 4)
        return image.reshape(-1, channels, grid * p, grid * p)[:, : self.out_channels]

    def work(self, plan: StepPlan, rows: int = 1, tokens: tuple[int, ...] | None = None) -> list[WorkUnit]:
        return [*self.work_around_blocks(rows), *self.work_of_blocks(rows, self.config.tokens, plan, ALL)]

    def work_of_blocks(self, rows: int, length: int, plan: StepPlan, update: str | None) -> list[WorkUnit]:
        """All blocks on ``rows`` sequences of ``length`` tokens; ``update`` is the adapters' active one."""
        width, beside = self.config.hidden_size, self.runs_beside(plan) and update is not None
        mixed = beside and self.timed
        units = []
        if mixed:  # the embedding is made apart for the experts' routers
            units.append(WorkUnit("time-embed", 1, self.t_embedder, lambda: (torch.zeros(rows, dtype=torch.long),)))
        units.append(
            WorkUnit(
                f"block tokens={length}" + (" with an update beside" if beside else ""),
                self.config.depth,
                BlockWork(self.blocks[0], self.switch, update if beside else None, mixed),
                lambda: (self.random(rows, length, width), *(self.random(rows, width) for _ in range(1 + mixed))),
            )
        )
        return units

    def work_around_blocks(self, rows: int) -> list[WorkUnit]:
        """Embeddings and final layer of one call with ``rows`` sequences."""
        config = self.config
        width, side, n = config.hidden_size, config.input_size, config.tokens
        return [
            *self.work_of_condition(rows),
            WorkUnit("patch-embed", 1, self.x_embedder, lambda: (self.random(rows, config.in_channels, side, side),)),
            WorkUnit("final", 1, self.final_layer, lambda: (self.random(rows, n, width), self.random(rows, width))),
        ]

    def work_of_condition(self, rows: int) -> list[WorkUnit]:
        """Embedding of timesteps and labels of ``rows`` sequences."""

        def zeros() -> Tensor:
            return torch.zeros(rows, dtype=torch.long)

        return [
            WorkUnit("time-embed", 1, self.t_embedder, lambda: (zeros(),)),
            WorkUnit("label-embed", 1, self.y_embedder, lambda: (zeros(),)),
        ]

    def random(self, *shape: int) -> Tensor:
        """Standard normal numbers in the blocks' type, on the CPU: inputs of work units."""
        return torch.randn(*shape, dtype=self.pos_embed.dtype, device="cpu")


def dit(**config: Any) -> DiT:
    """A DiT from the fields of DiTConfig. Raises ConfigError."""
    return DiT(make_config(DiTConfig, config))

"""DiT: the static diffusion transformer with adaLN-Zero blocks (Peebles & Xie, arXiv 2212.09748).

Parameter names and shapes are those of the public checkpoints, so that they load strictly.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, cast

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
from ditbench.methods.call import PLAIN, Call
from ditbench.methods.conditions import LABEL, Conditions
from ditbench.methods.config import make_config
from ditbench.methods.diffusion.process import Process, process_of
from ditbench.methods.facts import Facts
from ditbench.methods.lora.adapted import ALL, Adapted, BlockWork
from ditbench.methods.plans import StepPlan
from ditbench.methods.protocols import StaticWork
from ditbench.methods.work import WorkLedger, WorkUnit


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

    def forward(self, x: Tensor, c: Tensor, call: Call = PLAIN, packing: Packing | None = None) -> Tensor:
        """``packing``: the rows of x hold several sequences; c has a row for each of its conditions."""
        vectors, mask = self.adaLN_modulation(c), None
        if packing is not None:
            vectors, mask = vectors[packing.condition], packing.mask
        shift1, scale1, gate1, shift2, scale2, gate2 = vectors.chunk(6, dim=-1)
        mixed = call.unit("attention", x, lambda x: self.attend(x, shift1, scale1, mask))
        x = torch.addcmul(x, per_token(gate1), mixed)
        return torch.addcmul(x, per_token(gate2), call.unit("mlp", x, lambda x: self.feed_forward(x, shift2, scale2)))

    def attend(self, x: Tensor, shift: Tensor, scale: Tensor, mask: Tensor | None = None) -> Tensor:
        """The unit 'attention' before its gate: (B, N, C)."""
        mixed: Tensor = self.attn(modulate(self.norm1(x), shift, scale), mask)
        return mixed

    def feed_forward(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """The unit 'mlp' before its gate: (B, N, C)."""
        out: Tensor = self.mlp(modulate(self.norm2(x), shift, scale))
        return out


class UnitWork(nn.Module):
    """One unit of a block with its gate, for counting: x (B, N, C) and shift, scale, gate (B, C)."""

    def __init__(self, block: DiTBlock, method: str) -> None:
        super().__init__()
        self.block, self.method = block, method

    def forward(self, x: Tensor, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
        return torch.addcmul(x, per_token(gate), getattr(self.block, self.method)(x, shift, scale))


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
        self.prepared_mib = config.prepared_mib
        self.x_embedder = PatchEmbed(self.stored_size, config.in_channels, config.hidden_size)
        self.t_embedder = TimestepEmbedder(config.hidden_size)
        self.y_embedder = LabelEmbedder(config.num_classes, config.hidden_size)
        self.pos_embed = nn.Parameter(torch.empty(1, config.tokens, config.hidden_size), requires_grad=False)
        self.blocks = nn.ModuleList(self.make_block(config) for _ in range(config.depth))
        self.final_layer = FinalLayer(config.hidden_size, self.stored_size**2 * config.head_channels)
        if not self.pos_embed.is_meta:
            self.initialize()
        self.add_adapters(config.adapter, self.blocks, self.t_embedder, config.hidden_size)

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
    def static_shape(self) -> dict[str, Any]:
        return self.config.static_shape

    def static_base(self) -> DiT:
        return DiT(DiTConfig(**self.static_shape))

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
    def head_size(self) -> int:
        """Channels of an attention head."""
        return self.config.hidden_size // self.config.num_heads

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
        call: Call | None = None,
    ) -> Tensor:
        """``plan`` and ``ledger`` are those of ``call``, for callers that have nothing else to say."""
        call = call or Call(plan, ledger)
        tokens, c = self.embed(x, t, y)
        tokens = self.through(tokens, c, t, call)
        if call.ledger is not None:
            call.ledger.record(call.plan or StepPlan(-1.0), rows=x.shape[0])
        return self.head(tokens, c)

    def predict(self, x: Tensor, t: Tensor, conditions: Conditions, call: Call) -> Tensor:
        out: Tensor = self(x, t, conditions[LABEL], call=call)
        return out

    @property
    def has_units(self) -> bool:
        return True

    def through(
        self, tokens: Tensor, c: Tensor, t: Tensor, call: Call, update: str | None = ALL, packing: Packing | None = None
    ) -> Tensor:
        """All blocks, with the adapters' ``update`` at work in them: (B, N, C) -> (B, N, C)."""
        self.adapt(t, call.plan, update)
        tokens = call.through([partial(block, c=c, call=call, packing=packing) for block in self.blocks], tokens)
        self.rest()
        return tokens

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

    def work(self, plan: StepPlan, rows: int = 1, decided: tuple[int, ...] | None = None) -> list[WorkUnit]:
        return [*self.work_around_blocks(rows), *self.work_of_blocks(rows, self.config.tokens, plan, ALL)]

    def work_of_blocks(self, rows: int, length: int, plan: StepPlan, update: str | None) -> list[WorkUnit]:
        """All blocks on ``rows`` sequences of ``length`` tokens; ``update`` is the adapters' active one."""
        width, beside = self.config.hidden_size, self.runs_beside(plan) and update is not None
        mixed = beside and self.timed
        units = []
        if mixed:  # the embedding is made apart for the experts' routers
            units.append(WorkUnit("time-embed", 1, self.t_embedder, lambda: (torch.zeros(rows, dtype=torch.long),)))
        layers, block = tuple(range(self.config.depth)), cast(DiTBlock, self.blocks[0])
        how = f" tokens={length}" + (" with an update beside" if beside else "")

        def unit(name: str, module: nn.Module, vectors: int) -> WorkUnit:
            def inputs() -> tuple[Tensor, ...]:
                first = self.random(rows, length, width) if vectors else self.random(rows, width)
                return (first, *(self.random(rows, width) for _ in range(vectors + mixed)))

            whole = BlockWork(module, self.switch, update if beside else None, mixed)
            return WorkUnit(f"{name}{how}", self.config.depth, whole, inputs, unit=name, layers=layers)

        return [
            *units,
            unit("modulation", block.adaLN_modulation, 0),
            unit("attention", UnitWork(block, "attend"), 3),
            unit("mlp", UnitWork(block, "feed_forward"), 3),
        ]

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

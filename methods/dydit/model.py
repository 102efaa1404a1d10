"""DyDiT: a transformer that decides by timestep how wide and by content where it computes (arXiv 2410.03456).

At inference weights are sliced and tokens gathered. ``masked`` is the training path, which computes everything and
multiplies by masks. A test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from ditbench.methods.backbones.config import DiTConfig
from ditbench.methods.backbones.dit import DiT, DiTBlock
from ditbench.methods.call import Call
from ditbench.methods.config import make_config
from ditbench.methods.dydit.activity import counts
from ditbench.methods.dydit.block import DynamicBlock, Masks
from ditbench.methods.dydit.choices import TOKENS, Kept, Width
from ditbench.methods.dydit.config import DyDiTConfig
from ditbench.methods.dydit.ranking import rank_by_magnitude
from ditbench.methods.dydit.routers import TokenRouter, WidthRouter
from ditbench.methods.dydit.tokens import impose
from ditbench.methods.dydit.width import AttentionSlice, Indices, MlpSlice, slice_attention, slice_mlp
from ditbench.methods.dydit.work import Planner, work_units
from ditbench.methods.errors import ConfigError
from ditbench.methods.glossary import notes
from ditbench.methods.lora.adapted import ALL, folded_time
from ditbench.methods.lora.lora import sources_of, weight_of
from ditbench.methods.plans import StepPlan
from ditbench.methods.protocols import Problem
from ditbench.methods.work import Decided, WorkLedger, WorkUnit


@dataclass(frozen=True)
class MaskedOutput:
    """out (B, C_out, S, S) and the masks of every block."""

    out: Tensor
    masks: tuple[Masks, ...]


class DyDiT(DiT):
    """DiT with TDW and SDT; loads the published checkpoints of both formats."""

    config: DyDiTConfig

    def __init__(self, config: DyDiTConfig | None = None) -> None:
        super().__init__(config or DyDiTConfig())

    def make_block(self, config: DiTConfig) -> DiTBlock:
        assert isinstance(config, DyDiTConfig)
        return DynamicBlock(config)

    @property
    def layers(self) -> list[DynamicBlock]:
        return [cast(DynamicBlock, block) for block in self.blocks]

    def initialize(self) -> None:
        """The backbone's initialisation, with routers practically wide open."""
        super().initialize()
        self.open_routers()

    def open_routers(self, bias: float | None = None) -> None:
        """Routers as before training; ``bias`` None: as published."""
        for module in self.modules():
            if isinstance(module, WidthRouter | TokenRouter):
                module.open(bias)

    def adopt_format(self, state: Mapping[str, Any]) -> None:
        """Take the router format of a checkpoint (name -> anything with a shape): one row a head, or one fewer."""
        weight = state.get("blocks.0.attn_rate.router.weight")
        if not self.config.tdw or weight is None:
            return
        if weight.shape[0] not in (self.config.num_heads - 1, self.config.num_heads):
            return  # neither format: ``mismatch`` refuses it
        always_on = weight.shape[0] != self.config.num_heads
        for block in self.layers:
            if block.attn_rate.always_on != always_on:
                block.attn_rate, block.mlp_rate = (
                    WidthRouter(self.config.hidden_size, block.parts, always_on).to(self.pos_embed) for _ in range(2)
                )

    # What is prepared and when it is dropped

    def prepare(self, plan: StepPlan) -> None:
        for layer in range(self.config.depth):
            self.slices(layer, plan)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # a look-up, now and then slicing: nothing to compile
    def slices(self, layer: int, plan: StepPlan) -> tuple[AttentionSlice, MlpSlice]:
        """Weights of one layer under ``plan``, with its updates in them. Raises ConfigError for a plan without time."""
        block, time, width = self.layers[layer], folded_time(plan), plan.get(Width)
        if self.timed and time is None:
            raise ConfigError("these updates depend on the timestep: take plans from the model's plan()")
        self.switch.active, self.switch.time = (None if self.config.adapter is None else ALL), time
        everything = tuple(range(block.parts))
        heads = everything if width is None else width.heads[layer]
        groups = everything if width is None else width.groups[layer]
        attention = self.prepared.get(
            (layer, "attention", heads, time),
            (*sources_of(block.attn.qkv), *sources_of(block.attn.proj)),
            lambda: slice_attention(block.attn, heads, weight_of),
        )
        mlp = self.prepared.get(
            (layer, "mlp", groups, time),
            (*sources_of(block.mlp.fc1), *sources_of(block.mlp.fc2)),
            lambda: slice_mlp(block.mlp, groups, block.parts, weight_of),
        )
        return attention, mlp

    # Planning

    @property
    def needs_weights(self) -> bool:
        return self.config.activity is None

    @property
    def data_decide(self) -> bool:
        return self.config.sdt and self.config.activity is None

    @property
    def routers(self) -> Sequence[nn.Module]:
        return [block.token_selection for block in self.layers] if self.config.sdt else []

    def plan(self, timesteps: Sequence[float], *, stages: int = 1) -> list[StepPlan]:
        """Masks of every evaluation, ahead of sampling. A timestep has the same masks in every grid that visits it.

        Without weights (on the ``meta`` device) routers count as open, which is how they are initialised.
        """
        return [self.at_its_time(plan) for plan in self._plan([float(t) for t in timesteps])]

    def _plan(self, times: list[float]) -> list[StepPlan]:
        if self.config.activity is not None:
            self._verdicts(times)
            return [self._imposed(t) for t in times]
        everything = (tuple(range(self.config.num_heads)),) * self.config.depth
        if self.pos_embed.is_meta:
            wide = Width(everything, everything, self.config.num_heads)
            all_kept = Kept((self.config.tokens,) * self.config.depth, self.config.tokens)
            return [self._planned(t, wide, all_kept) for t in times]
        if not self.config.tdw:
            return [StepPlan(t) for t in times]
        heads, groups = self._verdicts(times)
        parts = self.config.num_heads
        return [StepPlan(t, (Width(h, g, parts),)) for t, h, g in zip(times, heads, groups, strict=True)]

    def _planned(self, timestep: float, width: Width, kept: Kept) -> StepPlan:
        """With the choices that this model can make."""
        can = ((self.config.tdw, width), (self.config.sdt, kept))
        return StepPlan(timestep, tuple(choice for makes, choice in can if makes))

    def _verdicts(self, times: list[float]) -> tuple[list[tuple[Indices, ...]], list[tuple[Indices, ...]]]:
        """Indices of active heads and groups by step and layer, in float64: no rounding moves a verdict."""
        if not self.config.tdw or self.pos_embed.is_meta:
            return [], []
        planner = Planner(self.t_embedder, self.layers)
        states = {name: value.detach().double() for name, value in planner.state_dict().items()}
        t = torch.tensor(times, dtype=torch.float64, device=self.pos_embed.device)
        with torch.no_grad():
            logits = torch.func.functional_call(planner, states, (t,))
        heads, groups = ((part > 0).tolist() for part in logits)
        return _indices(heads), _indices(groups)

    def _imposed(self, timestep: float) -> StepPlan:
        config = self.config
        # profiles are told by the 1000 training timesteps of noise prediction
        place = 999 * self.process.noisiness(timestep)
        fractions = config.activity.fractions(place, config.block_cost, config.tdw, config.sdt)
        head_cost = config.activity.head_cost(config.block_cost)
        active = counts(fractions, config.depth, config.num_heads, config.tokens, head_cost)
        heads, groups = (tuple(tuple(range(n)) for n in counts) for counts in (active.heads, active.groups))
        return self._planned(timestep, Width(heads, groups, config.num_heads), Kept(active.tokens, config.tokens))

    # Training of what is added to the base

    def put_base(self, static: nn.Module, *, rank: bool = False, **options: Any) -> None:
        """``rank``: order its heads and channels by magnitude."""
        super().put_base(static, **options)
        if rank:
            rank_by_magnitude(self)

    def is_added(self, name: str) -> bool:
        return super().is_added(name) or "_rate.router." in name or ".token_selection." in name

    # Execution

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
        """In eval mode slices and gathers; in training mode the masked path with random masks.

        Without a plan the rows are run in groups of equal plans, each as one call.
        """
        if self.training:
            return self.masked(x, t, y).out
        call = call or Call(plan, ledger)
        if call.plan is not None:
            return self._run(x, t, y, call.plan, call)
        times, where = torch.unique(t, return_inverse=True)
        plans = self.plan(times.tolist())
        kinds = list(dict.fromkeys(each.key for each in plans))
        if len(kinds) == 1:
            return self._run(x, t, y, plans[0], call)
        kind_of = torch.tensor([kinds.index(each.key) for each in plans], device=t.device)[where]
        out = x.new_empty(x.shape[0], self.out_channels, *x.shape[2:])
        for kind in range(len(kinds)):
            rows = (kind_of == kind).nonzero().squeeze(1)
            first = plans[int(where[rows[0]])]
            out[rows] = self._run(x[rows], t[rows], y[rows], first, call)
        return out

    def _run(self, x: Tensor, t: Tensor, y: Tensor, plan: StepPlan, call: Call) -> Tensor:
        tokens, c = self.embed(x, t, y)
        rows, length, device = int(tokens.shape[0]), int(tokens.shape[1]), str(tokens.device)
        imposed, kept = plan.get(Kept), dict[int, Tensor]()

        def run(layer: int, x: Tensor) -> Tensor:
            attention, mlp = self.slices(layer, plan)
            instead = None if imposed is None else impose(rows, length, imposed.tokens[layer], layer, device)
            x, mask = self.layers[layer].run(x, c, attention, mlp, call, instead)
            if mask is not None:
                kept[layer] = mask
            return x

        tokens = call.through([partial(run, layer) for layer in range(self.config.depth)], tokens)
        if call.ledger is not None:
            self._record(call.ledger, plan, rows, kept, imposed)
        return self.head(tokens, c)

    def _record(
        self, ledger: WorkLedger, plan: StepPlan, rows: int, kept: dict[int, Tensor], imposed: Kept | None
    ) -> None:
        """``kept``: which tokens passed the MLP, by layer; in a layer that did not run, none."""
        if not self.config.sdt:
            ledger.record(plan, rows)
            return
        none = torch.zeros(rows, self.config.tokens, dtype=torch.bool, device=self.pos_embed.device)
        masks = torch.stack([kept.get(layer, none) for layer in range(self.config.depth)])
        if imposed is not None:
            counts = tuple(rows * count for count in imposed.tokens)
        else:
            counts = tuple(masks.sum((1, 2)).tolist())
        decided = Decided(TOKENS, counts, self.config.tokens, **notes(TOKENS))
        ledger.record(plan, rows, decided, masks.cpu() if ledger.keep_maps else None)

    def masked(
        self, x: Tensor, t: Tensor, y: Tensor, *, complete: bool = False, generator: torch.Generator | None = None
    ) -> MaskedOutput:
        """The training path: everything is computed, masks multiply it; each row has its own.

        In training mode masks are sampled (from ``generator``) and carry straight-through gradients; in eval mode
        they are the routers' verdicts. ``complete`` leaves everything on.
        """
        if self.config.activity is not None:
            raise ConfigError("activity is imposed at inference only; build the model without it to train")
        tokens, c = self.embed(x, t, y)
        if complete:
            return MaskedOutput(self.head(self.through(tokens, c, t, Call()), c), ())
        embedded, masks = self.t_embedder(t), list[Masks]()

        def run(block: DynamicBlock, x: Tensor) -> Tensor:
            x, mask = block.masked(x, c, embedded, generator)
            masks.append(mask)
            return x

        self.adapt(t, None)
        tokens = Call().through([partial(run, block) for block in self.layers], tokens)
        self.rest()
        return MaskedOutput(self.head(tokens, c), tuple(masks))

    def graph_problem(self, plans: Sequence[StepPlan]) -> Problem | None:
        if not self.config.sdt:
            return None
        return "mode", (
            "a graph has fixed shapes, and this model gathers tokens by what it finds in the data, also where the "
            "activity is imposed: take mode eager or compiled, or a model without token selection (config.sdt: false)"
        )

    def work(self, plan: StepPlan, rows: int = 1, decided: tuple[int, ...] | None = None) -> list[WorkUnit]:
        return work_units(self, plan, rows, decided)


def _indices(masks: list[list[list[bool]]]) -> list[tuple[Indices, ...]]:
    return [tuple(tuple(k for k, on in enumerate(layer) if on) for layer in step) for step in masks]


def dydit(**config: Any) -> DyDiT:
    """A DyDiT from the fields of DyDiTConfig. Raises ConfigError."""
    return DyDiT(make_config(DyDiTConfig, config))

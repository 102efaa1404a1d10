"""FlexiDiT: one diffusion transformer that runs at several patch sizes (arXiv 2502.20126).

A coarse, "weak" size makes fewer tokens of the same latent and predicts in the same space, so that sizes may change
from step to step. Nothing is masked: a weak call embeds, attends and de-embeds only its own tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.backbones.dit import DiT
from methods.backbones.layers import PatchEmbed, sincos_2d
from methods.config import make_config
from methods.errors import ConfigError
from methods.flexidit.config import FlexiDiTConfig
from methods.flexidit.cost import macs
from methods.flexidit.packing import choose_layouts, run_pair
from methods.flexidit.patching import patch_positions, project_embedding, project_head
from methods.flexidit.schedule import Resolved
from methods.flexidit.work import work_units
from methods.lora.lora import Switch, add_lora
from methods.prepared import KeepsPrepared
from methods.protocols import StepPlan, WorkLedger, WorkUnit

LORA_TARGETS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


@dataclass(frozen=True, eq=False)
class Ends:
    """What a patch size needs at both ends of the transformer.

    embed (C, C_in, p, p), embed_bias (C,); place (1, N, C): positions and the size's embedding;
    head (p²·C_out, C), head_bias (p²·C_out,)
    """

    embed: Tensor
    embed_bias: Tensor
    place: Tensor
    head: Tensor
    head_bias: Tensor


class NewSize(nn.Module):
    """The LoRA recipe's own (de-)embedding of a new size."""

    def __init__(self, config: FlexiDiTConfig, size: int) -> None:
        super().__init__()
        self.x_embedder = PatchEmbed(size, config.in_channels, config.hidden_size)
        self.linear = nn.Linear(config.hidden_size, size**2 * config.out_channels)


class FlexiDiT(KeepsPrepared, DiT):
    """``model(x, t, y, patch_size=4)``: x (B, C, S, S) -> (B, C_out, S, S) at any of ``patch_sizes``."""

    config: FlexiDiTConfig

    def __init__(self, config: FlexiDiTConfig | None = None) -> None:
        config = config or FlexiDiTConfig()
        self.__dict__["config"] = config
        self.__dict__["layouts"] = {}
        self.__dict__["switch"] = Switch(config.lora_merged, prepared=self.prepared)
        super().__init__(config)
        new = [str(size) for size in config.patch_sizes[1:]]
        lora = config.recipe == "lora"
        marked = new if lora else [str(size) for size in config.patch_sizes]
        self.size_embed = nn.ParameterDict({size: torch.zeros(config.hidden_size) for size in marked})
        self.new_sizes = nn.ModuleDict({size: NewSize(config, int(size)) for size in new} if lora else {})
        norms = new if config.size_norm else []
        self.size_norms = nn.ModuleDict({size: nn.LayerNorm(config.hidden_size, eps=1e-6) for size in norms})
        if lora:
            self.lora_layers = add_lora(self.blocks, LORA_TARGETS, tuple(new), config.lora_rank, self.switch)

    switch: Switch
    layouts: dict[tuple[int | None, int | None, int, bool], dict[str, float]]
    """Measured by ``tune``: (patch, guide, images, same labels) -> layout -> milliseconds."""

    @property
    def stored_size(self) -> int:
        config = self.config
        return config.underlying_size if config.recipe == "shared" else config.patch_size

    @property
    def patch_sizes(self) -> tuple[int, ...]:
        return cast(tuple[int, ...], self.config.patch_sizes)

    def freeze_base(self) -> None:
        """Leave only what the LoRA recipe adds to be trained; nothing to do where weights are shared."""
        if self.config.recipe == "shared":
            return
        for name, parameter in self.named_parameters():
            added = name.startswith(("size_embed.", "new_sizes.", "size_norms.")) or ".adapters." in name
            parameter.requires_grad_(added)

    # What is prepared and when it is dropped

    def prepare(self, plan: StepPlan) -> None:
        for size in {plan.patch or self.config.patch_size, plan.guide or self.config.patch_size}:
            self.ends(size)
            if self._adapted(size) and self.switch.merged:
                for layer in self.lora_layers:
                    layer.merged(str(size))

    def _adapted(self, size: int) -> bool:
        return self.config.recipe == "lora" and size != self.config.patch_size

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # a look-up, once a projection: nothing to compile
    def ends(self, size: int) -> Ends:
        """(De-)embedding and positions of ``size``: projected once at inference, with gradients in training."""
        embedder, linear = self.x_embedder.proj, self.final_layer.linear
        if self._adapted(size):
            own = cast(NewSize, self.new_sizes[str(size)])
            embedder, linear = own.x_embedder.proj, own.linear
        bias = embedder.bias
        assert bias is not None
        mark: Tensor | None = dict(self.size_embed.items()).get(str(size))
        sources = (embedder.weight, bias, linear.weight, linear.bias, self.pos_embed)

        def make() -> Ends:
            place = self._positions(size) if mark is None else self._positions(size) + mark
            if self.config.recipe == "lora":
                return Ends(embedder.weight, bias, place, linear.weight, linear.bias)
            channels = self.out_channels
            return Ends(
                project_embedding(embedder.weight, size),
                bias,
                place,
                project_head(linear.weight, channels, size),
                project_head(linear.bias, channels, size),
            )

        if self.training:
            return make()
        return self.prepared.get(("ends", size), sources if mark is None else (*sources, mark), make)

    def _positions(self, size: int) -> Tensor:
        """(1, N, C): the model's own table at the pre-trained size, sines and cosines on its grid at others."""
        config = self.config
        if size == config.patch_size:
            return self.pos_embed
        places = patch_positions(config.input_size, size, config.patch_size, config.positions == "centre")
        return sincos_2d(places, config.hidden_size)[None].to(self.pos_embed)

    # Planning

    def plan(self, timesteps: Sequence[float]) -> list[StepPlan]:
        """The patch size of every step and, where it differs, of its guidance branch. Raises ConfigError."""
        resolved = self.resolve(len(timesteps))
        return [
            StepPlan(float(t), patch=patch, guide=None if guide == patch else guide)
            for t, patch, guide in zip(timesteps, resolved.patch, resolved.guide, strict=True)
        ]

    def resolve(self, steps: int) -> Resolved:
        """The schedule over ``steps`` steps, noisiest first."""
        if self.config.schedule is None:
            return Resolved((self.config.patch_size,) * steps, (self.config.patch_size,) * steps)
        return cast(Resolved, self.config.schedule.resolve(steps, self.patch_sizes, self.config.macs_at))

    def compute_shares(self, plans: Sequence[StepPlan]) -> dict[str, float]:
        full = self.config.patch_size
        costs = [macs(self.config, plan.patch or full, modulation=False) for plan in plans]
        share = sum(costs) / (len(plans) * macs(self.config, full, modulation=False))
        return {"adaLN excluded, as in arXiv 2502.20126": share}

    def tune(self, plans: Sequence[StepPlan], rows: int, same_class: bool) -> dict[str, dict[str, float]]:
        return choose_layouts(self, plans, rows, same_class) if self.config.layout == "auto" else {}

    # Execution

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor,
        *,
        patch_size: int | None = None,
        plan: StepPlan | None = None,
        ledger: WorkLedger | None = None,
    ) -> Tensor:
        """At ``patch_size``, else at the plan's, else at the pre-trained one. Raises ConfigError for another size."""
        planned = None if plan is None else plan.patch
        size = patch_size if patch_size is not None else planned or self.config.patch_size
        if size not in self.patch_sizes:
            listed, more = (", ".join(map(str, sizes)) for sizes in (self.patch_sizes, (*self.patch_sizes, size)))
            raise ConfigError(f"the model has patch sizes {listed} and not {size} (patch_sizes=[{more}] would add it)")
        tokens, c = self.tokens_of(x, size), self.condition(t, y)
        self.switch.active = str(size) if self._adapted(size) else None
        for block in self.blocks:
            tokens = block(tokens, c)
        if ledger is not None:
            ledger.record(StepPlan(-1.0 if plan is None else plan.timestep, patch=size), rows=x.shape[0])
        return self.head_at(tokens, c, size)

    def tokens_of(self, x: Tensor, size: int) -> Tensor:
        """Patches of x (B, C, S, S) with their places: (B, N, C)."""
        ends = self.ends(size)
        tokens = F.conv2d(x, ends.embed, ends.embed_bias, stride=size).flatten(2).transpose(1, 2)
        if str(size) in self.size_norms:
            tokens = cast(Tensor, self.size_norms[str(size)](tokens))
        placed: Tensor = tokens + ends.place
        return placed

    def head_at(self, tokens: Tensor, c: Tensor, size: int) -> Tensor:
        """Output of the last block (B, N, C) and condition (B, C) -> (B, C_out, S, S)."""
        ends = self.ends(size)
        return self.unpatchify(F.linear(self.final_layer.modulated(tokens, c), ends.head, ends.head_bias))

    def pair(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor,
        y_guide: Tensor,
        plan: StepPlan,
        ledger: WorkLedger | None = None,
        *,
        tuned: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Both branches of a step that guides with another size: outputs (B, C_out, S, S) for ``y`` and ``y_guide``."""
        layout: str = self.config.layout
        if layout == "auto" and not tuned:
            layout = "separate"
        elif layout == "auto":
            times = self.layouts.get((plan.patch, plan.guide, x.shape[0], y_guide is y), {"separate": 0.0})
            layout = min(times, key=lambda each: times[each])
        return run_pair(self, x, t, y, y_guide, plan, layout, ledger)

    def work(self, plan: StepPlan, rows: int = 1, tokens: tuple[int, ...] | None = None) -> list[WorkUnit]:
        return work_units(self, plan, rows)


def flexidit(**config: Any) -> FlexiDiT:
    """A FlexiDiT from the fields of FlexiDiTConfig. Raises ConfigError."""
    return FlexiDiT(make_config(FlexiDiTConfig, config))

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

from ditbench.methods.backbones.dit import DiT
from ditbench.methods.backbones.layers import PatchEmbed, sincos_2d
from ditbench.methods.call import Call
from ditbench.methods.conditions import LABEL, Conditions
from ditbench.methods.config import make_config
from ditbench.methods.errors import ConfigError
from ditbench.methods.flexidit.choices import PATCH_SIZE, Layout, Patch
from ditbench.methods.flexidit.config import FlexiDiTConfig
from ditbench.methods.flexidit.cost import macs
from ditbench.methods.flexidit.filling import fill
from ditbench.methods.flexidit.packing import choose_layouts, run_pair
from ditbench.methods.flexidit.patching import patch_positions, project_embedding, project_head
from ditbench.methods.flexidit.schedule import Resolved
from ditbench.methods.flexidit.work import work_units
from ditbench.methods.glossary import LAYOUTS, plain
from ditbench.methods.lora.adapted import ALL
from ditbench.methods.plans import StepPlan
from ditbench.methods.protocols import Problem
from ditbench.methods.work import WorkLedger, WorkUnit

FINE = 1000


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
        self.linear = nn.Linear(config.hidden_size, size**2 * config.head_channels)


class FlexiDiT(DiT):
    """``model(x, t, y, patch_size=4)``: x (B, C, S, S) -> (B, C_out, S, S) at any of ``patch_sizes``."""

    config: FlexiDiTConfig

    def __init__(self, config: FlexiDiTConfig | None = None) -> None:
        config = config or FlexiDiTConfig()
        self.__dict__["config"] = config
        self.__dict__["layouts"] = {}
        self.__dict__["_fine"] = None
        super().__init__(config)
        new = [str(size) for size in config.patch_sizes[1:]]
        lora = config.recipe == "lora"
        marked = new if lora else [str(size) for size in config.patch_sizes]
        self.size_embed = nn.ParameterDict({size: torch.zeros(config.hidden_size) for size in marked})
        self.new_sizes = nn.ModuleDict({size: NewSize(config, int(size)) for size in new} if lora else {})
        norms = new if config.size_norm else []
        self.size_norms = nn.ModuleDict({size: nn.LayerNorm(config.hidden_size, eps=1e-6) for size in norms})

    _fine: Resolved | None
    layouts: dict[tuple[int, ...], dict[str, float]]
    """Measured by ``tune``: (both branches' sizes, images, same labels) -> layout -> milliseconds."""

    @property
    def stored_size(self) -> int:
        config = self.config
        return config.underlying_size if config.recipe == "shared" else config.patch_size

    @property
    def patch_sizes(self) -> tuple[int, ...]:
        return cast(tuple[int, ...], self.config.patch_sizes)

    @property
    def adapter_names(self) -> tuple[str, ...]:
        """The LoRA recipe has an update for every new size."""
        if self.config.recipe == "shared":
            return super().adapter_names
        return tuple(str(size) for size in self.config.patch_sizes[1:])

    def update_at(self, size: int) -> str | None:
        """Which update works at patch ``size``."""
        if self.config.recipe == "shared":
            return None if self.config.adapter is None else ALL
        return str(size) if self._adapted(size) else None

    def put_base(self, static: nn.Module, **options: Any) -> None:
        self.no_options(options)
        fill(self, static)

    def is_added(self, name: str) -> bool:
        return super().is_added(name) or name.startswith(("size_embed.", "new_sizes.", "size_norms."))

    # What is prepared and when it is dropped

    def prepare(self, plan: StepPlan) -> None:
        for size in {self.size_of(branch) for branch in plan.branches}:
            self.ends(size)
            self.fold(plan, self.update_at(size))

    def size_of(self, plan: StepPlan | None) -> int:
        """Patch size of the conditional branch under ``plan``."""
        patch = None if plan is None else plan.get(Patch)
        return self.config.patch_size if patch is None else patch.size

    def patch(self, size: int) -> Patch:
        """The choice of this size."""
        return Patch(size, self.patch_sizes)

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
            channels = self.config.head_channels
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

    def plan(self, timesteps: Sequence[float], *, stages: int = 1) -> list[StepPlan]:
        """The patch size of every step and, where it differs, of its guidance branch. Raises ConfigError."""
        resolved = self.resolve(len(timesteps) // stages)
        return [self._step(t, resolved, index // stages) for index, t in enumerate(timesteps)]

    def plan_at(self, timestep: float) -> StepPlan:
        """As in a grid of ``FINE`` even steps over the model's time. Raises ConfigError."""
        if self._fine is None:
            schedule = self.config.schedule
            if schedule is not None and schedule.counts_steps:
                raise ConfigError(
                    "schedule: a solver that chooses its own steps takes no counts of them; give a target, or fractions"
                )
            self._fine = self.resolve(FINE)
        place = int((1 - self.process.noisiness(timestep)) * FINE)
        return self._step(timestep, self._fine, min(max(place, 0), FINE - 1))

    def _step(self, timestep: float, resolved: Resolved, step: int) -> StepPlan:
        patch, guide = resolved.patch[step], resolved.guide[step]
        guidance = None if guide == patch else (self.patch(guide),)
        plan = StepPlan(float(timestep), (self.patch(patch),), guidance)
        updates = {self.update_at(patch), self.update_at(guide)} - {None}
        return self.at_its_time(plan) if updates else plan

    def resolve(self, steps: int) -> Resolved:
        """The schedule over ``steps`` steps, noisiest first."""
        if self.config.schedule is None:
            return Resolved((self.config.patch_size,) * steps, (self.config.patch_size,) * steps)
        return cast(Resolved, self.config.schedule.resolve(steps, self.patch_sizes, self.config.macs_at))

    def compute_shares(self, plans: Sequence[StepPlan]) -> dict[str, float]:
        full = self.config.patch_size
        costs = [macs(self.config, self.size_of(plan), modulation=False) for plan in plans]
        share = sum(costs) / (len(plans) * macs(self.config, full, modulation=False))
        return {"adaLN excluded, as in arXiv 2502.20126": share}

    @property
    def tuning_about(self) -> str:
        return plain(LAYOUTS)

    def tune(self, plans: Sequence[StepPlan], rows: int, same_class: bool) -> dict[str, dict[str, float]]:
        return choose_layouts(self, plans, rows, same_class) if self.config.layout == "auto" else {}

    def alternatives(self, plan: StepPlan) -> dict[str, StepPlan]:
        alone = plan.branches[0].without(Layout)
        return {f"{PATCH_SIZE} {size}": alone.having(self.patch(size)) for size in self.patch_sizes}

    def loop_problem(self, plans: Sequence[StepPlan], guided: Sequence[bool]) -> Problem | None:
        if all(plan.guidance is None for plan in plans) or any(guided):
            return None
        return "config.schedule", (
            "the schedule has a guidance branch and the sampling is not guided: give a guidance scale "
            "other than 1, or one schedule for both ('130/130')"
        )

    def graph_problem(self, plans: Sequence[StepPlan]) -> Problem | None:
        if self.config.layout != "auto" or all(plan.guidance is None for plan in plans):
            return None
        return "config.schedule", (
            "this model would choose by eager timings how branches of unequal length run, which says nothing about "
            "graphs: give config.layout"
        )

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
        call: Call | None = None,
    ) -> Tensor:
        """At ``patch_size``, else at the plan's, else at the pre-trained one. Raises ConfigError for another size."""
        call = call or Call(plan, ledger)
        size = self.size_of(call.plan) if patch_size is None else patch_size
        if size not in self.patch_sizes:
            listed, more = (", ".join(map(str, sizes)) for sizes in (self.patch_sizes, (*self.patch_sizes, size)))
            raise ConfigError(f"the model has patch sizes {listed} and not {size} (patch_sizes=[{more}] would add it)")
        tokens, c = self.tokens_of(x, size), self.condition(t, y)
        tokens = self.through(tokens, c, t, call, self.update_at(size))
        if call.ledger is not None:
            ran = (call.plan or StepPlan(-1.0)).branches[0].having(self.patch(size))
            call.ledger.record(ran, rows=x.shape[0])
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

    def predict_pair(
        self, x: Tensor, t: Tensor, conditions: Conditions, other: Conditions, call: Call, *, tuned: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Both branches of a step that guides with another size: outputs (B, C_out, S, S)."""
        y, y_guide = conditions[LABEL], other[LABEL]
        layout: str = self.config.layout
        if layout == "auto" and not tuned:
            layout = "separate"
        elif layout == "auto":
            assert call.plan is not None, "only a plan makes branches differ"
            sizes = tuple(self.size_of(branch) for branch in call.plan.branches)
            times = self.layouts.get((*sizes, x.shape[0], y_guide is y), {"separate": 0.0})
            layout = min(times, key=lambda each: times[each])
        return run_pair(self, x, t, y, y_guide, call, layout)

    def work(self, plan: StepPlan, rows: int = 1, decided: tuple[int, ...] | None = None) -> list[WorkUnit]:
        return work_units(self, plan, rows)


def flexidit(**config: Any) -> FlexiDiT:
    """A FlexiDiT from the fields of FlexiDiTConfig. Raises ConfigError."""
    return FlexiDiT(make_config(FlexiDiTConfig, config))

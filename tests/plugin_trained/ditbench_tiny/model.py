"""A static model that is no transformer, and a dynamic one that it can become."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditbench.methods.call import Call
from ditbench.methods.conditions import LABEL, Conditions
from ditbench.methods.conversion import agreed
from ditbench.methods.lora.adapted import Adapted
from ditbench.methods.lora.config import AdapterConfig
from ditbench.methods.lora.lora import weight_of
from ditbench.methods.plans import Choice, Facet, StepPlan
from ditbench.methods.protocols import StaticWork


class Times(nn.Module):
    """(B,) -> (B, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(8, width)

    def forward(self, t: Tensor) -> Tensor:
        angles = t[:, None].to(self.map.weight) / 1000 * 2.0 ** torch.arange(4, device=t.device)
        return self.map(torch.cat([angles.sin(), angles.cos()], 1))


class Tiny(Adapted, StaticWork, nn.Module):
    """x (B, 1, 8, 8), t (B,), y (B,) -> (B, 1, 8, 8). ``adapter``: see ``AdapterConfig``, on 'inner' and 'outer'."""

    in_channels, input_size, num_classes = 1, 8, 10

    def __init__(self, width: int = 16, adapter: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.width = width
        self.times, self.labels = Times(width), nn.Embedding(11, width)
        self.inner, self.outer = nn.Linear(64, width), nn.Linear(width, 64)
        parsed = None if adapter is None else AdapterConfig.parse(adapter, targets=("inner", "outer"))
        self.add_adapters(parsed, self, self.times, width)

    def static_base(self) -> nn.Module:
        return Tiny(self.width)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.run(x, t, y, self.width)

    def run(self, x: Tensor, t: Tensor, y: Tensor, width: int) -> Tensor:
        """On the first ``width`` channels."""
        self.adapt(t)
        told = (self.times(t) + self.labels(y))[:, None, :width]
        if width == self.width:
            out = self.outer(F.gelu(self.inner(x.flatten(2)) + told))
        else:
            inside = F.linear(x.flatten(2), weight_of(self.inner)[:width], self.inner.bias[:width])
            out = F.linear(F.gelu(inside + told), weight_of(self.outer)[:, :width], self.outer.bias)
        self.rest()
        return out.view_as(x)


@dataclass(frozen=True)
class Channels(Choice):
    """How many of how many channels."""

    kept: int
    all: int

    def facets(self) -> tuple[Facet, ...]:
        return (Facet("channels", self.kept / self.all, about="Noisy timesteps run on the first half of them."),)


class Narrow(Tiny):
    """Half of the channels from timestep ``cut`` on: fresh, never."""

    cut: Tensor

    def __init__(self, width: int = 16, adapter: Mapping[str, Any] | None = None) -> None:
        super().__init__(width, adapter)
        self.register_buffer("cut", torch.tensor(1000.0))

    @property
    def needs_weights(self) -> bool:
        return True

    def is_added(self, name: str) -> bool:
        return super().is_added(name) or name == "cut"

    @torch.no_grad()
    def put_base(self, static: nn.Module, *, order: bool = False, **options: Any) -> None:
        """``order``: the channels with the largest weights first."""
        super().put_base(static, **options)
        if order:
            places = self.inner.weight.square().sum(1).argsort(descending=True)
            for rows in (self.inner.weight, self.inner.bias, self.times.map.weight, self.times.map.bias):
                rows.copy_(rows[places])
            for columns in (self.outer.weight, self.labels.weight):
                columns.copy_(columns[:, places])

    def plan(self, timesteps: Sequence[float], *, stages: int = 1) -> list[StepPlan]:
        plans = super().plan(timesteps, stages=stages)
        never = self.cut.is_meta
        widths = [self.width if never or p.timestep < float(self.cut) else self.width // 2 for p in plans]
        return [plan.having(Channels(width, self.width)) for plan, width in zip(plans, widths, strict=True)]

    def predict(self, x: Tensor, t: Tensor, conditions: Conditions, call: Call) -> Tensor:
        plan = call.plan or self.plan_at(float(t[0]))
        chosen = plan.get(Channels)
        if call.ledger is not None:
            call.ledger.record(plan, rows=len(x))
        return self.run(x, t, conditions[LABEL], self.width if chosen is None else chosen.kept)


def narrow_from(static: nn.Module, *, order: bool = True, **config: Any) -> Narrow:
    """A Narrow that computes what ``static`` does. Raises ConfigError."""
    model = Narrow(**agreed({"width": static.width}, config))
    model.put_base(static, order=order)
    model.freeze_base()
    return model

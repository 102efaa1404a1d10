"""Small dynamic models with vivid routers, inputs for them, and what their tests compare with."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ditbench import methods
from ditbench.methods.backbones.layers import timestep_embedding
from ditbench.methods.dydit.choices import Indices, Kept, Width
from ditbench.methods.plans import StepPlan
from ditbench.methods.weights import randomise
from ditbench.methods.work import WorkEntry

SMALL: dict[str, Any] = {
    "input_size": 8,
    "patch_size": 2,
    "in_channels": 1,
    "num_classes": 10,
    "hidden_size": 64,
    "depth": 3,
    "num_heads": 4,
}
both_backbones = pytest.mark.parametrize("backbone", ["dit", "sit"])


def told(backbone: str, t: float) -> float:
    """What the model is told at the training timestep ``t`` of noise prediction: a SiT, how near the data are."""
    return t if backbone == "dit" else 1 - t / 999


def vivid(seed=0, backbone="dit", **config):
    """A small one whose every part matters and whose routers close about a half, by timestep and by content."""
    model = methods.build(f"dy{backbone}", **{**SMALL, **config})
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not weight.requires_grad:
                continue
            fan_in = weight[0].numel() if weight.dim() > 1 else 25
            scale = 3.0 if "_rate.router.weight" in name else 1.0
            weight.normal_(0.0, scale * fan_in**-0.5, generator=generator)
            if name.endswith("mlp_head.0.bias"):
                weight += 1.0  # a unit that is off for all tokens tells none from another
        if backbone == "sit":  # times from 0 to 1 move few of the sinusoids: amplify what differs from the middle's
            first = model.t_embedder.mlp[0]
            first.weight *= 16.0
            first.bias -= first.weight @ timestep_embedding(torch.tensor([0.5]), 256)[0]
    spread_tokens(model, inputs(6, model.input_size, model.in_channels, backbone=backbone))
    return model


@torch.no_grad()
def spread_tokens(model, given: tuple[Tensor, Tensor, Tensor]) -> None:
    """Move the token routers' biases so that about half of the tokens of this input pass each MLP, none by a hair."""

    def split(module: nn.Module, args: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        ordered = logits.flatten().sort().values
        middle = ordered[len(ordered) // 4 : -(len(ordered) // 4)]
        widest = int(middle.diff().argmax())
        shift = middle[widest : widest + 2].mean()
        module.get_parameter("mlp_head.2.bias").sub_(shift)
        return logits - shift

    hooks = [
        module.register_forward_hook(split) for name, module in model.named_modules() if name.endswith("selection")
    ]
    if hooks:
        model(*given)
    for hook in hooks:
        hook.remove()
    model.forget()


def width_plan(t: float, heads: tuple[Indices, ...], groups: tuple[Indices, ...], parts: int = 4) -> StepPlan:
    """These heads and channel groups, a layer each."""
    return StepPlan(t, (Width(heads, groups, parts),))


def width_of(plan: StepPlan) -> Width:
    width = plan.get(Width)
    assert width is not None, "no width is chosen"
    return width


def imposed_tokens(plan: StepPlan) -> tuple[int, ...] | None:
    """Tokens a layer, where they are imposed."""
    kept = plan.get(Kept)
    return None if kept is None else kept.tokens


def tokens_kept(entry: WorkEntry) -> tuple[int, ...] | None:
    """Tokens a layer that passed the MLP, summed over the rows; None where nothing selects."""
    return None if entry.decided is None else entry.decided.counts


def set_bias(model: nn.Module, part: str, bias: float) -> None:
    """Make all routers of ``part`` ('attn_rate', 'mlp_rate', 'token_selection') answer ``bias``."""
    last = {"token_selection": "mlp_head.2"}.get(part, "router")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if f"{part}.{last}." in name:
                weight.fill_(bias if name.endswith("bias") else 0.0)


def inputs(
    rows: int, side: int = 8, channels: int = 1, seed: int = 0, backbone: str = "dit"
) -> tuple[Tensor, Tensor, Tensor]:
    """x, t, y with as many different timesteps as rows, over the whole range."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.linspace(0, 999, rows).round().long() if rows > 1 else torch.tensor([400])
    return (
        torch.randn(rows, channels, side, side, generator=generator),
        torch.tensor([told(backbone, step) for step in t.tolist()]),
        torch.randint(11, (rows,), generator=generator),
    )


def at_one_time(rows: int, t: int, seed: int = 0, backbone: str = "dit") -> tuple[Tensor, Tensor, Tensor]:
    x, _, y = inputs(rows, seed=seed)
    return x, torch.full((rows,), told(backbone, t)), y


def agree(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    assert ours.shape == theirs.shape
    assert ours.isfinite().all()
    assert theirs.abs().max() > 1e-3, "nothing to compare"
    worst = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    assert worst <= tolerance, f"relative to the largest magnitude: {worst:.2e}"


def one_line(error: Exception) -> str:
    assert "\n" not in str(error)
    return str(error)


def static(seed: int = 1, backbone: str = "dit", **config: Any):
    model = methods.build(backbone, **{**SMALL, **config})
    randomise(model, seed)
    return model


MODES = [{}, {"sdt": False}, {"tdw": False}, {"always_on": False}]


class Recorder(TorchDispatchMode):
    """Shapes of the matrix products and attentions that run."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[tuple[int, int, int]] = []
        self.attentions: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("addmm", "mm", "bmm", "baddbmm"):
            left, right = args[-2:]
            self.products.append((left.shape[-2], left.shape[-1], right.shape[-1]))
        elif "linear" in name or "matmul" in name:
            raise AssertionError(f"{name} would run unseen")
        elif "scaled_dot_product" in name:
            self.attentions.append(tuple(args[0].shape))
        return func(*args, **(kwargs or {}))


class Whole(nn.Module):
    """The whole model under one plan, as one traced module."""

    def __init__(self, model: nn.Module, plan: StepPlan) -> None:
        super().__init__()
        self.model, self.plan = model, plan

    def forward(self, x, t, y):
        return self.model(x, t, y, plan=self.plan)

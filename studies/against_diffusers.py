"""Is our static DiT at least as fast as diffusers' DiTTransformer2DModel with the same weights, type and batch?

    python -m studies.against_diffusers [--method dit-xl-2] [--batch 4] [--dtype float32|bfloat16]
                                        [--device cpu|cuda] [--budget SECONDS] [--json]

Copies every tensor of ours into diffusers' model, shows that both compute the same, and only then times one call of
each in rounds of A B B A, by the harness's own clock and intervals. Diffusers runs as it comes: eager, with its default
attention processor, which calls torch's fused attention as ours does. Needs ``ditbench[latent]``.

Two of diffusers' constants are not the reference's, and are set to it before anything is compared: the frequencies of
the timestep embedding (it divides by 127 where the reference divides by 128) and the epsilon of the MLP's layer norm
(1e-5 for 1e-6). Neither touches the time. Diffusers keeps an embedding of timestep and labels in every block, with one
table of labels each: each holds a copy of ours.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ditbench import methods
from ditbench.harness.errors import InputError
from ditbench.harness.measure.conditions import conditions_after, timing_conditions
from ditbench.harness.measure.latency import WHOLE, interleave, warm_up
from ditbench.harness.measure.options import LatencyOptions
from ditbench.harness.stats.intervals import Estimate, TimingSummary, paired_ratio_interval
from ditbench.methods.backbones.dit import DiT
from ditbench.methods.errors import ConfigError
from ditbench.methods.registry import UnknownNameError
from ditbench.methods.torchvision_shim import ensure_torchvision_importable

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BOUNDS = {"float32": 1e-5, "bfloat16": 2e-2}
"""How far outputs may differ, relative in L2. Both models round in other places; bfloat16 keeps 8 bits."""
ROUNDS = 6
"""From here on the ratio's interval needs no shape of the noise."""
MIB = 2**20


@dataclass(frozen=True)
class Side:
    """One model's time and size. ``parameters_mib``: stored tensors, fixed position embedding included."""

    time: TimingSummary
    parameters: int
    parameters_mib: float


@dataclass(frozen=True)
class Comparison:
    """ratio: how many times our time diffusers takes; difference: of the outputs, relative in L2, by type."""

    method: str
    batch: int
    dtype: str
    device: str
    difference: dict[str, float]
    ours: Side
    diffusers: Side
    ratio: Estimate
    conditions: dict[str, Any]


def static_dit(name: str, **config: Any) -> DiT:
    """A method by name, of the only kind that diffusers has too. Raises InputError."""
    try:
        model = methods.build(name, **config)
    except (ConfigError, UnknownNameError) as error:
        raise InputError(str(error)) from None
    if type(model) is not DiT or model.config.flow is not None or model.config.adapter is not None:
        raise InputError(f"{name} is not a static DiT without adapters: diffusers has no such model")
    return model


def telling_weights(model: nn.Module, seed: int) -> None:
    """Random weights under which every tensor moves the output: those of a fresh DiT switch its blocks off."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
                parameter.normal_(0.0, spread, generator=generator)


def state_for_diffusers(ours: DiT) -> dict[str, Tensor]:
    """Every entry of diffusers' state dict, as views of ours. ValueError for a tensor of ours without a place in it."""
    left = dict(ours.state_dict())
    state: dict[str, Tensor] = {}

    def place(source: str, *targets: str) -> None:
        """Weight and bias of one layer; several targets take equal shares of its rows."""
        for kind in ("weight", "bias"):
            for target, rows in zip(targets, left.pop(f"{source}.{kind}").chunk(len(targets)), strict=True):
                state[f"{target}.{kind}"] = rows

    depth = len(ours.blocks)
    labels = left.pop("y_embedder.embedding_table.weight")
    times = [(f"t_embedder.mlp.{index}", f"timestep_embedder.linear_{1 + index // 2}") for index in (0, 2)]
    for source, target in times:
        for kind in ("weight", "bias"):
            tensor = left.pop(f"{source}.{kind}")
            state |= {f"transformer_blocks.{block}.norm1.emb.{target}.{kind}": tensor for block in range(depth)}
    for block in range(depth):
        mine, theirs = f"blocks.{block}", f"transformer_blocks.{block}"
        state[f"{theirs}.norm1.emb.class_embedder.embedding_table.weight"] = labels
        place(f"{mine}.adaLN_modulation.1", f"{theirs}.norm1.linear")
        place(f"{mine}.attn.qkv", *(f"{theirs}.attn1.to_{part}" for part in "qkv"))
        place(f"{mine}.attn.proj", f"{theirs}.attn1.to_out.0")
        place(f"{mine}.mlp.fc1", f"{theirs}.ff.net.0.proj")
        place(f"{mine}.mlp.fc2", f"{theirs}.ff.net.2")
    place("x_embedder.proj", "pos_embed.proj")
    place("final_layer.adaLN_modulation.1", "proj_out_1")
    place("final_layer.linear", "proj_out_2")
    left.pop("pos_embed")  # a buffer there, outside the state dict
    if left:
        raise ValueError(f"{len(left)} tensors have no place in diffusers' model, first {next(iter(left))}")
    return state


def as_diffusers(ours: DiT) -> nn.Module:
    """Diffusers' model with its own copies of our weights, in their type, in eval mode, with its own constants."""
    ensure_torchvision_importable()
    from diffusers import DiTTransformer2DModel

    config, kind = ours.config, cast(Callable[..., nn.Module], DiTTransformer2DModel)
    if config.mlp_ratio != 4:
        raise InputError(f"diffusers' DiT has an mlp_ratio of 4, not {config.mlp_ratio:g}")
    with torch.device("meta"):
        theirs = kind(
            num_attention_heads=config.num_heads,
            attention_head_dim=config.hidden_size // config.num_heads,
            in_channels=config.in_channels,
            out_channels=config.head_channels,
            num_layers=config.depth,
            sample_size=config.input_size,
            patch_size=config.patch_size,
            num_embeds_ada_norm=config.num_classes,
        )
    theirs = nn.Module.to(theirs, ours.pos_embed.dtype).to_empty(device=ours.pos_embed.device)
    theirs.load_state_dict(state_for_diffusers(ours), strict=True)
    theirs.get_submodule("pos_embed").get_buffer("pos_embed").copy_(ours.pos_embed.detach())
    return theirs.eval().requires_grad_(False)


def take_reference_constants(theirs: nn.Module) -> None:
    """Frequencies and epsilon as the reference has them; see the module's text."""
    blocks: Any = theirs.get_submodule("transformer_blocks")
    for block in blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0
        block.norm3.eps = 1e-6


def inputs_of(ours: DiT, batch: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """x (B, C, S, S), t (B,) and y (B,) in the model's type and on its device; one row has no class."""
    generator, config = torch.Generator().manual_seed(seed), ours.config
    x = torch.randn(batch, config.in_channels, config.input_size, config.input_size, generator=generator)
    t = torch.randint(1000, (batch,), generator=generator)
    y = torch.randint(config.num_classes, (batch,), generator=generator)
    y[-1] = config.num_classes
    device = ours.pos_embed.device
    return x.to(device, ours.pos_embed.dtype), t.to(device), y.to(device)


def difference(ours: DiT, theirs: nn.Module, batch: int = 2) -> float:
    """Distance of the outputs for the same inputs over the size of diffusers', L2."""
    x, t, y = inputs_of(ours, batch, seed=1)
    with torch.inference_mode():
        a, b = ours(x, t, y).double(), theirs(x, t, y, return_dict=False)[0].double()
    if a.shape != b.shape or not (a.isfinite().all() and b.isfinite().all()):
        return float("inf")
    return float((a - b).norm() / b.norm())


def check_same(ours: DiT, theirs: nn.Module) -> float:
    """``difference``; ValueError where it is above the bound of the models' type."""
    dtype = str(ours.pos_embed.dtype).removeprefix("torch.")
    found = difference(ours, theirs)
    if not found <= BOUNDS[dtype]:
        raise ValueError(f"outputs differ by {found:.2e} in {dtype}, above {BOUNDS[dtype]:g}: no times of two models")
    return found


def compare(name: str, batch: int, dtype: str, device: str, budget_s: float, rounds: int = ROUNDS) -> Comparison:
    """Show that both compute the same in float32 and in ``dtype``, then time them side by side.

    Raises InputError, ValueError.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("this machine's torch sees no GPU: use --device cpu")
    ours = static_dit(name)
    telling_weights(ours, seed=0)
    ours = ours.requires_grad_(False).to(device)
    theirs = as_diffusers(ours)
    take_reference_constants(theirs)
    found = {"float32": check_same(ours, theirs)}
    if dtype != "float32":
        for model in (ours, theirs):
            nn.Module.to(model, DTYPES[dtype])  # diffusers' own warns
        found[dtype] = check_same(ours, theirs)
    inputs = [inputs_of(ours, batch, seed) for seed in range(4)]

    def caller(forward: Callable[..., Any]) -> Callable[[int], Tensor]:
        def call(index: int) -> Tensor:
            with torch.inference_mode():
                out: Tensor = forward(*inputs[index % len(inputs)])
            return out

        return call

    calls = [caller(ours), caller(lambda x, t, y: theirs(x, t, y, return_dict=False)[0])]
    options = LatencyOptions(batch=batch, rounds=rounds, budget_s=budget_s)
    conditions = {
        **timing_conditions(device),
        "torch": torch.__version__,
        "diffusers": _version(),
        "diffusers_attention": _processors(theirs),
        "threads": torch.get_num_threads(),
        "order": "A B B A",
        "budget_s": budget_s,
    }
    warm = [warm_up(call, len(WHOLE), device, options.warmup_s) for call in calls]
    interleave([(call, WHOLE) for call in calls], warm, device, options)
    conditions |= conditions_after(device)
    sides = [
        Side(series.summary(), sum(p.numel() for p in model.parameters()), _stored_mib(model))
        for series, model in zip(warm, (ours, theirs), strict=True)
    ]
    ratio = paired_ratio_interval(warm[1].wall(), warm[0].wall())
    return Comparison(name, batch, dtype, device, found, sides[0], sides[1], ratio, conditions)


def _stored_mib(model: nn.Module) -> float:
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers())) / MIB


def _version() -> str:
    import diffusers

    return str(diffusers.__version__)


def _processors(theirs: Any) -> str:
    blocks: Any = theirs.get_submodule("transformer_blocks")
    return ", ".join(sorted({type(block.attn1.processor).__name__ for block in blocks}))


def table(found: Comparison) -> str:
    """What was found, in a few lines."""
    differences = ", ".join(f"{value:.1e} in {dtype}" for dtype, value in found.difference.items())
    lines = [
        f"{found.method}, {found.batch} rows, {found.dtype} on {found.device}; outputs differ by {differences}",
        f"{'':<11}{'ms a call':>10}{'95 % interval':>20}{'n':>5}{'parameters':>14}{'MiB':>9}",
    ]
    for name, side in (("ours", found.ours), ("diffusers", found.diffusers)):
        time = side.time
        between = "–" if time.low is None or time.high is None else f"{time.low:.1f}–{time.high:.1f}"
        size = f"{side.parameters:>14,}{side.parameters_mib:>9.1f}"
        lines.append(f"{name:<11}{time.median:>10.1f}{between:>20}{time.n:>5}{size}")
    ratio = found.ratio
    ends = "" if ratio.low is None or ratio.high is None else f" [{ratio.low:.3f}, {ratio.high:.3f}]"
    lines.append(f"diffusers takes {ratio.value:.3f}{ends} times our time ({ratio.method})")
    lines.append("; ".join(f"{name} {value}" for name, value in found.conditions.items()))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="our static DiT beside diffusers'")
    parser.add_argument("--method", default="dit-xl-2")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--budget", type=float, default=60.0, metavar="SECONDS", help="time after warm-up; never less than 6 rounds"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON after the table")
    chosen = parser.parse_args()
    if chosen.batch < 1 or not chosen.budget > 0:
        parser.error("--batch and --budget must be positive")
    try:
        found = compare(chosen.method, chosen.batch, chosen.dtype, chosen.device, chosen.budget)
    except InputError as error:
        parser.error(str(error))
    print(table(found))
    if chosen.json:
        print(json.dumps(asdict(found), indent=2))


if __name__ == "__main__":
    main()

"""``flops`` and ``time``: one-off measurements, in tables or as JSON with the names of ``cells.csv``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from ditbench.overrides import parse_overrides, spec_of
from harness.environment import environment, resolve_threads
from harness.errors import InputError
from harness.store.records import Quantity


def show_flops(method: str, settings: list[str], as_json: bool) -> None:
    """One forward of one sequence, by operator class."""
    from harness.measure.flops import CONVENTION, measure_flops

    result = measure_flops(spec_of(method, settings))
    if as_json:
        print(
            json.dumps(
                {
                    "method": method,
                    "config": parse_overrides(settings),
                    "params": result.params,
                    "gmacs": result.gmacs_step,
                    "gmacs_by_operator": dict(result.by_operator),
                    "convention": CONVENTION,
                },
                indent=1,
            )
        )
        return
    print(f"{method}: {result.gmacs_step:.4f} GMAC a forward of one sequence, {result.params:,} parameters")
    for name, gmacs in sorted(result.by_operator.items(), key=lambda item: -item[1]):
        print(f"  {name:<11} {gmacs:12.4f}  {gmacs / result.gmacs_step:6.1%}")
    print(f"Convention: {CONVENTION}.")


@dataclass(frozen=True)
class TimeRequest:
    """What ``ditbench time`` was asked for."""

    method: str
    against: str | None
    batch: int
    dtype: str
    device: str
    threads: int
    compiled: bool
    steps: int
    loop: bool
    budget_s: float


def show_time(request: TimeRequest, settings: list[str], as_json: bool) -> None:
    """Time in this process, which has done nothing else. ``--set`` applies to the method, not to ``--against``."""
    import torch

    from harness.measure.compare_times import measure_latency
    from harness.measure.flops import measure_flops
    from harness.sample.generate import DTYPES, bind
    from harness.suite.schema import LatencyOptions

    if request.dtype not in DTYPES:
        raise InputError(f"--dtype {request.dtype}: one of {', '.join(DTYPES)}")
    if request.device not in ("cpu", "cuda"):
        raise InputError(f"--device {request.device}: cpu or cuda")
    if request.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine's torch sees no GPU")
    threads = resolve_threads(request.threads)
    torch.set_num_threads(threads)
    fields: dict[str, Any] = {
        "dtype": request.dtype,
        "device": request.device,
        "threads": threads,
        "steps": request.steps,
        "mode": "compiled" if request.compiled else "eager",
        "cost_only": True,
    }
    spec = spec_of(request.method, settings, **fields)
    other = spec_of(request.against, [], **(fields | {"cell": "baseline"})) if request.against else None
    options = LatencyOptions(
        batch=request.batch, levels=["step", "sample"] if request.loop else ["step"], budget_s=request.budget_s
    )
    baseline = bind(other, None) if other else None
    result = measure_latency(bind(spec, None), baseline, options, 0.0)
    values, counted = dict(result.values), measure_flops(spec)
    answer: dict[str, Any] = {
        **asdict(request),
        "threads": threads,
        "config": parse_overrides(settings),
        "weights": "random: cost only",
        "latency_level": "step: one denoiser call of the whole batch, no guidance",
        "gmacs": counted.gmacs_step,
        "params": counted.params,
    }
    if other is not None:
        ratio = counted.gmacs_image / measure_flops(other).gmacs_image
        answer["flops_ratio"] = ratio
        values["realised"] = _times(values["speedup"], ratio)
    for name, quantity in values.items():
        answer[name] = quantity.value
        answer[f"{name.removesuffix('_ms')}_low"] = quantity.low
        answer[f"{name.removesuffix('_ms')}_high"] = quantity.high
        answer[f"{name}_interval"] = quantity.interval
    answer["detail"] = result.detail
    answer["environment"] = environment(request.device)
    print(json.dumps(answer, indent=1)) if as_json else _print_time(request, answer, values, result.detail)


def _times(quantity: Quantity, factor: float) -> Quantity:
    def scaled(value: float | None) -> float | None:
        return None if value is None else value * factor

    return quantity.model_copy(
        update={"value": quantity.value * factor, "low": scaled(quantity.low), "high": scaled(quantity.high)}
    )


def _print_time(
    request: TimeRequest, answer: dict[str, Any], values: dict[str, Quantity], detail: dict[str, Any]
) -> None:
    where = answer["environment"]["device_name"]
    mode = "compiled" if request.compiled else "eager"
    print(f"{request.method} on {where}, {request.dtype}, {mode}, batch {request.batch}, {answer['threads']} threads")
    print("random weights: cost only; level 'step' is one denoiser call of the whole batch")
    names = {
        "latency_ms": "ms a step",
        "sample_ms": f"ms a loop of {request.steps} steps",
        "image_ms": f"ms an image of {request.steps} steps",
        "images_per_s": f"images/s at {request.steps} steps",
        "speedup": f"speed-up over {request.against}",
        "realised": "realised share of the FLOPs saving",
    }
    for name, quantity in values.items():
        bounds = f"({quantity.interval.split('; ')[-1]})"
        if quantity.low is not None and quantity.high is not None:
            bounds = f"[{_shown(quantity.low)}, {_shown(quantity.high)}]"
        print(f"  {names.get(name, name):<36} {_shown(quantity.value):>10}  {bounds}")
    if "flops_ratio" in answer:
        print(f"  {'FLOPs ratio':<36} {answer['flops_ratio']:>10.4g}  (exact)")
    if detail["launch_bound"]:
        print(f"  launch-bound: the device waits {detail['gap_share']:.0%} of the time")


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
